"""Parameters of the joint loss (11)-(19) and of the proximal loss beside it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, Fraction, FrozenConfig, Positive


class ProximalConfig(FrozenConfig):
    """Cross-entropy to the network's own mask refined by the dense CRF (ssvos.losses.proximal). weight 0: off.

    pull, sigma_xy, sigma_rgb, iterations: as CrfRefinementConfig's weight and the others; scale: as the loss's. bias:
    taken off the object's log-odds before the mask is looked for, as `predict.foreground_bias` at the end: the band
    around an object, of which no stroke says anything, is then learnt as background where the image agrees.
    filter: `exact` keeps all pairs of pixels while a batch's mask is looked for, 5 GB for 16 frames of 72x128 on a GPU,
    and is several times faster there.
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    bias: float = 0.0
    iterations: Count = 5
    pull: Positive = 6.0
    sigma_xy: Annotated[float, Field(ge=0.02, le=1.0)] = 0.125
    sigma_rgb: Annotated[float, Field(ge=3.0, le=255.0)] = 13.0
    scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    filter: Literal["lattice", "exact"] = "lattice"


class LossConfig(FrozenConfig):
    """Joint loss (19): partial cross-entropy (11) plus `weight` (lambda) times a dense-CRF regularizer (12)-(18).

    sigma_xy (gamma_d, pixels of the prediction) and sigma_rgb (gamma_r, 0-255) are (13)'s bandwidths; the energy
    is taken at `scale` of the prediction's size. beta, the extra weight of unreliable pixels (18), which lie
    between `unreliable_above` and `unreliable_below`. normalization: the raw double sum (`none`), that over the
    number of pixels (`pixel`), or every affinity row divided by its sum (`row`).
    filter: `lattice` (permutohedral) or `exact` (the O(N^2) sum).
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

    @model_validator(mode="after")
    def _check(self) -> "LossConfig":
        if self.unreliable_above >= self.unreliable_below:
            raise ValueError(
                f"unreliable_above {self.unreliable_above} must be below unreliable_below {self.unreliable_below}"
            )
        return self
