"""Time of the DAVIS scorer with PNG reading, and of reference scorers written from the definitions of J and F.

The reference scorers process whole frames and dilate by a disk, with scikit-image or with OpenCV.

    python benchmarks/bench_metrics.py --sizes 480x854 720x1280 --frames 40 --threads 1 --processes 1 2

The masks are synthetic. If the environment variable SSVOS_REAL_DATA names a folder with davis/ and predictions/osvos/,
real masks are timed too. If the scorers disagree, no result is written. The script also times the scorer with the
sequences distributed over processes, as the pipeline distributes them over Ray workers, and measures peak memory in a
new process for a short video and for one of ten times its length.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import skimage
from skimage.morphology import dilation, disk

from ssvos.files import write_text
from ssvos.labels import read_labels, write_labels
from ssvos.metrics.davis import score_sequence, score_sequence_davis2016
from ssvos.metrics.object_scores import SequenceScores

Dilate = Callable[[np.ndarray, np.ndarray], np.ndarray]

RESULT = Path(__file__).parent / "results/bench_metrics.json"


def make_masks(root: Path, height: int, width: int, num_frames: int) -> tuple[Path, Path]:
    """Write annotations with two moving ellipses, and predictions with rougher outlines -> the two folders."""
    rng = np.random.default_rng(0)
    folders = root / "gt", root / "pred"
    for t in range(num_frames):
        for folder, jitter in zip(folders, (0, 6), strict=True):
            mask = np.zeros((height, width), dtype=np.uint8)
            for object_id, (x, y) in enumerate(((0.3, 0.4), (0.65, 0.6)), start=1):
                angles = np.linspace(0, 2 * math.pi, 60, endpoint=False)
                radii = 1 + 0.02 * jitter * rng.random(60)
                outline = np.stack([0.12 * np.cos(angles) * radii, 0.2 * np.sin(angles) * radii], axis=1)
                points = (outline + np.array([x + 0.002 * (t % 50), y])) * [width, height]
                cv2.fillPoly(mask, [points.round().astype(np.int32)], object_id)
            write_labels(folder / f"{t:05d}.png", mask)
    return folders


def dilate_skimage(mask: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    return dilation(mask, footprint)


def dilate_opencv(mask: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), footprint).astype(bool)


def reference_scores(gt: np.ndarray, pred: np.ndarray, dilate: Dilate) -> tuple[float, float]:
    """J and F of two masks (H, W) bool by their definitions, on whole frames."""
    union = (gt | pred).sum()
    J = (gt & pred).sum() / union if union else 1.0
    boundaries = []
    for mask in (gt, pred):
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
        boundaries.append((mask != right) | (mask != below) | (mask != diagonal))
    a, b = boundaries
    if not a.any() or not b.any():
        return J, float(a.any() == b.any())
    footprint = disk(math.ceil(0.008 * math.hypot(*gt.shape)))
    precision = (b & dilate(a, footprint)).sum() / b.sum()
    recall = (a & dilate(b, footprint)).sum() / a.sum()
    return J, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def reference_sequence(
    gt_dir: Path, pred_dir: Path, frames: tuple[str, ...], merge: bool, dilate: Dilate
) -> np.ndarray:
    """J and F, (T, K, 2), of the objects 1 and 2 in the frames; merge: of all objects as one."""
    rows = []
    for frame in frames:
        gt, pred = read_labels(gt_dir / f"{frame}.png"), read_labels(pred_dir / f"{frame}.png")
        pairs = [(gt > 0, pred > 0)] if merge else [(gt == k, pred == k) for k in (1, 2)]
        rows.append([reference_scores(*pair, dilate) for pair in pairs])
    return np.array(rows)


def best_of(repeats: int, function: Callable) -> tuple[float, object]:
    """Seconds of the fastest of `repeats` calls, and the function's result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def compare(name: str, pairs: list[tuple[Path, Path]], merge: bool, repeats: int) -> dict:
    """Time the scorers in milliseconds per object and frame.

    pairs: folders of annotations and predictions of each sequence
    merge: score all objects as one, as DAVIS-2016 does

    Raises ValueError if the scorers disagree.
    """
    score = score_sequence_davis2016 if merge else score_sequence
    ours_s, ours = best_of(repeats, lambda: [score(*pair) for pair in pairs])
    frames = [scores.frames for scores in ours]
    read_s, _ = best_of(repeats, lambda: read_all(pairs, frames))
    num_object_frames = sum(scores.J.size for scores in ours)
    run = {
        "masks": name,
        "frames": sum(map(len, frames)),
        "object_frames": num_object_frames,
        "ours_ms_per_object_frame": round(1e3 * ours_s / num_object_frames, 3),
        "of_which_png_reading_ms": round(1e3 * read_s / num_object_frames, 3),
    }
    for key, dilate in (("plain_skimage", dilate_skimage), ("plain_opencv", dilate_opencv)):
        reference_s, reference = best_of(1, partial(reference_sequences, pairs, frames, merge, dilate))
        difference = max(largest_difference(a, b) for a, b in zip(ours, reference, strict=True))
        if difference > 1e-9:
            raise ValueError(f"{name}: {key} differs from ours by {difference}; correct one of them")
        run[f"{key}_ms_per_object_frame"] = round(1e3 * reference_s / num_object_frames, 3)
        run[f"{key}_over_ours"] = round(reference_s / ours_s, 1)
    return run


