"""How fast one core renders and writes the embedded data set: clips and frames a second, as JSON.

Example: python benchmarks/bench_synthetic.py --clips 8
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import cv2

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic import make_dataset, render_clip
from ssvos.files import write_text

RESULT = Path(__file__).parent / "results" / "synthetic.json"


def measure(num_clips: int) -> dict[str, float | int | str]:
    """Processor time for `num_clips` clips of the default size: rendered; rendered, encoded and written."""
    config = SyntheticConfig(num_train=num_clips, num_val=1)
    render_clip(config, "train", 0)  # the first clip of a process also decodes its photographs
    start = time.process_time()
    for index in range(num_clips):
        render_clip(config, "train", index)
    rendering = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        make_dataset(config, Path(folder))
        writing = time.process_time() - start
    return {
        "clips": num_clips,
        "frames_per_clip": config.num_frames,
        "height": config.height,
        "width": config.width,
        "render_clips_per_s": round(num_clips / rendering, 2),
        "render_frames_per_s": round(num_clips * config.num_frames / rendering, 1),
        "written_clips_per_s": round((num_clips + 1) / writing, 2),
        "written_frames_per_s": round((num_clips + 1) * config.num_frames / writing, 1),
        "clock": "processor time",
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
