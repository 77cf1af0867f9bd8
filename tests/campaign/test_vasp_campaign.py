"""Campaigns labelled by VASP's double: a label that fails costs one label, and none is ever wrong.

Dynamics and evaluations are doubles, and trainings where nothing hangs on them: `test_kill_and_resume` has them all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import vasp_double
from harness import TINY, alloop, assert_counts_add_up, write_param
from quick_kit import PYTHON, quick_environment

from alloop.campaign import Campaign
from alloop.glass.crystals import crystal
from alloop.store import read_json
from alloop.tasks.label import read_label

pytestmark = [pytest.mark.slow, pytest.mark.ci]

SMALL_TRAIN: dict[str, Any] = {"neuron": [4], "axis_neuron": 2, "fitting_neuron": [8], "compress": False}
SMALL_TRAIN |= {"steps": 100, "warm_steps": 50, "save_every": 50}
SMALL: dict[str, Any] = {
    "elements": ["Li", "O", "Si"],
    "glasses": [
        {"name": "LS", "mole_fractions": {"Li2O": 50, "SiO2": 50}, "density_g_cm3": 2.4, "n_atoms": [24]},
    ],
    "bootstrap": {"trajectories": 0, "structures": ["own0.extxyz", "own1.extxyz", "own2.extxyz"]},
    "train": TINY["train"] | SMALL_TRAIN,
    "explore": {"temperatures_K": [300, 600], "ramps": [], "trajectories": 1, "chunks": 1, "chunk_ps": 0.1},
    "select": {"trust_low_eV_A": 0.2, "trust_high_eV_A": 15.0, "max_labels": 5, "audit": 1, "min_separation_ps": 0.02},
    "stop": {"max_iterations": 1},
    "pools": {"local": {"slots": 2, "python": PYTHON}},
}
REAL = ("bootstrap", "label")
"""The tasks that are no doubles."""


class Rehearsal:
    """A campaign folder whose VASP is the double; the structures it starts from are known beforehand."""

    def __init__(self, folder: Path, frames: int, plan: dict[str, Any], real: Sequence[str] = REAL) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = quick_environment(folder / "quick.json", real=real)
        vasp_double.make_potcar_library(folder / "potpaw", vasp_double.GLASS_POTENTIALS)
        self.structures = [self._structure(number) for number in range(3 * frames)]
        for number in range(3):
            ase.io.write(folder / f"own{number}.extxyz", self.structures[number * frames : (number + 1) * frames])
        self.plan(**plan)
        command = vasp_double.double_command("5.4.4", folder / "plan.json")
        vasp = {"potcar_library": "potpaw", "potcars": {"Li": "Li_sv"}}
        run = {"command": command, "silent_minutes": 0.1}
        label = {"labeler": "vasp", "vasp": vasp, "run": run, "per_process": 4}
        self.changes = SMALL | {"quench": None, "label": label}
        write_param(folder, **self.changes)

    @staticmethod
    def _structure(number: int) -> ase.Atoms:
        atoms = crystal("Li2SiO3")
        rng = np.random.default_rng(number)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        atoms.rattle(0.12, rng=rng)
        return atoms

    def plan(self, **plan: Any) -> None:
        (self.folder / "plan.json").write_text(json.dumps({"log": "runs.jsonl", "state": "counts"} | plan))

    def change(self, **changes: Any) -> None:
        self.changes |= changes
        write_param(self.folder, **self.changes)

    def run(self, *arguments: str, code: int = 3) -> str:
        finished = alloop(self.folder, "run", *arguments, **self.environment)
        assert finished.returncode == code, finished.stdout + finished.stderr
        return finished.stdout

    def campaign(self) -> Campaign:
        campaign = Campaign(self.folder)
        campaign.load()
        return campaign

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "runs.jsonl").read_text().splitlines()]

    def assert_every_label_is_right(self, offset_eV: float = 0.0) -> None:
        """Every label of VASP is what the force field gives, within what VASP prints; POTCAR never disagreed."""
        campaign = self.campaign()
        for key in campaign.state.done:
            if campaign.state.tasks[key].kind == "label":
                label = read_label(campaign.result(key))
                energy_eV, forces_eV_A, virial_eV = vasp_double.expected(label.atoms)
                assert label.energy_eV == pytest.approx(energy_eV + offset_eV, abs=1e-6)
                np.testing.assert_allclose(label.forces_eV_A, forces_eV_A, atol=2e-6)
                np.testing.assert_allclose(label.virial_eV, virial_eV, atol=1e-5 * label.atoms.get_volume())
        assert all(run["species_poscar"] == run["species_potcar"] for run in self.runs() if run["hash"])


def test_one_label_that_fails_for_ever_costs_one_label(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path / "campaign", 3, {})
    doomed = vasp_double.structure_hash(rehearsal.structures[4])
    rehearsal.plan(always="edddav_forever", only=[doomed])
    output = rehearsal.run()
    assert "the iteration limit is used up" in output and "edddav" in output
    campaign = rehearsal.campaign()
    first = campaign.state.decisions["train", 0]["common"]
    assert len(first["training"]) + len(first["held_out"]) == 8
    status = assert_counts_add_up(rehearsal.folder)
    assert status["labels"]["quarantined"] == 1
    ((key, record),) = campaign.state.quarantined.items()
    assert record["class"] == "edddav" and "EDDDAV" in record["detail"]
    rehearsal.assert_every_label_is_right()

    rehearsal.plan()  # the cause is mended
    asked = alloop(rehearsal.folder, "retry", "--class", "edddav")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    rehearsal.run("--iterations", "1")
    campaign = rehearsal.campaign()
    assert key in campaign.state.done and not campaign.state.quarantined
    last = campaign.state.decisions["train", campaign.state.iteration]["common"]
    assert key in last["training"] + last["held_out"]
    rehearsal.assert_every_label_is_right()


CLASSES = {
    "nelm_forever": {"unconverged"},
    "edddav_forever": {"edddav"},
    "hang": {"hang"},
    "crash": {"crash"},
    "walltime": {"killed"},
    "signal9": {"killed"},
    "full_disk": {"disk_full"},
    "empty": {"empty"},
    "nan_forces": {"not_finite"},
    "missing_stress": {"no_stress"},
    "merged_columns": {"merged_columns"},
    "wrong_order": {"wrong_atoms"},
    "wrong_cell": {"wrong_cell"},
    "disagree": {"disagreement"},
}
CURABLE = ("nelm", "edddav", "zpotrf", "brmix")


THIRDS = (0, 1, 2) if os.environ.get("ALLOOP_THOROUGH") else (0,)
"""All three take minutes; every fault is also met by a single label in tests/labelers/test_vasp_labels.py."""


@pytest.mark.parametrize("number", THIRDS)
def test_misbehaviour_of_every_kind_gives_right_labels_or_the_right_class(tmp_path: Path, number: int) -> None:
    """Campaigns, each with a third of all misbehaviours at 10 % each."""
    faults = [*CLASSES, *CURABLE][number::3]
    plan = {"seed": 11, "faults": dict.fromkeys(faults, 0.1)}
    rehearsal = Rehearsal(tmp_path / "campaign", 12, plan)
    rehearsal.run()
    rehearsal.assert_every_label_is_right()
    campaign = rehearsal.campaign()
    assert_counts_add_up(rehearsal.folder)
    drawn = {run["hash"]: run["drawn"] for run in rehearsal.runs()}
    labels = [key for key in campaign.state.picks if key in campaign.state.done | campaign.state.quarantined.keys()]
    met = set()
    for key in labels:
        task = read_json(campaign.folder(key) / "task.json")
        record = task["spec"]["structure"]
        atoms = ase.Atoms(record["symbols"], positions=record["positions_A"], cell=record["cell_A"], pbc=True)
        fault = drawn[vasp_double.structure_hash(atoms)]
        met.add(fault)
        if fault in CLASSES:
            assert campaign.state.quarantined[key]["class"] in CLASSES[fault], campaign.state.quarantined[key]
        else:
            assert key in campaign.state.done, (fault, campaign.state.quarantined.get(key))
    assert met >= set(faults), f"never met: {set(faults) - met}"


def test_another_level_of_theory_is_refused_until_all_labels_are_made_anew(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path / "campaign", 3, {})
    rehearsal.run()
    before = rehearsal.campaign().state
    incar = rehearsal.folder / "templates" / "vasp" / "INCAR"
    incar.parent.mkdir(parents=True)
    incar.write_text("ENCUT = 520\nPREC = Accurate\nEDIFF = 1E-5\nISMEAR = 0\nSIGMA = 0.05\nALGO = Fast\nNELM = 120\n")
    refused = alloop(rehearsal.folder, "run", "--iterations", "1")
    assert refused.returncode == 2 and "alloop relabel" in refused.stdout + refused.stderr
    assert "ENCUT: 600 -> 520" in " ".join((refused.stdout + refused.stderr).split())
    shown = alloop(rehearsal.folder, "relabel")
    assert shown.returncode == 0 and f"{len(before.picks)} label(s)" in shown.stdout
    assert alloop(rehearsal.folder, "relabel", "--yes").returncode == 0
    rehearsal.run("--iterations", "1")
    state = rehearsal.campaign().state
    new = {key for key, pick in state.picks.items() if pick["level"] == state.level}
    assert {state.picks[key]["of"] for key in new if "of" in state.picks[key]} == before.picks.keys()
    for iteration in range(before.iteration + 1, state.iteration + 1):
        common = state.decisions["train", iteration]["common"]
        assert set(common["training"]) | set(common["held_out"]) <= new
    assert state.decisions["train", before.iteration + 1]["tasks"][0]["inputs"] == []  # no weights of the old level
    status = assert_counts_add_up_at_level(rehearsal.folder)
    assert status["labels"]["superseded"] == len(before.picks) and status["labels"]["done"] == len(new)


def assert_counts_add_up_at_level(folder: Path) -> dict[str, Any]:
    status = json.loads(alloop(folder, "status", "--json").stdout)
    labels = status["labels"]
    assert labels["done"] == labels["training"] + labels["held_out"] + labels["excluded"]
    total = sum(status["tasks"]["label"].values())
    parts = ("done", "in_flight", "waiting", "quarantined", "superseded", "pretraining")
    assert total == sum(labels[part] for part in parts)
    return status


def test_foundation_first_then_vasp_alone(tmp_path: Path) -> None:
    foundation = {"labeler": "teter-rehearsal", "iterations": 1, "promote": 6}
    rehearsal = Rehearsal(tmp_path / "campaign", 3, {}, real=(*REAL, "train"))
    rehearsal.change(label=rehearsal.changes["label"] | {"foundation": foundation}, stop={"max_iterations": 2})
    output = rehearsal.run()
    assert "converged" in output
    state = rehearsal.campaign().state
    kinds = [kind for kind, _ in state.decisions]
    assert kinds.index("promote") < kinds.index("pretrain") and state.decided("pretrain", 1)
    assert state.level == state.target_level != "teter-rehearsal"
    pretrain, first = state.decisions["pretrain", 1]["common"], state.decisions["train", 1]
    assert {state.picks[key]["level"] for key in pretrain["training"]} == {"teter-rehearsal"}
    assert {state.picks[key]["level"] for key in first["common"]["training"]} == {state.level}
    assert [task["inputs"] for task in first["tasks"]] == [
        [task["key"]] for task in state.decisions["pretrain", 1]["tasks"]
    ]
    assert max(map(abs, pretrain["energy_shift_eV"].values())) < 1e-4  # both are the same force field here
    verdict = state.decisions["verdict", 0]
    assert not verdict["converged"] and "foundation's" in verdict["reason"]
    status = assert_counts_add_up_at_level(rehearsal.folder)
    assert status["labels"]["pretraining"] > 0
    assert len(rehearsal.runs()) == status["labels"]["done"]
