"""`param.json` as typed models: strict keys, units in names, defaults that make a useful campaign short."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, ValidationError, field_validator, model_validator

from alloop.errors import InputError
from alloop.glass.composition import OXIDES, TABLE_1, Glass, stoichiometric_counts
from alloop.label_params import LabelParam
from alloop.param_file import ConfigError, explain, not_an_object, read_json_object
from alloop.param_types import (
    CellSize,
    Count,
    CountOrZero,
    Element,
    Fraction,
    NonNegative,
    Positive,
    Real,
    Section,
    Seed,
    TwoOrMore,
    distinct,
)
from alloop.pool_params import LOCAL, LocalPoolParam, PoolsParam, check_pools, pool_slots
from alloop.quench_params import MeltQuenchParam, QuenchParam, RelaxParam, must_cool
from alloop.select_params import SelectParam
from alloop.stop_params import StopParam

Strain = Annotated[Real, Field(ge=0, lt=0.3)]


class GlassParam(Section):
    """One glass: one that is known by its name, or any name with mole fractions and a density."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        description="of a known glass, such as LBS-20-60-20 (mole percent SiO2-B2O3-Li2O), or your own",
    )
    mole_fractions: dict[str, NonNegative] | None = Field(None, description="of SiO2, B2O3, Li2O; sums to 1 or 100")
    density_g_cm3: Positive | None = Field(None, description="density at which the cells are made")
    n_atoms: list[CellSize] = Field([84], min_length=1, description="cell sizes wanted")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("n_atoms")
    @classmethod
    def _distinct(cls, values: list[int]) -> list[int]:
        return distinct(values)

    @model_validator(mode="after")
    def _complete(self) -> GlassParam:
        self.glass()
        return self

    def glass(self) -> Glass:
        """Return the composition; ValueError if neither its name nor the given numbers define it."""
        known = TABLE_1.get(self.name)
        if self.mole_fractions is None and self.density_g_cm3 is None:
            if known is None:
                kin = [name for name in TABLE_1 if name.partition("-")[0] == self.name.partition("-")[0]]
                near = difflib.get_close_matches(self.name, kin, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TABLE_1)}."
                raise ValueError(
                    f"{self.name!r} is not the name of a known lithium borosilicate glass; {hint} "
                    "For a glass of your own give mole_fractions and density_g_cm3"
                )
            return known
        fractions = self.mole_fractions or (known.mole_fractions if known else None)
        density = self.density_g_cm3 or (known.density_g_cm3 if known else None)
        if fractions is None or density is None:
            lacks = "mole_fractions" if fractions is None else "density_g_cm3"
            raise ValueError(f"glass {self.name!r} is not known by its name and lacks {lacks}; give both")
        same = known is not None and self.mole_fractions is None
        return Glass(self.name, fractions, density, known.experimental_4B if known and same else None)


class DataParam(Section):
    """Labelled data to start from, in any format dpdata reads."""

    path: str = Field(description="file or folder, from the campaign folder")
    format: str = Field("deepmd/npy", description="a dpdata format, such as vasp/outcar, cp2k/output, deepmd/npy")
    every: Count = Field(1, description="take every n-th frame, for AIMD trajectories")
    level: str = Field(description="name of the level of theory of these labels, as `alloop check` prints it")
    role: Literal["training", "held_out"] | None = Field(
        None, description="training for data that models have seen already; drawn by lot if not given"
    )


