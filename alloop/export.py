"""Hand out what a campaign has: labelled data of one level of theory, and the ensemble that was trained on it."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write

from alloop import __version__
from alloop.campaign import Campaign
from alloop.errors import InputError
from alloop.labelling import as_atoms
from alloop.potential.dataset import composition, write_systems
from alloop.store import filled_folder, read_json, write_json
from alloop.structure import LabeledFrame
from alloop.tasks.label import read_label

ROLES = ("training", "held_out")
EXCLUDED = "excluded"
RECORD = "export.json"
NOT_CONVERGED = "NOT_CONVERGED.txt"


@dataclass(frozen=True)
class Request:
    """What is wanted: formats of FORMATS, level of theory by name, roles, and whether what a person excluded too.

    link: refer to the campaign's model files by symbolic links instead of copying them.
    """

    formats: tuple[str, ...]
    level: str
    roles: tuple[str, ...]
    excluded: bool = False
    link: bool = False


@dataclass(frozen=True)
class Label:
    """One label to hand out; group: the set it goes to, its role or `excluded`."""

    key: str
    group: str
    frame: LabeledFrame
    record: dict[str, Any]


def parse_request(
    campaign: Campaign, formats: str, level: str | None, role: str, *, excluded: bool = False, link: bool = False
) -> Request:
    """Return the request of a command line on a loaded campaign; InputError names what is unknown."""
    names = tuple(dict.fromkeys(name.strip() for name in formats.split(",") if name.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise InputError(
            f"--format {formats!r} names {', '.join(unknown) or 'none'}, which is no format\n"
            f"  there are: {', '.join(FORMATS)}; several with commas between"
        )
    if role not in (*ROLES, "all"):
        raise InputError(f"--role {role!r} is none of {', '.join(ROLES)}, all")
    wanted = level or campaign.state.target_level
    if wanted is None:
        raise InputError(f"no campaign has begun in {campaign.root}\n  begin with: alloop run")
    return Request(names, wanted, ROLES if role == "all" else (role,), excluded, link)


def export(campaign: Campaign, directory: Path, request: Request) -> dict[str, Any]:
    """Write the labels and models of a loaded campaign into a new or empty folder; return its ``export.json``.

    All of it is written aside first and ``export.json`` is put in place last, so what a folder with it holds is whole.
    Only labels of one level of theory are ever in it. InputError for a folder that holds something, or if no label
    answers the request.
    """
    directory = directory.resolve()
    with filled_folder(directory, last=RECORD) as folder:
        labels = wanted_labels(campaign, request)
        places: dict[str, dict[str, Any]] = {label.key: {} for label in labels}
        written = {name: FORMATS[name](campaign, labels, folder, places) for name in request.formats}
        _write_table(campaign, labels, places, folder / "labels.csv")
        ensemble = _write_ensemble(campaign, request, folder)
        record = _record(campaign, request, labels, written, ensemble)
        write_json(folder / RECORD, record)
    return record


def summary_lines(record: dict[str, Any], directory: Path) -> list[str]:
    """Return what a person reads of an export."""
    labels = record["labels"]
    parts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in labels.items() if what != "all")
    left = record["excluded_left_out"]
    lines = [f"{labels['all']} labels of {record['level']['name']} ({parts}) written to {directory}"]
    lines += [f" {left} excluded label(s) left out; --excluded brings them too"] * bool(left)
    lines += [f" model {model}" for model in record["ensemble"]["models"]]
    lines += [f" no models: {record['ensemble']['reason']}"] * (not record["ensemble"]["models"])
    return lines + [f" warning: {warning}" for warning in record["warnings"]]


# ---------------------------------------------------------------------------------------- labels


def wanted_labels(campaign: Campaign, request: Request) -> list[Label]:
    """Return the finished labels that answer the request, in order of request of the campaign."""
    state = campaign.state
    found = []
    for key, pick in state.picks.items():
        if key not in state.done or pick.get("level") != request.level or pick["role"] not in request.roles:
            continue
        if key not in state.excluded or request.excluded:
            group = EXCLUDED if key in state.excluded else pick["role"]
            found.append(_read(campaign, key, group))
    if not found:
        raise InputError(_nothing(campaign, request))
    return found


def _read(campaign: Campaign, key: str, group: str) -> Label:
    result = campaign.result(key)
    try:
        return Label(key, group, read_label(result), read_json(result / "label.json"))
    except (OSError, ValueError, LookupError) as error:
        raise InputError(
            f"{result / 'label.json'} cannot be read: {type(error).__name__}: {error}\n"
            "  the next alloop run makes this label anew"
        ) from None


def _nothing(campaign: Campaign, request: Request) -> str:
    state = campaign.state
    there = Counter(str(pick.get("level")) for key, pick in state.picks.items() if key in state.done)
    what = " or ".join(request.roles).replace("_", " ")
    said = f"no finished label of {request.level} is {what}" + (" and not excluded" if not request.excluded else "")
    levels = ", ".join(f"{count} of {level}" for level, count in there.items()) or "none yet"
    return f"{said}; finished labels: {levels}\n  name another level with --level, or wait for labels: alloop status"


def _groups(labels: list[Label]) -> dict[str, list[Label]]:
    found: dict[str, list[Label]] = {}
    for label in labels:
        found.setdefault(label.group, []).append(label)
    return found


# ---------------------------------------------------------------------------------------- formats


def _write_npy(campaign: Campaign, labels: list[Label], folder: Path, places: dict[str, dict[str, Any]]) -> list[str]:
    """Write ``npy/<group>/<stoichiometry>``, systems of deepmd/npy; note system and frame of every label."""
    written = []
    for group, members in _groups(labels).items():
        place = folder / "npy" / group
        systems = write_systems([label.frame for label in members], place, campaign.elements)
        written += [str(system.relative_to(folder)) for system in systems]
        counts: Counter[str] = Counter()
        for label in members:
            formula = composition(label.frame.atoms, campaign.elements)
            places[label.key] |= {"npy_system": f"npy/{group}/{formula}", "npy_frame": counts[formula]}
            counts[formula] += 1
    return written


def _write_extxyz(
    campaign: Campaign, labels: list[Label], folder: Path, places: dict[str, dict[str, Any]]
) -> list[str]:
    """Write ``<group>.extxyz``: energy (eV), forces (eV/Å), stress (eV/Å³, ASE's sign) and where each frame is from."""
    written = []
    for group, members in _groups(labels).items():
        name = f"{group}.extxyz"
        write(folder / name, (_to_atoms(campaign, label) for label in members), format="extxyz")
        written.append(name)
        for number, label in enumerate(members):
            places[label.key] |= {"extxyz_frame": number}
    return written


def _to_atoms(campaign: Campaign, label: Label) -> Atoms:
    pick = campaign.state.picks[label.key]
    told = {key: pick[key] for key in ("name", "iteration", "reason", "level")}
    return as_atoms(label.frame, {"label": label.key, "role": label.group} | told)


FORMATS: dict[str, Callable[..., list[str]]] = {"npy": _write_npy, "extxyz": _write_extxyz}
"""What labels can be written as, and who writes it: returns the names written, and notes where each label is."""

_COLUMNS = (
    *("label", "name", "role", "excluded", "level", "imported", "iteration", "reason", "trajectory", "temperature_K"),
    *("max_force_deviation_eV_A", "formula", "n_atoms", "energy_eV", "max_force_eV_A", "code", "flags"),
    *("npy_system", "npy_frame", "extxyz_frame"),
)


def _write_table(campaign: Campaign, labels: list[Label], places: dict[str, dict[str, Any]], file: Path) -> None:
    """Write one row per label, with where in the written data it is."""
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, _COLUMNS, restval="")
        table.writeheader()
        for label in labels:
            pick, record = campaign.state.picks[label.key], label.record
            row = {name: pick.get(name) for name in _COLUMNS if pick.get(name) is not None}
            row |= {
                "label": label.key,
                "excluded": campaign.state.excluded.get(label.key, {}).get("reason", ""),
                "imported": int(bool(pick.get("given"))),
                "formula": composition(label.frame.atoms, campaign.elements),
                "n_atoms": len(label.frame.atoms),
                "energy_eV": label.frame.energy_eV,
                "max_force_eV_A": record["max_force_eV_A"],
                "code": _code(record),
                "flags": " ".join(record.get("flags", ())),
            }
            table.writerow(row | places[label.key])


