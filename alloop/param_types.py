"""What the models of `param.json` are made of: strict numbers and sections without unknown keys."""

from __future__ import annotations

import json
from typing import Annotated, Any

from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _a_number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError(f"found {json.dumps(value)}, must be a number without quotes")
    return value


_NUMBER = BeforeValidator(_a_number)
Real = Annotated[float, _NUMBER]
Positive = Annotated[float, Field(gt=0), _NUMBER]
NonNegative = Annotated[float, Field(ge=0), _NUMBER]
Fraction = Annotated[float, Field(ge=0, le=1), _NUMBER]
Count = Annotated[int, Field(ge=1), _NUMBER]
CountOrZero = Annotated[int, Field(ge=0), _NUMBER]
TwoOrMore = Annotated[int, Field(ge=2), _NUMBER]
CellSize = Annotated[int, Field(ge=12, le=20000), _NUMBER]
Seed = Annotated[int, Field(ge=0, lt=2**31), _NUMBER]


def _known_element(symbol: str) -> str:
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"{symbol!r} is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_known_element)]


class Section(BaseModel):
    """A section of `param.json`: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def distinct(values: list[Any]) -> list[Any]:
    """Return the list; ValueError if it names one thing twice, which would be one trajectory run twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{value} is given twice; give it once, and raise `trajectories` for more of it")
    return values
