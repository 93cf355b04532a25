"""Evaluate baselines without training on DAVIS-2016's validation clips.

python studies/davis2016/baselines.py DAVIS --masks FOLDER --methods label_propagation
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from judge import HERE, first_scribble

from ssvos.baselines.label_propagation import LabelPropagation
from ssvos.baselines.trivial import copy_first, grabcut_flow
from ssvos.data.clip_sources import read_frame
from ssvos.data.videos import read_list
from ssvos.labels import read_labels, write_labels
from ssvos.metrics.davis import evaluate_davis2016

Masks = Iterator[np.ndarray]


def label_propagation(frames: list[Path], scribble: np.ndarray, _first: np.ndarray) -> Masks:
    segmenter = LabelPropagation()
    for number, path in enumerate(frames):
        yield segmenter(read_frame(path), None if number else scribble)


# of the frames, the first frame's scribble and its true mask
METHODS: dict[str, Callable[[list[Path], np.ndarray, np.ndarray], Masks]] = {
    "first_mask_copied": lambda frames, _, first: copy_first(first, len(frames)),
    "grabcut_flow": lambda frames, scribble, _: grabcut_flow((read_frame(path) for path in frames), scribble),
    "label_propagation": label_propagation,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("davis", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    args = parser.parse_args()
    names, methods = read_list(args.davis / "ImageSets/2016/val.txt"), args.methods.split(",")
    for name in names:
        frames = sorted((args.davis / "JPEGImages/480p" / name).glob("*.jpg"))
        mask = read_labels(args.davis / "Annotations/480p" / name / f"{frames[0].stem}.png")
        scribble = first_scribble(args.davis, name, frames[0].stem)
        for method in methods:
            start = time.perf_counter()
            for path, labels in zip(frames, METHODS[method](frames, scribble, mask), strict=True):
                write_labels(args.masks / method / name / f"{path.stem}.png", labels)
            print(f"{name} {method}: {(time.perf_counter() - start) / len(frames):.3f} seconds a frame", flush=True)
    for baseline in methods:
        scores = evaluate_davis2016(args.davis / "Annotations/480p", args.masks / baseline, names)
        (HERE / "results" / f"{baseline}.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
        print(baseline, {key: round(100 * value, 1) for key, value in scores["global"].items()})


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"baselines: {error}")
