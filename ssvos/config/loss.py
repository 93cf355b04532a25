"""Parameters of the joint loss (11)-(19) and of the proximal loss."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, Fraction, FrozenConfig, Positive


class ProximalConfig(FrozenConfig):
    """Cross-entropy to the network's own mask after CRF refinement (ssvos.losses.proximal).

    weight: weight of the loss; 0: off
    bias: subtracted from the object's log-odds before the CRF, like `predict.foreground_bias`. No stroke labels the
        band around an object; with the bias the network learns it as background where the image agrees
    iterations: iterations of the CRF
    pull: weight of the CRF's pairwise term, as CrfRefinementConfig.weight
    sigma_xy: (13)'s position bandwidth, share of the frame's height
    sigma_rgb: (13)'s color bandwidth, 0-255
    scale: size at which the CRF runs, relative to the prediction's
    filter: `lattice` (permutohedral), or `exact`: stores all pairs of pixels (5 GB for 16 frames of 72x128) and is
        several times faster on a GPU
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    bias: float = 0.0
    iterations: Count = 5
    pull: Positive = 6.0
    sigma_xy: Annotated[float, Field(ge=0.02, le=1.0)] = 0.125
    sigma_rgb: Annotated[float, Field(ge=3.0, le=255.0)] = 13.0
    scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    filter: Literal["lattice", "exact"] = "lattice"


class TeacherConfig(FrozenConfig):
    """Cross-entropy to the confident masks of a teacher (ssvos.losses.teacher).

    The teacher is the running average of the network, and segments every frame from that frame's own strokes. Its masks
    pass through the CRF of the proximal loss, with that loss's parameters.

    weight: weight of the loss; 0: off
    confident: smallest probability of a class at which the teacher's pixel is a target
    outside: whether pixels that background strokes separate from the object are background (`grid.outside_strokes`)
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    confident: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.8
    outside: bool = True


class LossConfig(FrozenConfig):
    """The joint loss (19): partial cross-entropy (11) plus a dense-CRF regularizer (12)-(18).

    regularizer: `scribble_supervised` (12)-(18), `dense_crf` (without the region weights of (18)), or `none`
    weight: lambda of (19), weight of the regularizer
    beta: extra weight of unreliable pixels (18)
    unreliable_above: smallest foreground probability of an unreliable pixel
    unreliable_below: largest foreground probability of an unreliable pixel
    sigma_xy: gamma_d of (13), position bandwidth, pixels of the prediction
    sigma_rgb: gamma_r of (13), color bandwidth, 0-255
    scale: size at which the energy is computed, relative to the prediction's
    normalization: of the energy's double sum: `none`, `pixel` (divided by the number of pixels), or `row` (each
        affinity row divided by its sum)
    filter: `lattice` (permutohedral) or `exact` (the O(N^2) sum)
    balance: average of (11): `pixel` over all labelled pixels, `class` over background and foreground strokes
        separately
    proximal: parameters of the proximal loss
    teacher: parameters of the teacher
    """

    regularizer: Literal["none", "dense_crf", "scribble_supervised"] = "scribble_supervised"
    weight: Annotated[float, Field(ge=0.0)] = 0.9
    beta: Annotated[float, Field(ge=0.0)] = 0.1
    unreliable_above: Fraction = 0.05
    unreliable_below: Fraction = 0.3
    sigma_xy: Positive = 100.0
    sigma_rgb: Positive = 15.0
    scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    normalization: Literal["none", "pixel", "row"] = "row"
    filter: Literal["lattice", "exact"] = "lattice"
    balance: Literal["pixel", "class"] = "class"
    proximal: ProximalConfig = ProximalConfig()
    teacher: TeacherConfig = TeacherConfig()

    @model_validator(mode="after")
    def _check(self) -> "LossConfig":
        if self.unreliable_above >= self.unreliable_below:
            raise ValueError(
                f"unreliable_above {self.unreliable_above} must be below unreliable_below {self.unreliable_below}; "
                "lower the first or raise the second"
            )
        return self
