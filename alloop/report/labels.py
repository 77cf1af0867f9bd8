"""What came of given structures and of judged outputs, as tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alloop.labelers.vasp.judge import find_outputs, judge_run
from alloop.labelers.verdict import Verdict


def judge_outputs(folder: Path, force_ceiling_eV_A: float | None = None) -> list[dict[str, Any]]:
    """Return the verdict on every output of VASP and CP2K at and below a folder, as JSON records."""
    from alloop.labelers.cp2k.judge import find_cp2k_outputs, judge_cp2k

    found: list[tuple[str, Verdict]] = [
        (run.name, judge_run(run, force_ceiling_eV_A=force_ceiling_eV_A)) for run in find_outputs(folder)
    ]
    found += [
        (str(file.relative_to(folder)) if file != folder else file.name, judge_cp2k(file))
        for file in find_cp2k_outputs(folder)
    ]
    return [_record(name, verdict) for name, verdict in found]


def _record(name: str, verdict: Verdict) -> dict[str, Any]:
    frame = verdict.frame if verdict.trusted else None
    return {
        "name": name,
        "trusted": verdict.trusted,
        "fault": verdict.fault,
        "message": verdict.message,
        "code": verdict.code,
        "version": verdict.version,
        "ionic_steps": verdict.ionic_steps,
        "electronic_steps": list(verdict.electronic_steps),
        "flags": list(verdict.flags),
        "potentials": list(verdict.potentials),
        "formula": frame.atoms.get_chemical_formula() if frame else None,
        "energy_eV": frame.energy_eV if frame else None,
    }


def print_verdicts(records: list[dict[str, Any]], console: Console) -> None:
    """Print the verdicts as a table, and how many there are of each kind."""
    table = Table("output", "code", "verdict", "what was found", title="outputs judged")
    for record in records:
        verdict = "[green]trusted[/green]" if record["trusted"] else f"[red]{record['fault']}[/red]"
        flags = f" [yellow]{', '.join(record['flags'])}[/yellow]" if record["flags"] else ""
        code = f"{record['code']} {(record['version'] or '?').split()[0]}"
        table.add_row(record["name"], code, verdict + flags, record["message"])
    console.print(table)
    counts = Counter("trusted" if record["trusted"] else record["fault"] for record in records)
    console.print(", ".join(f"{count} {what}" for what, count in counts.most_common()), highlight=False)


def print_labels(records: list[dict[str, Any]], level: str, console: Console) -> None:
    """Print what came of every structure."""
    table = Table(
        "structure", "formula", "eV/atom", "max force eV/\u00c5", "seconds", "remarks", title=f"labels of {level}"
    )
    for record in records:
        if not record["labelled"]:
            table.add_row(record["source"], "-", "-", "-", "-", f"[red]{record['class']}[/red]: {record['message']}")
            continue
        remarks = [*record.get("flags", [])]
        if record.get("corrections"):
            remarks.append(f"{len(record['corrections'])} correction(s)")
        if "relaxation" in record:
            remarks.append(f"relaxed in {record['relaxation']['steps']} steps")
        energy, force = f"{record['energy_eV_atom']:.4f}", f"{record['max_force_eV_A']:.3f}"
        table.add_row(
            record["source"], record["formula"], energy, force, f"{record['seconds']:.1f}", ", ".join(remarks)
        )
    console.print(table)
