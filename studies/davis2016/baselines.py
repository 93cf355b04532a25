"""Evaluate baselines on DAVIS-2016's validation clips: GrabCut + optical flow, and the first true mask copied.

python studies/davis2016/baselines.py DAVIS --masks FOLDER
"""

import argparse
import json
import sys
from pathlib import Path

from judge import HERE, first_scribble

from ssvos.baselines.trivial import copy_first, grabcut_flow
from ssvos.data.clip_sources import read_frame
from ssvos.data.videos import read_list
from ssvos.labels import read_labels, write_labels
from ssvos.metrics.davis import evaluate_davis2016


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("davis", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    args = parser.parse_args()
    names = read_list(args.davis / "ImageSets/2016/val.txt")
    for name in names:
        frames = sorted((args.davis / "JPEGImages/480p" / name).glob("*.jpg"))
        mask = read_labels(args.davis / "Annotations/480p" / name / f"{frames[0].stem}.png")
        scribble = first_scribble(args.davis, name, frames[0].stem)
        predictions = {
            "grabcut_flow": grabcut_flow((read_frame(path) for path in frames), scribble),
            "first_mask_copied": copy_first(mask, len(frames)),
        }
        for baseline, masks in predictions.items():
            for path, labels in zip(frames, masks, strict=True):
                write_labels(args.masks / baseline / name / f"{path.stem}.png", labels)
        print(name, flush=True)
    for baseline in predictions:
        scores = evaluate_davis2016(args.davis / "Annotations/480p", args.masks / baseline, names)
        (HERE / "results" / f"{baseline}.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
        print(baseline, {key: round(100 * value, 1) for key, value in scores["global"].items()})


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"baselines: {error}")
