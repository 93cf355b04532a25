"""The costs of one network and loss on a device, as linear functions of the number of pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Line(NamedTuple):
    """y = fixed + slope * x."""

    fixed: float
    slope: float

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> "Line":
        """The line through two points with x[0] <= x[1]. Its slope is at least 0, whatever the noise in y."""
        slope = max(0.0, (y[1] - y[0]) / (x[1] - x[0])) if x[1] > x[0] else y[1] / x[1]
        return cls(max(0.0, y[1] - slope * x[1]), slope)

    def at(self, x: float) -> float:
        """The value at x."""
        return self.fixed + self.slope * x


@dataclass(frozen=True)
class NetworkProfile:
    """Measured costs. `px` is the number of pixels of one frame of every clip of a batch.

    training: seconds per frame of `px`, forward and backward.
    regularizer: seconds per regularized frame in addition, with its proximal loss, as a function of px ** power.
    update: seconds of an optimizer step.
    segmenting: seconds per frame of `px` in inference, with all objects.
    refining: seconds per frame in addition, for what is applied to the masks after the network.
    saved: bytes per frame of `px` that are saved for the backward pass.
    regularizer_saved: bytes per regularized frame in addition, as a function of px ** power.
    power: of px, with which the terms of regularized frames grow.
    resting: bytes of a process with all libraries loaded, without the network.
    parameters, trainable: numbers of parameters.
    """

    training: Line
    regularizer: Line
    update: float
    segmenting: Line
    refining: Line
    saved: Line
    regularizer_saved: Line
    power: int
    resting: int
    parameters: int
    trainable: int

    def step_seconds(self, px: int, frames: int, regularized: int) -> float:
        """Seconds of a training step on clips of `frames` frames, `regularized` of them with the regularizer."""
        return frames * self.training.at(px) + regularized * self.regularizer.at(px**self.power) + self.update

    def step_bytes(self, px: int, frames: int, regularized: int) -> float:
        """Peak bytes of a training step without the network, which is the fixed part of the lines."""
        return float(frames * self.saved.slope * px + regularized * self.regularizer_saved.slope * px**self.power)

    def state_bytes(self, averaged: bool, distributed: bool) -> int:
        """Bytes of weights, gradients, Adam's two moments, the running average, and DDP's buckets."""
        return 4 * (self.parameters * (1 + averaged) + self.trainable * (3 + distributed))
