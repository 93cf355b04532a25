"""The base class of all parameter models, and the constrained types of their fields."""

from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


class FrozenConfig(BaseModel):
    """A parameter model that is frozen after reading.

    An unknown key, a wrong type, a NaN or an infinite number raises an error that names the key.

    renamed: keys of earlier versions and their present names; an old key raises an error that gives the present name
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    renamed: ClassVar[dict[str, str]] = {}


Model = TypeVar("Model", bound=FrozenConfig)
