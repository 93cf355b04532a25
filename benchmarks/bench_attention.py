"""Scribble attention beside its rivals: time and memory on one frame. Writes benchmarks/results/attention.json.

    python benchmarks/bench_attention.py --height 480 --width 854 --objects 1 --strokes 60 --threads 1

Each module takes stride-16 features of the padded frame, forward alone and forward with backward; scribble attention
once for each object, the rivals once for the image. Strokes are gathered beforehand: the network does so once a video.
In turns with them: a non-local module that builds its matrix of HW x HW, what follows the attention (layer4, which
scribble attention with keys of each object needs once an object, the rivals once), and a plain forward of ResNet-101 on
the same frame, the unit in which times are given as well.

Memory is the most that PyTorch's allocator held during a call beyond what it held before. On a CPU it is summed up from
the profiler's record of every allocation; scratch space inside the matrix library is not in it.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measure import RESULTS, in_turns, machine, plain_forward, write
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ssvos.config import AttentionConfig, BackboneConfig
from ssvos.device import choose_device
from ssvos.models.attention import ScribbleAttention, gather_strokes
from ssvos.models.attention_variants import ATTENTION_VARIANTS, NonLocal
from ssvos.models.backbone import ResNet

STRIDE = 16
RUNS = "forward", "forward_backward"
SMALLEST = {"height": 64, "width": 96, "channels": 32, "strokes": 5, "repeats": 1}


class ExplicitNonLocal(NonLocal):
    """Non-local as its equation says, with a matrix of HW x HW."""

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)
        affinity = self.query(cells) @ self.key(cells).transpose(1, 2) * self.affinity_scale
        context = self.back(affinity.softmax(dim=-1) @ self.value(cells))
        return x + self.scale * context.transpose(1, 2).unflatten(2, x.shape[-2:])


class Case:
    """A module, what it takes, and what of it takes a gradient."""

    def __init__(self, module: nn.Module, x: Tensor, *more: Tensor, call: Callable[..., Tensor] | None = None):
        self.module, self.inputs = module, (x, *more)
        self.call = call or module
        self.leaves = [*self.inputs, *module.parameters()]

    @torch.inference_mode()
    def forward(self) -> Tensor:
        return self.call(*self.inputs)

    def forward_backward(self) -> None:
        out = self.call(*self.inputs)
        torch.autograd.grad(out, self.leaves, torch.ones_like(out))


def make_cases(args: argparse.Namespace, device: torch.device) -> dict[str, Case]:
    """All modules with scribble attention's weights where the names are the same, on the same features."""
    torch.manual_seed(0)
    height, width = -(-args.height // STRIDE), -(-args.width // STRIDE)
    shape = 1, args.channels, height, width
    # channels last, as the network's features are
    x, first = (torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last) for _ in range(2))
    is_stroke = torch.zeros(args.objects, height * width, dtype=torch.bool, device=device)
    for cells in is_stroke:
        cells[torch.randperm(height * width, device=device)[: args.strokes]] = True
    owner = torch.zeros(args.objects, dtype=torch.int64, device=device)
    strokes = gather_strokes(first.index_select(0, owner), is_stroke.unflatten(1, (height, width)))
    scribble = ScribbleAttention(args.channels, AttentionConfig()).to(device)

    def each_object(x: Tensor, features: Tensor) -> Tensor:
        return scribble(x.index_select(0, owner), strokes._replace(features=features))

    cases = {"scribble": Case(scribble, x.requires_grad_(), strokes.features.requires_grad_(), call=each_object)}
    for name, kind in (ATTENTION_VARIANTS | {"non_local_explicit": ExplicitNonLocal}).items():
        cases[name] = Case(kind(args.channels, AttentionConfig()).to(device), x)
        if name.startswith("non_local"):
            cases[name].module.load_state_dict(scribble.state_dict())
    for case in cases.values():
        nn.init.ones_(case.module.scale)  # at 0 there would be nothing to compare
    return cases


def peak_mib(work: Callable[[], object], device: torch.device) -> float:
    """Most memory that a call held beyond what was held before, in MiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    if not peak:
        raise ValueError(f"PyTorch {torch.__version__}: the profiler recorded no allocation; memory cannot be compared")
    return peak / 2**20


def check(cases: dict[str, Case]) -> None:
    """The two non-local modules must agree, or their comparison would mean nothing."""
    fused, explicit = (cases[name].forward() for name in ("non_local", "non_local_explicit"))
    difference = float((fused - explicit).abs().max())
    if difference > 1e-4 * float(explicit.abs().max()):
        raise ValueError(f"non_local and non_local_explicit differ by {difference}; the timing would mean nothing")


def measure(args: argparse.Namespace, device: torch.device) -> dict:
    """Times in milliseconds and memory in MiB of every module, and what they are in scribble attention's."""
    cases = make_cases(args, device)
    check(cases)
    layer4 = ResNet(BackboneConfig()).to(device).eval().layer4
    works = {f"{name} {run}": getattr(case, run) for name, case in cases.items() for run in RUNS}
    padded = [-(-side // STRIDE) * STRIDE for side in (args.height, args.width)]
    frame = torch.randn(1, 3, *padded, device=device).contiguous(memory_format=torch.channels_last)
    features = torch.randn(1, layer4[0].conv1.in_channels, *(side // STRIDE for side in padded), device=device)
    reference = {
        "resnet101": plain_forward(frame),
        "layer4": torch.inference_mode()(partial(layer4, features.contiguous(memory_format=torch.channels_last))),
    }
    times = in_turns(works | reference, args.repeats, device)
    peaks = {key: peak_mib(work, device) for key, work in works.items()}
    unit, modules = times["resnet101"], {}
    for name, case in cases.items():
        modules[name] = {"parameters": sum(p.numel() for p in case.module.parameters())}
        for run in RUNS:
            modules[name][run] = {
                "ms": round(1e3 * times[f"{name} {run}"], 3),
                "over_scribble": round(times[f"{name} {run}"] / times[f"scribble {run}"], 2),
                "over_resnet101_forward": round(times[f"{name} {run}"] / unit, 4),
                "peak_mib": round(peaks[f"{name} {run}"], 2),
                "peak_over_scribble": round(peaks[f"{name} {run}"] / peaks[f"scribble {run}"], 2),
            }
    return {
        "resnet101_forward_ms": round(1e3 * unit, 1),
        "layer4_forward_ms": round(1e3 * times["layer4"], 1),
        "modules": modules,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--channels", type=int, default=1024, help="of the features; layer3 of ResNet-101 has 1024")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--strokes", type=int, default=60, help="cells with a stroke, of each object")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where to write (default: results/attention.json)")
    parser.add_argument("--smallest", action="store_true", help="sizes that take seconds; without --json only shown")
    args = parser.parse_args()
    if args.smallest:
        vars(args).update(SMALLEST)
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    result = machine(device, args.threads) | {
        "frame": [args.height, args.width],
        "features": [args.channels, -(-args.height // STRIDE), -(-args.width // STRIDE)],
        "objects": args.objects,
        "stroke_cells": args.strokes,
        "point_wise_grid": list(AttentionConfig().grid),
        "repeats": args.repeats,
    }
    result |= measure(args, device)
    if args.smallest and args.json is None:
        print(json.dumps(result, indent=2))
    else:
        write(args.json or RESULTS / "attention.json", result)


if __name__ == "__main__":
    main()
