"""`quench` and `stop.probe` of `param.json`: melt-quenches, as three stages with few numbers or as any protocol."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from alloop.glass.protocol import PROTOCOLS, Stage, segments
from alloop.param_types import CellSize, Count, CountOrZero, NonNegative, Positive, Section, TwoOrMore

MELT_QUENCH: Literal["melt-quench"] = "melt-quench"


def must_cool(melt_K: float, final_K: float) -> None:
    """Raise ValueError unless a quench ends colder than it begins."""
    if final_K >= melt_K:
        raise ValueError(f"final_temperature_K is {final_K:g}, melt_temperature_K {melt_K:g}; a quench must cool")


class MeltQuenchParam(Section):
    """A melt-quench with an ensemble: melt, linear cooling, and a hold over which the glass is analysed."""

    engine: Literal["lammps", "ase"] = Field("lammps", description="program that runs the MD")
    ensemble: Literal["nvt", "npt"] = Field("nvt", description="constant volume, or constant pressure of 0 bar")
    melt_temperature_K: Positive = Field(2000.0, description="temperature of the melt")
    final_temperature_K: Positive = Field(300.0, description="where a run ends")
    melt_ps: Positive = Field(20.0, description="time at the melt temperature")
    cooling_rate_K_ps: Positive = Field(10.0, description="rate of the cooling")
    final_ps: Positive = Field(20.0, description="time at the final temperature, over which the glass is analysed")
    chunk_ps: Positive = Field(10.0, description="length of a chunk, the unit that runs as one task")
    timestep_fs: Positive = Field(1.0, description="time step of the MD")
    deviation_every: Count = Field(20, description="steps between records of the ensemble's deviation")
    frame_every_ps: Positive = Field(0.5, description="between saved frames")
    replicas: Count = Field(1, description="independent quenches of each glass and cell size")

    @model_validator(mode="after")
    def _cools(self) -> MeltQuenchParam:
        must_cool(self.melt_temperature_K, self.final_temperature_K)
        _check_engine(self.engine, self.melt_quench())
        return self

    def melt_quench(self) -> tuple[Stage, ...]:
        """Return the three stages that these numbers stand for."""
        melt_K, final_K, ensemble = self.melt_temperature_K, self.final_temperature_K, self.ensemble
        return (
            Stage("melt", "hold", melt_K, ps=self.melt_ps, ensemble=ensemble),
            Stage("cool", "ramp", final_K, rate_K_ps=self.cooling_rate_K_ps, ensemble=ensemble),
            Stage("final", "hold", final_K, ps=self.final_ps, ensemble=ensemble, analyse_ps=self.final_ps),
        )


def _check_engine(engine: str, stages: tuple[Stage, ...]) -> None:
    """Raise ValueError for a stage that the engine cannot run; the force field always runs in LAMMPS."""
    for stage in stages:
        if (engine, stage.driver, stage.kind, stage.ensemble) == ("ase", "ensemble", "ramp", "npt"):
            raise ValueError(
                f"stage {stage.name}: the ase engine has no NPT ramps; use engine lammps, or ensemble nvt for it"
            )


class ToleranceParam(Section):
    """How large a difference between glasses may be, or may go unnoticed."""

    fraction: Positive = Field(0.15, description="of four-coordinated B among B, of five-coordinated Si among Si")
    bond_A: Positive = Field(
        0.02, description="of mean lengths of B-O and Si-O; 0.015 Å is what 15 % more four-coordinated B make of B-O"
    )
    rings_per_B: Positive = Field(0.05, description="of three-membered rings per B; 0.33 if all B were in one")
    rdf_A: Positive = Field(
        0.5,
        description="of the partial g(r) up to 5 Å: integral of the difference, pairs weighted as in the total g(r); "
        "all distances 1 % longer make 0.4 Å",
    )


class ProbeParam(MeltQuenchParam):
    """A short quench with every ensemble: is the glass it makes still changing, and does it depend on the cell?"""

    melt_temperature_K: Positive = Field(2500.0, description="temperature of the melt")
    melt_ps: Positive = Field(
        5.0, description="time at the melt temperature; in it the copies that a supercell begins with must part"
    )
    cooling_rate_K_ps: Positive = Field(200.0, description="rate of the cooling")
    final_ps: Positive = Field(2.0, description="time at the final temperature, over which the glass is analysed")
    frame_every_ps: Positive = Field(0.1, description="between saved frames")
    replicas: TwoOrMore = Field(3, description="independent quenches, whose spread is the error")
    supercells: list[tuple[Count, Count, Count]] = Field(
        [(1, 1, 1)],
        min_length=1,
        description="cells side by side along the three vectors, each a cell size to compare; such as [1, 1, 1], "
        "[2, 2, 1] and [3, 2, 2] for about 84, 340 and 1000 atoms",
    )
    iterations: TwoOrMore = Field(3, description="the last so many ensembles must make the same glass")
    tolerance: ToleranceParam = Field(
        ToleranceParam(), description="differences that are allowed; what could hide a larger one is not resolved"
    )

    @model_validator(mode="after")
    def _sizes_differ(self) -> ProbeParam:
        sizes = [math.prod(supercell) for supercell in self.supercells]
        if len(set(sizes)) < len(sizes):
            raise ValueError(f"supercells {self.supercells} have {sizes} cells; give each size once")
        return self


class RelaxParam(Section):
    """Relaxing glasses with the labeler, at fixed cell: what they are made of must be the same before and after."""

    force_eV_A: Positive = Field(0.05, description="until no force is larger")
    steps: Count = Field(200, description="at most; a structure that needs more is not compared")
    largest_atoms: Count = Field(
        150, description="larger cells are not relaxed; of quenched ones the energy is asked for"
    )


class FinalTrainingParam(Section):
    """A longer training of the last ensemble on all labels, for the quench; used only if it is no worse."""

    steps: Count = Field(
        description="of each model; from the ensemble's weights if train.warm_start, else from scratch"
    )
    learning_rate: Positive | None = Field(
        None, description="at its start; as train has it for a warm or a new start if not given"
    )


class StageParam(Section):
    """One stage of a protocol: a hold, a ramp from the temperature before, or a minimisation of a copy."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="what its files are called")
    kind: Literal["hold", "ramp", "minimise"] = Field(
        description="minimise: a copy goes to the nearest energy minimum, the run goes on from where it was"
    )
    temperature_K: Positive | None = Field(None, description="of a hold, or where a ramp ends")
    ps: Positive | None = Field(None, description="length of a hold")
    rate_K_ps: Positive | None = Field(None, description="of a ramp, positive up and down")
    ensemble: Literal["nvt", "npt"] = Field("nvt", description="constant volume, or constant pressure of 0 bar")
    driver: Literal["ensemble", "force_field"] = Field(
        "ensemble", description="what gives the forces; the classical force field comes first, if at all"
    )
    analyse_ps: NonNegative = Field(0.0, description="so much of its end is analysed")

    @model_validator(mode="after")
    def _makes_a_stage(self) -> StageParam:
        self.stage()
        return self

    def stage(self) -> Stage:
        """Return the stage."""
        return Stage(**self.model_dump())


