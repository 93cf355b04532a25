"""Score settings of prediction on the held-out clips: bias taken off the log-odds, refined outlines, colours, flow.

python studies/davis2016/choose.py PACK CHECKPOINT --json OUT

The pass of the network does not depend on any of them, so that it is taken once. J and F at the frame size of the pack,
on every second frame; the judged clips are not looked at.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch

from ssvos.baselines.grabcut_flow import GrabCutFlow, with_flow
from ssvos.config import ColorModelConfig, CrfRefinementConfig, FlowConfig, TestTimeTrainingConfig, parse
from ssvos.data.augment import resize_frame, resize_scribble
from ssvos.data.clip_sources import IndexedClipSource
from ssvos.data.index import IndexedVideo, read_index, videos_of
from ssvos.device import choose_device
from ssvos.inference.crf_refinement import CrfRefiner
from ssvos.inference.test_time_training import train_at_test_time
from ssvos.metrics.contour import contour_accuracy
from ssvos.metrics.region import region_similarity
from ssvos.models.checkpoint import load_checkpoint
from ssvos.models.network import Network
from ssvos.scribbles.store import read_store

_EVERY = 2


def held_out(pack: Path) -> list[tuple[IndexedVideo, IndexedClipSource]]:
    store = read_store(pack / "scribbles.parquet")
    videos = [v for v in videos_of(read_index(pack / "index.parquet")) if v.split == "holdout" and v.dataset == "davis"]
    return [(video, IndexedClipSource(video, pack / "davis", store)) for video in videos]


@torch.inference_mode()
def log_odds(
    network: Network, footage: IndexedClipSource, size: tuple[int, int], online: TestTimeTrainingConfig, loss
) -> Iterator:
    """Frame by frame: the image at the network's size (H, W, 3), the same as it takes it (1, 3, H, W), the object's
    log-odds (H, W), and on the first frame the strokes (H, W)."""
    device = next(network.parameters()).device
    state = strokes = None
    for position, indexed in enumerate(footage.video.frames):
        image = resize_frame(footage.frame(position, (indexed.height, indexed.width)), *size)
        frame = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
        if state is None:
            strokes = resize_scribble(footage.scribble(0, (indexed.height, indexed.width)), *size)
            if online.steps:
                network = train_at_test_time(network, image, strokes, online, loss)
            strokes = torch.from_numpy(strokes).to(device)
            trunk = network.encode(frame)
            state = network.begin(trunk, strokes[None])
        else:
            trunk, strokes = network.encode(frame), None
        logits, _, state = network.step(trunk, state)
        yield image, frame, (logits[0, 1] - logits[0, 0])[: size[0], : size[1]].float(), strokes


def scores(network, video, footage, size, settings, online, loss) -> dict[str, list[float]]:
    """Setting -> [mean J, mean F] of a clip."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in settings}
    refiners = {name: CrfRefiner(refinement, colour) for name, (_, refinement, colour, _) in settings.items()}
    carried = GrabCutFlow() if any(flow.weight for *_, flow in settings.values()) else None
    for position, (image, frame, odds, strokes) in enumerate(log_odds(network, footage, size, online, loss)):
        full = (video.frames[position].height, video.frames[position].width)
        if carried:
            given = None if position else footage.scribble(0, full)
            mask_of_flow = carried(footage.frame(position, full), given)
        if position % _EVERY:
            continue
        truth = footage.mask(position, full) == 1
        for name, (bias, *_, flow) in settings.items():
            told = (odds - bias)[None]
            if flow.weight:
                told = with_flow(told, mask_of_flow, [1], flow)
            foreground = told[0].sigmoid()
            probs = refiners[name](torch.stack([1 - foreground, foreground]), image, frame, strokes)
            if position == 0:
                continue
            probs = torch.nn.functional.interpolate(probs[None], size=full, mode="bilinear", align_corners=False)[0]
            mask = (probs[1] > probs[0]).cpu().numpy()
            found[name].append((region_similarity(truth, mask), contour_accuracy(truth, mask)))
    return {name: np.mean(values, axis=0).tolist() for name, values in found.items()}


def frame_size(text: str) -> tuple[int, int]:
    """Of `192x336`."""
    height, width = map(int, text.split("x"))
    return height, width


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--biases", type=numbers, default="0,1,2")
    parser.add_argument(
        "--weights", type=numbers, default="6", help="of the refinement; its other values are the defaults"
    )
    parser.add_argument("--colours", type=numbers, default="0,1", help="weights of the first frame's colours")
    parser.add_argument("--flows", type=numbers, default="0,4", help="weights of what flow carries along")
    parser.add_argument("--agreements", type=numbers, default="0.5", help="from which flow's weight is full")
    parser.add_argument("--plain", action="store_true", help="also without refinement")
    parser.add_argument("--online", type=TestTimeTrainingConfig.model_validate_json, default=TestTimeTrainingConfig())
    parser.add_argument("--size", type=frame_size, help="HxW of the network's frames; as trained")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    network, info = load_checkpoint(given.checkpoint)
    network.to(choose_device(given.device))
    size = given.size or info.size
    settings = {"plain": (0.0, CrfRefinementConfig(), ColorModelConfig(), FlowConfig())} if given.plain else {}
    flows = [
        parse(FlowConfig, {"weight": flow, "agreement": one}, "predict.flow")
        for flow, one in product(given.flows, given.agreements)
    ]
    for bias, weight, colour, flow in product(given.biases, given.weights, given.colours, flows):
        name = f"bias {bias:g}, weight {weight:g}" + (f", colour {colour:g}" if colour else "")
        if flow.weight:
            name += f", flow {flow.weight:g}" + (f" from {flow.agreement:g}" if len(given.agreements) > 1 else "")
        refinement = CrfRefinementConfig(iterations=5, weight=weight)
        settings[name] = (bias, refinement, ColorModelConfig(weight=colour), flow)
    clips = {
        v.sequence: scores(network, v, f, size, settings, given.online, info.loss) for v, f in held_out(given.pack)
    }
    means = {name: np.mean([clip[name] for clip in clips.values()], axis=0) for name in settings}
    for name, (j, f) in sorted(means.items(), key=lambda item: -item[1].mean()):
        print(f"{100 * (j + f) / 2:5.1f}  J {100 * j:5.1f}  F {100 * f:5.1f}  {name}")
    content = {"checkpoint": str(given.checkpoint), "size": size, "online": given.online.model_dump(mode="json")}
    given.json.write_text(json.dumps(content | {"clips": clips}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"choose: {error}")
