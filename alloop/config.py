"""`param.json` as typed models: strict keys, units in names, defaults that make a useful campaign short."""

from __future__ import annotations

import difflib
import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from alloop.errors import InputError
from alloop.glass.composition import OXIDES, TABLE_1, Glass
from alloop.structure import content_key

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of `param.json`: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GlassParam(Section):
    """One glass: a name of the paper's Table 1, or any name with mole fractions and a density."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Table 1 name, such as LBS-20-60-20, or your own"
    )
    mole_fractions: dict[str, NonNegative] | None = Field(None, description="of SiO2, B2O3, Li2O; sums to 1 or 100")
    density_g_cm3: Positive | None = Field(None, description="density at which the cells are made")
    n_atoms: list[Annotated[int, Field(ge=12, le=20000)]] = Field([84], min_length=1, description="cell sizes wanted")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> GlassParam:
        self.glass()
        return self

    def glass(self) -> Glass:
        """Return the composition; ValueError if neither Table 1 nor the given numbers define it."""
        known = TABLE_1.get(self.name)
        if self.mole_fractions is None and self.density_g_cm3 is None:
            if known is None:
                near = difflib.get_close_matches(self.name, TABLE_1, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"{self.name!r} is not a glass of Table 1{hint} "
                    "Give mole_fractions and density_g_cm3 for a glass of your own"
                )
            return known
        fractions = self.mole_fractions or (known.mole_fractions if known else None)
        density = self.density_g_cm3 or (known.density_g_cm3 if known else None)
        if fractions is None or density is None:
            raise ValueError(f"glass {self.name!r} needs both mole_fractions and density_g_cm3")
        same = known is not None and self.mole_fractions is None
        return Glass(self.name, fractions, density, known.experimental_4B if known and same else None)


class DataParam(Section):
    """Labelled data to start from, in any format dpdata reads."""

    path: str
    format: str = Field("deepmd/npy", description="a dpdata format, such as vasp/outcar, cp2k/output, deepmd/npy")
    every: Count = Field(1, description="take every n-th frame, for AIMD trajectories")
    level: str = Field(description="level of theory of these labels; must equal label.level, or they are refused")


class BootstrapParam(Section):
    """Starting configurations: classical melt-quench with the Teter potential, crystals, and your own."""

    trajectories: Annotated[int, Field(ge=0)] = Field(
        2, description="melt-quench runs per glass and cell size; at least 2, or 0 for none"
    )
    melt_temperature_K: Positive = 3500.0
    final_temperature_K: Positive = 300.0
    melt_ps: Positive = 5.0
    quench_ps: Positive = 12.0
    timestep_fs: Positive = 1.0
    snapshots: Annotated[int, Field(ge=2)] = Field(20, description="snapshots per run, from melt to final temperature")
    strained_copies: Annotated[int, Field(ge=0)] = Field(4, description="strained and rattled copies per run")
    max_strain: Annotated[float, Field(ge=0, lt=0.3)] = 0.04
    rattle_A: NonNegative = 0.03
    crystals: list[str] = Field([], description="names of built-in crystals to perturb, or files ASE can read")
    crystal_copies: Count = 4
    structures: list[str] = Field([], description="files of unlabelled structures, any ASE format")
    data: list[DataParam] = Field([], description="labelled data, any dpdata format")
    held_out_fraction: Fraction = Field(0.25, description="share of the trajectories that is never trained on")

    @model_validator(mode="after")
    def _two_trajectories(self) -> BootstrapParam:
        if self.trajectories == 1:
            raise ValueError("trajectories is 1; at least 2 are needed, so that one can be held out (or 0 for none)")
        return self


class TrainParam(Section):
    """The ensemble of DeePMD models."""

    models: Annotated[int, Field(ge=2)] = Field(4, description="K, the size of the ensemble")
    backend: Literal["tensorflow", "pytorch", "jax"] = "tensorflow"
    template: str = Field("deepmd/input.json", description="DeePMD input, looked up in templates/")
    cutoff_A: Positive = 6.0
    smoothing_A: Positive = Field(0.5, description="where the switching function begins (the paper: 5.8)")
    neuron: list[Count] | None = Field(None, description="embedding net; template's if not given")
    axis_neuron: Count | None = None
    fitting_neuron: list[Count] | None = Field(None, description="fitting net; template's if not given")
    steps: Count = Field(40000, description="training steps of the first ensemble")
    warm_steps: Count = Field(20000, description="training steps of an ensemble that starts from the last one")
    warm_start: bool = True
    learning_rate: Positive = Field(2e-3, description="at the start of the first training")
    warm_learning_rate: Positive = Field(1e-3, description="at the start of a warm-started training")
    final_learning_rate: Positive = 1e-5
    save_every: Count = Field(500, description="steps between checkpoints")
    compress: bool = True
    resume: Literal["checkpoint", "scratch"] = Field("checkpoint", description="how a killed training goes on")

    @model_validator(mode="after")
    def _smoothing_inside(self) -> TrainParam:
        if self.smoothing_A >= self.cutoff_A:
            raise ValueError(
                f"smoothing_A is {self.smoothing_A}, cutoff_A {self.cutoff_A}; smoothing must begin inside"
            )
        return self


class RampParam(Section):
    """A heating or cooling ramp of the exploration, run over all chunks of a trajectory."""

    from_K: Positive
    to_K: Positive


class ExploreParam(Section):
    """Molecular dynamics driven by the ensemble."""

    engine: Literal["lammps", "ase"] = "lammps"
    temperatures_K: list[Positive] = Field([300.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0, 3500.0])
    ramps: list[RampParam] = Field([RampParam(from_K=300, to_K=3000), RampParam(from_K=3000, to_K=300)])
    ensembles: list[Literal["nvt", "npt"]] = Field(["nvt"], min_length=1)
    pressure_bar: float = 0.0
    trajectories: Count = Field(2, description="per glass, cell size, temperature or ramp, and ensemble")
    chunks: Count = Field(2, description="chunks per trajectory in one iteration")
    chunk_ps: Positive = 5.0
    timestep_fs: Positive = 1.0
    deviation_every: Count = Field(20, description="steps between records of the ensemble's deviation")
    lost_eV_A: Positive = Field(20.0, description="deviation at which a trajectory is given up")
    frames_per_chunk: Count = Field(20, description="candidate frames a chunk brings home at most")


class SelectParam(Section):
    """Which explored configurations are labelled."""

    trust_low_eV_A: Positive = 0.25
    trust_high_eV_A: Positive = 1.0
    max_labels: Count = Field(100, description="labels asked for in one iteration at most, events and audit included")
    max_per_trajectory: Count = 8
    min_separation_ps: NonNegative = Field(0.05, description="between two picks of one trajectory")
    audit: Annotated[int, Field(ge=0)] = Field(5, description="random picks from the accurate region per iteration")
    event_quota: dict[Literal["overlap", "five_coordinated_Si"], Annotated[int, Field(ge=0)]] = Field(
        {"overlap": 5, "five_coordinated_Si": 5}, description="labels per event and iteration"
    )
    held_out_fraction: Fraction = Field(0.15, description="share of exploration trajectories never trained on")

    @model_validator(mode="after")
    def _ordered(self) -> SelectParam:
        if self.trust_low_eV_A >= self.trust_high_eV_A:
            raise ValueError(
                f"trust_low_eV_A is {self.trust_low_eV_A}, trust_high_eV_A {self.trust_high_eV_A}; low must be below high"
            )
        return self


class LabelParam(Section):
    """Who labels. Its content is the level of theory: it cannot change within a campaign."""

    labeler: str = Field("sevennet-0", description="sevennet-0, chgnet, teter-rehearsal, or package.module:Calculator")
    options: dict[str, Any] = Field({}, description="keyword arguments of the calculator")
    max_attempts: Count = Field(3, description="failures after which a label is quarantined")
    per_process: Count | None = Field(
        None, description="labels that share a process; if not given 32 for the built-in labelers, 1 for others"
    )

    def level_of_theory(self) -> dict[str, Any]:
        """Return what of this section decides a label's numbers."""
        return {"labeler": self.labeler, "options": self.options}

    @property
    def level(self) -> str:
        """Return the name of the level of theory: the labeler, and a hash of its options if it has any."""
        return self.labeler + (f"-{content_key(self.options)[:6]}" if self.options else "")


