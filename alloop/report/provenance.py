"""The whole provenance of one label: why it was asked for, where its structure came from, what it was made with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from alloop import store
from alloop.campaign import Campaign
from alloop.cost import cores_of
from alloop.errors import InputError
from alloop.frames import read_ragged, read_structure
from alloop.labelers.vasp.inputs import kpoint_mesh
from alloop.potential.dataset import composition
from alloop.store import MANIFEST, read_json
from alloop.structure import Record, content_key, from_record

_FOLDER = re.compile(r"(?P<name>.+)-(?P<key>[0-9a-f]{4,16})(\.[0-9a-f]{6})?")
"""A task's folder, as `Task.folder` and, with a suffix, `Store.quarantine` name it; the key may be shortened."""
_PREFIX = re.compile(r"[0-9a-f]{4,16}")
_LISTED = 8
_DAMAGED = (OSError, ValueError, LookupError, TypeError)


# ---------------------------------------------------------------------------------------- finding


def find_label(campaign: Campaign, text: str) -> str:
    """Return the key of the label a person means, in a loaded campaign; InputError lists near ones if it is not one.

    text: a key, at least its first four digits, a name, name-key, or a path to or into the label's folder. A name
    that labels of several levels of theory bear means the one of the level that labels are asked for at now.
    """
    wanted, picks = text.strip(), campaign.state.picks
    if not picks:
        raise InputError(f"no label has been asked for in {campaign.root} yet\n  begin with: alloop run")
    if wanted in picks:
        return wanted
    for search in (_by_folder, _by_name, _by_prefix):
        found = search(campaign, wanted)
        if len(found) == 1:
            return found[0]
        if found:
            said = f"{text!r} may be any of {len(found)} labels; say which, by its key:"
            raise InputError("\n".join([said, *_listed(campaign, found)]))
    raise InputError(_unknown(campaign, wanted))


def _by_folder(campaign: Campaign, text: str) -> list[str]:
    path = Path(text)
    parts = [*path.parts, *(path.resolve().parts if path.exists() else ())]
    for part in reversed(parts):
        if named := _FOLDER.fullmatch(part):
            picks, key = campaign.state.picks, named["key"]
            if key in picks:
                return [key]
            found = [k for k, pick in picks.items() if k.startswith(key) and pick["name"] == named["name"]]
            if found:
                return found
    return []


def _by_name(campaign: Campaign, text: str) -> list[str]:
    state = campaign.state
    found = [key for key, pick in state.picks.items() if pick["name"] == text]
    present = [key for key in found if state.picks[key].get("level") == state.level]
    return present if len(present) == 1 else found


def _by_prefix(campaign: Campaign, text: str) -> list[str]:
    prefix = text.lower()
    return [key for key in campaign.state.picks if key.startswith(prefix)] if _PREFIX.fullmatch(prefix) else []


def _unknown(campaign: Campaign, text: str) -> str:
    state = campaign.state
    named = _FOLDER.fullmatch(Path(text).name)
    tail = named["name"] if named else Path(text).name
    other = state.tasks.get(named["key"] if named else text) or next(
        (task for task in state.tasks.values() if task.name == tail), None
    )
    said = f"no label {text!r} among the {len(state.picks)} of {campaign.root}"
    if other is not None and other.kind != "label":
        said = f"{text!r} is of kind {other.kind} ({other.folder}), and no label"
    keys: dict[str, list[str]] = {}
    for key, pick in state.picks.items():
        keys.setdefault(pick["name"], []).append(key)
    near = [name for name in keys if tail and name.startswith(tail)] or [name for name in keys if tail and tail in name]
    near = near or difflib.get_close_matches(tail, keys, n=_LISTED)
    found = [key for name in near for key in keys[name]]
    if not found:
        return f"{said}\n  give a key (or its first digits), a name or a folder below iterations/*/label"
    return "\n".join([f"{said}; near ones:", *_listed(campaign, found)])


