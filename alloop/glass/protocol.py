"""Protocols: the stages a glass goes through from its melt to what is analysed, and how they are cut into chunks.

A protocol is a list of stages. A *hold* keeps one temperature for a time, a *ramp* changes it linearly from that of the
stage before at a rate, and *minimise* relaxes a copy of the state at this point to the nearest energy minimum; the
trajectory itself goes on from where it was. Stages are driven by the ensemble of models or by a classical force field.

`PROTOCOLS` holds the named ones. A name stands for one or more runs, because a protocol may end in several ways;
runs that begin with the same stages share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

MELTING_TEMPERATURES_K = (1500.0, 1600.0, 1700.0, 1800.0, 1900.0, 2000.0)
"""Where a melting temperature is looked for: from 1500 to 2000 K, the range of Urata (2022), in steps of 100 K."""
MELTING_PS = 20.0
MELTING_DISPLACEMENT_A = 2.0
MELTING_FORMERS = ("Si", "B")


@dataclass(frozen=True)
class Stage:
    """One stage of a protocol; ValueError for values that do not make one.

    name: what the files of the stage are called. temperature_K: of a hold, or where a ramp ends. ps: length of a hold.
    rate_K_ps: of a ramp, positive up and down. ensemble: constant volume (nvt) or constant pressure of 0 bar (npt).
    driver: what gives the forces. analyse_ps: length at the stage's end whose frames are analysed, 0 for none.
    """

    name: str
    kind: Literal["hold", "ramp", "minimise"]
    temperature_K: float | None = None
    ps: float | None = None
    rate_K_ps: float | None = None
    ensemble: Literal["nvt", "npt"] = "nvt"
    driver: Literal["ensemble", "force_field"] = "ensemble"
    analyse_ps: float = 0.0

    def __post_init__(self) -> None:
        needed = {"hold": {"temperature_K", "ps"}, "ramp": {"temperature_K", "rate_K_ps"}, "minimise": set[str]()}
        if self.kind not in needed:
            raise ValueError(f"stage {self.name}: kind is {self.kind!r}; use {', '.join(needed)}")
        for key in ("temperature_K", "ps", "rate_K_ps"):
            value = getattr(self, key)
            if key in needed[self.kind] and not (value is not None and math.isfinite(value) and value > 0):
                found = "which is missing" if value is None else f"found {value}"
                raise ValueError(f"stage {self.name}: a {self.kind} needs {key} > 0, {found}")
            if key not in needed[self.kind] and value is not None:
                raise ValueError(f"stage {self.name}: a {self.kind} has no {key}; leave it out")
        if self.kind == "minimise" and (self.ensemble, self.driver) != ("nvt", "ensemble"):
            raise ValueError(
                f"stage {self.name}: a minimisation is with the ensemble, at fixed cell; leave ensemble and driver out"
            )
        if not self.analyse_ps >= 0:
            raise ValueError(f"stage {self.name}: analyse_ps is {self.analyse_ps}; give 0 or the ps at its end")


@dataclass(frozen=True)
class Segment:
    """A stage with its temperatures and length worked out; a minimisation has length 0 and the temperature before."""

    stage: Stage
    start_K: float
    end_K: float
    duration_ps: float


@dataclass(frozen=True)
class Chunk:
    """A piece of a segment, the unit that runs as one task; `part` counts from 0 within its stage.

    analyse_from_ps: the time within the chunk from which on frames are analysed, None if none are.
    """

    stage: Stage
    part: int
    start_K: float
    end_K: float
    duration_ps: float
    analyse_from_ps: float | None


def segments(stages: Sequence[Stage]) -> list[Segment]:
    """Return the segments of a protocol.

    ValueError if it is empty, does not begin with a hold, has two stages of one name, a ramp that goes nowhere,
    an analysis longer than its stage, or goes back from the ensemble to the force field.
    """
    if not stages or stages[0].kind != "hold":
        raise ValueError("a protocol begins with a hold, whose temperature the first velocities are drawn from")
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages are named {', '.join(names)}; give each a name of its own")
    found: list[Segment] = []
    now_K = float(stages[0].temperature_K or 0.0)
    for before, stage in zip([None, *stages[:-1]], stages, strict=True):
        if before is not None and before.driver == "ensemble" and stage.driver == "force_field":
            raise ValueError(f"stage {stage.name} returns to the force field; its stages come first")
        end_K = now_K if stage.temperature_K is None else stage.temperature_K
        duration_ps = stage.ps or 0.0
        start_K = end_K if stage.kind == "hold" else now_K
        if stage.rate_K_ps is not None:
            duration_ps = abs(end_K - start_K) / stage.rate_K_ps
            if duration_ps == 0:
                raise ValueError(f"stage {stage.name} ramps from {start_K:g} K to {end_K:g} K; use a hold")
        if stage.analyse_ps > duration_ps:
            raise ValueError(
                f"stage {stage.name} is {duration_ps:g} ps long; its last {stage.analyse_ps:g} ps cannot be analysed"
            )
        found.append(Segment(stage, start_K, end_K, duration_ps))
        now_K = end_K
    return found


def chunks(stages: Sequence[Stage], chunk_ps: float) -> list[Chunk]:
    """Return the pieces, none longer than about chunk_ps, that run one after the other; equally long within a stage."""
    if not chunk_ps > 0:
        raise ValueError(f"chunk_ps is {chunk_ps}; give the length of a chunk in ps, > 0")
    found = []
    for segment in segments(stages):
        parts = max(1, round(segment.duration_ps / chunk_ps))
        length_ps = segment.duration_ps / parts
        first_analysed_ps = segment.duration_ps - segment.stage.analyse_ps
        for part in range(parts):
            begin, end = (segment.start_K + (segment.end_K - segment.start_K) * k / parts for k in (part, part + 1))
            analysed = segment.stage.analyse_ps > 0 and (part + 1) * length_ps > first_analysed_ps + 1e-9
            from_ps = max(0.0, first_analysed_ps - part * length_ps) if analysed else None
            found.append(Chunk(segment.stage, part, begin, end, length_ps, from_ps))
    return found


def cooling_rate_K_ps(stages: Sequence[Stage]) -> float | None:
    """Return the rate of the last cooling of a protocol, None if it never cools."""
    cooled = [s.stage.rate_K_ps for s in segments(stages) if s.stage.kind == "ramp" and s.end_K < s.start_K]
    return cooled[-1] if cooled else None


def temperature_K(stages: Sequence[Stage], time_ps: float) -> float:
    """Return the thermostat's temperature at a time since the protocol began; after its end, the last one."""
    found = segments(stages)
    for segment in found:
        if time_ps <= segment.duration_ps and segment.duration_ps > 0:
            return segment.start_K + (segment.end_K - segment.start_K) * time_ps / segment.duration_ps
        time_ps -= segment.duration_ps
    return found[-1].end_K


