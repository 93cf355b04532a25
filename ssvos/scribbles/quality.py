"""Statistics of a scribble store: coverage, ratio of background to foreground, and a check against dense masks."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ssvos.labels import BACKGROUND, UNLABELLED, object_ids


@dataclass(frozen=True)
class MaskCheck:
    """The comparison of a scribble with its mask.

    num_components: connected components of the mask's objects
    num_bare_components: components without a stroke of their object
    num_misplaced: labelled pixels of the scribble whose label differs from the mask's, or that the mask does not label
    """

    num_components: int
    num_bare_components: int
    num_misplaced: int


def check_against_mask(scribble: np.ndarray, mask: np.ndarray) -> MaskCheck:
    """Compare a scribble with the dense mask of its frame.

    scribble: (H, W) uint8
    mask: (H, W) uint8
    """
    assert scribble.shape == mask.shape, (scribble.shape, mask.shape)
    num_components = num_bare = 0
    for object_id in object_ids(mask):
        num, components = cv2.connectedComponents((mask == object_id).view(np.uint8), connectivity=8)
        with_stroke = np.unique(components[(scribble == object_id) & (components > 0)])
        num_components += num - 1
        num_bare += num - 1 - len(with_stroke)
    misplaced = (scribble != UNLABELLED) & (scribble != mask)
    return MaskCheck(num_components, num_bare, int(np.count_nonzero(misplaced)))


def summarise_store(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Summarise a scribble store.

    table: the store (ssvos.scribbles.store)
    returns: `<dataset>/<split>` -> statistics, as JSON values. Coverage and foreground are shares of all pixels.
        `background_to_foreground` is a ratio of labelled pixels, None without foreground. The counts of components and
        of misplaced pixels cover the frames with a dense mask
    """
    columns = [name for name in table.column_names if name != "png"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table.select(columns).to_pylist():
        groups.setdefault(f"{row['dataset']}/{row['split']}", []).append(row)
    return {name: _summarise(rows) for name, rows in sorted(groups.items())}


def _summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    coverage = np.array([row["coverage"] for row in rows])
    foreground = np.array([row["foreground"] for row in rows])
    checked = [row for row in rows if row["num_components"] is not None]
    background = float((coverage - foreground).sum())
    return {
        "num_videos": len({row["sequence"] for row in rows}),
        "num_frames": len(rows),
        "num_given": sum(row["seed"] is None for row in rows),
        "coverage_mean": float(coverage.mean()),
        "coverage_min": float(coverage.min()),
        "coverage_max": float(coverage.max()),
        "foreground_mean": float(foreground.mean()),
        "background_to_foreground": background / float(foreground.sum()) if foreground.any() else None,
        "num_frames_without_foreground": int((foreground == 0).sum()),
        "num_frames_without_background": int((coverage - foreground <= 0).sum()),
        "num_frames_checked": len(checked),
        "num_components": sum(row["num_components"] for row in checked),
        "num_components_without_stroke": sum(row["num_bare_components"] for row in checked),
        "num_misplaced_pixels": sum(row["num_misplaced"] for row in checked),
    }


def stroke_shares(scribble: np.ndarray) -> tuple[float, float]:
    """The shares of pixels with any label, and with an object's label. scribble: (H, W) uint8."""
    labelled = np.count_nonzero(scribble != UNLABELLED)
    background = np.count_nonzero(scribble == BACKGROUND)
    return labelled / scribble.size, (labelled - background) / scribble.size
