"""Plans of misbehaviour: which structure meets which fault, how often, what cures it, and what is logged.

A plan is a JSON object; every key may be missing:

``seed``: integer from which faults are drawn; ``faults``: {fault: probability} per structure, at most one each;
``always``: one fault for all structures instead; ``only``: structure hashes, no other one meets a fault;
``transient``: {fault: n}, it acts in the first n runs of a structure only (needs ``state``);
``cures``: {fault: [cure, ...]} in place of CURES, for INCARs that hold a cure from the start;
``state``: folder for the number of runs of each structure; ``log``: file that gets one JSON line per run. Both are
relative to the plan's folder, and may be shared by processes that run at the same time.

Every fault that has a cure has a twin without any, its name ending in ``_forever``.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from double_inputs import Incar
from double_job import Job
from double_theory import drawn

CURES: dict[str, tuple[str, ...]] = {
    "nelm": ("nelm", "algo"),
    "edddav": ("algo",),
    "zpotrf": ("ncore", "algo", "fresh"),
    "brmix": ("mixing", "isym", "fresh"),
}
"""Cures by fault: ``nelm`` is NELM from 200, ``algo`` a better ALGO (CURING_ALGO), ``ncore`` NCORE = 1, ``fresh``
ISTART = 0 with ICHARG = 2, ``isym`` ISYM = 0, ``mixing`` any mixing tag. A tag cures only if the INCAR has it."""
CURING_ALGO = {
    "nelm": ("Normal", "All"),
    "edddav": ("All", "Damped", "VeryFast"),
    "zpotrf": ("All", "Damped"),
    "brmix": (),
}
MIXING_TAGS = ("AMIX", "BMIX", "AMIN", "AMIX_MAG", "BMIX_MAG", "IMIX", "MAXMIX", "WC", "INIMIX", "MIXPRE")
PATIENT_NELM = 200
FAULTS: tuple[str, ...] = (
    *CURES,
    *(f"{fault}_forever" for fault in CURES),
    *("hang", "crash", "walltime", "signal9", "full_disk", "empty"),
    *("nan_forces", "missing_stress", "merged_columns", "wrong_order", "wrong_cell", "disagree"),
)


@dataclass(frozen=True)
class Plan:
    """A plan as the module describes it; the default one has no faults and writes nothing."""

    seed: int = 0
    faults: dict[str, float] = field(default_factory=dict)
    always: str | None = None
    only: tuple[str, ...] | None = None
    transient: dict[str, int] = field(default_factory=dict)
    cures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    state: Path | None = None
    log: Path | None = None

    def __post_init__(self) -> None:
        named = [*self.faults, *self.transient, *self.cures, *([self.always] if self.always else [])]
        unknown = sorted(set(named) - set(FAULTS))
        if unknown:
            raise ValueError(f"unknown faults {', '.join(unknown)}; the double knows {', '.join(FAULTS)}")
        if sum(self.faults.values()) > 1 + 1e-9 or min(self.faults.values(), default=0.0) < 0:
            raise ValueError(f"probabilities of faults {self.faults} are negative or add up to more than 1")
        if self.transient and self.state is None:
            raise ValueError("transient faults need 'state', a folder for the numbers of runs")

    def fault(self, key: str) -> str | None:
        """Return the fault of a structure by its hash, None if it meets none."""
        if self.only is not None and key not in self.only:
            return None
        if self.always is not None:
            return self.always
        chance, edge = drawn(self.seed, key, "fault"), 0.0
        for fault in sorted(self.faults):
            edge += self.faults[fault]
            if chance < edge:
                return fault
        return None

    def acting(self, key: str, run: int, job: Job) -> str | None:
        """Return the fault that acts in run `run` (from 1) of a structure: not over and not cured by the INCAR."""
        fault = self.fault(key)
        if fault is None or run > self.transient.get(fault, run):
            return None
        return None if self._cured(fault, job) else fault

    def _cured(self, fault: str, job: Job) -> bool:
        return any(_applies(cure, fault, job) for cure in self.cures.get(fault, CURES.get(fault, ())))

    def count_run(self, key: str) -> int:
        """Count a run of a structure and return its number, from 1; always 1 without a state folder."""
        if self.state is None:
            return 1
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / key).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b".")
            file.flush()
            return os.fstat(file.fileno()).st_size

    def record(self, entry: dict[str, Any]) -> None:
        """Append one line to the log, whole also if other processes append at the same time."""
        if self.log is None:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(entry).encode() + b"\n")


def _applies(cure: str, fault: str, job: Job) -> bool:
    incar: Incar = job.incar
    if cure == "algo":
        return "ALGO" in incar.tags and job.algo in CURING_ALGO[fault]
    if cure == "fresh":
        return incar.integer("ISTART", 1) == 0 and incar.integer("ICHARG", 0) == 2
    if cure == "mixing":
        return any(tag in incar.tags for tag in MIXING_TAGS)
    if cure == "nelm":
        return job.nelm >= PATIENT_NELM
    tag, value = {"ncore": ("NCORE", 1), "isym": ("ISYM", 0)}[cure]
    return tag in incar.tags and incar.integer(tag, -1) == value


def read_plan(path: Path | None) -> Plan:
    """Return the plan of a JSON file, the plan without faults for None; ValueError names what is wrong in it."""
    if path is None:
        return Plan()
    content = json.loads(path.read_text())
    unknown = sorted(set(content) - set(Plan.__dataclass_fields__))
    if unknown:
        raise ValueError(f"unknown keys {', '.join(unknown)} in {path}; known: {', '.join(Plan.__dataclass_fields__)}")
    if content.get("only") is not None:
        content["only"] = tuple(content["only"])
    content["cures"] = {fault: tuple(cures) for fault, cures in content.get("cures", {}).items()}
    for name in ("state", "log"):
        if content.get(name):
            content[name] = path.resolve().parent / content[name]
    return Plan(**content)
