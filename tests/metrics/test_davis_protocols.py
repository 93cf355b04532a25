"""The DAVIS protocols against all cases of the official packages and examples computed by hand."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssvos.labels import write_labels
from ssvos.metrics import (
    evaluate_davis2016,
    evaluate_davis2017,
    evaluate_davis2017_unsupervised,
    score_sequence,
    summarize,
)
from ssvos.metrics.davis import score_sequence_davis2016, statistics

ORACLE = Path(__file__).parents[1] / "oracle/metrics"
GT, PRED = ORACLE / "davis/Annotations/480p", ORACLE / "davis/results"
CASES = sorted(json.loads((ORACLE / "manifest.json").read_text(encoding="utf-8"))["cases"])
PROTOCOLS = {
    "davis2017_semi_supervised": evaluate_davis2017,
    "davis2017_unsupervised": evaluate_davis2017_unsupervised,
}


def expected(name: str) -> dict:
    return json.loads((ORACLE / f"expected/{name}.json").read_text(encoding="utf-8"))


PRIMITIVES = expected("_primitives")


def close(values) -> object:
    return pytest.approx(values, abs=1e-9, rel=0)


def write_sequence(folder: Path, masks: np.ndarray) -> None:
    """masks: (T, H, W) label values."""
    for t, mask in enumerate(masks):
        write_labels(folder / f"{t:05d}.png", mask.astype(np.uint8))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", CASES)
def test_every_case_has_the_official_scores(case, protocol):
    official = expected(case)[protocol]
    result = PROTOCOLS[protocol](GT, PRED, [case])
    assert list(result) == ["global", "objects"]
    assert result["global"] == close(official["global"])
    assert list(result["objects"]) == list(official["objects"])
    for name, row in result["objects"].items():
        assert set(row) == {"J", "F"}
        for measure in row:
            assert row[measure] == close(official["objects"][name][measure])


@pytest.mark.parametrize("case", CASES)
def test_every_frame_has_the_official_scores(case):
    official = expected(case)["davis2017_semi_supervised"]
    scores = score_sequence(GT / case, PRED / case)
    assert list(scores.frames) == official["frames_scored"]
    for k, object_id in enumerate(scores.object_ids):
        row = official["objects"][f"{case}_{object_id}"]
        assert scores.J[k] == close(np.array(row["J_per_frame"]))
        assert scores.F[k] == close(np.array(row["F_per_frame"]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("subset", ["all_cases", "cases_where_packages_agree"])
def test_objects_of_all_sequences_have_equal_weight(subset, protocol):
    official = expected("_global")[subset]
    assert PROTOCOLS[protocol](GT, PRED, official["cases"])["global"] == close(official[protocol])


def test_without_a_list_all_sequences_are_scored():
    result = evaluate_davis2017(GT, PRED)
    assert result == evaluate_davis2017(GT, PRED, CASES)
    assert len(result["objects"]) == expected("_global")["all_cases"]["n_objects_davis2017"]


def test_the_summary_of_sequence_scores_equals_the_evaluation():
    scores = {case: score_sequence(GT / case, PRED / case) for case in CASES[:3]}
    assert summarize(scores) == evaluate_davis2017(GT, PRED, CASES[:3])


@pytest.mark.parametrize("row", PRIMITIVES["statistics"], ids=lambda row: f"{len(row['values'])}_values")
def test_mean_recall_and_decay_are_the_official_ones(row):
    result = statistics(np.array(row["values"]))
    assert result == close({key: row[key] for key in ("mean", "recall", "decay")})


@pytest.mark.parametrize("row", PRIMITIVES["decay_bins"], ids=lambda row: f"{row['n']}_frames")
def test_decay_compares_the_official_quarters(row):
    values = np.random.default_rng(row["n"]).random(row["n"])
    (a, b), (c, d) = row["first_bin_inclusive"], row["last_bin_inclusive"]
    decay = sum(values[a : b + 1]) / (b + 1 - a) - sum(values[c : d + 1]) / (d + 1 - c)
    assert statistics(values)["decay"] == close(decay)


@pytest.mark.parametrize("row", PRIMITIVES["long_sequence_quirk"]["rows"], ids=lambda row: f"{row['n']}_frames")
def test_decay_is_right_beyond_255_frames(row):
    assert statistics(np.linspace(1, 0, row["n"]))["decay"] == close(row["decay_with_integer_indices"])


def test_decay_of_a_video_of_more_than_255_frames(tmp_path):
    """J falls from 1 to 0 in equal steps: the object is a row of 262 pixels, and frame t lacks the first t."""
    masks = np.zeros((264, 3, 270))
    masks[:, 1, 4:266] = 1
    write_sequence(tmp_path / "gt/a", masks)
    for t in range(1, 264):
        masks[t, 1, 4 : 4 + t - 1] = 0
    write_sequence(tmp_path / "pred/a", masks)
    J = evaluate_davis2017(tmp_path / "gt", tmp_path / "pred")["objects"]["a_1"]["J"]
    # 262 scored frames with J = 1 - t/262; the edges of the quarters are 0, 65, 131, 196 and 261
    first, last = ([1 - t / 262 for t in quarter] for quarter in (range(66), range(196, 262)))
    assert J["decay"] == close(sum(first) / 66 - sum(last) / 66)


def test_presence_is_whether_the_annotation_shows_the_object():
    scores = score_sequence(GT / "c06_disappear_reappear", PRED / "c06_disappear_reappear")
    for t, frame in enumerate(scores.frames):
        with Image.open(GT / "c06_disappear_reappear" / f"{frame}.png") as image:
            ids = set(image.get_flattened_data())
        assert scores.present[:, t].tolist() == [object_id in ids for object_id in scores.object_ids]
    assert not scores.present.all()


def test_the_first_and_last_frame_do_not_count(tmp_path):
    masks = np.zeros((4, 20, 30))
    masks[:, 5:15, 5:15] = 1
    write_sequence(tmp_path / "gt/a", masks)
    masks[[0, 3]] = 0
    write_sequence(tmp_path / "pred/a", masks)
    assert evaluate_davis2017(tmp_path / "gt", tmp_path / "pred")["global"]["J&F-Mean"] == 1
    unsupervised = evaluate_davis2017_unsupervised(tmp_path / "gt", tmp_path / "pred")
    assert unsupervised["global"]["J&F-Mean"] == 0.5


def test_unsupervised_scores_do_not_depend_on_the_ids_of_the_proposals(tmp_path):
    case = "c06_disappear_reappear"
    renumber = np.zeros(256, dtype=np.uint8)
    renumber[[1, 2, 3]] = 7, 20, 2
    for path in sorted((PRED / case).iterdir()):
        with Image.open(path) as image:
            write_labels(tmp_path / case / path.name, renumber[np.asarray(image)])
    renumbered = evaluate_davis2017_unsupervised(GT, tmp_path, [case])["global"]
    assert renumbered == close(evaluate_davis2017_unsupervised(GT, PRED, [case])["global"])


def test_davis2016_merges_all_objects_and_treats_255_as_background(tmp_path):
    gt, pred = np.zeros((2, 5, 20, 30))
    gt[:, 5:15, 5:10], gt[:, 5:15, 10:15], gt[:, 5:15, 15:20] = 1, 2, 255
    pred[:, 5:15, 5:20] = 1
    pred[2, 5:15, 5:10] = 9
    write_sequence(tmp_path / "gt/a", gt)
    write_sequence(tmp_path / "pred/a", pred)
    result = evaluate_davis2016(tmp_path / "gt", tmp_path / "pred")
    assert list(result["objects"]) == ["a_1"]
    assert result["objects"]["a_1"]["J"] == close({"mean": 100 / 150, "recall": 1, "decay": 0})


def test_grey_masks_of_0_and_255_are_scored_as_object_1(tmp_path):
    masks = np.zeros((5, 20, 30), dtype=np.uint8)
    masks[:, 5:15, 5:15] = 255
    for name in ("gt", "pred"):
        (tmp_path / name / "a").mkdir(parents=True)
        for t, mask in enumerate(masks):
            Image.fromarray(mask).save(tmp_path / name / "a" / f"{t}.png")
    assert evaluate_davis2016(tmp_path / "gt", tmp_path / "pred")["global"]["J&F-Mean"] == 1
    assert evaluate_davis2017(tmp_path / "gt", tmp_path / "pred")["global"]["J&F-Mean"] == 1


@pytest.mark.parametrize("case", ["c01_identical", "c03_dilated_odd", "c19_exact_half"])
def test_davis2016_equals_davis2017_for_one_object(case):
    assert evaluate_davis2016(GT, PRED, [case]) == evaluate_davis2017(GT, PRED, [case])


def test_progress_counts_the_scored_frames():
    counts = []
    evaluate_davis2017(GT, PRED, ["c01_identical", "c17_four_frames"], on_frame=counts.append)
    assert sum(counts) == 8 + 2


def test_memory_does_not_grow_with_the_video(tmp_path):
    peaks = []
    for num_frames in (5, 40):
        masks = np.zeros((num_frames, 240, 320))
        masks[:, 50:150, 60:200] = 1
        write_sequence(tmp_path / f"{num_frames}", masks)
        del masks
        tracemalloc.start()
        score_sequence(tmp_path / f"{num_frames}", tmp_path / f"{num_frames}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 240 * 320


@pytest.mark.skipif("SSVOS_REAL_DATA" not in os.environ, reason="SSVOS_REAL_DATA is not set to a folder of real clips")
def test_real_predictions_have_nearly_the_published_scores():
    root = Path(os.environ["SSVOS_REAL_DATA"])
    published = json.loads((root / "published_davis2016_val14.json").read_text(encoding="utf-8"))["methods"]
    # the predictions are of another training run than the published scores
    for video in ("blackswan", "camel", "cows"):
        folders = root / "davis/Annotations/480p" / video, root / "predictions/osvos" / video
        scores = score_sequence_davis2016(*folders)
        assert scores.J.mean() == pytest.approx(published["osvos"][video]["J"], abs=0.015)
        assert scores.F.mean() == pytest.approx(published["osvos"][video]["F"], abs=0.015)
