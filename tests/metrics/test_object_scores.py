"""Means of present and absent objects, and errors that name the file and the remedy in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssvos.labels import write_labels
from ssvos.metrics import (
    SequenceScores,
    evaluate_davis2016,
    evaluate_davis2017,
    evaluate_davis2017_unsupervised,
    present_absent_means,
)

EVALUATIONS = [evaluate_davis2016, evaluate_davis2017, evaluate_davis2017_unsupervised]


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Annotations and identical predictions of sequences `a` and `b`: 4 frames of 20 x 30, ids 1 and 2."""
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[3:9, 3:12], mask[12:18, 10:25] = 1, 2
    for name in ("gt/a", "gt/b", "pred/a", "pred/b"):
        for t in range(4):
            write_labels(tmp_path / name / f"{t:05d}.png", mask)
    return tmp_path / "gt", tmp_path / "pred"


def one_line_error(evaluate, folders, *words: str, sequences=None) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        evaluate(*folders, sequences)
    message = str(error.value)
    assert "\n" not in message and "Errno" not in message
    for word in words:
        assert str(word) in message


def test_present_and_absent_frames_are_averaged_separately():
    one = SequenceScores(
        frames=("1", "2", "3"),
        object_ids=(1, 2),
        J=np.array([[0.5, 1.0, 0.0], [0.2, 1.0, 0.0]]),
        F=np.array([[0.7, 1.0, 0.0], [0.4, 1.0, 0.0]]),
        present=np.array([[True, False, False], [True, False, True]]),
    )
    means = present_absent_means([one, one])
    assert means.present_JF == pytest.approx((0.6 + 0.3 + 0.0) / 3)
    assert means.absent_empty_share == pytest.approx(2 / 3)
    assert (means.num_present, means.num_absent) == (6, 6)


def test_without_absent_frames_their_share_is_undefined():
    ones = np.ones((1, 2))
    means = present_absent_means([SequenceScores(("1", "2"), (1,), ones, ones, ones.astype(bool))])
    assert (means.present_JF, means.absent_empty_share) == (1.0, None)


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_missing_folders_and_frames_are_named(evaluate, folders):
    gt_dir, pred_dir = folders
    one_line_error(evaluate, (gt_dir / "none", pred_dir), gt_dir / "none", "annotations")
    one_line_error(evaluate, (gt_dir, pred_dir / "none"), pred_dir / "none", "predictions")
    one_line_error(evaluate, folders, gt_dir / "c", "no annotations", sequences=["a", "c"])
    one_line_error(evaluate, folders, "no sequence to score", sequences=[])
    one_line_error(evaluate, folders, "twice", sequences=["a", "a"])
    (pred_dir / "b/00002.png").unlink()
    one_line_error(evaluate, folders, pred_dir / "b/00002.png", "no prediction")
    shutil.rmtree(pred_dir / "b")
    one_line_error(evaluate, folders, pred_dir / "b", "no predictions")


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_a_prediction_of_another_size_is_named(evaluate, folders):
    write_labels(folders[1] / "a/00001.png", np.zeros((20, 31), dtype=np.uint8))
    one_line_error(evaluate, folders, folders[1] / "a/00001.png", "31 x 20", "30 x 20")


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_an_RGB_prediction_is_named(evaluate, folders):
    Image.new("RGB", (30, 20)).save(folders[1] / "a/00001.png")
    one_line_error(evaluate, folders, folders[1] / "a/00001.png", "RGB")


@pytest.mark.parametrize(("evaluate", "object_id"), [(evaluate_davis2017, 3), (evaluate_davis2017_unsupervised, 21)])
def test_a_predicted_id_above_the_largest_is_named(evaluate, object_id, folders):
    write_labels(folders[1] / "b/00001.png", np.full((20, 30), object_id, dtype=np.uint8))
    one_line_error(evaluate, folders, folders[1] / "b/00001.png", f"id {object_id}", f"largest id is {object_id - 1}")


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_other_files_among_the_annotations_are_named_unless_hidden(evaluate, folders):
    gt_dir, _ = folders
    (gt_dir / "a/.DS_Store").touch()
    (gt_dir / ".cache").touch()
    assert evaluate(*folders)["global"]["J&F-Mean"] == 1
    (gt_dir / "a/notes.txt").touch()
    one_line_error(evaluate, folders, gt_dir / "a/notes.txt")
    (gt_dir / "a/notes.txt").rename(gt_dir / "notes.txt")
    one_line_error(evaluate, folders, gt_dir / "notes.txt")


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_other_files_among_the_predictions_are_ignored(evaluate, folders):
    (folders[1] / "a/00009.png").write_bytes(b"not a mask")
    (folders[1] / "a/overlay.mp4").touch()
    (folders[1] / "scores.json").touch()
    assert evaluate(*folders)["global"]["J&F-Mean"] == 1


def test_predictions_of_the_first_and_last_frame_may_be_missing(folders):
    for name in ("00000", "00003"):
        (folders[1] / f"a/{name}.png").unlink()
    assert evaluate_davis2017(*folders)["global"]["J&F-Mean"] == 1


def test_sequences_with_nothing_to_score_are_named(folders):
    gt_dir, _ = folders
    write_labels(gt_dir / "a/00000.png", np.zeros((20, 30), dtype=np.uint8))
    one_line_error(evaluate_davis2017, folders, gt_dir / "a/00000.png", "no object")
    for name in ("00000", "00001"):
        (gt_dir / f"a/{name}.png").unlink()
    one_line_error(evaluate_davis2017, folders, gt_dir / "a", "at least 3")
    for path in (gt_dir / "a").iterdir():
        path.unlink()
    one_line_error(evaluate_davis2017_unsupervised, folders, gt_dir / "a", "no annotation")
