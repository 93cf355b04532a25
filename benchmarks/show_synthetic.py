"""An image of rendered clips, one row a clip: the first frame with masks, three frames, the last frame with masks.

Example: python benchmarks/show_synthetic.py --first 40 --clips 8 --out sheet.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from ssvos.config import RichConfig, SyntheticConfig
from ssvos.data.synthetic.clips import Clip, render_clip
from ssvos.files import write_bytes
from ssvos.visualization import encode_jpeg, limit_width, overlay

RICH = SyntheticConfig(
    num_frames=10, height=256, width=448, max_objects=4, object_share=0.35, speed=2.4, rich=RichConfig()
)


def row(clip: Clip, width: int) -> np.ndarray:
    """The images of one clip, side by side."""
    last = len(clip.frames) - 1
    cells = [overlay(clip.frames[0], clip.masks[0]), *(clip.frames[round(k * last / 3)] for k in range(3))]
    cells.append(overlay(clip.frames[last], clip.masks[last]))
    return np.concatenate([limit_width(cell, width) for cell in cells], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="index of the first clip (default: 0)")
    parser.add_argument("--clips", type=int, default=12, help="number of clips (default: 12)")
    parser.add_argument("--split", choices=("train", "val"), default="train")
    parser.add_argument("--plain", action="store_true", help="plain clips as in the demo")
    parser.add_argument("--width", type=int, default=224, help="width of a frame in pixels (default: 224)")
    parser.add_argument("--out", type=Path, required=True, help="output file, .jpg or .png")
    arguments = parser.parse_args()
    config = SyntheticConfig() if arguments.plain else RICH
    indices = range(arguments.first, arguments.first + arguments.clips)
    sheet = np.concatenate([row(render_clip(config, arguments.split, k), arguments.width) for k in indices])
    if arguments.out.suffix == ".png":
        write_bytes(arguments.out, cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    else:
        write_bytes(arguments.out, encode_jpeg(sheet, quality=82))


if __name__ == "__main__":
    main()
