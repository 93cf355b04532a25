"""The summary of a store and the check against masks, on hand-computed frames."""

import json

import numpy as np
import pyarrow as pa

from ssvos.labels import encode_labels
from ssvos.scribbles.quality import MaskCheck, check_against_mask, stroke_shares, summarise_store
from ssvos.scribbles.store import STORE_SCHEMA

MASK = np.array([[1, 1, 0, 0, 2], [1, 0, 0, 0, 0], [0, 0, 255, 0, 2]], dtype=np.uint8)


def store_row(frame: str, scribble: np.ndarray, split: str = "train", checked: bool = True) -> dict:
    coverage, foreground = stroke_shares(scribble)
    return {
        "dataset": "set",
        "split": split,
        "sequence": "a",
        "frame": frame,
        "png": encode_labels(scribble),
        "objects": [],
        "coverage": coverage,
        "foreground": foreground,
        "seed": 0 if checked else None,
        "num_components": 3 if checked else None,
        "num_bare_components": 1 if checked else None,
        "num_misplaced": 0 if checked else None,
    }


def test_components_without_a_stroke_and_misplaced_pixels_are_counted():
    scribble = np.full(MASK.shape, 255, dtype=np.uint8)
    scribble[0, 0] = scribble[0, 4] = 1  # correct, and on object 2
    scribble[1, 1] = scribble[2, 2] = 0  # correct, and on a pixel that the mask does not label
    assert check_against_mask(scribble, MASK) == MaskCheck(3, 2, 2)


def test_a_mask_as_its_own_scribble_has_no_error():
    assert check_against_mask(MASK, MASK) == MaskCheck(3, 0, 0)


def test_the_summary_equals_a_count_by_hand():
    full = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    background = np.array([[0, 255, 255, 255]], dtype=np.uint8)
    rows = [
        store_row("0", full),
        store_row("1", background, checked=False),
        store_row("0", background, split="val"),
    ]
    summary = summarise_store(pa.Table.from_pylist(rows, schema=STORE_SCHEMA))
    assert list(summary) == ["set/train", "set/val"]
    train = summary["set/train"]
    assert (train["num_videos"], train["num_frames"], train["num_given"], train["num_frames_checked"]) == (
        1,
        2,
        1,
        1,
    )
    assert (train["coverage_min"], train["coverage_mean"], train["coverage_max"]) == (0.25, 0.5, 0.75)
    assert train["background_to_foreground"] == 3.0  # three background pixels, one object pixel
    assert train["num_frames_without_foreground"] == 1 and train["num_frames_without_background"] == 0
    assert (train["num_components"], train["num_components_without_stroke"]) == (3, 1)
    assert summary["set/val"]["background_to_foreground"] is None
    json.dumps(summary, allow_nan=False)
