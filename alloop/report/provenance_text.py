"""The provenance of a label as text, one subject a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from alloop.campaign import flat

Line = tuple[str, str]
_ATOMS = 8  # of an event, told by their indices


def print_provenance(found: dict[str, Any], console: Console) -> None:
    """Print what `build_provenance` returns."""
    console.print(f"{found['name']}  {found['key']}", style="bold", markup=False, highlight=False, soft_wrap=True)
    for head, text in lines(found):
        console.print(f" {head:<11} {text}", markup=False, highlight=False, soft_wrap=True)


def lines(found: dict[str, Any]) -> Iterator[Line]:
    """Yield heading and text of every line; what belongs to the line above has no heading."""
    yield "status", _status(found)
    yield "folder", found["folder"]
    yield from _structure(found["structure"])
    yield from _level(found["level"])
    yield "selected", _selected(found["selection"])
    yield from _origin(found["origin"])
    yield from _hashes(found["hashes"])
    yield from _result(found["result"])
    yield from _attempts(found)
    yield from _quarantine(found)
    for other in found["other_levels"]:
        text = f"{other['level']}: {other['name']}-{other['key']} ({other['status']}; {other['relation']})"
        yield "also at", text
    for file in found["files"]:
        yield "file", f"{file['name']}, {file['bytes']} bytes"


def _status(found: dict[str, Any]) -> str:
    text = f"{found['status']}, {found['role'].replace('_', ' ')}"
    if found["imported"]:
        text += ", imported: its numbers came with the structure"
    if found["excluded"]:
        text += f"; EXCLUDED {found['excluded']['time']}: {found['excluded']['reason']}"
    if found["trained_in"]:
        text += f"; in the training set of iteration {', '.join(map(str, found['trained_in']))}"
    return text


def _structure(structure: dict[str, Any] | None) -> Iterator[Line]:
    if structure is None:
        yield "structure", "cannot be read: the result it was picked from is gone"
        return
    lengths = " ".join(f"{value:g}" for value in structure["lengths_A"])
    angles = " ".join(f"{value:g}" for value in structure["angles_deg"])
    yield "structure", f"{structure['formula']}, {structure['n_atoms']} atoms, {structure['density_g_cm3']:.3f} g/cm3"
    yield "", f"cell {lengths} A, {angles} deg, {structure['volume_A3']:g} A3"


def _level(level: dict[str, Any]) -> Iterator[Line]:
    yield "level", str(level["name"])
    for path, value in flat(level["content"]).items():
        if value not in ({}, None) and ".potcars." not in path:
            text = str(value)
            yield "", f"{path} = {text}" if "\n" not in text else f"{path}: {len(text.splitlines())} lines"


def _selected(selection: dict[str, Any]) -> str:
    iteration = selection["iteration"]
    parts = [f"reason {selection['reason']}", "bootstrap" if iteration < 0 else f"iteration {iteration}"]
    deviation_eV_A, temperature_K = selection["max_force_deviation_eV_A"], selection["temperature_K"]
    if deviation_eV_A is not None:
        parts.append(f"{selection['trust_class']}, largest force deviation {deviation_eV_A:.3f} eV/A")
    if selection["events"]:
        parts.append(f"events {', '.join(_event(event, selection) for event in selection['events'])}")
    if temperature_K is not None:
        band = f" (band {selection['band']})" if selection["band"] else ""
        parts.append(f"{temperature_K:.0f} K{band}")
    return "; ".join(parts)


def _event(event: str, selection: dict[str, Any]) -> str:
    atoms = selection["offending_atoms"].get(event, [])
    if not atoms:
        return event
    more = f" and {len(atoms) - _ATOMS} more" if len(atoms) > _ATOMS else ""
    return f"{event} (atoms {' '.join(map(str, atoms[:_ATOMS]))}{more})"


def _origin(origin: dict[str, Any]) -> Iterator[Line]:
    places = [f"{what} {origin[what]}" for what in ("chunk", "step", "frame") if origin[what] is not None]
    yield "from", f"trajectory {origin['trajectory']}, {', '.join(places)}"
    yield "", f"{origin['kind']} {origin['folder']}" + (f" of {origin['file']}" if origin["file"] else "")
    if origin["models"]:
        number = origin["ensemble_iteration"]
        which = "the ensemble" if number is None else f"the ensemble of iteration {number}"
        yield "", f"driven by {which}: {' '.join(origin['models'])}"


def _hashes(hashes: dict[str, Any]) -> Iterator[Line]:
    yield "hashes", f"structure {hashes['structure']}, level {hashes['level']}"
    if "incar" in hashes:
        spacing, mesh = hashes["kpoints"]["spacing_inv_A"], hashes["kpoints"]["mesh"]
        rule = "Gamma point" if spacing is None else f"spacing {spacing:g} 1/A"
        yield "", f"INCAR {hashes['incar']}, k-points {rule}" + (f" ({'x'.join(map(str, mesh))})" if mesh else "")
        for element, potcar in hashes["potcars"].items():
            yield "", f"POTCAR of {element}: {potcar['titel']}, sha256 {potcar['sha256']}"
    if "cp2k" in hashes:
        yield "", f"CP2K input, basis sets and potentials {hashes['cp2k']}"


def _result(result: dict[str, Any] | None) -> Iterator[Line]:
    if result is None:
        yield "result", "none"
        return
    yield (
        "result",
        f"{result['energy_eV']:.6f} eV ({result['energy_eV_atom']:.4f} eV/atom), largest force "
        f"{result['max_force_eV_A']:.3f} eV/A, pressure {result['pressure_GPa']:.2f} GPa",
    )
    if result["flags"]:
        yield "flags", ", ".join(result["flags"])
    if result["code"]:
        steps = ", ".join(map(str, result["electronic_steps"]))
        yield "code", f"{result['code']} {result['version']}, electronic steps {steps}, runs {result['runs']}"
    for number, correction in enumerate(result["corrections"], start=1):
        yield "", f"run {number} with {_settings(correction)}"


def _settings(correction: dict[str, Any]) -> str:
    return ", ".join(f"{tag} = {value}" for tag, value in correction.items()) or "nothing changed"


def _attempts(found: dict[str, Any]) -> Iterator[Line]:
    cost = found["cost"]
    lost = f", {cost['failed_core_hours']:.4f} of it in failed attempts" if cost["failed_core_hours"] else ""
    yield "cost", f"{cost['core_hours']:.4f} core-hours{lost}"
    for attempt in found["attempts"]:
        took = "" if attempt["seconds"] is None else f", {attempt['seconds']:.1f} s"
        said = f": {attempt['message']}" if attempt["message"] else ""
        text = f"{attempt['id']} on {attempt['host']}, {attempt['started']} to {attempt['ended'] or '?'}"
        yield "attempt", f"{text}{took}, {attempt['class']}{said}"
        for entry in attempt["tried"]:
            yield "", f"after {', '.join(entry['faults'])} tried {_settings(entry['next'])}"
    if found["retried"]:
        yield "retried", f"asked for again by a person {found['retried']}"


def _quarantine(found: dict[str, Any]) -> Iterator[Line]:
    record = found["quarantine"]
    if record is not None:
        yield "quarantine", f"{record['class']}, {record['time']}: {record['message']}"
        for line in record["log_tail"].splitlines():
            yield "", f"| {line}"
        yield "", f"mend the cause, then: alloop retry {found['key']}"
    for broken in found["broken_results"]:
        yield "broken", f"{broken['folder']}: {broken['problem']}"
