"""Time and memory of scribble attention and its variants on one frame. Writes benchmarks/results/attention.json.

    python benchmarks/bench_attention.py --height 480 --width 854 --objects 1 --strokes 60 --threads 1

Each module runs on stride-16 features of the padded frame, forward only, and forward with backward. Scribble attention
runs once for each object, the variants run once for the image. Strokes are gathered before the timing, because the
network gathers them once a video. The calls are interleaved with those of three others:

- a non-local module that builds its HW x HW matrix
- layer4, which follows the attention: it runs once an object after scribble attention with keys per object, else once
- a plain forward of ResNet-101 on the same frame, the unit in which times are also given

Memory is the peak of PyTorch's allocator during a call minus its amount before. On a CPU it is summed from the
profiler's record of every allocation, which excludes scratch memory of the matrix library.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measure import RESULTS, interleaved_times, machine, plain_forward, write
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ssvos.config import AttentionConfig, BackboneConfig
from ssvos.device import choose_device
from ssvos.models.attention import ScribbleAttention, gather_strokes
from ssvos.models.attention_variants import ATTENTION_VARIANTS, NonLocal
from ssvos.models.resnet import ResNet

STRIDE = 16
RUNS = "forward", "forward_backward"
SMALLEST = {"height": 64, "width": 96, "channels": 32, "strokes": 5, "repeats": 1}


class ExplicitNonLocal(NonLocal):
    """Non-local attention as in its equation, with an explicit HW x HW matrix."""

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)
        affinity = self.query(cells) @ self.key(cells).transpose(1, 2) * self.affinity_scale
        context = self.back(affinity.softmax(dim=-1) @ self.value(cells))
        return x + self.scale * context.transpose(1, 2).unflatten(2, x.shape[-2:])


class Case:
    """A module with its inputs, to call forward only or forward and backward.

    call: the function to time; by default the module
    """

    def __init__(self, module: nn.Module, *inputs: Tensor, call: Callable[..., Tensor] | None = None):
        self.module, self.inputs = module, inputs
        self.call = call or module
        self.leaves = [*self.inputs, *module.parameters()]  # the tensors to differentiate by

    @torch.inference_mode()
    def forward(self) -> Tensor:
        return self.call(*self.inputs)

    def forward_backward(self) -> None:
        out = self.call(*self.inputs)
        torch.autograd.grad(out, self.leaves, torch.ones_like(out))


def make_cases(args: argparse.Namespace, device: torch.device) -> dict[str, Case]:
    """All modules on the same features. The non-local ones have the weights of scribble attention."""
    torch.manual_seed(0)
    height, width = -(-args.height // STRIDE), -(-args.width // STRIDE)
    shape = 1, args.channels, height, width
    # the network's features have channels last
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
        nn.init.ones_(case.module.scale)  # at 0 all outputs would equal the input
    return cases


def peak_mib(function: Callable[[], object], device: torch.device) -> float:
    """Peak memory during a call minus the memory before it, in MiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    if not peak:
        raise ValueError(f"PyTorch {torch.__version__}: the profiler recorded no allocation; use another version")
    return peak / 2**20


def check(cases: dict[str, Case]) -> None:
    """Raise ValueError if the outputs of the two non-local modules differ."""
    fused, explicit = (cases[name].forward() for name in ("non_local", "non_local_explicit"))
    difference = float((fused - explicit).abs().max())
    if difference > 1e-4 * float(explicit.abs().max()):
        raise ValueError(f"non_local and non_local_explicit differ by {difference}; correct one of them")


def measure(args: argparse.Namespace, device: torch.device) -> dict:
    """Time in milliseconds and memory in MiB of every module, and their ratios to scribble attention's."""
    cases = make_cases(args, device)
    check(cases)
    layer4 = ResNet(BackboneConfig()).to(device).eval().layer4
    functions = {f"{name} {run}": getattr(case, run) for name, case in cases.items() for run in RUNS}
    padded = [-(-side // STRIDE) * STRIDE for side in (args.height, args.width)]
    frame = torch.randn(1, 3, *padded, device=device).contiguous(memory_format=torch.channels_last)
    features = torch.randn(1, layer4[0].conv1.in_channels, *(side // STRIDE for side in padded), device=device)
    reference = {
        "resnet101": plain_forward(frame),
        "layer4": torch.inference_mode()(partial(layer4, features.contiguous(memory_format=torch.channels_last))),
    }
    times = interleaved_times(functions | reference, args.repeats, device)
    peaks = {key: peak_mib(function, device) for key, function in functions.items()}
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
    parser.add_argument("--strokes", type=int, default=60, help="feature cells with a stroke, for each object")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where to write (default: results/attention.json)")
    parser.add_argument("--smallest", action="store_true", help="small sizes; prints the result if --json is missing")
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
