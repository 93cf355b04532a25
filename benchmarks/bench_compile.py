"""Speed and graph counts of the network with torch.compile. Writes benchmarks/results/compile.json.

    python benchmarks/bench_compile.py --backbone resnet18 --height 240 --width 480 --frames 8 --device cuda

It compares two things with and without compilation: inference frame by frame (`encode` and `step` compiled) and the
training step of bench_train_step.py. After every frame and every step it counts the graphs compiled so far and the
graph breaks. The aim is one graph for each compiled function, and no new graph after the first frame. A part that has
not started after `--budget` seconds is not run.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_inference import Frames
from bench_inference import network as inference_network
from bench_train_step import LOSSES, Step
from measure import RESULTS, interleaved_times, machine, rounded, write
from torch._dynamo.utils import counters

from ssvos.device import choose_device


def counted(function: Callable[[], object], times: int) -> dict:
    """Graphs and graph breaks after each call, and the seconds of the first call with its compilation."""
    torch._dynamo.reset()
    counters.clear()
    graphs, breaks = [], []
    started = time.perf_counter()
    for call in range(times):
        function()
        if not call:
            first = time.perf_counter() - started
        graphs.append(counters["stats"]["unique_graphs"])
        breaks.append(sum(counters["graph_break"].values()))
    return {
        "graphs_after_each": graphs,
        "graph_breaks_after_each": breaks,
        "graph_break_reasons": sorted(counters["graph_break"]),
        "compilations_after_the_first": graphs[-1] - graphs[0],
        "seconds_of_the_first": round(first, 1),
    }


def inference(args: argparse.Namespace, device: torch.device, objects: int) -> dict:
    plain = Frames(inference_network(args, device, "per_object"), args, torch.float32, objects)
    network = inference_network(args, device, "per_object")
    network.encode, network.step = (
        torch.compile(part, backend=args.backend) for part in (network.encode, network.step)
    )

    def video() -> Callable[[], object]:
        frames = None

        def next_frame() -> None:
            nonlocal frames
            if frames is None:  # the constructor segments the first frame
                frames = Frames(network, args, torch.float32, objects)
            else:
                frames()

        return next_frame

    next_frame = video()
    counts = counted(next_frame, args.frames)
    times = interleaved_times({"plain": plain, "compiled": next_frame}, args.repeats, device)
    return counts | {f"seconds_a_frame_{name}": rounded(value) for name, value in times.items()}


def training(args: argparse.Namespace, device: torch.device) -> dict:
    args.compile = False
    plain, compiled = (Step(args, device, torch.float32) for _ in range(2))
    compiled.model = torch.compile(compiled.network, backend=args.backend)
    steps = [lambda step=step: step.take(LOSSES["half_scale"]) for step in (plain, compiled)]
    counts = counted(steps[1], 3)
    times = interleaved_times(dict(zip(("plain", "compiled"), steps, strict=True)), args.repeats, device)
    return counts | {f"seconds_a_step_{name}": rounded(value) for name, value in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18", choices=("resnet18", "resnet50", "resnet101"))
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--frames", type=int, default=8, help="frames of the video and of the training clip")
    parser.add_argument("--batch", type=int, default=1, help="clips of a training step")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=600.0, help="seconds")
    parser.add_argument("--json", type=Path, default=RESULTS / "compile.json")
    parser.add_argument("--smallest", action="store_true", help="small sizes, to check that the script runs")
    args = parser.parse_args()
    args.compile = False
    if args.smallest:
        args.height, args.width, args.frames, args.repeats, args.backend = 64, 96, 2, 1, "eager"
    torch.set_num_threads(args.threads)
    started, device = time.perf_counter(), choose_device(args.device)
    result = machine(device, args.threads) | {
        "backbone": args.backbone,
        "size": [args.height, args.width],
        "frames": args.frames,
        "backend": args.backend,
        "runs": {},
    }
    parts = {f"inference, {n} objects": lambda n=n: inference(args, device, n) for n in args.objects}
    parts["training step"] = lambda: training(args, device)
    for name, part in parts.items():
        is_late = time.perf_counter() - started > args.budget
        result["runs"][name] = {"not_run": f"the budget of {args.budget:g} s was spent"} if is_late else part()
        write(args.json, result)  # also if the next part takes too long


if __name__ == "__main__":
    main()
