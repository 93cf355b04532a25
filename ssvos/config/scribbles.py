"""Parameters of the scribble simulation (III-E)."""

from typing import Annotated

from pydantic import Field, model_validator

from ssvos.config.base import Fraction, FrozenConfig


class ScribbleConfig(FrozenConfig):
    """The scribble simulation (III-E).

    seed: seed of the background rectangles
    width: width of a stroke, pixels
    margin_min: smallest distance from the objects' bounding box to the background rectangle, share of the longer image
        side
    margin_max: largest distance, share of the longer image side
    """

    seed: int = 0
    width: Annotated[int, Field(ge=1, le=255)] = 5
    margin_min: Fraction = 0.02
    margin_max: Fraction = 0.12

    @model_validator(mode="after")
    def _check(self) -> "ScribbleConfig":
        if self.margin_min > self.margin_max:
            raise ValueError(f"margin_min {self.margin_min} is above margin_max {self.margin_max}; lower it")
        return self
