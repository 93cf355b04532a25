"""Judge a checkpoint on DAVIS-2016's validation clips, once: a committed row of checkpoints.yaml without a result.

python studies/davis2016/judge.py DAVIS ROW CHECKPOINT --masks FOLDER

Each clip is segmented from one simulated scribble on its first frame, with the row's settings of prediction, and scored
at its own size by the rules of the benchmark. Nothing may be chosen by what comes out: that is why digest and settings
must be in the last commit before, and why a row that has its result is not judged again.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from ssvos.config import PredictConfig, ScribbleConfig, parse, read_yaml
from ssvos.data.clip_sources import read_frame
from ssvos.data.videos import read_list
from ssvos.device import choose_device
from ssvos.inference.segmenter import segment
from ssvos.labels import read_labels, write_labels
from ssvos.metrics.davis import evaluate_davis2016
from ssvos.models.checkpoint import load_checkpoint
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble

HERE = Path(__file__).parent


def committed(row: str, checkpoint: Path) -> PredictConfig:
    """The settings of a row whose digest was committed before; ValueError for any other."""
    listed = HERE / "checkpoints.yaml"
    before = subprocess.run(["git", "show", "HEAD:./checkpoints.yaml"], cwd=HERE, capture_output=True, text=True)
    if before.stdout != listed.read_text(encoding="utf-8"):
        raise ValueError(f"{listed}: is not what the last commit has; commit it before a row is judged")
    rows = read_yaml(listed)
    if row not in rows:
        raise ValueError(f"{listed}: has no row {row}; it has {', '.join(rows)}")
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    if digest != rows[row]["sha256"]:
        raise ValueError(f"{checkpoint}: has digest {digest}, not that of row {row}; give its checkpoint")
    return parse(PredictConfig, rows[row]["predict"], listed)


def first_scribble(davis: Path, name: str, first: str) -> np.ndarray:
    """The one that a clip is given, (H, W) uint8: simulated on its first true mask, as `ssvos scribble` does."""
    mask = read_labels(davis / "Annotations/480p" / name / f"{first}.png")
    return simulate_scribble(mask, scribble_rng(0, name, first), ScribbleConfig())


def segment_clip(davis: Path, name: str, network, loss, config: PredictConfig, out: Path) -> None:
    """Write the masks of a clip that has none yet."""
    frames = sorted((davis / "JPEGImages/480p" / name).glob("*.jpg"))
    if len(list((out / name).glob("*.png"))) == len(frames):
        return
    scribble = first_scribble(davis, name, frames[0].stem)
    images = (read_frame(path) for path in frames)
    found = segment(network, images, {0: scribble}, (config.height, config.width), config, loss)
    for path, labels in zip(frames, found, strict=True):
        write_labels(out / name / f"{path.stem}.png", labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("davis", type=Path)
    parser.add_argument("row")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    result = HERE / "results" / f"{given.row}.json"
    if result.exists():
        raise ValueError(f"{result}: this row has been judged; a second look at these clips is a choice by them")
    config = committed(given.row, given.checkpoint)
    network, info = load_checkpoint(given.checkpoint)
    network.to(choose_device(given.device))
    names = read_list(given.davis / "ImageSets/2016/val.txt")
    for name in names:
        segment_clip(given.davis, name, network, info.loss, config, given.masks)
        print(name, flush=True)
    scores = evaluate_davis2016(given.davis / "Annotations/480p", given.masks, names)
    result.parent.mkdir(exist_ok=True)
    result.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    print({key: round(100 * value, 1) for key, value in scores["global"].items()})


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"judge: {error}")
