"""`stop` of `param.json`: when a campaign is converged, and when it gives up."""

from __future__ import annotations

from pydantic import Field, model_validator

from alloop.param_types import Count, CountOrZero, Fraction, NonNegative, Positive, Section
from alloop.quench_params import ProbeParam, RelaxParam


class ReferenceParam(Section):
    """Trajectories of the labeler's own dynamics: declared events must be as frequent with the ensemble."""

    glass: str = Field(description="name of a glass of the campaign")
    temperature_K: Positive = Field(description="constant temperature of the trajectories; one of explore's")
    files: list[str] = Field(min_length=3, description="one file per replica, any ASE format; at least three")
    frame_ps: Positive = Field(
        description="time between two frames of the files: it tells how many of them are independent"
    )
    every: Count = Field(1, description="read every n-th frame")
    skip: CountOrZero = Field(0, description="so many of the frames read are left out at the start")
    skip_ps: NonNegative = Field(
        1.0, description="of the ensemble's own trajectories so much is left out at the start of each iteration"
    )
    tolerance: Fraction = Field(
        0.02,
        description="of the atoms of an event's central element, a tenth of it of all atoms where it has none: what "
        "could hide a larger difference is not resolved",
    )
    relative_tolerance: NonNegative = Field(
        0.5, description="the same as a share of the labeler's rate; the larger of both counts"
    )


class StopParam(Section):
    """When the campaign is converged, and when it gives up."""

    max_iterations: Count = Field(20, description="iterations after which the campaign ends, converged or not")
    accurate_fraction: Fraction = Field(0.98, description="least share of explored frames that must be accurate")
    accurate_fraction_worst: Fraction | None = Field(
        None,
        description="the same of each glass and temperature with 50 records or more; if not given 0.8 x "
        "accurate_fraction; 0: no such level",
    )
    force_rmse_eV_A: Positive = Field(
        0.20, description="on the newest labels AND on the held-out sets, but for those near collapse"
    )
    audit_force_rmse_eV_A: Positive | None = Field(
        None, description="of the audit's labels: all of its 95 % interval must lie below; no criterion if not given"
    )
    least_improvement: Fraction | None = Field(
        None, description="converged only when the last labels lowered the error by a smaller share than this"
    )
    probe: ProbeParam | None = Field(
        None, description="a short quench with every ensemble; converged only when what it makes no longer changes"
    )
    reference: list[ReferenceParam] = Field(
        [], description="trajectories by the labeler; converged only when events are as frequent with the ensemble"
    )
    relax: RelaxParam | None = Field(
        None, description="once all else is met, what the probe made is relaxed with the labeler: 4B and 5Si must agree"
    )

    @property
    def least_anywhere(self) -> float:
        """Return the least accurate fraction of any glass and temperature."""
        given = self.accurate_fraction_worst
        return 0.8 * self.accurate_fraction if given is None else given

    @model_validator(mode="after")
    def _relaxes_what_was_probed(self) -> StopParam:
        if self.relax is not None and self.probe is None:
            raise ValueError("relax needs a probe, whose glasses are relaxed; add stop.probe, such as {}")
        return self
