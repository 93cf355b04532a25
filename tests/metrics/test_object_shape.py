"""Area and width of objects, on shapes of known size."""

import numpy as np
import pytest

from ssvos.labels import write_labels
from ssvos.metrics.object_scores import SequenceScores
from ssvos.metrics.object_shape import object_shape, shapes_in


def bar(width: int, length: int = 60) -> np.ndarray:
    mask = np.zeros((100, 80), dtype=bool)
    mask[20 : 20 + length, 30 : 30 + width] = True
    return mask


@pytest.mark.parametrize("width", [1, 3, 5, 9])
def test_the_width_of_a_bar_is_its_short_side(width):
    area, share = object_shape(bar(width))
    assert area == pytest.approx(60 * width / 8000)
    assert share == pytest.approx(width / 100)
    assert object_shape(np.ascontiguousarray(bar(width).T[:, :80]))[1] == pytest.approx(width / 80)


def test_the_width_of_a_disk_is_its_diameter_also_with_a_line_attached():
    y, x = np.mgrid[:100, :200]
    disk = (y - 50) ** 2 + (x - 60) ** 2 <= 20**2
    assert object_shape(disk)[1] == pytest.approx(0.41, abs=0.03)
    disk[50, 60:180] = True
    assert object_shape(disk)[1] == pytest.approx(0.41, abs=0.03)


def test_a_long_diagonal_line_is_thin():
    line = np.zeros((480, 854), dtype=bool)
    for k in range(470):
        line[k, k : k + 4] = True
    area, width = object_shape(line)
    assert area == pytest.approx(470 * 4 / (480 * 854)) and width < 0.01


def test_the_image_border_is_an_edge_and_an_absent_object_has_size_0():
    assert object_shape(np.ones((20, 40), dtype=bool)) == (1.0, pytest.approx(19 / 20))
    assert object_shape(np.zeros((20, 40), dtype=bool)) == (0.0, 0.0)


def test_shapes_of_a_sequence_are_by_object_and_frame(tmp_path):
    for t, (first, second) in enumerate([(3, 5), (5, 1)]):
        labels = bar(first) + 2 * np.roll(bar(second), 15, axis=1)
        write_labels(tmp_path / f"{t}.png", labels.astype(np.uint8))
    zeros = np.zeros((2, 2))
    scores = SequenceScores(("0", "1"), (1, 2), zeros, zeros, zeros > 0)
    area, width = shapes_in(tmp_path, scores)
    assert width == pytest.approx(np.array([[0.03, 0.05], [0.05, 0.01]]))
    assert area == pytest.approx(width * 100 * 60 / 8000)