def _listed(campaign: Campaign, keys: Iterable[str]) -> list[str]:
    state, keys = campaign.state, list(keys)
    lines = [
        f"  {state.picks[key]['name']}-{key}  ({state.picks[key].get('level')}, {state.status_of(key)})"
        for key in keys[:_LISTED]
    ]
    return lines + ([f"  ... and {len(keys) - _LISTED} more"] if len(keys) > _LISTED else [])


# ---------------------------------------------------------------------------------------- building


def build_provenance(campaign: Campaign, key: str) -> dict[str, Any]:
    """Return everything that is known of one label of a loaded campaign.

    What a label does not have (a result, a quarantine record, an ensemble behind it) is None. InputError if the
    label's own result cannot be read.
    """
    state = campaign.state
    pick, task = state.picks[key], state.tasks[key]
    folder = campaign.folder(key)
    structure = _structure(campaign, key)
    content = _level_content(campaign, pick)
    manifest = _manifest(campaign, key)
    tries = _attempts(folder, manifest)
    return {
        "key": key,
        "name": task.name,
        "folder": str(folder.relative_to(campaign.root)),
        "status": state.status_of(key),
        "role": pick["role"],
        "excluded": state.excluded.get(key),
        "imported": bool(pick.get("given")),
        "structure": _describe(structure, campaign.elements) if structure else None,
        "level": {"name": pick.get("level"), "content": content},
        "selection": _selection(pick) | {"offending_atoms": _offending(campaign, pick)},
        "origin": _origin(campaign, pick),
        "hashes": _hashes(structure, content),
        "result": _result(campaign, key, manifest),
        "attempts": tries,
        "retried": state.retried.get(key),
        "cost": _cost(manifest, tries),
        "quarantine": _quarantine(campaign, key),
        "broken_results": _broken(campaign, key),
        "other_levels": _other_levels(campaign, key),
        "trained_in": _trained_in(campaign, key),
        "files": _files(manifest),
    }


def _structure(campaign: Campaign, key: str) -> Record | None:
    """Return the structure the label was asked for, from the frame it was picked from or the task's own record."""
    source = campaign.state.picks[key]["source"]
    try:
        return read_structure(campaign.result(source["task"]), source["frame"])
    except _DAMAGED:
        pass
    try:
        return read_json(campaign.folder(key) / "task.json")["spec"]["structure"]
    except _DAMAGED:
        return None


def _describe(structure: Record, elements: list[str]) -> dict[str, Any]:
    atoms = from_record(structure)
    volume_A3 = float(atoms.get_volume())
    lengths_angles = [round(float(value), 4) for value in atoms.cell.cellpar()]
    return {
        "formula": composition(atoms, elements),
        "n_atoms": len(atoms),
        "cell_A": structure["cell_A"],
        "lengths_A": lengths_angles[:3],
        "angles_deg": lengths_angles[3:],
        "volume_A3": round(volume_A3, 4),
        "density_g_cm3": round(float(atoms.get_masses().sum()) * units._amu * 1e27 / volume_A3, 4),
    }


def _level_content(campaign: Campaign, pick: dict[str, Any]) -> dict[str, Any]:
    if pick.get("given"):
        return {"imported": pick["level"]}
    return campaign.state.levels.get(pick.get("level", ""), {})


def _selection(pick: dict[str, Any]) -> dict[str, Any]:
    keys = ("iteration", "reason", "trust_class", "max_force_deviation_eV_A", "events", "temperature_K", "stratum")
    return {key: pick.get(key) for key in (*keys, "band")}


def _offending(campaign: Campaign, pick: dict[str, Any]) -> dict[str, list[int]]:
    """Return, by event that the frame showed, the indices of the atoms that did; {} where that is not known."""
    try:
        found = read_ragged(campaign.result(pick["source"]["task"]))
        frame, showed = pick["source"]["frame"], pick.get("events") or ()
        return {event: found[f"offending:{event}"][frame].tolist() for event in showed}
    except _DAMAGED:
        return {}


