"""Synthetic views of a pool, small labelled folders, and rounds that take no training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ase.io
import numpy as np
import pytest

from alloop import export
from alloop.bench_select import experiment
from alloop.bench_select.events import lost_reason
from alloop.bench_select.experiment import PROFILES, Experiment
from alloop.bench_select.pool import read_folder
from alloop.bench_select.view import PoolView
from alloop.glass.crystals import crystal, perturbed
from alloop.glass.force_field import TeterCalculator
from alloop.labelling import as_atoms
from alloop.structure import LabeledFrame

FAKE_ROUND = Path(__file__).with_name("fake_round.py")
ATOMS = 4


@pytest.fixture
def make_view() -> Callable[..., PoolView]:
    """A pool of frames of four atoms with random environments; any column can be given."""

    def make(count: int = 60, seed: int = 0, **columns: Any) -> PoolView:
        rng = np.random.default_rng(seed)
        plain: dict[str, Any] = {
            "identity": np.array([f"frame{index}" for index in range(count)]),
            "labelled": np.zeros(count, dtype=bool),
            "max_deviation_eV_A": rng.uniform(0.0, 2.0, count),
            "offending_atom": rng.integers(ATOMS, size=count),
            "trajectory": np.array([f"t{index % 6}" for index in range(count)]),
            "glass": np.array([f"g{index % 3}" for index in range(count)]),
            "stratum": np.array([f"g{index % 3} {index % 5}" for index in range(count)]),
            "temperature_K": rng.uniform(300, 3500, count),
            "time_ps": np.arange(count) // 6 * 0.1,
            "before_loss": np.zeros(count, dtype=bool),
            "events": [{} for _ in range(count)],
            "first_atom": np.arange(count + 1) * ATOMS,
            "elements": np.tile(np.array([8, 14, 8, 5], dtype=np.int16), count),
            "descriptors": rng.normal(size=(count * ATOMS, 3)).astype(np.float32),
            "trust_levels_eV_A": (0.5, 1.5),
        }
        return PoolView(**plain | columns)

    return make


def label(atoms: Any) -> LabeledFrame:
    atoms.calc = TeterCalculator()
    virial_eV = -atoms.get_stress(voigt=False) * atoms.get_volume()
    return LabeledFrame(atoms, atoms.get_potential_energy(), atoms.get_forces(), virial_eV)


@pytest.fixture(scope="session")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of rattled quartz from three trajectories to choose from, 8 of two others to test on."""
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(3)
    ideal = crystal("alpha-quartz") * (2, 2, 1)
    for name, trajectories, count in (("pool", ("a", "b", "c"), 10), ("test", ("d", "e"), 4)):
        frames = []
        for trajectory in trajectories:
            for number in range(count):
                temperature_K = 3500.0 * (number + 1) / count
                rattle_A = 0.16 * (temperature_K / 3500) ** 0.5
                while lost_reason(atoms := perturbed(ideal, rattle_A=rattle_A, max_strain=0.02, rng=rng)):
                    pass
                told = {"trajectory": trajectory, "glass": "quartz"}
                told |= {"temperature_K": temperature_K, "time_ps": 0.1 * number}
                frames.append(as_atoms(label(atoms), told))
        ase.io.write(folder / f"{name}.extxyz", frames)
    return folder


@pytest.fixture
def labelled_campaign(pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A campaign whose labels are the frames of the pool, as far as a comparison looks at it.

    The first training label is of the bootstrap, the second of a hot hold, all others are last good frames.
    """
    pool = read_folder(pool_folder)

    def make(train: int, test: int = 2, **select: Any) -> Any:
        frames = [("training", own) for own in pool.frames[:train]] + [("held_out", own) for own in pool.test[:test]]
        labels = [
            SimpleNamespace(key=str(number), group=group, frame=own.label) for number, (group, own) in enumerate(frames)
        ]
        start = {"source": {"task": "seed", "frame": 0}, "reason": "bootstrap", "temperature_K": None}
        hold = {"stratum": "LBS-20-60-20 2000K", "target_temperature_K": 2000.0, "temperature_K": 2310.0}
        lost = {"stratum": "LBS-40-20-40 300K", "target_temperature_K": 300.0, "temperature_K": 290.0}
        picks = {
            "0": start | {"trajectory": "LBS-20-60-20.n63.t00"},
            "1": hold | {"trajectory": "LBS-20-60-20.n63.2000K.t01", "time_ps": 0.4, "reason": "candidate"},
        }
        for number in range(2, len(labels)):
            name = f"LBS-40-20-40.n85.300K.{labels[number].group}.t{number:02d}"
            picks[str(number)] = lost | {"trajectory": name, "time_ps": 0.1, "reason": "before_loss"}
        monkeypatch.setattr(export, "parse_request", lambda *_: None)
        monkeypatch.setattr(export, "wanted_labels", lambda *_: labels)
        config = {"name": "small", "glasses": ["LBS-20-60-20"], "select": select}
        state = SimpleNamespace(picks=picks, starts=[{"config": {"name": "old"}}, {"config": config}])
        return SimpleNamespace(state=state, root=Path("campaign"))

    return make


@pytest.fixture
def fake_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """Rounds that only pretend to train; call it for the names of all that were begun."""
    log = tmp_path / "begun"
    monkeypatch.setattr(experiment, "ROUND", (sys.executable, str(FAKE_ROUND)))
    monkeypatch.setenv("FAKE_ROUND_LOG", str(log))
    return lambda: log.read_text().split() if log.exists() else []


@pytest.fixture
def make_experiment(pool_folder: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """A comparison of small size in a new folder."""

    def make(
        methods: tuple[str, ...] = ("random", "full"), seeds: tuple[int, ...] = (0, 1), **changes: Any
    ) -> Experiment:
        profile = replace(PROFILES["quick"], **{"sizes": (6, 10, 16)} | changes)
        return Experiment(read_folder(pool_folder), tmp_path / "out", methods, seeds, profile)

    return make
