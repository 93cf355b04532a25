"""Scribble generation by Ray Data with one and with two workers. Writes benchmarks/results/scribble_workers.json.

    python benchmarks/bench_scribble_workers.py [--frames 2048] [--workers 1,2]

Made masks of 480x854 as PNG files, the stage's own function from index to table of scribbles; each number of workers in
a process of its own, which does a tenth of the frames first, so that Ray's start and imports are not counted.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import pyarrow as pa
from bench_scribbles import made_masks, processor

from ssvos.files import write_text
from ssvos.labels import write_labels

RESULT = Path(__file__).parent / "results" / "scribble_workers.json"
MASKS = 40  # different ones; the others are the same files under other names


def index_of(root: Path, frames: int) -> pa.Table:
    """The columns of the index that a scribble is made from."""
    for number, mask in enumerate(made_masks(MASKS)):
        write_labels(root / f"{number}.png", mask)
    rows = [
        {
            "dataset": "made",
            "split": "train",
            "sequence": f"{k // 64:04d}",
            "frame": f"{k % 64:05d}",
            "mask_path": f"{k % MASKS}.png",
            "scribble_path": None,
            "height": 480,
            "width": 854,
        }
        for k in range(frames)
    ]
    return pa.Table.from_pylist(rows)


def seconds(root: str, frames: int, workers: int, told) -> None:
    """In a process of its own: Ray with so many CPUs."""
    import ray

    from pipelines.cluster.worker_inputs import PackedInputs
    from pipelines.scribbles import simulate
    from ssvos.config import ScribbleConfig

    cv2.setNumThreads(1)
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    parcel, table = PackedInputs({"index": root}, {"made": root}), index_of(Path(root), frames)
    simulate(table.slice(0, frames // 10), parcel, ScribbleConfig())
    start = time.perf_counter()
    made = simulate(table, parcel, ScribbleConfig())
    told.put((time.perf_counter() - start, len(made)))
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2048)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--smallest", action="store_true", help="a few frames: does it run at all")
    args = parser.parse_args()
    frames = 64 if args.smallest else args.frames
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    apart = multiprocessing.get_context("spawn")
    result = {
        "what": "scribbles by Ray Data, 480x854, PNG in, table out",
        "machine": processor().replace("one core of ", ""),
    }
    result |= {"frames": frames, "workers": {}}
    for workers in map(int, args.workers.split(",")):
        with tempfile.TemporaryDirectory() as root:
            told = apart.Queue()
            process = apart.Process(target=seconds, args=(root, frames, workers, told))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"bench_scribble_workers: no result with {workers} workers, see above")
            taken, made = told.get()
        assert made == frames
        result["workers"][str(workers)] = {"seconds": round(taken, 2), "frames_per_second": round(frames / taken, 1)}
    rates = {int(count): one["frames_per_second"] for count, one in result["workers"].items()}
    fewest = min(rates)
    result["efficiency"] = {
        str(count): round(rate * fewest / (rates[fewest] * count), 3) for count, rate in rates.items() if count > fewest
    }
    write_text(args.json, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
