"""The YouTube-VOS protocol against scores derived by hand for three videos, as exact fractions."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ssvos.labels import write_labels
from ssvos.metrics import evaluate_youtube_vos

ORACLE = Path(__file__).parents[1] / "oracle/metrics"
DATA = ORACLE / "ytvos"
GT, PRED = DATA / "valid/Annotations", DATA / "results/Annotations"
META, TRAIN_META = DATA / "valid/meta.json", DATA / "train/meta.json"
EXPECTED = json.loads((ORACLE / "expected/_ytvos.json").read_text(encoding="utf-8"))


def close(values) -> object:
    return pytest.approx(values, abs=1e-9, rel=0)


@pytest.mark.parametrize("convention", EXPECTED["conventions"])
def test_every_convention_gives_the_derived_scores(convention):
    derived = EXPECTED["results"][convention]
    result = evaluate_youtube_vos(GT, PRED, META, TRAIN_META, convention)
    assert result["global"] == close(derived["scores"])
    assert set(result["objects"]) == set(derived["objects"])
    for name, row in result["objects"].items():
        expected = derived["objects"][name]
        exact = {measure: float(Fraction(expected[f"{measure}_exact"])) for measure in ("J", "F")}
        assert {measure: row[measure] for measure in ("J", "F")} == close(exact)
        assert row["seen"] is (expected["split"] == "seen")


def test_the_default_convention_is_the_main_one():
    main = evaluate_youtube_vos(GT, PRED, META, TRAIN_META, EXPECTED["main_convention"])
    assert evaluate_youtube_vos(GT, PRED, META, TRAIN_META) == main


def test_only_listed_videos_are_scored_and_an_empty_split_has_no_figure(tmp_path):
    result = evaluate_youtube_vos(GT, PRED, META, TRAIN_META, sequences=["897f0ca214"])
    assert set(result["objects"]) == {"897f0ca214_1", "897f0ca214_4"}
    all_unseen = evaluate_youtube_vos(GT, PRED, META, write_meta(tmp_path, {}), sequences=["897f0ca214"])
    assert all_unseen["global"]["G"] is None and all_unseen["global"]["J_seen"] is None
    assert all_unseen["global"]["J_unseen"] == close(np.mean([row["J"] for row in result["objects"].values()]))


def write_meta(folder: Path, objects: dict) -> Path:
    path = folder / "made_meta.json"
    path.write_text(json.dumps({"videos": {"v": {"objects": objects}}}), encoding="utf-8")
    return path


@pytest.fixture
def late_object(tmp_path) -> tuple[Path, Path]:
    """A 4-frame video: object 1 from the start, object 2 listed from frame 15, the last one annotated."""
    masks = np.zeros((4, 24, 40), dtype=np.uint8)
    masks[:, 4:12, 4:12] = 1
    masks[3, 14:20, 20:30] = 2
    for frame, mask in zip(("00000", "00005", "00010", "00015"), masks, strict=True):
        write_labels(tmp_path / "gt/v" / f"{frame}.png", mask)
    frames = ["00000", "00005", "00010", "00015"]
    meta = {"1": {"category": "cat", "frames": frames}, "2": {"category": "dog", "frames": frames[3:]}}
    return tmp_path / "gt", write_meta(tmp_path, meta)


def test_an_object_of_which_no_frame_counts_is_left_out(late_object):
    gt_dir, meta = late_object
    assert set(evaluate_youtube_vos(gt_dir, gt_dir, meta, meta)["objects"]) == {"v_1"}
    assert set(evaluate_youtube_vos(gt_dir, gt_dir, meta, meta, "from_entry")["objects"]) == {"v_1", "v_2"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "not a YouTube-VOS meta.json"), ("{}", "KeyError"), ("[1]", "TypeError"), (None, "no such file")],
)
def test_a_broken_meta_json_is_named(tmp_path, content, reason):
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError), match=reason) as error:
        evaluate_youtube_vos(GT, PRED, path, TRAIN_META)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_video_that_meta_json_lacks_is_an_error():
    with pytest.raises(ValueError, match="not listed"):
        evaluate_youtube_vos(GT, PRED, TRAIN_META, TRAIN_META)


def test_the_error_of_an_unknown_convention_names_the_known_ones():
    with pytest.raises(ValueError, match="after_entry_listed_only"):
        evaluate_youtube_vos(GT, PRED, META, TRAIN_META, "official")
