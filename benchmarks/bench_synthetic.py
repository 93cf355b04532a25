"""How fast one core renders the embedded data set and rich clips, and writes the former: clips a second, as JSON.

Rich clips of training's size stand beside plain ones of the same size, and both beside the demo's.

Example: python benchmarks/bench_synthetic.py --clips 8
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
    """Processor time for `num_clips` clips, of all and of the slowest."""
    for index in range(12):  # the first clips of a process also decode its photographs and make its patterns
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
    """Processor time for clips of the demo rendered, encoded and written."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        make_dataset(DEMO.model_copy(update={"num_train": num_clips, "num_val": 1}), Path(folder))
        seconds = time.process_time() - start
    return {
        "written_clips_per_s": round((num_clips + 1) / seconds, 2),
        "written_frames_per_s": round((num_clips + 1) * DEMO.num_frames / seconds, 1),
    }


def measure(num_clips: int) -> dict[str, object]:
    """All of it, and on what."""
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
    parser.add_argument("--clips", type=int, default=40, help="how many clips to render (default: 40)")
    parser.add_argument("--json", type=Path, default=RESULT, help=f"where to write (default: {RESULT.name})")
    parser.add_argument("--smallest", action="store_true", help="two clips: does it run at all")
    arguments = parser.parse_args()
    arguments.clips = 2 if arguments.smallest else arguments.clips
    cv2.setNumThreads(1)
    write_text(arguments.json, json.dumps(measure(arguments.clips), indent=2) + "\n")


if __name__ == "__main__":
    main()
