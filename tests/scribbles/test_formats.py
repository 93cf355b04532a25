"""Import of scribbles drawn by people, against hand-computed labels and real samples."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssvos.labels import write_labels
from ssvos.scribbles.formats import read_davis_json, read_painted, read_scribble

REAL = os.environ.get("SSVOS_REAL_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="SSVOS_REAL_DATA is not set")


def write_json(path: Path, frames: list, **more) -> Path:
    path.write_text(json.dumps({"scribbles": frames, "sequence": "s", **more}))
    return path


def stroke(points: list, object_id: int = 1) -> dict:
    return {"path": points, "object_id": object_id, "start_time": 0, "end_time": 1}


@pytest.mark.parametrize("mode", ["P", "L"])
def test_background_and_unlabelled_of_painted_strokes_are_swapped(tmp_path, mode):
    painted = np.array([[0, 1, 255], [2, 0, 0]], dtype=np.uint8)
    image = Image.fromarray(painted)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "a.png")
    assert read_painted(tmp_path / "a.png").tolist() == [[255, 1, 0], [2, 255, 255]]


def test_255_in_a_grey_scribble_is_unlabelled(tmp_path):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_scribble(tmp_path / "a.png").tolist() == [[0, 255]]


def test_an_error_names_the_missing_scribble(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        read_scribble(tmp_path / "a.png")


def test_davis_json_coordinates_run_from_the_first_to_the_last_pixel(tmp_path):
    path = write_json(tmp_path / "a.json", [[], [stroke([[0, 0.5], [1, 0.5]], 3), stroke([[0.5, 0], [0.5, 1]], 0)]])
    scribbles = read_davis_json(path, (5, 7), width=1)
    expected = np.full((5, 7), 255)
    expected[2], expected[:, 3] = 3, 0  # the later stroke covers the earlier one
    assert list(scribbles) == [1]
    np.testing.assert_array_equal(scribbles[1], expected)


def test_a_single_point_in_davis_json_is_a_disk(tmp_path):
    path = write_json(tmp_path / "a.json", [[stroke([[0.5, 0.5]])]])
    assert (read_davis_json(path, (21, 21), width=3)[0] == 1).sum() == 9


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "not JSON"),
        ("[]", "no list of strokes"),
        (json.dumps({"scribbles": [[]]}), "no stroke"),
        (json.dumps({"scribbles": [[{"object_id": 1}]]}), "frame 0"),
        (json.dumps({"scribbles": [[stroke([[0.1, 1.2]])]]}), "from 0 to 1"),
        (json.dumps({"scribbles": [[stroke([[0.1, 0.2]], 255)]]}), "object_id 255"),
        (json.dumps({"scribbles": [[stroke([])]]}), "from 0 to 1"),
    ],
)
def test_an_invalid_davis_json_is_rejected_in_one_line_that_names_it(tmp_path, content, match):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=match) as error:
        read_davis_json(tmp_path / "bad.json", (10, 10), 3)
    assert "bad.json" in str(error.value) and "\n" not in str(error.value)


def test_a_scribble_survives_a_palette_png(tmp_path):
    labels = np.array([[0, 1, 255, 2]], dtype=np.uint8)
    write_labels(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_scribble(tmp_path / "a.png"), labels)


@needs_real
@pytest.mark.parametrize(("clip", "frame", "mask"), [("bear", 39, "davis"), ("tennis", 19, "human")])
def test_real_strokes_lie_on_their_objects(clip, frame, mask):
    path = Path(REAL) / "human/Scribbles" / clip / "001.json"
    labels = read_davis_json(path, (480, 854), 3)[frame]
    with Image.open(Path(REAL) / mask / "Annotations/480p" / clip / f"{frame:05d}.png") as image:
        truth = np.array(image)
    for object_id in np.unique(labels[labels != 255]):
        assert (truth[labels == object_id] == object_id).mean() > 0.75


@needs_real
def test_most_real_painted_strokes_lie_on_their_side_of_the_outline():
    labels = read_painted(Path(REAL) / "human/Scribbles/bear/human_raster/00010.png")
    with Image.open(Path(REAL) / "davis/Annotations/480p/bear/00010.png") as image:
        truth = np.array(image) > 0
    assert truth[labels == 1].mean() > 0.9
    assert truth[labels == 0].mean() < 0.1
