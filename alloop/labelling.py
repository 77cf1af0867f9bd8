"""Labels of given structures, outside the loop: single points or relaxations with any labeler, each kept for good."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write
from rich.console import Console
from rich.progress import Progress

from alloop import config, labelers
from alloop.campaign import label_task
from alloop.errors import InputError
from alloop.label_params import CODES, LabelParam
from alloop.labelers import levels
from alloop.labelers.levels import Level, relax_content
from alloop.labelers.run_troubles import run_troubles
from alloop.potential.environment import md_environment
from alloop.store import Store, Task, failures, live_attempt, read_json, write_json
from alloop.structure import LabeledFrame, content_key, to_record
from alloop.tasks.label import read_label
from alloop.tasks.sources import read_structures_file

GROUP = "given"
"""Folder of these labels under ``iterations/``."""


@dataclass(frozen=True)
class Relaxation:
    """How structures are relaxed: until no force is larger, within so many steps, with the cell or without."""

    force_eV_A: float = 0.02
    steps: int = 200
    cell: bool = False

    def content(self, labeler: str) -> dict[str, Any]:
        """Return what enters the label's key; for VASP the INCAR tags of the relaxation."""
        return {"relax": relax_content(labeler, self.force_eV_A, self.steps, cell=self.cell)}


@dataclass(frozen=True)
class Given:
    """One structure to label: where it came from, its task, and its folder."""

    source: str
    task: Task
    folder: Path


def label_files(
    folder: Path,
    files: list[Path],
    labeler: str | None,
    relax: Relaxation | None,
    output: Path,
    console: Console,
) -> tuple[list[dict[str, Any]], str]:
    """Label all structures of some files and write `output`; return what came of each, and the level's name.

    With `labeler` a folder without `param.json` will do.
    """
    root = folder.resolve()
    elements: list[str] = []
    label, slots, threads = LabelParam(), len(os.sched_getaffinity(0)), 1
    if labeler is None or (root / "param.json").exists():
        param = config.load(root / "param.json")
        label, elements, slots, threads = (
            param.label,
            param.elements,
            config.slots(param),
            config.local_pool(param).threads,
        )
    if labeler is not None and labeler != label.labeler:
        if labeler in CODES:
            raise InputError(f"labeler {labeler} needs its section in param.json; set label.labeler there")
        label = LabelParam(labeler=labeler)
    problem = labelers.problem(label.labeler) if label.labeler not in CODES else None
    if problem:
        raise InputError(problem)
    for trouble in run_troubles(label, root):
        raise InputError(f"{trouble.where}: {trouble.found}\n  -> {trouble.remedy}")
    given, how, level = prepare(root, files, label, elements, relax)
    share = label.per_process or (8 if label.labeler in labelers.BUILT_IN else 1)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("labelling", total=len(given))
        died = run(given, how, slots=slots, threads=threads, share=share, ended=lambda _: progress.advance(bar))
    write_labels(output, given)
    return [outcome(one, died.get(one.task.key)) for one in given], level.name


def prepare(
    root: Path, files: list[Path], label: LabelParam, elements: list[str], relax: Relaxation | None
) -> tuple[list[Given], Path, Level]:
    """Return the tasks that label all structures of some files, and the file that says how; InputError for bad files.

    A structure that was labelled before at this level keeps its label: nothing is paid for twice.
    """
    frames: list[tuple[str, Atoms]] = []
    for file in files:
        try:
            found = read_structures_file(file)
        except ValueError as error:
            raise InputError(f"{error}\n  give files of structures with a cell, in any format ASE reads") from None
        frames += [(f"{file.stem}.{number:04d}", atoms) for number, atoms in enumerate(found)]
    unknown = sorted({symbol for _, atoms in frames for symbol in atoms.symbols} - set(elements))
    if unknown and label.labeler in CODES:
        lacking = f"the structures hold {', '.join(unknown)}, which elements {elements} of param.json lacks"
        raise InputError(f"{lacking}\n  add them there")
    level = levels.target_level(label, elements, root)
    content = level.content | (relax.content(label.labeler) if relax else {})
    if relax and label.labeler == "cp2k":
        raise InputError("cp2k cannot relax here; use vasp or a calculator")
    store = Store(root)
    settings = levels.run_settings(label, elements, root)
    how = store.iterations / GROUP / f"labels-{content_key(settings)[:8]}.json"  # others may label here meanwhile
    how.parent.mkdir(parents=True, exist_ok=True)
    write_json(how, settings)
    given = []
    for source, atoms in frames:
        task = label_task(GROUP, source, to_record(atoms), content, ())
        given.append(Given(source, task, store.prepare(task, "", {})))
    return given, how, level