def _origin(campaign: Campaign, pick: dict[str, Any]) -> dict[str, Any]:
    """Return the trajectory, the task whose frame it was, and the ensemble that drove that task, if any did."""
    state, source = campaign.state, pick["source"]
    task = state.tasks.get(source["task"])
    chunk = re.search(r"\.c(\d+)$", task.name) if task and task.kind == "explore" else None
    ensemble = re.match(r"iter\.(\d+)/", task.group) if task else None
    models = task.spec.get("models") if task else None
    return {
        "trajectory": pick["trajectory"],
        "chunk": int(chunk[1]) if chunk else None,
        "step": pick.get("step"),
        "frame": source["frame"],
        "task": source["task"],
        "kind": (task.spec.get("source") or task.kind) if task else None,
        "folder": f"iterations/{task.folder}" if task else None,
        "file": next(iter(task.files.values()), None) if task else None,
        "ensemble_iteration": int(ensemble[1]) if models and ensemble else None,
        "models": models,
    }


def _hashes(structure: Record | None, content: dict[str, Any]) -> dict[str, Any]:
    """Return the content hashes of what went into the label; each is the SHA-256's first 16 digits unless named so."""
    found: dict[str, Any] = {
        "structure": content_key(structure) if structure else None,
        "level": content_key(content) if content else None,
    }
    if "vasp" in content:
        own = content["vasp"]
        spacing = own["kpoint_spacing_inv_A"]
        mesh = kpoint_mesh(np.array(structure["cell_A"]), spacing) if structure else None
        found |= {
            "incar": content_key(own["incar"]),
            "kpoints": {"spacing_inv_A": spacing, "mesh": list(mesh) if mesh else None},
            "potcars": own["potcars"],
        }
    if "cp2k" in content:
        found["cp2k"] = content_key(content["cp2k"])
    return found


def _manifest(campaign: Campaign, key: str) -> dict[str, Any] | None:
    if key not in campaign.state.done:
        return None
    return _read(campaign.result(key) / MANIFEST)


def _read(file: Path) -> Any:
    try:
        return read_json(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}\n  the next alloop run makes this label anew") from None


def _result(campaign: Campaign, key: str, manifest: dict[str, Any] | None) -> dict[str, Any] | None:
    if manifest is None:
        return None
    label, record = _read(campaign.result(key) / "label.json"), manifest["record"]
    atoms, virial_eV = from_record(label["structure"]), np.array(label["virial_eV"])
    pressure_eV_A3 = float(np.trace(virial_eV)) / (3 * atoms.get_volume())
    notes = record.get("notes", {})
    return {
        "energy_eV": label["energy_eV"],
        "energy_eV_atom": label["energy_eV"] / len(atoms),
        "max_force_eV_A": label["max_force_eV_A"],
        "pressure_GPa": pressure_eV_A3 / units.GPa,
        "flags": label.get("flags", []),
        "code": label.get("code"),
        "version": label.get("version"),
        "potentials": label.get("potentials", []),
        "electronic_steps": label.get("electronic_steps", []),
        "ionic_steps": label.get("ionic_steps"),
        "corrections": label.get("corrections", []),
        "runs": notes.get("runs"),
        "return_code": label.get("return_code"),
        "seconds": label["seconds"],
        "host": record.get("host"),
        "alloop": record.get("alloop"),
        "python": label.get("python"),
    }


