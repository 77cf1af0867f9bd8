"""One tiny label per labeler and pool, on the very path the labels of a campaign take: `alloop check --live`."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from alloop import labelers, labelling
from alloop.campaign import Campaign, label_task
from alloop.config import Param, local_pool
from alloop.glass.composition import OXIDES, cell_length_A
from alloop.glass.melt_quench import random_start
from alloop.label_params import CODES
from alloop.labelers import levels
from alloop.labelers.code import tail
from alloop.labelers.vasp.inputs import kpoint_mesh
from alloop.labelling import Given
from alloop.pool_params import LOCAL, BatchPoolParam, pool_of
from alloop.pools.fleet import Fleet, open_fleet
from alloop.report.inputs import Inputs
from alloop.seeds import derived_seed
from alloop.store import Store, attempts, failures, write_json
from alloop.structure import to_record

_DRAWS = 64
_LOG_LINES = 20


@dataclass(frozen=True)
class Trial:
    """One label to try: the labeler, the level of theory it is made at, the command that makes it (codes), the pool."""

    labeler: str
    level: str
    content: dict[str, Any]
    command: str | None = None
    pool: str = LOCAL


def rehearse(campaign: Campaign, param: Param, inputs: list[Inputs]) -> Iterator[tuple[Trial, dict[str, Any] | None]]:
    """Label a tiny cell with every labeler, command and batch pool of a campaign, one after the other.

    Yields each trial twice: with None as it begins, and with what came of it as it ends. Works in a private folder of
    ``iterations/run/``, which stays if a label fails. InputError if the level of theory is not whole.
    """
    atoms = tiny_cell(param)
    place = campaign.run_folder / f"check-{uuid.uuid4().hex[:8]}"
    store = Store(place)
    wanted = trials(campaign, param, inputs, atoms)
    run_folder = store.iterations / "run"
    run_folder.mkdir(parents=True)
    write_json(run_folder / "labels.json", levels.run_settings(param.label, param.elements, campaign.root))
    batch = {trial.pool for trial in wanted} - {LOCAL}
    fleet = open_fleet(param, run_folder, uuid.uuid4().hex, 0) if batch else None
    failed = False
    try:
        for number, trial in enumerate(wanted):
            yield trial, None
            task = label_task("check", f"trial{number}", to_record(atoms), trial.content, (), {"reason": "candidate"})
            given = Given(trial.labeler, task, store.prepare(task, "", {}))
            if fleet is None or trial.pool == LOCAL:
                how, threads = run_folder / "labels.json", local_pool(param).threads
                labelling.run([given], how, slots=1, threads=threads, share=1, ended=lambda _: None)
                problem = None
            else:
                problem = _in_pool(fleet, trial.pool, given)
            record = _outcome(trial, given, len(atoms), run_folder, problem)
            failed = failed or not record["labelled"]
            yield trial, record
    finally:
        if fleet is not None:
            fleet.close(cancel_jobs=True)
    if not failed:
        shutil.rmtree(place)
        with contextlib.suppress(OSError):  # they hold more than this
            campaign.run_folder.rmdir()
            campaign.run_folder.parent.rmdir()


PATIENCE_SECONDS = 1800.0
"""So long a trial waits for a job of its pool to begin."""


def _in_pool(fleet: Fleet, pool: str, given: Given) -> str | None:
    """Label in a job of a batch pool; return why it could not even begin, or None."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (slots := fleet.pools[pool].free_slots()):
        fleet.demand({pool: (1, None)})
        fleet.wait(0.5)
        if time.monotonic() > deadline:
            troubles = "; ".join(fleet.troubles()) or "the queue shows it as waiting"
            return f"no job of pools.{pool} has begun in {PATIENCE_SECONDS / 60:.0f} minutes: {troubles}"
    fleet.start(slots[0], (given.task.key,), [given.folder])
    while not fleet.wait(0.5):
        fleet.demand({})
    return None


def told(trial: Trial, record: dict[str, Any] | None) -> tuple[str, str]:
    """Return how a person is told of a trial that begins (no record) or has ended: the mark of a failure, the text."""
    by = f" by `{trial.command}`" if trial.command else ""
    by += f" in a job of pools.{trial.pool}" if trial.pool != LOCAL else ""
    if record is None:
        return "", f"labelling a tiny cell with {trial.level}{by} ..."
    if record["labelled"]:
        numbers = f"{record['energy_eV']:.4f} eV, largest force {record['max_force_eV_A']:.2f} eV/Å"
        runs = f", {len(record['corrections'])} correction(s)" if record.get("corrections") else ""
        return "", f"  {record['formula']}: {numbers}, {record['seconds']:.1f} s, {record['version']}{runs}"
    log = "\n".join(f"      {line}" for line in record["log"].splitlines())
    found = f"{trial.level}{by}: {record['class']}: {record['message']}"
    return "x", f"{found}\n    end of its log:\n{log}\n    -> mend what it says; all files are in {record['folder']}"


