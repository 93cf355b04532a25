"""Score settings of prediction on the held-out clips: foreground bias, CRF refinement, color model, optical flow.

python studies/davis2016/choose.py PACK CHECKPOINT --json OUT

The network's output does not depend on these settings, so the network runs once. J and F are computed at the frame size
of the pack, on every second frame. The validation clips are not used.
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
from ssvos.config import ColorModelConfig, CrfRefinementConfig, FlowConfig, LossConfig, TestTimeTrainingConfig, parse
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

_SCORED_EVERY = 2  # frames
# foreground bias, and the parameters of the other settings
Setting = tuple[float, CrfRefinementConfig, ColorModelConfig, FlowConfig]


def held_out(pack: Path) -> list[tuple[IndexedVideo, IndexedClipSource]]:
    """The held-out real clips of a pack."""
    store = read_store(pack / "scribbles.parquet")
    videos = [v for v in videos_of(read_index(pack / "index.parquet")) if v.split == "holdout" and v.dataset == "davis"]
    return [(video, IndexedClipSource(video, pack / "davis", store)) for video in videos]


@torch.inference_mode()
def log_odds(
    network: Network, source: IndexedClipSource, size: tuple[int, int], online: TestTimeTrainingConfig, loss: LossConfig
) -> Iterator:
    """Segment a clip and yield for each frame, at the network's size:

    image:    (H, W, 3) uint8
    frame:    the network's input, (1, 3, H, W)
    log-odds: of the object, (H, W)
    strokes:  (H, W) on the first frame, else None
    """
    device = next(network.parameters()).device
    state = strokes = None
    for position, indexed in enumerate(source.video.frames):
        image = resize_frame(source.frame(position, (indexed.height, indexed.width)), *size)
        frame = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
        if state is None:
            strokes = resize_scribble(source.scribble(0, (indexed.height, indexed.width)), *size)
            if online.steps:
                network = train_at_test_time(network, image, strokes, online, loss)
            strokes = torch.from_numpy(strokes).to(device)
            trunk = network.encode(frame)
            state = network.begin(trunk, strokes[None])
        else:
            trunk, strokes = network.encode(frame), None
        logits, _, state = network.step(trunk, state)
        yield image, frame, (logits[0, 1] - logits[0, 0])[: size[0], : size[1]].float(), strokes


def scores(
    network: Network,
    video: IndexedVideo,
    source: IndexedClipSource,
    size: tuple[int, int],
    settings: dict[str, Setting],
    online: TestTimeTrainingConfig,
    loss: LossConfig,
) -> dict[str, list[float]]:
    """[mean J, mean F] of a clip by setting."""
    by_setting: dict[str, list[tuple[float, float]]] = {name: [] for name in settings}
    refiners = {name: CrfRefiner(refinement, color) for name, (_, refinement, color, _) in settings.items()}
    propagate = GrabCutFlow() if any(flow.weight for *_, flow in settings.values()) else None
    for position, (image, frame, odds, strokes) in enumerate(log_odds(network, source, size, online, loss)):
        full = (video.frames[position].height, video.frames[position].width)
        if propagate:
            scribble = None if position else source.scribble(0, full)
            propagated = propagate(source.frame(position, full), scribble)
        if position % _SCORED_EVERY:
            continue
        truth = source.mask(position, full) == 1
        for name, (bias, *_, flow) in settings.items():
            biased = (odds - bias)[None]
            if flow.weight:
                biased = with_flow(biased, propagated, [1], flow)
            foreground = biased[0].sigmoid()
            probs = refiners[name](torch.stack([1 - foreground, foreground]), image, frame, strokes)
            if position == 0:
                continue
            probs = torch.nn.functional.interpolate(probs[None], size=full, mode="bilinear", align_corners=False)[0]
            mask = (probs[1] > probs[0]).cpu().numpy()
            by_setting[name].append((region_similarity(truth, mask), contour_accuracy(truth, mask)))
    return {name: np.mean(values, axis=0).tolist() for name, values in by_setting.items()}


def frame_size(text: str) -> tuple[int, int]:
    """(height, width) of text such as `192x336`."""
    height, width = map(int, text.split("x"))
    return height, width


def numbers(text: str) -> list[float]:
    """Numbers of text such as `0,1,2`."""
    return [float(number) for number in text.split(",")]


def make_settings(args: argparse.Namespace) -> dict[str, Setting]:
    """All combinations of the options by name."""
    settings = {"plain": (0.0, CrfRefinementConfig(), ColorModelConfig(), FlowConfig())} if args.plain else {}
    flows = [
        parse(FlowConfig, {"weight": flow, "agreement": agreement}, "predict.flow")
        for flow, agreement in product(args.flows, args.agreements)
    ]
    for bias, weight, color, flow in product(args.biases, args.weights, args.colours, flows):
        name = f"bias {bias:g}, weight {weight:g}" + (f", colour {color:g}" if color else "")
        if flow.weight:
            name += f", flow {flow.weight:g}" + (f" from {flow.agreement:g}" if len(args.agreements) > 1 else "")
        refinement = CrfRefinementConfig(iterations=5, weight=weight)
        settings[name] = (bias, refinement, ColorModelConfig(weight=color), flow)
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--biases", type=numbers, default="0,1,2")
    parser.add_argument(
        "--weights", type=numbers, default="6", help="weights of CRF refinement; its other values are the defaults"
    )
    parser.add_argument("--colours", type=numbers, default="0,1", help="weights of the color model")
    parser.add_argument("--flows", type=numbers, default="0,4", help="weights of the mask propagated by optical flow")
    parser.add_argument(
        "--agreements", type=numbers, default="0.5", help="agreements from which the weight of optical flow is full"
    )
    parser.add_argument("--plain", action="store_true", help="also score without refinement")
    parser.add_argument("--online", type=TestTimeTrainingConfig.model_validate_json, default=TestTimeTrainingConfig())
    parser.add_argument("--size", type=frame_size, help="HxW of the network's frames (default: as in training)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    network, info = load_checkpoint(args.checkpoint)
    network.to(choose_device(args.device))
    size = args.size or info.size
    settings = make_settings(args)
    clips = {
        v.sequence: scores(network, v, source, size, settings, args.online, info.loss)
        for v, source in held_out(args.pack)
    }
    means = {name: np.mean([clip[name] for clip in clips.values()], axis=0) for name in settings}
    for name, (j, f) in sorted(means.items(), key=lambda item: -item[1].mean()):
        print(f"{100 * (j + f) / 2:5.1f}  J {100 * j:5.1f}  F {100 * f:5.1f}  {name}")
    content = {"checkpoint": str(args.checkpoint), "size": size, "online": args.online.model_dump(mode="json")}
    args.json.write_text(json.dumps(content | {"clips": clips}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"choose: {error}")