class BootstrapParam(Section):
    """Starting configurations: classical melt-quench, crystals, and your own."""

    force_fields: list[str] = Field(
        ["teter"],
        min_length=1,
        description="of the melt-quench runs and the crystals' dynamics, in turn: teter, bmp-shrm, shik, or the file "
        "of pair tables of your own",
    )
    trajectories: CountOrZero = Field(
        2, description="melt-quench runs per glass and cell size; at least 2, or 0 for none"
    )
    melt_temperature_K: Positive = Field(3500.0, description="where a run starts")
    final_temperature_K: Positive = Field(300.0, description="where a run ends")
    melt_ps: Positive = Field(5.0, description="time at the melt temperature")
    quench_ps: Positive = Field(12.0, description="time of the cooling")
    timestep_fs: Positive = Field(1.0, description="time step of the MD")
    snapshots: TwoOrMore = Field(20, description="snapshots per run, from melt to final temperature")
    strained_copies: CountOrZero = Field(4, description="strained and rattled copies per run")
    max_strain: Strain = Field(0.04, description="largest strain of a copy, as a fraction of the cell vectors")
    rattle_A: NonNegative = Field(0.03, description="standard deviation of the random displacements of a copy")
    crystals: list[str] = Field([], description="names of built-in crystals to perturb, or files ASE can read")
    crystal_copies: Count = Field(4, description="perturbed copies of each crystal")
    crystal_md_K: list[Positive] = Field(
        [], description="temperatures of short NVT runs of each crystal, which give as many copies each"
    )
    crystal_md_ps: Positive = Field(2.0, description="length of these runs, of which the second half is used")
    structures: list[str] = Field([], description="files of unlabelled structures, any ASE format")
    data: list[DataParam] = Field([], description="labelled data, any dpdata format")
    held_out_fraction: Fraction = Field(0.25, description="share of the trajectories that is never trained on")

    @field_validator("force_fields", "crystal_md_K")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        return distinct(values)

    @model_validator(mode="after")
    def _can_run(self) -> BootstrapParam:
        if self.crystal_md_K and not self.crystals:
            raise ValueError("crystal_md_K is given, but there are no crystals; name some in crystals")
        if self.trajectories == 1:
            raise ValueError("trajectories is 1; at least 2 are needed, so that one can be held out (or 0 for none)")
        must_cool(self.melt_temperature_K, self.final_temperature_K)
        if self.quench_ps * 1000 / self.timestep_fs < self.snapshots - 1:
            raise ValueError(
                f"{self.snapshots} snapshots do not fit into quench_ps {self.quench_ps:g}; cool longer or keep fewer"
            )
        return self


class TrainParam(Section):
    """The ensemble of DeePMD models."""

    models: TwoOrMore = Field(4, description="K, the size of the ensemble")
    backend: Literal["tensorflow", "pytorch", "jax"] = Field(
        "tensorflow",
        description="what DeePMD computes with; pytorch and jax: pip install 'alloop[pytorch]', 'alloop[jax]'",
    )
    template: str = Field("deepmd/input.json", description="DeePMD input, looked up in templates/")
    cutoff_A: Positive = Field(6.0, description="radius of the models' descriptor")
    smoothing_A: Positive = Field(0.5, description="where the switching function begins (the paper: 5.8)")
    neuron: list[Count] | None = Field(None, description="embedding net; template's if not given")
    axis_neuron: Count | None = Field(None, description="width of the axis filter; template's if not given")
    fitting_neuron: list[Count] | None = Field(None, description="fitting net; template's if not given")
    after_labels: Count | None = Field(
        None,
        description="training labels of an ensemble that start the next one; a third of select.max_labels if not given",
    )
    steps: Count = Field(40000, description="training steps of the first ensemble")
    warm_steps: Count = Field(20000, description="training steps of an ensemble that starts from the last one")
    warm_start: StrictBool = Field(True, description="start an ensemble from the weights of the last one")
    init_models: list[str] = Field(
        [], description="DeePMD checkpoints (model.ckpt, model.pt) to start the first ensemble from, one per model"
    )
    learning_rate: Positive = Field(2e-3, description="at the start of the first training")
    warm_learning_rate: Positive = Field(1e-3, description="at the start of a warm-started training")
    final_learning_rate: Positive = Field(1e-5, description="at the end of every training")
    save_every: Count = Field(500, description="steps between checkpoints")
    compress: StrictBool = Field(True, description="compress the models, which makes MD several times faster")
    resume: Literal["checkpoint", "scratch"] = Field("checkpoint", description="how a killed training goes on")
    short_range: Literal["zbl"] | None = Field(
        None,
        description="repulsive wall where atoms all but overlap, for tensorflow only; zbl: the screened repulsion of "
        "nuclei, alone below 0.5 Å, blended out by 0.8 Å, where no sound structure is; a change trains from scratch",
    )

    @model_validator(mode="after")
    def _wall_lasts(self) -> TrainParam:
        if self.short_range is not None and self.backend != "tensorflow":
            raise ValueError(
                f"short_range is {self.short_range}, backend {self.backend}: only with tensorflow is the wall known to "
                "outlast freezing, compression and a warm start; set backend to tensorflow, or short_range to null"
            )
        return self

    @model_validator(mode="after")
    def _smoothing_inside(self) -> TrainParam:
        if self.smoothing_A >= self.cutoff_A:
            raise ValueError(
                f"smoothing_A is {self.smoothing_A}, cutoff_A {self.cutoff_A}; smoothing must begin inside"
            )
        if self.init_models and len(self.init_models) != self.models:
            raise ValueError(
                f"init_models names {len(self.init_models)} checkpoint(s) for {self.models} models; "
                "name one per model, or none"
            )
        if self.final_learning_rate >= min(self.learning_rate, self.warm_learning_rate):
            raise ValueError(
                f"final_learning_rate is {self.final_learning_rate:g}; it must be below learning_rate "
                f"{self.learning_rate:g} and warm_learning_rate {self.warm_learning_rate:g}"
            )
        return self


