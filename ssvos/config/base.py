"""What every table of parameters shares: frozen and strict models, and the ranges of their numbers."""

from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


class FrozenConfig(BaseModel):
    """Unknown keys, wrong types and infinite numbers are errors that name the key; nothing changes after reading.

    renamed: keys of earlier versions and their present names. An old key is an error that gives the new one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    renamed: ClassVar[dict[str, str]] = {}


Model = TypeVar("Model", bound=FrozenConfig)
