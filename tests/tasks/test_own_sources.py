"""Crystals, own structures and own labelled data: through real attempts to labels in their sets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dpdata
import numpy as np
import pytest
from ase.io import write

from alloop import config
from alloop.campaign import Campaign
from alloop.decisions import DECIDERS
from alloop.glass.crystals import crystal, perturbed
from alloop.glass.force_field import TeterCalculator
from alloop.structure import LabeledFrame
from alloop.tasks.label import read_label


def _labelled(count: int) -> list[LabeledFrame]:
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(count):
        atoms = perturbed(crystal("B2O3-I").repeat((2, 2, 1)), rattle_A=0.05, max_strain=0.02, rng=rng)
        atoms.calc = TeterCalculator()
        stress = atoms.get_stress(voigt=False)
        frames.append(
            LabeledFrame(atoms, atoms.get_potential_energy(), atoms.get_forces(), -stress * atoms.get_volume())
        )
    return frames


def _write_deepmd(frames: list[LabeledFrame], folder: Path) -> None:
    system = dpdata.LabeledSystem()
    atoms = frames[0].atoms
    symbols = atoms.get_chemical_symbols()
    names = sorted(set(symbols))
    system.data |= {
        "atom_names": names,
        "atom_numbs": [symbols.count(name) for name in names],
        "atom_types": np.array([names.index(symbol) for symbol in symbols]),
        "orig": np.zeros(3),
        "coords": np.array([frame.atoms.positions for frame in frames]),
        "cells": np.array([frame.atoms.cell.array for frame in frames]),
        "energies": np.array([frame.energy_eV for frame in frames]),
        "forces": np.array([frame.forces_eV_A for frame in frames]),
        "virials": np.array([frame.virial_eV for frame in frames]),
        "nopbc": False,
    }
    system.to("deepmd/npy", str(folder))


def _run_waiting(campaign: Campaign) -> None:
    keys = list(campaign.state.waiting)
    folders = [str(campaign.prepare(key)) for key in keys]
    subprocess.run([sys.executable, "-m", "alloop.attempt", *folders], check=True, timeout=120)
    for key in keys:
        assert campaign.accept(key)


@pytest.fixture
def campaign(tmp_path: Path) -> tuple[Campaign, config.Param, list[LabeledFrame]]:
    labelled = _labelled(6)
    _write_deepmd(labelled, tmp_path / "aimd")
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        rng = np.random.default_rng(ord(place))
        atoms = perturbed(crystal("Li2SiO3"), rattle_A=0.02, max_strain=0.01, rng=rng)
        write(tmp_path / place / "POSCAR", atoms, format="vasp")
    param = {
        "name": "own",
        "glasses": [{"name": "v-B2O3", "mole_fractions": {"B2O3": 1}, "density_g_cm3": 1.81, "n_atoms": [60]}],
        "bootstrap": {
            "trajectories": 0,
            "crystals": ["alpha-quartz"],
            "crystal_copies": 3,
            "structures": ["a/POSCAR", "b/POSCAR"],
            "data": [{"path": "aimd", "format": "deepmd/npy", "every": 2, "level": "teter-rehearsal"}],
        },
        "label": {"labeler": "teter-rehearsal"},
    }
    (tmp_path / "param.json").write_text(json.dumps(param))
    loaded = config.load(tmp_path / "param.json")
    opened = Campaign(tmp_path)
    opened.take(loaded, take_over=False, limit={"slots": 1})
    for kind in ("bootstrap", "seed_labels"):
        opened.decide(kind, iteration=-1, **DECIDERS[kind](opened, loaded, -1))
        _run_waiting(opened)
    return opened, loaded, labelled


def test_every_source_ends_as_labels_by_trajectory(
    campaign: tuple[Campaign, config.Param, list[LabeledFrame]],
) -> None:
    opened, _, labelled = campaign
    picks = opened.state.picks
    by_source: dict[str, list[str]] = {}
    for key, pick in picks.items():
        by_source.setdefault(pick["trajectory"], []).append(key)
    assert {name: len(keys) for name, keys in by_source.items()} == {
        "crystal00.alpha-quartz": 3,
        "structures00.POSCAR": 1,
        "structures01.POSCAR": 1,
        "data00.aimd": 3,
    }
    roles = {pick["trajectory"]: pick["role"] for pick in picks.values()}
    assert set(roles.values()) == {"training", "held_out"}
    assert opened.state.done >= set(picks)
    imported = [read_label(opened.result(key)) for key in by_source["data00.aimd"]]
    for found, given in zip(imported, labelled[::2], strict=True):  # every second frame
        assert found.energy_eV == pytest.approx(given.energy_eV, rel=1e-6)
        np.testing.assert_allclose(found.forces_eV_A, given.forces_eV_A, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.virial_eV, given.virial_eV, rtol=1e-5, atol=1e-5)


def test_imported_numbers_are_not_computed_again(campaign: tuple[Campaign, config.Param, list[LabeledFrame]]) -> None:
    opened, _, _ = campaign
    key = next(key for key, pick in opened.state.picks.items() if pick["given"])
    record = json.loads((opened.result(key) / "label.json").read_text())
    assert record["level"] == {"imported": "teter-rehearsal"}


def test_a_changed_source_file_is_not_mistaken_for_the_one_decided_on(
    campaign: tuple[Campaign, config.Param, list[LabeledFrame]],
) -> None:
    opened, _, _ = campaign
    task = next(task for task in opened.state.tasks.values() if task.name == "structures00.POSCAR")
    folder = opened.store.folder(task)
    (folder / "result").rename(folder / "gone")
    poscar = opened.root / "a" / "POSCAR"
    poscar.write_text(poscar.read_text().replace("0.", "0.0", 1))
    ended = subprocess.run([sys.executable, "-m", "alloop.attempt", str(folder)], check=False, timeout=60)
    assert ended.returncode != 0
    assert not (folder / "result").exists()
    failed = json.loads(next(folder.glob("attempts/*/failed.json")).read_text())
    assert "put it back" in failed["message"]
