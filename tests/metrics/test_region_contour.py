"""J and F of two masks against slow loops from the definitions and against the official packages."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ssvos.metrics import contour_accuracy, region_similarity
from ssvos.metrics.contour import boundary_map, contour_tolerance, dilate, pack_bits
from ssvos.metrics.object_scores import score_masks

PRIMITIVES = json.loads(
    (Path(__file__).parents[1] / "oracle/metrics/expected/_primitives.json").read_text(encoding="utf-8")
)


def mask_of(rows: list[str]) -> np.ndarray:
    return np.array([[pixel == "1" for pixel in row] for row in rows])


def slow_boundary(mask: np.ndarray) -> list[tuple[int, int]]:
    height, width = mask.shape
    points = []
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            inside = [(v, u) for v, u in neighbours if v < height and u < width]
            if any(mask[v, u] != mask[y, x] for v, u in inside):
                points.append((y, x))
    return points


def slow_contour_accuracy(gt: np.ndarray, pred: np.ndarray) -> float:
    radius = math.ceil(0.008 * math.sqrt(gt.shape[0] ** 2 + gt.shape[1] ** 2))
    a, b = slow_boundary(gt), slow_boundary(pred)
    if not a or not b:
        return 1.0 if not a and not b else 0.0

    def share(points, others):
        near = [any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in points]
        return sum(near) / len(near)

    precision, recall = share(b, a), share(a, b)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def random_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping boxes with rough edges, anywhere in a 130 x 220 image (tolerance 3), also at its border."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, 130, 220), dtype=bool)
    top, left = rng.integers(0, 110), rng.integers(0, 190)
    for mask in masks:
        dy, dx = rng.integers(-5, 6, size=2)
        box = mask[max(top + dy, 0) : top + dy + 25, max(left + dx, 0) : left + dx + 35]
        box[:] = rng.random(box.shape) < 0.97
    return masks[0], masks[1]


@pytest.mark.parametrize("row", PRIMITIVES["tolerance_px"], ids=lambda row: f"{row['height']}x{row['width']}")
def test_the_tolerance_is_the_official_one(row):
    assert contour_tolerance(row["height"], row["width"]) == row["px"]


def dilated(image: np.ndarray, radius: int) -> np.ndarray:
    """`dilate` on (H, W) bool images."""
    height, width = image.shape
    stride = width + radius
    bits = dilate(pack_bits(image, stride), radius, stride)
    return np.array([[bool(bits >> (y * stride + x) & 1) for x in range(width)] for y in range(height)])


@pytest.mark.parametrize("radius", PRIMITIVES["disk"])
def test_dilating_one_pixel_gives_the_official_disk(radius):
    point = np.zeros((45, 51), dtype=bool)
    point[22, 25] = True
    widths = dilated(point, int(radius)).sum(axis=1)
    assert widths[widths > 0].tolist() == PRIMITIVES["disk"][radius]


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 8, 12])
def test_dilation_gives_exactly_the_pixels_within_the_radius(radius):
    rng = np.random.default_rng(radius)
    points = rng.random((19, 23)) < 0.02
    points[0, 0] = points[18, 22] = points[5, 22] = points[6, 0] = True
    ys, xs = np.nonzero(points)
    y, x = np.mgrid[:19, :23]
    distance2 = ((y[..., None] - ys) ** 2 + (x[..., None] - xs) ** 2).min(axis=2)
    assert np.array_equal(dilated(points, radius), distance2 <= radius**2)


@pytest.mark.parametrize("row", PRIMITIVES["boundary_maps"])
def test_the_boundary_is_the_official_one(row):
    assert np.array_equal(boundary_map(mask_of(row["mask"])), mask_of(row["boundary"]))


@pytest.mark.parametrize("row", PRIMITIVES["contour_f"])
def test_small_masks_have_the_official_scores(row):
    gt, pred = mask_of(row["ground_truth"]), mask_of(row["prediction"])
    assert region_similarity(gt, pred) == pytest.approx(row["J"], abs=1e-9)
    assert contour_accuracy(gt, pred) == pytest.approx(row["F"], abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_scores_equal_slow_loops(seed):
    gt, pred = random_pair(seed)
    J = sum(map(bool, (gt & pred).flat)) / sum(map(bool, (gt | pred).flat))
    F = slow_contour_accuracy(gt, pred)
    assert region_similarity(gt, pred) == pytest.approx(J, abs=1e-12)
    assert contour_accuracy(gt, pred) == pytest.approx(F, abs=1e-12)


@pytest.mark.parametrize("seed", range(60))
def test_cropping_to_the_bounding_box_changes_nothing(seed):
    gt, pred = random_pair(seed)
    if seed % 5 == 0:
        gt, pred = ~gt, ~pred
    assert score_masks(gt, pred) == (region_similarity(gt, pred), contour_accuracy(gt, pred))


@pytest.mark.parametrize("seed", range(5))
def test_exchanging_annotation_and_prediction_changes_nothing(seed):
    gt, pred = random_pair(seed)
    assert score_masks(gt, pred) == pytest.approx(score_masks(pred, gt), abs=1e-12)


def test_two_empty_masks_score_1_and_a_single_one_scores_0():
    empty, box = np.zeros((2, 40, 60), dtype=bool)
    box[10:20, 10:30] = True
    assert score_masks(empty, empty) == (1.0, 1.0)
    assert score_masks(box, empty) == score_masks(empty, box) == (0.0, 0.0)


def test_a_mask_that_fills_the_image_has_no_boundary():
    full, box = np.ones((40, 60), dtype=bool), np.zeros((40, 60), dtype=bool)
    box[10:20, 10:30] = True
    assert score_masks(full, full) == (1.0, 1.0)
    assert score_masks(full, box) == (200 / 2400, 0.0)
    assert score_masks(full, np.zeros_like(full)) == (0.0, 1.0)


def test_a_contour_matches_up_to_the_tolerance():
    gt = np.zeros((480, 854), dtype=bool)
    gt[100:200, 300:500] = True
    assert contour_accuracy(gt, np.roll(gt, 8, axis=1)) == 1.0
    assert contour_accuracy(gt, np.roll(gt, 9, axis=1)) < 1.0
