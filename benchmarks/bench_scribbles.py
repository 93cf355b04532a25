"""Time of scribble simulation on one core, and of plain scikit-image. Writes benchmarks/results/scribbles.json.

    python benchmarks/bench_scribbles.py [--frames 40]

The masks are those of $SSVOS_REAL_DATA/davis if the variable is set, else synthetic ones, all of 480x854.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage
from skimage.draw import rectangle_perimeter
from skimage.morphology import dilation, disk, skeletonize

from ssvos.config import ScribbleConfig
from ssvos.files import write_text
from ssvos.labels import encode_labels, object_ids, read_labels
from ssvos.scribbles.simulate import simulate_scribble

RESULT = Path(__file__).parent / "results" / "scribbles.json"
CONFIG = ScribbleConfig()
EVERY = 40  # every 40th real mask in the order of paths is used


def real_masks(root: Path) -> list[np.ndarray]:
    return [read_labels(path) for path in sorted(root.glob("Annotations/480p/*/*.png"))[::EVERY]]


def synthetic_masks(num: int = 40) -> list[np.ndarray]:
    """Frames with two irregular ellipses each, about as large as the objects of DAVIS."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :854]
    masks = []
    for _ in range(num):
        mask = np.zeros((480, 854), dtype=np.uint8)
        for object_id in (1, 2):
            cy, cx = rng.integers(100, 380), rng.integers(150, 700)
            angle = np.arctan2(y - cy, x - cx)
            radius = rng.integers(40, 110) * (1 + 0.3 * np.sin(angle * rng.integers(3, 12) + rng.uniform(0, 6)))
            mask[np.hypot(y - cy, (x - cx) / 1.5) < radius] = object_id
        masks.append(mask)
    return masks


def plain_scribble(mask: np.ndarray, rng: np.random.Generator, crop: bool) -> np.ndarray:
    """The four steps of Section III-E with scikit-image, on the whole frame or cropped to each object."""
    labels = np.full(mask.shape, 255, dtype=np.uint8)
    for object_id in object_ids(mask):
        region = mask == object_id
        window = np.s_[:, :]
        if crop:
            rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
            window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        region = region[window]
        labels[window][dilation(skeletonize(region), disk(2)) & region] = object_id
    ys, xs = np.nonzero(mask % 255)
    if len(ys):
        margin = round(rng.uniform(CONFIG.margin_min, CONFIG.margin_max) * max(mask.shape))
        for step in range(CONFIG.width):
            grow = margin + step
            start, end = (ys.min() - grow, xs.min() - grow), (ys.max() + grow, xs.max() + grow)
            side = np.zeros(mask.shape, dtype=bool)
            side[rectangle_perimeter(start, end=end, shape=mask.shape, clip=True)] = True
            labels[side & (mask == 0)] = 0
    return labels


def milliseconds(function: Callable[[np.ndarray], object], masks: list[np.ndarray]) -> list[float]:
    """Processor time of each mask in milliseconds, the smaller of two rounds, because the machine may be shared."""
    times = []
    for mask in masks:
        rounds = []
        for _ in range(2):
            start = time.process_time()
            function(mask)
            rounds.append(time.process_time() - start)
        times.append(1000 * min(rounds))
    return times


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, one core of {os.cpu_count()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=40, help="number of synthetic masks")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--smallest", action="store_true", help="small sizes, to check that the script runs")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    root = None if args.smallest else os.environ.get("SSVOS_REAL_DATA")
    masks = real_masks(Path(root) / "davis") if root else synthetic_masks(2 if args.smallest else args.frames)
    rng = np.random.default_rng(0)
    runs = {
        "ssvos": lambda mask: simulate_scribble(mask, rng, CONFIG),
        "ssvos_and_png": lambda mask: encode_labels(simulate_scribble(mask, rng, CONFIG)),
        "skimage_cropped": lambda mask: plain_scribble(mask, rng, crop=True),
        "skimage_whole_frame": lambda mask: plain_scribble(mask, rng, crop=False),
    }
    times = {name: milliseconds(function, masks) for name, function in runs.items()}
    result = {
        "what": "scribble simulation, 480x854 masks, processor time",
        "masks": f"{len(masks)} masks, {'DAVIS-2016 at 480p' if root else 'made'}",
        "machine": processor(),
        "skimage": skimage.__version__,
    }
    for name, values in times.items():
        mean = float(np.mean(values))
        result[name] = {
            "ms_mean": round(mean, 2),
            "ms_median": round(float(np.median(values)), 2),
            "ms_max": round(max(values), 2),
            "frames_per_second": round(1000 / mean, 1),
        }
    ours = result["ssvos"]["frames_per_second"]
    for name in ("skimage_cropped", "skimage_whole_frame"):
        result[f"ratio_to_{name}"] = round(ours / result[name]["frames_per_second"], 2)
    write_text(args.json, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
