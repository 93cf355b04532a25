"""Time and memory of a training step: forward, joint loss, backward, Adam. Writes benchmarks/results/train_step.json.

    python benchmarks/bench_train_step.py --backbone resnet101 --height 240 --width 480 --frames 8 --batch 1 --threads 2

The backbone is frozen up to layer3; layer4 and the heads train. The script times, interleaved, the step without a
dense-CRF loss, with it at half and at full scale, and a plain forward of ResNet-101 on the same frames, the unit in
which times are also given. Peak memory is measured at half scale, on a CPU in a separate process.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import cv2
import torch
from measure import RESULTS, interleaved_times, machine, peak_gib, plain_forward, rounded, use_precision, write
from skimage.data import astronaut
from torch.nn.utils import clip_grad_norm_

from ssvos.config import BackboneConfig, LossConfig, ModelConfig
from ssvos.device import choose_device
from ssvos.losses.joint import joint_loss
from ssvos.models.network import Network

LOSSES = {
    "no_crf": LossConfig(regularizer="none"),
    "half_scale": LossConfig(scale=0.5),
    "full_scale": LossConfig(scale=1.0),
}


def _photograph(height: int, width: int) -> torch.Tensor:
    """A natural image, because the lattice of the loss has more nodes for noise than for natural colors."""
    photograph = cv2.resize(astronaut(), (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(photograph).permute(2, 0, 1).float() / 255


class Step:
    """A network, a clip with strokes on every frame, and an optimizer."""

    def __init__(self, args: argparse.Namespace, device: torch.device, dtype: torch.dtype):
        torch.manual_seed(0)
        backbone = BackboneConfig(name=args.backbone, frozen=True)
        self.network = Network(ModelConfig(backbone=backbone)).to(device).train()
        self.model = torch.compile(self.network) if args.compile else self.network
        self.optimizer = torch.optim.Adam([p for p in self.network.parameters() if p.requires_grad], fused=True)
        self.device, self.dtype = device, dtype
        shape = args.batch, args.frames, args.height, args.width
        self.frames = _photograph(args.height, args.width).to(device).expand(*shape[:2], -1, -1, -1).contiguous()
        self.target = torch.full(shape, 255, dtype=torch.uint8, device=device)
        self.target[:, :, args.height // 3 : args.height // 3 + 5, args.width // 4 : args.width // 2] = 1
        self.target[:, :, -12:-7] = 0

    def predict(self, model: torch.nn.Module):
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return model(self.frames, self.target[:, 0])

    def take(self, loss: LossConfig) -> None:
        """Take one training step."""
        self.optimizer.zero_grad(set_to_none=True)
        joint_loss(self.predict(self.model), self.frames, self.target, loss, auxiliary_weight=1.0).total.backward()
        clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()

    def loss_alone(self, loss: LossConfig):
        """A function that computes value and gradient of the loss at a fixed prediction."""
        with torch.no_grad():  # uncompiled, because a compiled network would compile again without gradients
            output = self.predict(self.network)
        prediction = type(output)(*(p.float() for p in output))

        def value_and_gradient() -> None:
            leaves = type(prediction)(*(p.detach().requires_grad_() for p in prediction))
            joint_loss(leaves, self.frames, self.target, loss, auxiliary_weight=1.0).total.backward()

        return value_and_gradient


def measure(args: argparse.Namespace, device: torch.device, precision: str) -> dict:
    step = Step(args, device, use_precision(precision))
    peak = _peak(step) if device.type == "cuda" else _peak_in_separate_process(args, precision)
    functions = {"plain_forward": plain_forward(step.frames.flatten(0, 1))}
    for name, loss in LOSSES.items():
        functions[f"step_{name}"] = lambda loss=loss: step.take(loss)
        functions[f"loss_{name}"] = step.loss_alone(loss)
    times = interleaved_times(functions, args.repeats, device)
    unit = times["plain_forward"]
    return {
        "dtype": precision,
        "seconds": {name: rounded(value) for name, value in times.items()},
        "in_plain_forwards": {name: round(value / unit, 2) for name, value in times.items()},
        "loss_share_of_step": {
            name: round(times[f"loss_{name}"] / times[f"step_{name}"], 3) for name in ("half_scale", "full_scale")
        },
        "peak_gib": peak,
    }


def _peak(step: Step) -> float:
    if step.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(step.device)
    for _ in range(2):
        step.take(LOSSES["half_scale"])
    return round(peak_gib(step.device), 2)


def _peak_in_separate_process(args: argparse.Namespace, precision: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--only-peak", precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet101", choices=("resnet18", "resnet50", "resnet101"))
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="numbers of threads, one measurement each")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=("float32", "tf32", "bfloat16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the network first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "train_step.json")
    parser.add_argument("--smallest", action="store_true", help="small sizes, to check that the script runs")
    parser.add_argument("--only-peak", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.smallest:
        args.backbone, args.height, args.width, args.frames, args.repeats = "resnet18", 32, 48, 2, 1
    device = choose_device(args.device)
    if args.only_peak:
        torch.set_num_threads(args.threads[-1])
        print(_peak(Step(args, device, use_precision(args.only_peak))))
        return
    result = machine(device, max(args.threads)) | {
        "backbone": args.backbone,
        "size": [args.height, args.width],
        "frames": args.frames,
        "batch": args.batch,
        "compiled": args.compile,
        "runs": [],
    }
    for threads in args.threads:
        torch.set_num_threads(threads)
        for precision in args.dtypes:
            result["runs"].append({"threads": threads, "repeats": args.repeats} | measure(args, device, precision))
            write(args.json, result)  # also if the next run fails


if __name__ == "__main__":
    main()
