"""Appearance model (III-B, Eqs. 1-7): four diagonal Gaussians per object, fitted on labels, scored in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from ssvos.config import AppearanceConfig

NUM_COMPONENTS = 4  # base background, base foreground, missed foreground, missed background


class Gaussians(NamedTuple):
    """mean and variance of the four components, (N, 4, D) each."""

    mean: Tensor
    variance: Tensor


class Appearance(nn.Module):
    """Embeds features in D channels and models them by Gaussians of background and foreground.

    The second pair is fitted on what the base pair gets wrong: where the base pair says background more than the
    label does lies missed foreground, and the other way round.
    """

    def __init__(self, in_channels: int, config: AppearanceConfig):
        super().__init__()
        self.config = config
        self.project = nn.Conv2d(in_channels, config.channels, 1)
        self.rho = nn.Parameter(torch.full((NUM_COMPONENTS, config.channels), -2.0))

    def embed(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) -> what the Gaussians are of, (N, D, h, w), in single precision or finer: sums of
        squares and their differences have no digits to spare."""
        embedded = self.project(features)
        return embedded.float() if embedded.dtype.itemsize < 4 else embedded

    def fit(self, features: Tensor, labels: Tensor) -> Gaussians:
        """Eqs. 3 and 4 on one frame.

        features: embedded, (N, D, h, w). labels: (N, 2, h, w), shares of background and foreground in every cell;
        a cell that is 0 in both has no label and no weight.
        """
        with _as_embedded(features):
            labels = labels.to(features.dtype)
            base = self._statistics(features, labels, slice(0, 2))
            residual = self._statistics(features, self._residual(features, labels, base), slice(2, 4))
            return _stack(base, residual)

    def update(self, gaussians: Gaussians, features: Tensor, labels: Tensor) -> Gaussians:
        """Eqs. 5 and 6: move towards this frame's statistics by the update rate."""
        rate = self.config.update_rate
        with _as_embedded(features):
            labels = labels.to(features.dtype)
            base = _lerp(_part(gaussians, slice(0, 2)), self._statistics(features, labels, slice(0, 2)), rate)
            weights = self._residual(features, labels, base)
            residual = _lerp(_part(gaussians, slice(2, 4)), self._statistics(features, weights, slice(2, 4)), rate)
            return _stack(base, residual)

    def score(self, features: Tensor, gaussians: Gaussians) -> Tensor:
        """Eq. 7's ingredients at every position, (N, 4, h, w).

        `log_scores`: -1/2 sum_d (log var + (x - mean)^2 / var), as A-GAME feeds them; `mean_log_scores`: the same
        over the number of channels; `posteriors`: their softmax (7); `log_posteriors`: its logarithm, in which only
        what tells the components apart is left, over the square root of the number of channels that it sums.
        """
        with _as_embedded(features):
            scores = log_scores(features, gaussians)
        match self.config.output:
            case "posteriors":
                return scores.softmax(dim=1)
            case "log_posteriors":
                return scores.log_softmax(dim=1) / features.shape[1] ** 0.5
            case "mean_log_scores":
                return scores / features.shape[1]
        return scores

    def _statistics(self, features: Tensor, weights: Tensor, components: slice) -> Gaussians:
        flat_weights = weights.flatten(2)
        mass = flat_weights.sum(dim=2, keepdim=True)
        total = mass + self.config.pseudo_count
        points = features.flatten(2).mT
        mean = torch.bmm(flat_weights, points) / total
        # spreads do not change when all is shifted; near 0 their squares lose no digits
        centre = points.detach().mean(dim=1, keepdim=True)
        flat, shifted = points - centre, mean - centre
        # sum of w (x - mean)^2 without building a (N, K, D, p) tensor; exact for any total of the weights
        square = torch.bmm(flat_weights, flat**2)
        first = torch.bmm(flat_weights, flat)
        spread = square - 2 * shifted * first + mass * shifted**2
        variance = relu(spread) / total + softplus(self.rho[components])
        return Gaussians(mean, variance)

    def _residual(self, features: Tensor, labels: Tensor, base: Gaussians) -> Tensor:
        posterior = log_scores(features, base).softmax(dim=1)
        labelled = labels.sum(dim=1, keepdim=True)
        return relu(labelled * posterior - labels)


def log_scores(features: Tensor, gaussians: Gaussians) -> Tensor:
    """-1/2 sum_d (log var + (x - mean)^2 / var): features (N, D, h, w), K components -> (N, K, h, w)."""
    precision = 1.0 / gaussians.variance
    # distances do not change when all is shifted; near 0 their squares lose no digits
    centre = gaussians.mean.detach().mean(dim=1)
    mean, flat = gaussians.mean - centre[:, None], features.flatten(2) - centre[..., None]
    distance = (
        torch.bmm(precision, flat**2)
        - 2 * torch.bmm(precision * mean, flat)
        + (precision * mean**2).sum(dim=2)[..., None]
    )
    scores = -0.5 * (distance + gaussians.variance.log().sum(dim=2)[..., None])
    return scores.unflatten(2, features.shape[2:])


def _as_embedded(features: Tensor) -> torch.autocast:
    """In mixed precision: the Gaussians' sums stay in the precision of what they are of."""
    return torch.autocast(features.device.type, enabled=False)


def _part(gaussians: Gaussians, components: slice) -> Gaussians:
    return Gaussians(gaussians.mean[:, components], gaussians.variance[:, components])


def _lerp(old: Gaussians, new: Gaussians, rate: float) -> Gaussians:
    return Gaussians(torch.lerp(old.mean, new.mean, rate), torch.lerp(old.variance, new.variance, rate))


def _stack(base: Gaussians, residual: Gaussians) -> Gaussians:
    return Gaussians(torch.cat([base.mean, residual.mean], 1), torch.cat([base.variance, residual.variance], 1))
