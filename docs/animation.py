"""The README's moving picture: evaluation videos of a finished run with scribble, predicted masks and true masks.

Example, after `make repro`: python docs/animation.py --data demo --variant ours --out docs/demo.webp
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ssvos.data.index import IndexedVideo, read_index, videos_of
from ssvos.files import write_bytes
from ssvos.labels import read_labels
from ssvos.scribbles.store import read_store
from ssvos.visualization import overlay

_BAR = 22  # rows of a caption


def median_and_best(objects_csv: Path) -> list[str]:
    """The sequences with the median and the best mean of J and F over their objects."""
    scores = defaultdict(list)
    with open(objects_csv, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sequence = row["object"].rpartition("_")[0]
            scores[sequence].append((float(row["J.mean"]) + float(row["F.mean"])) / 2)
    ranked = sorted(scores, key=lambda sequence: np.mean(scores[sequence]))
    return [ranked[len(ranked) // 2], ranked[-1]]


def panels(video: IndexedVideo, root: Path, scribble: np.ndarray, masks: Path, time: int) -> np.ndarray:
    """One frame of a video three times: first frame with its scribble, predicted masks, true masks."""
    frame = np.asarray(Image.open(root / video.frames[time].image_path).convert("RGB"))
    first = np.asarray(Image.open(root / video.frames[0].image_path).convert("RGB"))
    strokes = np.where(scribble == 255, 0, scribble)
    drawn = overlay(first, strokes, opacity=1.0)
    drawn[scribble == 0] = (190, 190, 190)
    predicted = overlay(frame, read_labels(masks / video.sequence / f"{video.frames[time].name}.png"))
    true = overlay(frame, read_labels(root / video.frames[time].mask_path))
    captions = ("first frame, scribble", f"predicted masks, frame {time + 1}", "true masks")
    return np.concatenate([_captioned(p, c) for p, c in zip((drawn, predicted, true), captions, strict=True)], axis=1)


def _captioned(picture: np.ndarray, caption: str) -> np.ndarray:
    bar = np.full((_BAR, picture.shape[1], 3), 32, np.uint8)
    cv2.putText(bar, caption, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(np.concatenate([bar, picture]), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(32, 32, 32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo", help="name of the data set (default: demo)")
    parser.add_argument("--variant", default="ours", help="variant (default: ours)")
    parser.add_argument("--root", type=Path, default=Path("data/demo/frames/embedded"), help="folder of the frames")
    parser.add_argument("--out", type=Path, required=True, help="a .webp file")
    arguments = parser.parse_args()
    data, masks = Path("data") / arguments.data, Path("predictions") / arguments.data / arguments.variant / "val"
    videos = {video.sequence: video for video in videos_of(read_index(data / "frames/index.parquet"))}
    store = read_store(data / "scribbles/scribbles.parquet")
    chosen = median_and_best(Path("results") / arguments.data / arguments.variant / "objects.csv")
    rows = [
        [
            panels(
                videos[name],
                arguments.root,
                store[videos[name].dataset, name, videos[name].frames[0].name],
                masks,
                time,
            )
            for time in range(len(videos[name].frames))
        ]
        for name in chosen
    ]
    frames = [Image.fromarray(np.concatenate(moment)) for moment in zip(*rows, strict=True)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.out.with_suffix(".tmp.webp")
    frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=160, loop=0, quality=72, method=6)
    write_bytes(arguments.out, temporary.read_bytes())
    temporary.unlink()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"animation: {error}")