def _attempts(folder: Path, manifest: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return every attempt, oldest first; an interrupted one lasted until its last sign of life."""
    record = manifest["record"] if manifest else {}
    found = [_attempt(attempt, record) for attempt in store.attempts(folder)]
    if record and record.get("attempt") not in [attempt["id"] for attempt in found]:
        found.append(_ended_well({"id": record.get("attempt"), "started": record.get("started")}, record))
    return sorted(found, key=lambda attempt: attempt["started"] or "")


def _attempt(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    owner, failed, tried = (_read_if_there(folder / name) for name in _ATTEMPT_FILES)
    told = {"id": folder.name, "host": owner.get("host"), "pid": owner.get("pid"), "started": owner.get("started")}
    if folder.name == record.get("attempt"):
        return _ended_well(told, record)
    kind = failed.get("class")
    if kind is None:
        process = store.attempt_owner(folder)
        kind = "running" if process is not None and process.alive() else "gone"
    ended = failed.get("time") if kind != "interrupted" else None
    seconds = failed.get("seconds")
    return told | {
        "ended": ended,
        "class": kind,
        "message": failed.get("message"),
        "seconds": _seconds_between(told["started"], ended) if seconds is None else seconds,
        "cores": cores_of(failed if failed.get("cores") else owner),
        "tried": tried.get("tried", []),
    }


_ATTEMPT_FILES = ("attempt.json", "failed.json", "work/tried.json")


def _read_if_there(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {"tried": found}


def _ended_well(told: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    ended = {"ended": record.get("ended"), "class": "done", "message": None, "seconds": record["seconds"]}
    return {"host": record.get("host"), "pid": record.get("pid")} | told | ended | {"tried": []}


def _seconds_between(started: str | None, ended: str | None) -> float | None:
    try:
        return round((datetime.fromisoformat(ended or "") - datetime.fromisoformat(started or "")).total_seconds(), 3)
    except ValueError:
        return None


def _cost(manifest: dict[str, Any] | None, tries: list[dict[str, Any]]) -> dict[str, float | int]:
    """Return core-hours of the result and of the failed attempts before it."""
    lost = sum((attempt["seconds"] or 0.0) * attempt["cores"] for attempt in tries if attempt["class"] != "done") / 3600
    own = manifest["record"]["seconds"] * cores_of(manifest["record"]) / 3600 if manifest else 0.0
    return {"core_hours": round(own + lost, 6), "failed_core_hours": round(lost, 6), "attempts": len(tries)}


def _quarantine(campaign: Campaign, key: str) -> dict[str, Any] | None:
    record = campaign.state.quarantined.get(key)
    if record is None:
        return None
    tail = record.get("detail", "")
    for attempt in reversed(list(store.attempts(campaign.folder(key)))):
        if tail:
            break
        log = attempt / "log.txt"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.is_file() else ""
    return {"class": record.get("class"), "message": record["message"], "time": record.get("time"), "log_tail": tail}


def _broken(campaign: Campaign, key: str) -> list[dict[str, Any]]:
    """Return results of this label that were found damaged and put aside."""
    found = []
    for reason in sorted((campaign.store.iterations / "quarantine").glob(f"*-{key}.*.reason.json")):
        record = _read_if_there(reason)
        place = reason.with_name(reason.name.removesuffix(".reason.json"))
        found.append({"folder": str(place.relative_to(campaign.root)), "problem": record.get("problem")})
    return found


def _other_levels(campaign: Campaign, key: str) -> list[dict[str, Any]]:
    """Return the labels of the same structure at other levels of theory, in order of request."""
    state = campaign.state
    own = state.picks[key]
    return [
        {
            "key": other,
            "name": pick["name"],
            "level": pick.get("level"),
            "status": state.status_of(other),
            "relation": _relation(own, key, pick, other),
        }
        for other, pick in state.picks.items()
        if other != key and pick["source"] == own["source"]
    ]


def _relation(own: dict[str, Any], key: str, other: dict[str, Any], other_key: str) -> str:
    if own.get("of") == other_key:
        return "this one was made of it"
    return "was made of this one" if other.get("of") == key else "same structure"


def _trained_in(campaign: Campaign, key: str) -> list[int]:
    """Return the iterations whose ensemble was trained on this label."""
    return [
        iteration
        for (kind, iteration), decision in campaign.state.decisions.items()
        if kind in ("train", "pretrain") and key in decision["common"]["training"]
    ]


def _files(manifest: dict[str, Any] | None) -> list[dict[str, Any]]:
    files = manifest["files"] if manifest else {}
    return [{"name": name, "bytes": entry["size"], "sha256": entry["sha256"]} for name, entry in files.items()]
