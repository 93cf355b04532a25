"""Rendering speed of one core for plain and rich clips, and writing speed. Writes benchmarks/results/synthetic.json.

    python benchmarks/bench_synthetic.py --clips 8

It renders the demo's clips, rich clips at the size of training, and plain clips at that size. Writing is measured for
the demo's clips.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import cv2

from ssvos.config import RichConfig, SyntheticConfig
from ssvos.data.synthetic.clips import make_dataset, render_clip
from ssvos.files import write_text

RESULT = Path(__file__).parent / "results" / "synthetic.json"


DEMO = SyntheticConfig()
PLAIN = SyntheticConfig(num_frames=10, height=256, width=448, max_objects=4, object_share=0.35, speed=2.4)
RICH = PLAIN.model_copy(update={"rich": RichConfig()})


def rendering(config: SyntheticConfig, num_clips: int) -> dict[str, float | int]:
    """Rendering speed over `num_clips` clips, and the median and longest processor time of a clip."""
    for index in range(12):  # warm-up: the first clips of a process also decode photographs and make patterns
        render_clip(config, "train", index)
    times = []
    for index in range(100, 100 + num_clips):
        start = time.process_time()
        render_clip(config, "train", index)
        times.append(time.process_time() - start)
    return {
        "frames_per_clip": config.num_frames,
        "height": config.height,
        "width": config.width,
        "max_objects": config.max_objects,
        "render_clips_per_s": round(num_clips / sum(times), 2),
        "render_frames_per_s": round(num_clips * config.num_frames / sum(times), 1),
        "median_ms_per_clip": round(1000 * statistics.median(times), 1),
        "slowest_ms_per_clip": round(1000 * max(times), 1),
    }


def writing(num_clips: int) -> dict[str, float]:
    """Speed, in processor time, of rendering, encoding and writing clips of the demo."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        make_dataset(DEMO.model_copy(update={"num_train": num_clips, "num_val": 1}), Path(folder))
        seconds = time.process_time() - start
    return {
        "written_clips_per_s": round((num_clips + 1) / seconds, 2),
        "written_frames_per_s": round((num_clips + 1) * DEMO.num_frames / seconds, 1),
    }


def measure(num_clips: int) -> dict[str, object]:
    """All measurements, and the machine."""
    return {
        "clips": num_clips,
        "demo": rendering(DEMO, num_clips) | writing(num_clips),
        "rich": rendering(RICH, num_clips),
        "plain_of_rich_size": rendering(PLAIN, num_clips),
        "clock": "processor time of one core",
        "load_average_before": round(os.getloadavg()[0], 1),
        "threads": cv2.getNumThreads(),
        "cores_of_the_machine": os.cpu_count() or 0,
        "machine": platform.machine(),
        "opencv": cv2.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40, help="number of clips to render (default: 40)")
    parser.add_argument("--json", type=Path, default=RESULT, help=f"where to write (default: {RESULT.name})")
    parser.add_argument("--smallest", action="store_true", help="small sizes, to check that the script runs")
    arguments = parser.parse_args()
    arguments.clips = 2 if arguments.smallest else arguments.clips
    cv2.setNumThreads(1)
    write_text(arguments.json, json.dumps(measure(arguments.clips), indent=2) + "\n")


if __name__ == "__main__":
    main()