class RampParam(Section):
    """A heating or cooling ramp of the exploration, run over all chunks of a trajectory."""

    from_K: Positive = Field(description="temperature at the start")
    to_K: Positive = Field(description="temperature at the end")


class ExploreParam(Section):
    """Molecular dynamics driven by the ensemble."""

    engine: Literal["lammps", "ase"] = Field("lammps", description="program that runs the MD")
    temperatures_K: list[Positive] = Field(
        [300.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0, 3500.0], description="of the runs at constant temperature"
    )
    ramps: list[RampParam] = Field(
        [RampParam(from_K=300, to_K=3000), RampParam(from_K=3000, to_K=300)], description="heating and cooling runs"
    )
    ensembles: list[Literal["nvt", "npt"]] = Field(
        ["nvt"], min_length=1, description="constant volume, constant pressure, or both"
    )
    pressure_bar: Real = Field(0.0, description="pressure of npt runs")
    trajectories: Count = Field(2, description="per glass, cell size, temperature or ramp, and ensemble")
    chunks: Count = Field(2, description="chunks per trajectory in one iteration")
    chunk_ps: Positive = Field(5.0, description="length of a chunk, the unit of exploration that runs as one task")
    max_lag: CountOrZero = Field(
        0, description="a chunk that has not begun when so many newer ensembles exist, plus one, is withdrawn"
    )
    max_backlog: Count | None = Field(
        None, description="no chunk begins while so many frames wait for a label; 4 x select.max_labels if not given"
    )
    timestep_fs: Positive = Field(1.0, description="time step of the MD")
    deviation_every: Count = Field(20, description="steps between records of the ensemble's deviation")
    lost_eV_A: Positive = Field(20.0, description="deviation at which a trajectory is given up")
    frames_per_chunk: Count = Field(20, description="candidate frames a chunk brings home at most")

    @field_validator("temperatures_K", "ramps", "ensembles")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        return distinct(values)

    @model_validator(mode="after")
    def _something_to_run(self) -> ExploreParam:
        if not self.temperatures_K and not self.ramps:
            raise ValueError("temperatures_K and ramps are both empty; give at least one temperature or ramp")
        return self


class BudgetParam(Section):
    """What the campaign may use up in all, failed attempts included; what is not given is not limited."""

    core_hours: Positive | None = Field(None, description="on all pools together")
    gpu_hours: Positive | None = Field(None, description="on all pools together")
    labels: Count | None = Field(None, description="finished labels, but for imported ones")
    free_disk_GB: NonNegative = Field(
        1.0, description="nothing new begins while less is free where results are written"
    )
    when_used_up: Literal["stop", "warn"] = Field(
        "stop", description="stop: what runs may end, nothing further is started; warn: go on and say so in status"
    )


