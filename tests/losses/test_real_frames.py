"""The lattice against the exact sum on frames of DAVIS, with masks of a simulated partly trained network and noise.

SSVOS_REAL_DATA is a folder that contains davis/JPEGImages/480p and davis/Annotations/480p.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ssvos.losses.dense_crf import crf_energy, crf_features, region_weight
from ssvos.losses.exact_filter import ExactFilter
from ssvos.losses.gaussian_filter import GaussianFilter
from ssvos.losses.permutohedral import LatticeFilter

REAL = os.environ.get("SSVOS_REAL_DATA")
NORMALIZATIONS = ("none", "pixel", "row")

pytestmark = pytest.mark.skipif(not REAL, reason="SSVOS_REAL_DATA is not set")


def sequences() -> list[str]:
    annotated = sorted((Path(REAL) / "davis/Annotations/480p").iterdir()) if REAL else []
    return [folder.name for folder in annotated if (Path(REAL) / "davis/JPEGImages/480p" / folder.name).is_dir()]


def real_frame(sequence: str, height: int, width: int) -> tuple[torch.Tensor, np.ndarray]:
    """The middle frame of a sequence, (1, 3, H, W) in [0, 1], and the object's share of each pixel, (H, W)."""
    root, size = Path(REAL) / "davis", (width, height)
    paths = sorted((root / "JPEGImages/480p" / sequence).glob("*.jpg"))
    path = paths[len(paths) // 2]
    image = cv2.resize(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), size, interpolation=cv2.INTER_AREA)
    labels = cv2.imread(str(root / "Annotations/480p" / sequence / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
    mask = cv2.resize((labels > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255, mask


def partly_trained(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The true mask, blurred, with smooth noise; scores below, in and above the unreliable range 0.05 to 0.3 occur."""
    width = len(mask) / 20
    noise = cv2.GaussianBlur(rng.standard_normal(mask.shape), (0, 0), width)
    return np.clip(0.9 * cv2.GaussianBlur(mask, (0, 0), width) + 0.03 + 0.12 * noise / noise.std(), 0.01, 0.99)


def untrained(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent noise around 0.5 at every pixel."""
    return 1 / (1 + np.exp(-0.5 * rng.standard_normal(mask.shape)))


def value_and_gradient(probs: torch.Tensor, kernel: GaussianFilter, normalization: str) -> tuple[float, torch.Tensor]:
    probs = probs.clone().requires_grad_()
    value = crf_energy(probs, region_weight(probs[:, 1], 0.1, 0.05, 0.3), kernel, normalization)
    value.sum().backward()
    return value.item(), probs.grad.flatten().double()


def compare(sequence: str, height: int, width: int, sigma_xy: float, score, normalizations) -> None:
    """Check values within 5 % of the exact sum (2 % for `row`), and a cosine of gradients of at least 0.99."""
    frames, mask = real_frame(sequence, height, width)
    foreground = torch.from_numpy(score(mask, np.random.default_rng(0))).float().flatten()
    assert (foreground < 0.3).any() and (foreground > 0.3).any()
    probs = torch.stack([1 - foreground, foreground])[None]
    features = crf_features(frames, sigma_xy, 15.0)
    kernels = ExactFilter(features), LatticeFilter(features)
    for normalization in normalizations:
        (exact, exact_gradient), (lattice, lattice_gradient) = (
            value_and_gradient(probs, k, normalization) for k in kernels
        )
        assert lattice == pytest.approx(exact, rel=0.02 if normalization == "row" else 0.05), normalization
        assert torch.cosine_similarity(exact_gradient, lattice_gradient, dim=0) >= 0.99, normalization


@pytest.mark.parametrize("score", [partly_trained, untrained])
@pytest.mark.parametrize("sequence", sequences()[::11])
def test_at_60_rows_with_the_scaled_bandwidth_the_lattice_is_close_to_the_exact_sum(sequence, score):
    compare(sequence, 60, 107, 12.5, score, NORMALIZATIONS)


def test_at_120_rows_with_the_scaled_bandwidth_the_lattice_is_close_to_the_exact_sum():
    compare(sequences()[0], 120, 214, 25.0, partly_trained, ("none", "row"))


def test_at_60_rows_with_the_printed_bandwidth_the_lattice_is_close_to_the_exact_sum():
    compare(sequences()[-1], 60, 107, 100.0, partly_trained, NORMALIZATIONS)