def trials(campaign: Campaign, param: Param, inputs: list[Inputs], atoms: Atoms) -> list[Trial]:
    """Return the labels to try, each in the pool of the campaign's labels, and one of a force field in every other.

    The foundation's, the target's and, if its k-points run another command, the Gamma one. inputs: of the campaign's
    own structures, which say what commands its labels will run. Local pools other than that of the labels differ in
    nothing that could be tried.
    """
    pool = pool_of(param.pools, "label")
    plain = {"labeler": "teter-rehearsal", "options": {}}
    others = [
        Trial("teter-rehearsal", "a force field", plain, pool=name)
        for name, other in param.pools.items()
        if name != pool and isinstance(other, BatchPoolParam)
    ]
    found = [replace(trial, pool=pool) for trial in _label_trials(campaign, param, inputs, atoms)]
    return found + others


def _label_trials(campaign: Campaign, param: Param, inputs: list[Inputs], atoms: Atoms) -> list[Trial]:
    found = []
    if foundation := levels.foundation_level(param.label.foundation, campaign.root):
        found.append(Trial(foundation.content["labeler"], foundation.name, foundation.content))
    target = levels.target_level(param.label, param.elements, campaign.root)
    run = param.label.run
    if target.content["labeler"] not in CODES:
        return [*found, Trial(param.label.labeler, target.name, target.content)]
    command, vasp = run.command, target.content.get("vasp")
    gamma_only = vasp is not None and kpoint_mesh(atoms.cell.array, vasp["kpoint_spacing_inv_A"]) == (1, 1, 1)
    if gamma_only and run.command_gamma:
        command = run.command_gamma
    found.append(Trial(param.label.labeler, target.name, target.content, command))
    if vasp is not None and not gamma_only and any(entry.gamma for entry in inputs):
        content = target.content | {"vasp": vasp | {"kpoint_spacing_inv_A": None}}
        found.append(Trial(param.label.labeler, f"{target.name}, Gamma point only", content, run.command_gamma))
    return found


def tiny_cell(param: Param) -> Atoms:
    """Return a dozen atoms: a formula unit of each oxide of the glasses, two atoms of each further element.

    That leaves no electron without a partner. Random places in a cube at the density of the glass with most oxides, of
    many draws the one with the atoms farthest apart, measured in sums of covalent radii.
    """
    glasses = [entry.glass() for entry in param.glasses]
    counts: dict[str, int] = {}
    for oxide in sorted({oxide for glass in glasses for oxide in glass.mole_fractions}):
        for element, number in OXIDES[oxide].items():
            counts[element] = counts.get(element, 0) + number
    counts |= {element: 2 for element in param.elements if element not in counts}
    density_g_cm3 = max(glasses, key=lambda glass: len(glass.mole_fractions)).density_g_cm3
    length_A = cell_length_A(counts, density_g_cm3)
    rng = np.random.default_rng(derived_seed(param.seed, "check", "tiny"))
    return max((random_start(counts, length_A, rng) for _ in range(_DRAWS)), key=_clearance)


def _clearance(atoms: Atoms) -> float:
    radii_A = covalent_radii[[atomic_numbers[symbol] for symbol in atoms.get_chemical_symbols()]]
    ratios = atoms.get_all_distances(mic=True) / (radii_A[:, None] + radii_A[None, :])
    return float(ratios[~np.eye(len(atoms), dtype=bool)].min())


def _outcome(trial: Trial, given: Given, n_atoms: int, place: Path, problem: str | None) -> dict[str, Any]:
    """Return what came of a trial, as JSON: the label's numbers, or the failure's class, message and log."""
    record: dict[str, Any] = {
        "labeler": trial.labeler,
        "level": trial.level,
        "command": trial.command,
        "pool": trial.pool,
        "n_atoms": n_atoms,
    }
    record |= labelling.outcome(given)
    if record["labelled"]:
        del record["folder"]  # it is about to be removed
        return record | {"version": _version(trial.labeler, record.get("version"))}
    failed = failures(given.folder)
    log = given.folder / "attempts" / failed[-1]["attempt"] / "log.txt" if failed else place / "attempts.log"
    if not failed and (begun := list(attempts(given.folder))):
        log = begun[-1] / "log.txt"
    if problem is not None:
        record |= {"class": "infra", "message": problem}
    return record | {"log": tail(log, _LOG_LINES)}


def _version(labeler: str, told: str | None) -> str:
    """Return name and version of a code, as it tells it itself, or of the package a calculator comes from."""
    if labeler in CODES:
        return f"{labeler} {told or 'of unknown version'}"
    package = labelers.resolve(labeler, {})[0].partition(":")[0].partition(".")[0]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