def _code(record: dict[str, Any]) -> str:
    return f"{record['code']} {record.get('version')}" if record.get("code") else ""


# ---------------------------------------------------------------------------------------- models


def final_ensemble(campaign: Campaign, level: str) -> int | None:
    """Return the iteration of the newest complete ensemble trained on labels of this level, None if there is none."""
    state = campaign.state
    for iteration in range(state.iteration, -1, -1):
        decision = state.decisions.get(("train", iteration))
        if decision is None or state.open("train", iteration) or len(decision["tasks"]) != len(state.models(iteration)):
            continue
        if all(state.picks[key].get("level") == level for key in decision["common"]["training"]):
            return iteration
    return None


def _write_ensemble(campaign: Campaign, request: Request, folder: Path) -> dict[str, Any]:
    """Write ``models/``, marked if the ensemble is not converged; return what `export.json` says of it."""
    state, iteration = campaign.state, final_ensemble(campaign, request.level)
    if iteration is None:
        reason = f"no complete ensemble has been trained on labels of {request.level}"
        return {"iteration": None, "models": [], "converged": False, "reason": reason}
    verdict, earlier = state.judgement(iteration), state.judgement(iteration - 1)
    converged = bool(verdict and verdict["converged"])
    reason = str(verdict["reason"]) if verdict else "this ensemble was trained last, and nothing was explored with it"
    if not verdict and earlier:
        reason += f"; before it: {earlier['reason']}"
    models = [_put_model(campaign, key, folder, link=request.link) for key in state.models_of_glass(iteration)]
    if not converged:
        text = f"The ensemble of iteration {iteration} is NOT converged: {reason}\n"
        (folder / "models" / NOT_CONVERGED).write_text(text)
    return {"iteration": iteration, "models": models, "converged": converged, "reason": reason}