def _a_list_or_name(value: Any) -> str:
    return "[stages]" if isinstance(value, list) else "[name]"


def _an_object_or_number(value: Any) -> str:
    return "[by glass]" if isinstance(value, dict) else "[number]"


Name = Literal["melt-quench", "short", "urata2022"]
ProtocolParam = Annotated[
    Annotated[Name, Tag("[name]")] | Annotated[list[StageParam], Tag("[stages]")], Discriminator(_a_list_or_name)
]
MeltingParam = Annotated[
    Annotated[Positive, Tag("[number]")] | Annotated[dict[str, Positive], Tag("[by glass]")],
    Discriminator(_an_object_or_number),
]
_SHORT_MELT_K = 2000.0
_OF_MELT_QUENCH = ("melt_temperature_K", "final_temperature_K", "melt_ps", "cooling_rate_K_ps", "final_ps")


class QuenchParam(MeltQuenchParam):
    """The production melt-quench with the final ensemble."""

    ensemble: Literal["nvt", "npt"] = Field(
        "nvt",
        description="constant volume, that of the glass's density, or constant pressure of 0 bar: of every hold and "
        "ramp that the models drive, but the transport stage of urata2022, which is at 0 bar in any case",
    )

    when: Literal["converged", "always"] = Field(
        "converged", description="always: also with an ensemble that is not converged"
    )
    protocol: ProtocolParam = Field(
        MELT_QUENCH,
        description="melt-quench: the three stages that melt_temperature_K, melt_ps, cooling_rate_K_ps, "
        "final_temperature_K and final_ps give; short: 28 ps from 2000 K; urata2022: the paper's; or stages of your "
        "own, one after the other",
    )
    runs: list[str] | None = Field(
        None, min_length=1, description="only these runs of a named protocol, such as 10Kps of urata2022"
    )
    melting_temperature_K: MeltingParam | None = Field(
        None,
        description="where short and urata2022 melt, for all glasses or by name of the glass; if not given 2000 for "
        "short, and for urata2022 the lowest of 1500, 1600 ... 2000 at which Si and B move by 2 Å in 20 ps with the "
        "force field",
    )
    force_field: str | None = Field(
        None,
        description="what drives classical stages, packs atoms where there are no cells to begin with, and tells where "
        "a glass melts: teter, bmp-shrm, shik, or the file of pair tables of your own; if not given the first of "
        "bootstrap.force_fields",
    )
    n_atoms: list[CellSize] | None = Field(
        None, min_length=1, description="cell sizes to quench; each glass's own if not given"
    )
    guard_records: CountOrZero = Field(
        3,
        description="with a converged ensemble: so many records in a row beyond the upper trust level stop a run, and "
        "frames of it are labelled and learnt before all are quenched again; 0: none is stopped",
    )
    final_training: FinalTrainingParam | None = Field(
        None, description='first train the ensemble longer on all labels, such as {"steps": 400000}'
    )
    relax: RelaxParam | None = Field(
        None, description="relax every glass with the labeler: 4B, 5Si and rings before and after are compared"
    )

    @field_validator("runs", "n_atoms")
    @classmethod
    def _distinct(cls, values: list[Any] | None) -> list[Any] | None:
        for index, value in enumerate(values or ()):
            if values and value in values[:index]:
                raise ValueError(f"{value} is given twice; give it once")
        return values

    @field_validator("protocol")
    @classmethod
    def _join_up(cls, protocol: Any) -> Any:
        if isinstance(protocol, list):
            segments([own.stage() for own in protocol])
        return protocol

    @model_validator(mode="after")
    def _fits_together(self) -> QuenchParam:
        fields = QuenchParam.model_fields
        idle = [key for key in _OF_MELT_QUENCH if getattr(self, key) != fields[key].default]
        if self.protocol != MELT_QUENCH and idle:
            told = f"{', '.join(idle)} count with protocol {MELT_QUENCH} only"
            raise ValueError(f"{told}; take them out, other protocols say it in their stages")
        if isinstance(self.protocol, list) and self.ensemble != fields["ensemble"].default:
            raise ValueError("ensemble is of protocols with a name; say it in each of your own stages")
        named = isinstance(self.protocol, str) and self.protocol in PROTOCOLS
        if not named and self.melting_temperature_K is not None:
            raise ValueError(f"melting_temperature_K is of protocols {' and '.join(PROTOCOLS)}; leave it out here")
        if not named and self.runs is not None:
            raise ValueError(f"runs are of protocols {' and '.join(PROTOCOLS)}; leave it out here")
        given = self.melting_temperature_K
        for melting_K in given.values() if isinstance(given, dict) else (given or _SHORT_MELT_K,):
            for stages in self.stages_of(melting_K).values():
                segments(stages)
                _check_engine(self.engine, stages)
        return self

    def stages_of(self, melting_K: float | None) -> dict[str, tuple[Stage, ...]]:
        """Return the stages of every run by its name, for a glass that melts at a temperature (None: none needed).

        ValueError for a run that the protocol does not have.
        """
        if isinstance(self.protocol, list):
            return {"": tuple(own.stage() for own in self.protocol)}
        if self.protocol == MELT_QUENCH:
            return {f"{self.cooling_rate_K_ps:g}Kps": self.melt_quench()}
        found = PROTOCOLS[self.protocol](melting_K or _SHORT_MELT_K)
        if unknown := [name for name in self.runs or () if name not in found]:
            raise ValueError(f"{self.protocol} has no run {', '.join(unknown)}; it has {', '.join(found)}")
        wanted = {name: stages for name, stages in found.items() if self.runs is None or name in self.runs}
        return {name: tuple(map(self._at_pressure, stages)) for name, stages in wanted.items()}

    def _at_pressure(self, stage: Stage) -> Stage:
        """Return a stage of a named protocol at 0 bar, if that is asked for and the ensemble drives it."""
        moves = stage.driver == "ensemble" and stage.kind != "minimise"
        return replace(stage, ensemble="npt") if self.ensemble == "npt" and moves else stage

    def given_melting_K(self, glass: str) -> float | None:
        """Return the melting temperature given for a glass, None if none is."""
        given = self.melting_temperature_K
        return given.get(glass) if isinstance(given, dict) else given

    def melting_sought(self, glass: str) -> bool:
        """Tell whether a glass's melting temperature is to be found by the rule."""
        return self.protocol == "urata2022" and self.given_melting_K(glass) is None

    @property
    def uses_force_field(self) -> bool:
        """Tell whether a classical force field drives some stages."""
        stages = [stage for run in self.stages_of(None).values() for stage in run]
        return any(stage.driver == "force_field" for stage in stages)
