"""Speed of scribble simulation by Ray Data for several numbers of workers. Writes results/scribble_workers.json.

    python benchmarks/bench_scribble_workers.py [--frames 2048] [--workers 1,2]

The masks are synthetic, 480x854, PNG files. The script times the stage's function, from the index to the table of
scribbles. Each number of workers runs in a new process, which first processes a tenth of the frames, so that the time
excludes the start of Ray and imports.
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
from bench_scribbles import processor, synthetic_masks

from ssvos.files import write_text
from ssvos.labels import write_labels

RESULT = Path(__file__).parent / "results" / "scribble_workers.json"
MASKS = 40  # number of different masks, which repeat


def index_of(root: Path, frames: int) -> pa.Table:
    """Write the masks and return the columns of an index that scribble simulation reads."""
    for number, mask in enumerate(synthetic_masks(MASKS)):
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


def measure(root: str, frames: int, workers: int, results: multiprocessing.Queue) -> None:
    """Put the seconds and the number of scribbles into `results`. Runs in a new process."""
    import ray

    from pipelines.cluster.worker_inputs import PackedInputs
    from pipelines.scribbles import simulate
    from ssvos.config import ScribbleConfig

    cv2.setNumThreads(1)
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    inputs, table = PackedInputs({"index": root}, {"made": root}), index_of(Path(root), frames)
    simulate(table.slice(0, frames // 10), inputs, ScribbleConfig())
    start = time.perf_counter()
    scribbles = simulate(table, inputs, ScribbleConfig())
    results.put((time.perf_counter() - start, len(scribbles)))
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2048)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--smallest", action="store_true", help="small sizes, to check that the script runs")
    args = parser.parse_args()
    frames = 64 if args.smallest else args.frames
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    context = multiprocessing.get_context("spawn")
    result = {
        "what": "scribbles by Ray Data, 480x854, PNG in, table out",
        "machine": processor().replace("one core of ", ""),
    }
    result |= {"frames": frames, "workers": {}}
    for workers in map(int, args.workers.split(",")):
        with tempfile.TemporaryDirectory() as root:
            results = context.Queue()
            process = context.Process(target=measure, args=(root, frames, workers, results))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"bench_scribble_workers: {workers} workers failed; see the error above")
            seconds, count = results.get()
        assert count == frames
        result["workers"][str(workers)] = {
            "seconds": round(seconds, 2),
            "frames_per_second": round(frames / seconds, 1),
        }
    rates = {int(count): one["frames_per_second"] for count, one in result["workers"].items()}
    fewest = min(rates)
    result["efficiency"] = {
        str(count): round(rate * fewest / (rates[fewest] * count), 3) for count, rate in rates.items() if count > fewest
    }
    write_text(args.json, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