def run(
    given: list[Given], how: Path, *, slots: int, threads: int, share: int, ended: Callable[[Given], None]
) -> dict[str, str]:
    """Label them, `share` in one process and `slots` processes at once, telling each as its process ends.

    Return, by key, what is known of those whose process died without a word of them.
    """
    died: dict[str, str] = {}
    waiting = [one for one in given if not (one.folder / "result").is_dir()]
    batches = [waiting[start : start + share] for start in range(0, len(waiting), share)]
    log = how.parent / "attempts.log"

    def attempt(batch: list[Given]) -> list[Given]:
        command = [sys.executable, "-m", "alloop.attempt", "--settings", str(how), *(str(one.folder) for one in batch)]
        before = [len(failures(one.folder)) for one in batch]
        with log.open("ab") as stream:
            done = subprocess.run(
                command,
                env=os.environ | md_environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                check=False,
            )
        for one, known in zip(batch, before, strict=True):
            untold = not (one.folder / "result").is_dir() and len(failures(one.folder)) == known
            if done.returncode and untold:
                died[one.task.key] = f"its process ended with code {done.returncode}; {log} has its output"
        return batch

    with ThreadPoolExecutor(slots) as pool:
        for batch in pool.map(attempt, batches):
            for one in batch:
                ended(one)
    return died


def outcome(one: Given, died: str | None = None) -> dict[str, Any]:
    """Return what came of a structure, as JSON: its label, or why there is none; died: what `run` tells of it."""
    record: dict[str, Any] = {"source": one.source, "key": one.task.key, "folder": str(one.folder)}
    if (one.folder / "result").is_dir():
        label = read_json(one.folder / "result" / "label.json")
        record |= {"labelled": True, "formula": Atoms(label["structure"]["symbols"]).get_chemical_formula()}
        record["energy_eV_atom"] = label["energy_eV"] / len(label["structure"]["symbols"])
        names = (
            "energy_eV",
            "max_force_eV_A",
            "seconds",
            "version",
            "flags",
            "corrections",
            "relaxation",
            "ionic_steps",
        )
        return record | {name: label[name] for name in names if name in label}
    if live_attempt(one.folder) is not None:
        last = {"class": "interrupted", "message": "another process labels it now; ask again when that has ended"}
        return record | {"labelled": False} | last
    if died:
        return record | {"labelled": False, "class": "crash", "message": died}
    failed = failures(one.folder)
    last = failed[-1] if failed else {"class": "interrupted", "message": "no attempt came to an end"}
    return record | {"labelled": False, "class": last["class"], "message": last["message"]}


def write_labels(path: Path, given: list[Given]) -> int:
    """Write the labels there are as extxyz with energy, forces and stress; return how many."""
    done = [one for one in given if (one.folder / "result").is_dir()]
    write(path, [as_atoms(read_label(one.folder / "result"), {"source": one.source}) for one in done], format="extxyz")
    return len(done)


def as_atoms(label: LabeledFrame, info: dict[str, Any]) -> Atoms:
    """Return a label as atoms whose calculator holds energy, forces and stress, -virial / volume."""
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = label.atoms.copy()
    stress_eV_A3 = -np.asarray(label.virial_eV) / atoms.get_volume()
    atoms.calc = SinglePointCalculator(atoms, energy=label.energy_eV, forces=label.forces_eV_A, stress=stress_eV_A3)
    atoms.info.update(info)
    return atoms
