"""The section `select` of `param.json`: which explored configurations are labelled."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator, model_validator

from alloop.event_params import EventsParam, default_events
from alloop.glass.events import ON_BY_DEFAULT, PRESETS
from alloop.param_types import Count, CountOrZero, Fraction, NonNegative, Positive, Section
from alloop.selection.trust import LEAST_RATIO


class SelectParam(Section):
    """Which explored configurations are labelled."""

    trust_low_eV_A: Positive = Field(0.25, description="frames below this maximal force deviation are accurate")
    trust_high_eV_A: Positive = Field(1.0, description="frames above this maximal force deviation are failed")
    trust: Literal["calibrated", "fixed"] = Field(
        "calibrated",
        description="calibrated: the trust levels begin as given and move, by glass and temperature, to where the "
        "audit shows the errors below; fixed: they stay",
    )
    error_low_eV_A: Positive = Field(
        0.8, description="a frame is accurate while the largest force error to expect in it stays below"
    )
    error_high_eV_A: Positive = Field(3.0, description="a frame is failed from this largest force error on")
    max_labels: Count = Field(100, description="labels asked for in one iteration at most, events and audit included")
    max_per_trajectory: Count = Field(
        8,
        description="labels asked for from one trajectory and iteration at most, the audit apart; of several none "
        "gives more than half of max_labels",
    )
    min_separation_ps: NonNegative = Field(0.05, description="between two picks of one trajectory")
    novelty: NonNegative = Field(
        0.1,
        description="an event is labelled only if what surrounds an atom that shows it is so far from all training "
        "data, labels in flight and other picks; two atoms of an element drawn at random are "
        "about 1.4 apart, moving all atoms by 0.01 Å is 0.05, by 0.1 Å 0.5; 0: all but duplicates",
    )
    event_share: Fraction = Field(
        0.5,
        description="of max_labels, what all events together may take whatever their quotas; candidates get the rest",
    )
    audit: CountOrZero | None = Field(
        None,
        description="labels per iteration drawn at random from all explored frames: they measure and calibrate; if not "
        "given a tenth of max_labels, at least 5, at most half of them",
    )
    events: EventsParam = Field(
        default_events(),
        description="reasons to label besides the deviation: a preset's name with what differs from it, or an own "
        f"name with its kind; presets: {', '.join(PRESETS)} (the first two are always watched for)",
        json_schema_extra={"default": {name: {} for name in ON_BY_DEFAULT}},
    )
    before_loss: CountOrZero = Field(
        5, description="labels per iteration among the last good frames of trajectories that were lost; 0: none"
    )
    temperature_bands_K: list[Positive] = Field(
        [600.0, 1250.0, 2250.0], description="ascending edges of the temperature bands, over which events have quotas"
    )
    held_out_fraction: Fraction = Field(0.15, description="share of exploration trajectories never trained on")

    @property
    def audit_labels(self) -> int:
        """Return how many labels of an iteration are drawn at random."""
        if self.audit is not None:
            return self.audit
        return max(1, min(max(5, round(self.max_labels / 10)), self.max_labels // 2))

    @field_validator("temperature_bands_K")
    @classmethod
    def _ascending(cls, edges_K: list[float]) -> list[float]:
        if any(low >= high for low, high in pairwise(edges_K)):
            raise ValueError(f"{edges_K} do not ascend; give each edge once, the lowest first")
        return edges_K

    @model_validator(mode="after")
    def _ordered(self) -> SelectParam:
        if self.trust_low_eV_A >= self.trust_high_eV_A:
            raise ValueError(
                f"trust_low_eV_A is {self.trust_low_eV_A}, trust_high_eV_A {self.trust_high_eV_A}; "
                "low must be below high"
            )
        if self.trust == "calibrated" and self.trust_high_eV_A < LEAST_RATIO * self.trust_low_eV_A:
            raise ValueError(
                f"trust_low_eV_A is {self.trust_low_eV_A}, trust_high_eV_A {self.trust_high_eV_A}; calibrated levels "
                f"leave room for candidates, high being {LEAST_RATIO:g} times low or more: expected trust_high_eV_A "
                f"from {LEAST_RATIO * self.trust_low_eV_A:g} on; set it higher, or trust to fixed"
            )
        if self.error_low_eV_A >= self.error_high_eV_A:
            raise ValueError(
                f"error_low_eV_A is {self.error_low_eV_A}, error_high_eV_A {self.error_high_eV_A}; "
                "low must be below high"
            )
        return self