class StopParam(Section):
    """When the campaign is converged, and when it gives up."""

    max_iterations: Count = 20
    accurate_fraction: Fraction = 0.98
    force_rmse_eV_A: Positive = Field(0.20, description="on the newest labels AND on the held-out sets")


class QuenchParam(Section):
    """The production melt-quench with the final ensemble."""

    when: Literal["converged", "always"] = "converged"
    engine: Literal["lammps", "ase"] = "lammps"
    ensemble: Literal["nvt", "npt"] = "nvt"
    melt_temperature_K: Positive = 2000.0
    final_temperature_K: Positive = 300.0
    melt_ps: Positive = 20.0
    cooling_rate_K_ps: Positive = 10.0
    final_ps: Positive = 20.0
    chunk_ps: Positive = 10.0
    timestep_fs: Positive = 1.0
    deviation_every: Count = 20
    frame_every_ps: Positive = Field(0.5, description="between saved frames")
    replicas: Count = 1

    @model_validator(mode="after")
    def _cools(self) -> QuenchParam:
        if self.final_temperature_K >= self.melt_temperature_K:
            raise ValueError(
                f"final_temperature_K is {self.final_temperature_K}, melt_temperature_K {self.melt_temperature_K}; "
                "a quench must cool"
            )
        return self


class LocalPoolParam(Section):
    """Work on this machine, through a dask LocalCluster."""

    slots: Count | None = Field(None, description="tasks at once; the number of cores if not given")
    threads: Count = Field(1, description="threads per task")


