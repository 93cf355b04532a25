"""Time and memory of segmenting a video frame by frame. Writes benchmarks/results/inference.json.

    python benchmarks/bench_inference.py --height 480 --width 854 --objects 1 3 --threads 2

`VideoSegmenter` segments every frame: network, soft aggregation, mask. The calls are interleaved with a plain forward
of ResNet-101 on one frame, the unit in which times are also given. `keys`: each object has its own features after the
attention (per_object), or all objects share those of the image (shared). `in chunks` encodes several frames at once.
Peak memory is also measured on a video of small frames, after a tenth of the frames and after all.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from measure import RESULTS, interleaved_times, machine, peak_gib, plain_forward, rounded, use_precision, write

from ssvos.config import AttentionConfig, BackboneConfig, ModelConfig
from ssvos.device import choose_device
from ssvos.inference.segmenter import VideoSegmenter
from ssvos.models.backbone import Trunk
from ssvos.models.network import Network


def network(args: argparse.Namespace, device: torch.device, keys: str) -> Network:
    torch.manual_seed(0)
    config = ModelConfig(backbone=BackboneConfig(name=args.backbone), attention=AttentionConfig(keys=keys))
    result = Network(config).to(device).eval()
    if args.compile:
        result.step, result.encode = torch.compile(result.step), torch.compile(result.encode)
    return result


def scribble(height: int, width: int, objects: int) -> np.ndarray:
    """A scribble (H, W) uint8: one stroke for each object, below each other, and a background stroke."""
    labels = np.full((height, width), 255, np.uint8)
    for k in range(objects):
        row = height * (k + 1) // (objects + 2)
        labels[row : row + 5, width // 4 : width // 2] = k + 1
    labels[-10:-5] = 0
    return labels


class Frames:
    """A video: every call segments the next frame. dtype: other than float32 for mixed precision."""

    def __init__(self, network: Network, args: argparse.Namespace, dtype: torch.dtype, objects: int):
        self.segmenter, self.dtype = VideoSegmenter(network), dtype
        self.frame = np.random.default_rng(0).integers(0, 255, (args.height, args.width, 3), dtype=np.uint8)
        self._next(scribble(args.height, args.width, objects))

    def _next(self, strokes: np.ndarray | None = None) -> np.ndarray:
        with torch.autocast(self.segmenter.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.segmenter(self.frame, strokes)

    def __call__(self) -> np.ndarray:
        return self._next()


class Chunks:
    """A video without masks: every call encodes the next chunk of frames at once and takes their steps."""

    def __init__(self, network: Network, args: argparse.Namespace, device: torch.device):
        self.network, self.frames = network, torch.rand(args.chunk, 3, args.height, args.width, device=device)
        strokes = torch.full((1, args.height, args.width), 255, dtype=torch.uint8, device=device)
        strokes[:, args.height // 3 : args.height // 3 + 5, args.width // 4 : args.width // 2] = 1
        with torch.inference_mode():
            self.state = network.begin(network.encode(self.frames[:1]), strokes)

    @torch.inference_mode()
    def __call__(self) -> None:
        for parts in zip(*(f.split(1) for f in self.network.encode(self.frames)), strict=True):
            _, _, self.state = self.network.step(Trunk(*parts), self.state)


def measure(args: argparse.Namespace, device: torch.device, precision: str) -> dict:
    dtype = use_precision(precision)
    functions = {"plain_forward": plain_forward(torch.rand(1, 3, args.height, args.width, device=device))}
    for keys in ("per_object", "shared"):
        shared = network(args, device, keys)
        for objects in args.objects:
            functions[f"{objects} objects, {keys} keys"] = Frames(shared, args, dtype, objects)
    if dtype == torch.float32:
        functions["1 object, in chunks"] = Chunks(network(args, device, "shared"), args, device)
    times = interleaved_times(functions, args.repeats, device)
    if "1 object, in chunks" in times:
        times["1 object, in chunks"] /= args.chunk
    unit = times["plain_forward"]
    return {
        "dtype": precision,
        "seconds_a_frame": {name: rounded(value) for name, value in times.items()},
        "in_plain_forwards": {name: round(value / unit, 2) for name, value in times.items()},
    }


def peak_of_video(args: argparse.Namespace, device: torch.device) -> float:
    """Peak memory of segmenting `only_peak` frames, in GiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    frames = Frames(network(args, device, "per_object"), args, torch.float32, 1)
    for _ in range(args.only_peak):
        frames()
    return round(peak_gib(device), 3)


def memory(args: argparse.Namespace, device: torch.device) -> dict:
    """Peak memory at the requested size and on small frames, each in a separate process, or on the GPU."""

    def peak(height: int, width: int, frames: int, backbone: str) -> float:
        video = {"height": height, "width": width, "only_peak": frames, "backbone": backbone, "device": args.device}
        if device.type == "cuda":
            return peak_of_video(argparse.Namespace(**vars(args) | video), device)
        options = [str(part) for name, value in video.items() for part in (f"--{name.replace('_', '-')}", value)]
        done = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])

    few, many = max(args.video_frames // 10, 2), args.video_frames
    return {
        "peak_gib_at_this_size_3_frames": peak(args.height, args.width, 3, args.backbone),
        f"peak_gib_64x96_resnet18_after_{few}_frames": peak(64, 96, few, "resnet18"),
        f"peak_gib_64x96_resnet18_after_{many}_frames": peak(64, 96, many, "resnet18"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet101", choices=("resnet18", "resnet50", "resnet101"))
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--chunk", type=int, default=4, help="number of frames encoded at once")
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="numbers of threads, one measurement each")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=("float32", "tf32", "bfloat16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the network first")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--video-frames", type=int, default=2000, help="length of the video of small frames, for memory"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "inference.json")
    parser.add_argument("--smallest", action="store_true", help="small sizes, to check that the script runs")
    parser.add_argument("--only-peak", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.smallest:
        args.backbone, args.height, args.width, args.video_frames, args.repeats = "resnet18", 64, 96, 20, 1
    device = choose_device(args.device)
    if args.only_peak:
        print(peak_of_video(args, device))
        return
    result = machine(device, max(args.threads)) | {
        "backbone": args.backbone,
        "size": [args.height, args.width],
        "chunk": args.chunk,
        "compiled": args.compile,
        "runs": [],
        "memory": memory(args, device),  # first, while the GPU is empty
    }
    for threads in args.threads:
        torch.set_num_threads(threads)
        for precision in args.dtypes:
            result["runs"].append({"threads": threads} | measure(args, device, precision))
            write(args.json, result)  # also if the next run fails


if __name__ == "__main__":
    main()