def urata2022(melting_K: float) -> dict[str, tuple[Stage, ...]]:
    """Return the protocol of S. Urata's lithium borosilicate glasses (2022), by name of the run.

    A classical force field melts at 3500 K for 500 ps, cools at 1 K/ps and stays at 300 K for 300 ps. The models heat
    at 10 K/ps to the glass's melting temperature, mix for 200 ps, and cool at 10 K/ps to 300 K (`10Kps`), or only to
    1000 K, where they stay for 200, 400 or 600 ps, and then at 2 K/ps (`2Kps.200ps` ...: three branches of one melt).
    After 200 ps at 300 K, of which the last 100 are analysed, and a minimisation, 300 ps at 500 K and 0 bar follow for
    transport. The volume is that of the measured density but for the last stage.
    """
    begin = (
        Stage("classical-melt", "hold", 3500.0, ps=500.0, driver="force_field"),
        Stage("classical-cool", "ramp", 300.0, rate_K_ps=1.0, driver="force_field"),
        Stage("classical-glass", "hold", 300.0, ps=300.0, driver="force_field"),
        Stage("heat", "ramp", melting_K, rate_K_ps=10.0),
        Stage("mix", "hold", melting_K, ps=200.0),
    )
    end = (
        Stage("glass", "hold", 300.0, ps=200.0, analyse_ps=100.0),
        Stage("minimum", "minimise"),
        Stage("transport", "hold", 500.0, ps=300.0, ensemble="npt"),
    )
    runs: dict[str, tuple[Stage, ...]] = {"10Kps": (*begin, Stage("cool", "ramp", 300.0, rate_K_ps=10.0), *end)}
    for anneal_ps in (200.0, 400.0, 600.0):
        anneal = (
            Stage("cool-to-1000K", "ramp", 1000.0, rate_K_ps=10.0),
            Stage("anneal", "hold", 1000.0, ps=anneal_ps),
            Stage("cool", "ramp", 300.0, rate_K_ps=2.0),
        )
        runs[f"2Kps.{anneal_ps:.0f}ps"] = (*begin, *anneal, *end)
    return runs


def short(melting_K: float = 2000.0) -> dict[str, tuple[Stage, ...]]:
    """Return a protocol for a laptop: at most 30 ps in all from 2000 K, cooled at 100 K/ps, without a classical part.

    Far faster than an experiment and than the paper; what it makes compares only with the same protocol.
    """
    return {
        "100Kps": (
            Stage("melt", "hold", melting_K, ps=5.0),
            Stage("cool", "ramp", 300.0, rate_K_ps=100.0),
            Stage("glass", "hold", 300.0, ps=6.0, analyse_ps=5.0),
            Stage("minimum", "minimise"),
        )
    }


PROTOCOLS: dict[str, Callable[[float], dict[str, tuple[Stage, ...]]]] = {"short": short, "urata2022": urata2022}


def has_melted(moved_A: Mapping[str, float]) -> bool:
    """Tell whether every former present has moved by more than 2 Å, by its root mean square displacement.

    moved_A: by element; formers the glass lacks are absent. ValueError if there is no former.
    """
    formers = [moved_A[element] for element in MELTING_FORMERS if element in moved_A]
    if not formers:
        raise ValueError("neither Si nor B is among the displacements; a glass needs a network former to melt")
    return min(formers) > MELTING_DISPLACEMENT_A


def melting_temperature_K(rms_displacement_A: Mapping[float, Mapping[str, float]]) -> float:
    """Return the lowest temperature (K) at which every former present has moved by more than 2 Å in 20 ps.

    rms_displacement_A: by temperature, the root mean square displacement of each element in `MELTING_PS`, with the
    drift of the whole removed; formers the glass lacks are absent. The rule is this program's own: the temperatures
    that Urata (2022) used for each glass are not public. From an unaged liquid, as a campaign measures it, the
    temperature is a lower bound rather. ValueError if no former is there, or none is that mobile.
    """
    for temperature, moved in sorted(rms_displacement_A.items()):
        if has_melted(moved):
            return temperature
    tried = ", ".join(f"{temperature:g}" for temperature in sorted(rms_displacement_A))
    raise ValueError(
        f"no melt at {tried} K: Si and B move by less than {MELTING_DISPLACEMENT_A:g} Å in {MELTING_PS:g} ps; "
        "give a melting temperature of your own"
    )