def reference_sequences(
    pairs: list[tuple[Path, Path]], frames: list[tuple[str, ...]], merge: bool, dilate: Dilate
) -> list[np.ndarray]:
    return [reference_sequence(*pair, stems, merge, dilate) for pair, stems in zip(pairs, frames, strict=True)]


def in_processes(name: str, pairs: list[tuple[Path, Path]], merge: bool, options: argparse.Namespace) -> list[dict]:
    """Time our scorer with the sequences distributed over running processes."""
    runs = []
    for processes in options.processes:
        # fork would copy locks in the state in which other threads hold them
        with multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (options.threads,)) as pool:
            score = partial(score_pair, merge=merge)
            pool.map(score, pairs, chunksize=1)  # warm-up
            seconds, sizes = best_of(options.repeats, partial(pool.map, score, pairs, chunksize=1))
        milliseconds = round(1e3 * seconds / sum(sizes), 3)
        runs.append({"masks": name, "processes": processes, "ms_per_object_frame": milliseconds})
    return runs


def score_pair(pair: tuple[Path, Path], merge: bool) -> int:
    """Score a sequence -> its number of object-frames."""
    return (score_sequence_davis2016 if merge else score_sequence)(*pair).J.size


def peak_memory(pair: tuple[Path, Path]) -> float:
    """Peak memory, in MiB, of a new process that scores a sequence."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_scored_peak, (pair,))


def _scored_peak(pair: tuple[Path, Path]) -> float:
    score_pair(pair, merge=False)
    # measure.py is not used here: it imports PyTorch, whose memory would dominate the peak
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10


def memory_by_length(height: int, width: int, num_frames: int) -> list[dict]:
    """Peak memory for videos of `num_frames` and of ten times as many frames."""
    runs = []
    for frames in (num_frames, 10 * num_frames):
        with tempfile.TemporaryDirectory() as root:
            pair = make_masks(Path(root), height, width, frames)
            peak = round(peak_memory(pair), 1)
            runs.append({"masks": f"made, 2 objects, {height}x{width}", "frames": frames, "peak_mib": peak})
    return runs


def read_all(pairs: list[tuple[Path, Path]], frames: list[tuple[str, ...]]) -> None:
    for folders, stems in zip(pairs, frames, strict=True):
        for stem in stems:
            for folder in folders:
                read_labels(folder / f"{stem}.png")


def largest_difference(ours: SequenceScores, reference: np.ndarray) -> float:
    return float(np.abs(np.stack([ours.J.T, ours.F.T], axis=2) - reference).max())


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, OpenCV {cv2.__version__}, scikit-image {skimage.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="+", default=["480x854", "720x1280"], help="sizes of synthetic masks, height x width"
    )
    parser.add_argument("--frames", type=int, default=30, help="frames of synthetic masks for each size")
    parser.add_argument("--videos", type=int, default=3, help="number of real videos")
    parser.add_argument("--threads", type=int, default=1, help="threads of OpenCV")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    parser.add_argument("--repeats", type=int, default=5, help="runs of our scorer, of which the fastest counts")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--smallest", action="store_true", help="small sizes, to check that the script runs")
    options = parser.parse_args()
    if options.smallest:
        options.sizes, options.frames, options.videos, options.repeats = ["48x64"], 3, 0, 1
    cv2.setNumThreads(options.threads)
    load, runs, by_processes = os.getloadavg()[0], [], []
    for size in options.sizes:
        height, width = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as root:
            pair = make_masks(Path(root), height, width, options.frames)
            runs.append(compare(f"made, 2 objects, {size}", [pair], merge=False, repeats=options.repeats))
            by_processes += in_processes(f"made, 2 objects, {size}, four sequences", 4 * [pair], False, options)
    if "SSVOS_REAL_DATA" in os.environ and options.videos:
        data = Path(os.environ["SSVOS_REAL_DATA"])
        predictions = sorted((data / "predictions/osvos").iterdir())[: options.videos]
        pairs = [(data / "davis/Annotations/480p" / folder.name, folder) for folder in predictions]
        name = f"DAVIS-2016 and OSVOS, 1 object, 480x854: {', '.join(folder.name for folder in predictions)}"
        runs.append(compare(name, pairs, merge=True, repeats=options.repeats))
        by_processes += in_processes(name, pairs, True, options)
    result = {
        "machine": machine(),
        "load_average_before": round(load, 1),
        "opencv_threads": options.threads,
        "runs": runs,
        "by_processes": by_processes,
        "memory_by_length": memory_by_length(*map(int, options.sizes[0].split("x")), options.frames),
    }
    write_text(options.json, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
