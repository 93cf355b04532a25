"""Training step, dense-CRF loss and inference of the demo's network. Writes benchmarks/results/training.json.

    python benchmarks/bench_training.py [--threads 1] [--device auto] [--height 192] [--width 336]

Beside them, in the same run: a plain forward of ResNet-101 at the same size, as a unit of the machine's speed, and the
exact dense-CRF sum, the lattice's rival.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ssvos.config import BackboneConfig, Config, read_yaml
from ssvos.device import choose_device
from ssvos.files import write_text
from ssvos.losses.dense_crf import regularizer
from ssvos.losses.joint import joint_loss
from ssvos.models.backbone import ResNet
from ssvos.models.network import Network

ROOT = Path(__file__).parent
CLIP_FRAMES = 4


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a call, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[repeats // 2]


def measure(config: Config, device: torch.device, height: int, width: int, repeats: int) -> dict[str, float]:
    """Milliseconds a frame of each part."""
    torch.manual_seed(0)
    network = Network(config.model).to(device)
    frames = torch.rand(1, CLIP_FRAMES, 3, height, width, device=device)
    target = torch.full((1, CLIP_FRAMES, height, width), 255, dtype=torch.uint8, device=device)
    target[..., height // 3 : height // 3 + 3, width // 4 : width // 2] = 1
    target[..., -6:-3, :] = 0

    def step() -> None:
        loss = joint_loss(network(frames, target[:, 0]), frames, target, config.loss, 0.5, torch.tensor([[1]]))
        loss.total.backward()

    exact = config.loss.model_copy(update={"filter": "exact"})
    probs = torch.rand(1, 2, height, width, device=device).softmax(dim=1).requires_grad_()
    resnet = ResNet(BackboneConfig()).to(device).eval()
    with torch.no_grad():
        trunk = network.encode(frames[:, 0])
        state, _ = network.begin(trunk, target[:, 0])

    @torch.inference_mode()
    def infer() -> None:
        network.step(network.encode(frames[:, 0]), state)

    @torch.inference_mode()
    def plain() -> None:
        resnet.layer4(resnet.trunk(frames[:, 0]).s16)

    times = {
        "resnet101_forward": seconds(plain, device, repeats),
        "training_step": seconds(step, device, repeats) / CLIP_FRAMES,
        "inference": seconds(infer, device, repeats),
        "crf_lattice": seconds(lambda: regularizer(probs, frames[:, 0], config.loss).backward(), device, repeats),
        "crf_exact": seconds(lambda: regularizer(probs, frames[:, 0], exact).backward(), device, 3),
    }
    return {name: 1000 * value for name, value in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=336)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    values = read_yaml(ROOT.parent / "conf" / "demo.yaml")
    values.pop("variants")
    times = measure(Config.model_validate(values), device, args.height, args.width, args.repeats)
    unit = times["resnet101_forward"]
    result = {
        "machine": f"{platform.machine()} CPU, {args.threads} thread(s)"
        if device.type == "cpu"
        else torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "size": [args.height, args.width],
        "milliseconds_a_frame": {name: round(value, 2) for name, value in times.items()},
        "in_resnet101_forwards": {name: round(value / unit, 3) for name, value in times.items()},
        "crf_exact_over_lattice": round(times["crf_exact"] / times["crf_lattice"], 1),
    }
    write_text(ROOT / "results" / "training.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