class NotifyParam(Section):
    """Who hears of the end or the pause of a run."""

    command: str | None = Field(
        None, description="shell command; told by ALLOOP_EVENT, ALLOOP_MESSAGE, ALLOOP_CAMPAIGN and ALLOOP_FOLDER"
    )

    @field_validator("command")
    @classmethod
    def _says_something(cls, command: str | None) -> str | None:
        if command is not None and not command.strip():
            raise ValueError("command is empty; give one, such as 'mail -s \"$ALLOOP_EVENT\" me', or null for none")
        return command


class Param(Section):
    """The whole of `param.json`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the campaign")
    seed: Seed = Field(0, description="all seeds of the campaign derive from it")
    elements: list[Element] = Field(["Li", "B", "O", "Si"], min_length=1, description="the models' type map, in order")
    glasses: list[GlassParam] = Field([], description="glasses to explore and to quench")
    bootstrap: BootstrapParam = BootstrapParam()
    train: TrainParam = TrainParam()
    explore: ExploreParam = ExploreParam()
    select: SelectParam = SelectParam()
    label: LabelParam = LabelParam()
    stop: StopParam = StopParam()
    quench: QuenchParam | None = None
    pools: PoolsParam = Field({LOCAL: LocalPoolParam()}, description="where the work runs, by name of the pool")
    budget: BudgetParam = BudgetParam()
    notify: NotifyParam = NotifyParam()

    @model_validator(mode="after")
    def _consistent(self) -> Param:
        if len(set(self.elements)) != len(self.elements):
            raise ValueError(f"elements names one twice: {self.elements}")
        names = [glass.name for glass in self.glasses]
        if len(set(names)) != len(names):
            raise ValueError(f"two glasses have one name: {names}; give each its own, and cell sizes as n_atoms")
        for param in self.glasses:
            needed = {element for oxide in param.glass().mole_fractions for element in OXIDES[oxide]}
            missing = needed - set(self.elements)
            if missing:
                raise ValueError(f"glass {param.name} holds {sorted(missing)}, which `elements` {self.elements} lacks")
        if self.explore.engine == "ase" and "npt" in self.explore.ensembles and self.explore.ramps:
            raise ValueError(
                "explore: the ase engine has no NPT ramps; use engine lammps, or leave npt or the ramps out"
            )
        quenches: dict[str, MeltQuenchParam | None] = {"quench": self.quench, "stop.probe": self.stop.probe}
        engines = {"explore": self.explore.engine} | {name: own.engine for name, own in quenches.items() if own}
        if self.train.backend == "jax" and "lammps" in engines.values():
            wrong = " and ".join(f"{section}.engine" for section, engine in engines.items() if engine == "lammps")
            raise ValueError(
                f"train.backend is jax, so {wrong} must be ase: "
                "the LAMMPS of DeePMD 3.2 crashes with more than one JAX model"
            )
        if self.label.foundation and not self.train.warm_start:
            raise ValueError(
                "train.warm_start is false, so nothing learnt from label.foundation would last; "
                "set it to true, or leave label.foundation out"
            )
        if self.label.foundation and self.label.foundation.iterations > self.stop.max_iterations:
            raise ValueError(
                f"label.foundation.iterations is {self.label.foundation.iterations}, stop.max_iterations "
                f"{self.stop.max_iterations}: label.labeler would never label; lower the one or raise the other"
            )
        check_pools(self.pools)
        self._check_audit()
        self._check_references()
        self._check_relaxing()
        self._check_quench()
        if not self.glasses:
            raise ValueError("glasses is empty; name at least one, such as LBS-20-60-20")
        if self.bootstrap.trajectories == 0 and not (self.bootstrap.structures or self.bootstrap.data):
            raise ValueError(
                "bootstrap.trajectories is 0 and bootstrap gives neither structures nor data to start from"
            )
        return self

    def _check_audit(self) -> None:
        if self.select.audit_labels:
            return
        if self.select.trust == "calibrated":
            raise ValueError(
                "select.audit is 0 and select.trust calibrated: only labels of the audit calibrate; "
                "set audit to 1 or more, or trust to fixed"
            )
        if self.stop.audit_force_rmse_eV_A is not None:
            raise ValueError(
                "select.audit is 0 and stop.audit_force_rmse_eV_A given, which only labels of the audit can measure; "
                "set audit to 1 or more, or leave the criterion out"
            )

    def _check_quench(self) -> None:
        named = self.quench.melting_temperature_K if self.quench else None
        unknown = sorted(named.keys() - {glass.name for glass in self.glasses}) if isinstance(named, dict) else []
        if unknown:
            raise ValueError(f"quench.melting_temperature_K names {', '.join(unknown)}; name glasses of the campaign")
        for size in (self.quench.n_atoms or ()) if self.quench else ():
            for entry in self.glasses:
                stoichiometric_counts(entry.glass(), size)
        if self.quench and self.quench.relax:
            for entry in self.glasses:
                self._check_relax("quench", entry, self.quench.n_atoms or entry.n_atoms, self.quench.relax)

    def _check_relaxing(self) -> None:
        probe, relax = self.stop.probe, self.stop.relax
        if probe is None or relax is None:
            return
        cells = min(math.prod(supercell) for supercell in probe.supercells)
        for entry in self.glasses:
            self._check_relax("stop", entry, entry.n_atoms, relax, cells)

    def _check_relax(
        self, section: str, entry: GlassParam, sizes: list[int], relax: RelaxParam, cells: int = 1
    ) -> None:
        smallest = cells * min(sum(stoichiometric_counts(entry.glass(), wanted).values()) for wanted in sizes)
        if self.label.labeler == "cp2k":
            raise ValueError(f"{section}.relax: relaxing by cp2k is not supported; leave it out, or label otherwise")
        if smallest > relax.largest_atoms:
            raise ValueError(
                f"{section}.relax.largest_atoms is {relax.largest_atoms}, and the smallest cell of {entry.name} "
                f"has {smallest} atoms: nothing could be relaxed; raise the one or make the cells smaller"
            )

    def _check_references(self) -> None:
        for number, own in enumerate(self.stop.reference):
            where = f"stop.reference[{number}]"
            if own.glass not in (names := [glass.name for glass in self.glasses]):
                raise ValueError(f"{where}.glass is {own.glass}, the campaign has {', '.join(names)}; name one of them")
            if own.temperature_K not in self.explore.temperatures_K or "nvt" not in self.explore.ensembles:
                raise ValueError(
                    f"{where}.temperature_K is {own.temperature_K:g}, which explore does not hold at constant volume; "
                    "add it to explore.temperatures_K, to compare like with like"
                )
            if own.skip_ps >= (explored_ps := self.explore.chunks * self.explore.chunk_ps):
                raise ValueError(
                    f"{where}.skip_ps is {own.skip_ps:g}, a trajectory takes {explored_ps:g} ps per iteration: "
                    "nothing would be left to compare; skip less, or raise explore.chunks"
                )
            if self.explore.trajectories < 3:
                raise ValueError(
                    f"explore.trajectories is {self.explore.trajectories}; {where} compares replicas, so give 3 or more"
                )


def slots(param: Param) -> int:
    """Return how many tasks run at once, over all pools."""
    return sum(map(pool_slots, param.pools.values()))


def local_pool(param: Param) -> LocalPoolParam:
    """Return the pool on the driver's machine that always exists."""
    pool = param.pools[LOCAL]
    assert isinstance(pool, LocalPoolParam)
    return pool


def load(path: Path) -> Param:
    """Read `param.json`; InputError lists every problem with its key and a remedy."""
    return parse(read_json_object(path), str(path))


def parse(data: Any, source: str = "param.json") -> Param:
    """Return the typed configuration of already decoded JSON; ConfigError lists every problem."""
    if not isinstance(data, dict):
        raise InputError(not_an_object(data, source))
    try:
        return Param.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, [explain(item, Param) for item in error.errors()], data) from None


def steps(duration_ps: float, timestep_fs: float, multiple: int = 1) -> int:
    """Return the number of MD steps of a duration, rounded up to a multiple; at least one multiple."""
    return max(1, math.ceil(round(duration_ps * 1000.0 / timestep_fs / multiple, 6))) * multiple