def _put_model(campaign: Campaign, key: str, folder: Path, *, link: bool) -> str:
    """Copy or link one model's result; return the path of the file that drives dynamics."""
    result, task = campaign.result(key), campaign.state.tasks[key]
    place = folder / "models" / f"{task.name}-{key}"
    place.parent.mkdir(exist_ok=True)
    if link:
        place.symlink_to(result, target_is_directory=True)
    else:
        shutil.copytree(result, place)
    return f"models/{place.name}/{campaign.summary(key)['model']}"


# ---------------------------------------------------------------------------------------- the record


def _record(
    campaign: Campaign, request: Request, labels: list[Label], written: dict[str, Any], ensemble: dict[str, Any]
) -> dict[str, Any]:
    state = campaign.state
    codes = Counter(_code(label.record) or "not said" for label in labels)
    warnings = []
    if not ensemble["converged"] and ensemble["models"]:
        warnings.append(f"the ensemble is NOT converged: {ensemble['reason']}")
    if len(codes) > 1:
        warnings.append("labels come from " + ", ".join(f"{code} ({count})" for code, count in codes.items()))
    if request.level != state.target_level:
        warnings.append(f"these labels are of {request.level}; the campaign's own level is {state.target_level}")
    left_out = _left_out(campaign, request)
    return {
        "campaign": state.identity["name"],
        "campaign_id": state.identity["id"],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "alloop": __version__,
        "level": {"name": request.level, "content": state.levels.get(request.level, {"imported": request.level})},
        "codes": dict(codes),
        "type_map": campaign.elements,
        "labels": dict(Counter(label.group for label in labels)) | {"all": len(labels)},
        "excluded_left_out": left_out,
        "formats": list(request.formats),
        "written": written,
        "ensemble": ensemble,
        "converged": ensemble["converged"],
        "warnings": warnings,
        "units": _UNITS,
    }


_UNITS = {
    "npy": "eV, eV/A; virial in eV, minus stress times volume; atoms sorted by type",
    "extxyz": "eV, eV/A; stress in eV/A^3 in ASE's sign, minus virial over volume; atoms in the order of the label",
}


def _left_out(campaign: Campaign, request: Request) -> int:
    """Return how many finished labels of this level and these roles are not written, as a person excluded them."""
    state = campaign.state
    if request.excluded:
        return 0
    return sum(
        key in state.done and pick.get("level") == request.level and pick["role"] in request.roles
        for key, pick in state.picks.items()
        if key in state.excluded
    )
