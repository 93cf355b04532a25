"""Evaluate a variant's checkpoint on DAVIS-2016's validation clips, once.

python studies/davis2016/judge.py DAVIS VARIANT CHECKPOINT --masks FOLDER

It segments each clip from one simulated scribble on its first frame, with the variant's settings of prediction, and
scores the masks at the clip's own size by the rules of the benchmark. No setting may be chosen by the validation
scores. Therefore the digest and the settings must already be committed in checkpoints.yaml, and a variant that has a
result is not evaluated again.
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


def committed_settings(variant: str, checkpoint: Path) -> PredictConfig:
    """The committed settings of prediction of a variant.

    Raises ValueError for uncommitted changes, an unknown variant, or a checkpoint with another digest.
    """
    path = HERE / "checkpoints.yaml"
    committed = subprocess.run(["git", "show", "HEAD:./checkpoints.yaml"], cwd=HERE, capture_output=True, text=True)
    if committed.stdout != path.read_text(encoding="utf-8"):
        raise ValueError(f"{path}: differs from the last commit; commit it first")
    variants = read_yaml(path)
    if variant not in variants:
        raise ValueError(f"{path}: {variant}: no such variant; choose one of {', '.join(variants)}")
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    if digest != variants[variant]["sha256"]:
        raise ValueError(f"{checkpoint}: has digest {digest}, not that of {variant}; give the checkpoint of {variant}")
    return parse(PredictConfig, variants[variant]["predict"], path)


def first_scribble(davis: Path, name: str, first: str) -> np.ndarray:
    """A clip's scribble, (H, W) uint8, simulated on its first true mask as `ssvos scribble` does."""
    mask = read_labels(davis / "Annotations/480p" / name / f"{first}.png")
    return simulate_scribble(mask, scribble_rng(0, name, first), ScribbleConfig())


def segment_clip(davis: Path, name: str, network, loss, config: PredictConfig, out: Path) -> None:
    """Segment a clip and write its masks, unless they exist."""
    frames = sorted((davis / "JPEGImages/480p" / name).glob("*.jpg"))
    if len(list((out / name).glob("*.png"))) == len(frames):
        return
    scribble = first_scribble(davis, name, frames[0].stem)
    images = (read_frame(path) for path in frames)
    masks = segment(network, images, {0: scribble}, (config.height, config.width), config, loss)
    for path, labels in zip(frames, masks, strict=True):
        write_labels(out / name / f"{path.stem}.png", labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("davis", type=Path)
    parser.add_argument("variant")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    result = HERE / "results" / f"{args.variant}.json"
    if result.exists():
        raise ValueError(f"{result}: exists, and a variant is evaluated only once; choose another variant")
    config = committed_settings(args.variant, args.checkpoint)
    network, info = load_checkpoint(args.checkpoint)
    network.to(choose_device(args.device))
    names = read_list(args.davis / "ImageSets/2016/val.txt")
    for name in names:
        segment_clip(args.davis, name, network, info.loss, config, args.masks)
        print(name, flush=True)
    scores = evaluate_davis2016(args.davis / "Annotations/480p", args.masks, names)
    result.parent.mkdir(exist_ok=True)
    result.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    print({key: round(100 * value, 1) for key, value in scores["global"].items()})


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"judge: {error}")