class PoolsParam(Section):
    """Where the work runs."""

    local: LocalPoolParam = LocalPoolParam()


def _known_element(symbol: str) -> str:
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"{symbol!r} is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_known_element)]


class Param(Section):
    """The whole of `param.json`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the campaign")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="all seeds of the campaign derive from it")
    elements: list[Element] = Field(["Li", "B", "O", "Si"], min_length=1, description="the models' type map, in order")
    glasses: list[GlassParam] = Field([], description="glasses to explore and to quench")
    bootstrap: BootstrapParam = BootstrapParam()
    train: TrainParam = TrainParam()
    explore: ExploreParam = ExploreParam()
    select: SelectParam = SelectParam()
    label: LabelParam = LabelParam()
    stop: StopParam = StopParam()
    quench: QuenchParam | None = None
    pools: PoolsParam = PoolsParam()

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
        if not self.glasses:
            raise ValueError("glasses is empty; name at least one, such as LBS-20-60-20")
        if self.bootstrap.trajectories == 0 and not (self.bootstrap.structures or self.bootstrap.data):
            raise ValueError(
                "bootstrap.trajectories is 0 and bootstrap gives neither structures nor data to start from"
            )
        for data in self.bootstrap.data:
            if data.level != self.label.level:
                raise ValueError(
                    f"bootstrap.data {data.path!r} has level {data.level!r}, labels have {self.label.level!r}; "
                    "one model cannot learn two levels of theory"
                )
        return self


def slots(param: Param) -> int:
    """Return how many tasks run at once on the local pool: as given, or one per usable core."""
    return param.pools.local.slots or len(os.sched_getaffinity(0))


def load(path: Path) -> Param:
    """Read `param.json`; InputError lists every problem with its key and a remedy."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise InputError(
            f"no {path.name} in {path.parent}\n  expected a campaign folder; make one with: alloop init DIR --example quickstart"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}\n  (is the file cut short, or a comma missing?)") from None
    return parse(data, str(path))


def parse(data: Any, source: str = "param.json") -> Param:
    """Return the typed configuration of already decoded JSON; InputError lists every problem."""
    if not isinstance(data, dict):
        raise InputError(f"{source}: found a {type(data).__name__}, expected an object with sections")
    try:
        return Param.model_validate(data)
    except ValidationError as error:
        lines = [f"{source}: {len(error.errors())} problem(s)"]
        lines += [f"  {_explain(item)}" for item in error.errors()]
        raise InputError("\n".join(lines)) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number a campaign can use")


def _explain(item: Any) -> str:
    location = list(item["loc"])
    where = ".".join(str(part) for part in location) or "param.json"
    if item["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    message = item["msg"].removeprefix("Value error, ")
    found = item.get("input")
    shown = "" if isinstance(found, dict | list) or item["type"] == "value_error" else f" (found {found!r})"
    if item["type"] == "missing":
        message, shown = "is missing", ""
    return f"{where}: {message}{shown}"


def _known_keys(location: list[Any]) -> list[str]:
    model: Any = Param
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        model = _section_of(field.annotation)
        if model is None:
            return []
    return list(model.model_fields)


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_of(argument)
        if found is not None:
            return found
    return None


def steps(duration_ps: float, timestep_fs: float, multiple: int = 1) -> int:
    """Return the number of MD steps of a duration, rounded up to a multiple; at least one multiple."""
    return max(1, math.ceil(round(duration_ps * 1000.0 / timestep_fs / multiple, 6))) * multiple


def schema_rows() -> list[tuple[str, str, str, str]]:
    """Return (key, type, default, meaning) of every setting, for the readable schema."""
    rows: list[tuple[str, str, str, str]] = []

    def walk(model: type[BaseModel], prefix: str) -> None:
        for key, field in model.model_fields.items():
            section = _section_of(field.annotation)
            kind = str(field.annotation).replace("typing.", "").replace("alloop.config.", "")
            kind = field.annotation.__name__ if isinstance(field.annotation, type) else kind
            default = "required" if field.is_required() else json.dumps(field.default, default=lambda value: "...")
            if section is not None:
                listed = "[]" if "list" in str(field.annotation) else ""
                rows.append((prefix + key + listed, "section", "", (section.__doc__ or "").split("\n")[0]))
                walk(section, f"{prefix}{key}{listed}.")
            else:
                rows.append((prefix + key, kind, default, field.description or ""))

    walk(Param, "")
    return rows
