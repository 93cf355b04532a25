"""Time of the dense-CRF loss: the lattice filter and the exact sum. Writes benchmarks/results/crf.json.

    python benchmarks/bench_crf.py --sizes 120x214 240x480 480x854 --channels 2 --threads 1

The input is one frame with a soft mask. The spatial bandwidth is the paper's 100 px for all sizes, times the scale. The
script times, interleaved, at full and at half scale:

- building the lattice, and applying it
- value and gradient of the row-normalised loss as in training, with the lattice and with the exact sum
- on a GPU with Triton, the fused exact sum of all pixels, and its kernel with several numbers of rows and warps
- a plain forward of ResNet-101 on the frame, the unit in which times are also given

If the exact sum of all pixels would take too long, it runs on evenly spaced pixels, and its time is extrapolated by the
number of pairs. If it runs on all pixels, the script compares loss and gradient with the lattice's.

The frame is a photograph. If the environment variable SSVOS_REAL_DATA names a folder with davis/JPEGImages/480p, real
frames are timed too.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import RESULTS, interleaved_times, machine, plain_forward, write
from torch import Tensor
from torch.nn.functional import interpolate

from ssvos.config import LossConfig
from ssvos.data.synthetic.textures import load_photo
from ssvos.device import choose_device
from ssvos.losses.dense_crf import crf_energy, crf_features, regularizer
from ssvos.losses.exact_filter import ExactFilter, exact_filter
from ssvos.losses.gaussian_filter import GaussianFilter
from ssvos.losses.permutohedral import LatticeFilter

SCALES = {"full_scale": 1.0, "half_scale": 0.5}
KERNELS = ((128, 4), (256, 4), (512, 4), (512, 8), (1024, 4))  # rows and warps of a Triton program
SMALLEST = {"sizes": ["24x40"], "exact_up_to": 500, "exact_part": 200, "repeats": 1, "real": 1}


def images(num_real: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and frames, (H, W, 3) uint8."""
    yield "photograph (scikit-image's astronaut)", load_photo("astronaut.png")
    if "SSVOS_REAL_DATA" in os.environ:
        folders = sorted((Path(os.environ["SSVOS_REAL_DATA"]) / "davis/JPEGImages/480p").iterdir())
        for folder in folders[:: max(1, len(folders) // num_real)][:num_real]:
            paths = sorted(folder.glob("*.jpg"))
            yield f"DAVIS, {folder.name}", cv2.imread(str(paths[len(paths) // 2]), cv2.IMREAD_COLOR_RGB)


def soft_mask(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """Smooth random probabilities, (1, C, H, W)."""
    coarse = torch.randn(1, channels, 5, 8, generator=torch.Generator().manual_seed(0)).to(device)
    return (2 * interpolate(coarse, size=(height, width), mode="bicubic")).softmax(dim=1)


def value_and_gradient(probs: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
    probs = probs.detach().requires_grad_()
    value = loss(probs)
    value.sum().backward()
    return value.sum().item(), probs.grad.flatten()


def energy(probs: Tensor, kind: Callable[[Tensor], GaussianFilter], features: Tensor) -> Tensor:
    """The row-normalised loss of points; builds the filter first."""
    return crf_energy(probs, torch.ones_like(probs[:, 0]), kind(features), "row", sums_to_one=True)


def measure(image: np.ndarray, size: str, args: argparse.Namespace, device: torch.device) -> dict:
    height, width = map(int, size.split("x"))
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    frames = torch.from_numpy(resized).to(device).permute(2, 0, 1)[None].float() / 255
    probs = soft_mask(args.channels, height, width, device)
    functions, results = {"resnet101_forward": plain_forward(frames)}, {}
    for name, scale in SCALES.items():
        loss = LossConfig(scale=scale)
        small = [interpolate(x, scale_factor=scale, mode="area") for x in (frames, probs)]
        features, values = crf_features(small[0], loss.sigma_xy * scale, loss.sigma_rgb), small[1].flatten(2)
        num_points = features.shape[2]
        num_exact = num_points if num_points <= args.exact_up_to else args.exact_part
        chosen = torch.linspace(0, num_points - 1, num_exact, device=device).long()
        exact = partial(energy, kind=ExactFilter, features=features[..., chosen])
        functions[f"{name} build"] = partial(LatticeFilter, features)
        functions[f"{name} apply"] = partial(LatticeFilter(features).multiply, values)
        training = partial(regularizer, frames=frames, config=loss)
        functions[f"{name} lattice"] = partial(value_and_gradient, probs, training)
        functions[f"{name} exact"] = partial(value_and_gradient, values[..., chosen], exact)
        results[name] = {"points": num_points, "exact_points": num_exact}
        lattice = partial(energy, kind=LatticeFilter, features=features)
        if num_exact == num_points:
            results[name] |= compare(values, exact, lattice)
        if type(exact_filter(features)) is not ExactFilter:
            fused = partial(energy, kind=exact_filter, features=features)
            functions[f"{name} fused"] = partial(value_and_gradient, values, fused)
            functions |= {f"{name} {key}": function for key, function in kernels(features, values).items()}
            results[name] |= compare(values, fused, lattice)
            if num_exact == num_points:
                results[name] |= compare(values, exact, fused, "fused")
    times = interleaved_times(functions, args.repeats, device)
    summaries = {name: result | summary(name, times, **result) for name, result in results.items()}
    return {"resnet101_forward_ms": round(1e3 * times["resnet101_forward"], 1)} | summaries


def kernels(features: Tensor, values: Tensor) -> dict[str, Callable[[], object]]:
    """The fused filter on all channels, for each number of rows and warps."""
    from ssvos.losses.exact_filter_triton import FusedExactFilter  # needs Triton

    return {
        f"{rows}x{warps}": partial(FusedExactFilter(features, rows, warps).multiply, values) for rows, warps in KERNELS
    }


def compare(
    probs: Tensor, exact: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], name: str = "lattice"
) -> dict:
    """Value and gradient of another filter's loss compared with the exact ones. name: of the other filter."""
    (value, gradient), (other_value, other_gradient) = (value_and_gradient(probs, each) for each in (exact, other))
    cosine = torch.cosine_similarity(gradient.double(), other_gradient.double(), dim=0)
    prefix = "" if name == "lattice" else f"{name}_"
    return {
        f"{name}_over_exact_value": round(other_value / value, 6),
        f"{prefix}gradient_cosine": round(float(cosine), 6),
    }


def summary(name: str, times: dict[str, float], points: int, exact_points: int, **_: float) -> dict:
    """Milliseconds of one scale, and ratios of times of the same run."""
    lattice, exact = times[f"{name} lattice"], (points / exact_points) ** 2 * times[f"{name} exact"]
    is_all = exact_points == points
    if f"{name} fused" in times:
        fused = {
            "fused_value_and_gradient_ms": round(1e3 * times[f"{name} fused"], 3),
            "fused_over_lattice": round(times[f"{name} fused"] / lattice, 2),
            "fused_apply_ms_by_rows_and_warps": {
                f"{rows}x{warps}": round(1e3 * times[f"{name} {rows}x{warps}"], 3) for rows, warps in KERNELS
            },
        }
    else:
        fused = {}
    return fused | {
        "lattice_build_ms": round(1e3 * times[f"{name} build"], 2),
        "lattice_apply_ms": round(1e3 * times[f"{name} apply"], 2),
        "lattice_value_and_gradient_ms": round(1e3 * lattice, 2),
        "exact_value_and_gradient_ms": round(1e3 * exact, 1),
        "exact": "all points" if is_all else f"extrapolated from {exact_points} of {points} points",
        "exact_over_lattice": round(exact / lattice, 1),
        "lattice_over_resnet101_forward": round(lattice / times["resnet101_forward"], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["120x214", "240x480", "480x854"], help="height x width")
    parser.add_argument("--channels", type=int, default=2, help="classes of the mask")
    parser.add_argument(
        "--exact-up-to", type=int, default=26000, help="largest number of points for the exact sum on all"
    )
    parser.add_argument("--exact-part", type=int, default=8192, help="number of points that it uses otherwise")
    parser.add_argument("--real", type=int, default=2, help="number of real frames")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "crf.json")
    parser.add_argument("--smallest", action="store_true", help="small sizes, to check that the script runs")
    args = parser.parse_args()
    if args.smallest:
        vars(args).update(SMALLEST)
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    result = machine(device, args.threads) | {"channels": args.channels, "repeats": args.repeats, "runs": []}
    for name, image in images(args.real):
        for size in args.sizes:
            result["runs"].append({"image": name, "size": size} | measure(image, size, args, device))
    write(args.json, result)


if __name__ == "__main__":
    main()
