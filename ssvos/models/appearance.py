"""Appearance model (III-B, Eqs. 1-7): four diagonal Gaussians per object, fitted to labels, scored in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from ssvos.config import AppearanceConfig

NUM_COMPONENTS = 4  # base background, base foreground, missed foreground, missed background


class Gaussians(NamedTuple):
    """Mean and variance of the four components, (N, 4, D) each."""

    mean: Tensor
    variance: Tensor


class Appearance(nn.Module):
    """Embeds features in D channels and models them by Gaussians of background and foreground.

    The first two components, the base pair, are fitted to the labels. The second pair is fitted to the cells that the
    base pair gets wrong: to missed foreground, where the base posterior of background exceeds the background label, and
    to missed background, where that of foreground exceeds the foreground label.
    """

    def __init__(self, in_channels: int, config: AppearanceConfig):
        super().__init__()
        self.config = config
        self.project = nn.Conv2d(in_channels, config.channels, 1)
        self.rho = nn.Parameter(torch.full((NUM_COMPONENTS, config.channels), -2.0))

    def embed(self, features: Tensor) -> Tensor:
        """Embedding that the Gaussians model: features (N, C, h, w) -> (N, D, h, w).

        The result is float32 or finer, because sums of squares and their differences lose digits.
        """
        embedded: Tensor = self.project(features)
        return embedded.float() if embedded.dtype.itemsize < 4 else embedded

    def fit(self, features: Tensor, labels: Tensor) -> Gaussians:
        """Eqs. 3 and 4 on one frame.

        features: embedded, (N, D, h, w)
        labels: shares of background and foreground in every cell, (N, 2, h, w); a cell with 0 in both has no label and
            no weight
        """
        with _without_autocast(features):
            labels = labels.to(features.dtype)
            base = self._statistics(features, labels, slice(0, 2))
            residual = self._statistics(features, self._residual(features, labels, base), slice(2, 4))
            return _concatenate(base, residual)

    def update(self, gaussians: Gaussians, features: Tensor, labels: Tensor) -> Gaussians:
        """Eqs. 5 and 6: move the Gaussians towards this frame's statistics by the update rate."""
        rate = self.config.update_rate
        with _without_autocast(features):
            labels = labels.to(features.dtype)
            base = _lerp(_select(gaussians, slice(0, 2)), self._statistics(features, labels, slice(0, 2)), rate)
            weights = self._residual(features, labels, base)
            residual = _lerp(_select(gaussians, slice(2, 4)), self._statistics(features, weights, slice(2, 4)), rate)
            return _concatenate(base, residual)

    def score(self, features: Tensor, gaussians: Gaussians) -> Tensor:
        """Scores of the four components at every position, (N, 4, h, w), in the form that `config.output` names.

        `log_scores`: -1/2 sum_d (log var + (x - mean)^2 / var), the input of A-GAME's fusion. `mean_log_scores`: the
        same divided by the number of channels D. `posteriors`: the softmax of the log-scores (7). `log_posteriors`: the
        logarithm of the posteriors divided by sqrt(D); it contains only the differences between the components.
        """
        with _without_autocast(features):
            scores = log_scores(features, gaussians)
        match self.config.output:
            case "posteriors":
                return scores.softmax(dim=1)
            case "log_posteriors":
                scale: float = features.shape[1] ** 0.5
                return scores.log_softmax(dim=1) / scale
            case "mean_log_scores":
                return scores / features.shape[1]
        return scores

    def _statistics(self, features: Tensor, weights: Tensor, components: slice) -> Gaussians:
        """Weighted mean and variance (Eqs. 3, 4): features (N, D, h, w), weights (N, K, h, w) -> K components."""
        flat_weights = weights.flatten(2)
        mass = flat_weights.sum(dim=2, keepdim=True)
        total = mass + self.config.pseudo_count
        points = features.flatten(2).mT
        mean = torch.bmm(flat_weights, points) / total
        # spreads are the same after a shift, and near 0 the squares lose no digits
        centre = points.detach().mean(dim=1, keepdim=True)
        flat, shifted = points - centre, mean - centre
        # sum of w (x - mean)^2 without a (N, K, D, h*w) tensor; correct for any total of the weights
        square = torch.bmm(flat_weights, flat**2)
        first = torch.bmm(flat_weights, flat)
        spread = square - 2 * shifted * first + mass * shifted**2
        variance = relu(spread) / total + softplus(self.rho[components])
        return Gaussians(mean, variance)

    def _residual(self, features: Tensor, labels: Tensor, base: Gaussians) -> Tensor:
        """Weights of the second pair, (N, 2, h, w): by how much the base posterior exceeds the label."""
        posterior = log_scores(features, base).softmax(dim=1)
        labelled = labels.sum(dim=1, keepdim=True)
        return relu(labelled * posterior - labels)


def log_scores(features: Tensor, gaussians: Gaussians) -> Tensor:
    """-1/2 sum_d (log var + (x - mean)^2 / var): features (N, D, h, w), K components -> (N, K, h, w)."""
    precision = 1.0 / gaussians.variance
    # distances are the same after a shift, and near 0 the squares lose no digits
    centre = gaussians.mean.detach().mean(dim=1)
    mean, flat = gaussians.mean - centre[:, None], features.flatten(2) - centre[..., None]
    distance = (
        torch.bmm(precision, flat**2)
        - 2 * torch.bmm(precision * mean, flat)
        + (precision * mean**2).sum(dim=2)[..., None]
    )
    scores = -0.5 * (distance + gaussians.variance.log().sum(dim=2)[..., None])
    return scores.reshape(*scores.shape[:2], *features.shape[2:])


def _without_autocast(features: Tensor) -> torch.autocast:
    """Context in which the sums of the Gaussians keep the precision of the features, also in mixed precision."""
    return torch.autocast(features.device.type, enabled=False)


def _select(gaussians: Gaussians, components: slice) -> Gaussians:
    return Gaussians(gaussians.mean[:, components], gaussians.variance[:, components])


def _lerp(old: Gaussians, new: Gaussians, rate: float) -> Gaussians:
    return Gaussians(torch.lerp(old.mean, new.mean, rate), torch.lerp(old.variance, new.variance, rate))


def _concatenate(base: Gaussians, residual: Gaussians) -> Gaussians:
    return Gaussians(torch.cat([base.mean, residual.mean], 1), torch.cat([base.variance, residual.variance], 1))
