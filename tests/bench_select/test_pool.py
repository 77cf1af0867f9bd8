"""Reading a labelled pool: from a folder, from a campaign, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms

from alloop import export
from alloop.bench_select.pool import read_campaign, read_folder, read_labels, write_pool
from alloop.errors import InputError


@pytest.fixture
def changed(pool_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the pool in which one frame of a file is changed."""

    def make(change: Callable[[Atoms], Any], file: str = "pool.extxyz") -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(pool_folder, folder, dirs_exist_ok=True)
        frames = ase.io.read(folder / file, index=":")
        change(frames[2])
        ase.io.write(folder / file, frames)
        return folder

    return make


def test_a_folder_is_read_with_all_that_is_told_of_its_frames(pool_folder: Path) -> None:
    pool = read_folder(pool_folder)
    assert (len(pool.frames), len(pool.test)) == (30, 8)
    assert pool.type_map == ("O", "Si")
    third = pool.frames[2]
    assert (third.trajectory, third.glass, third.temperature_K) == ("a", "quartz", pytest.approx(1050.0))
    assert third.time_ps == pytest.approx(0.2)
    given = ase.io.read(pool_folder / "pool.extxyz", index=2)
    assert third.label.energy_eV == given.get_potential_energy()
    np.testing.assert_array_equal(third.label.forces_eV_A, given.get_forces())
    np.testing.assert_allclose(third.label.virial_eV, -given.get_stress(voigt=False) * given.get_volume())
    assert any("overlap" in found for found in pool.events)


def test_what_is_not_told_is_not_a_number_or_the_formula(changed: Callable[..., Path]) -> None:
    def forget(atoms: Atoms) -> None:
        for name in ("glass", "temperature_K", "time_ps"):
            del atoms.info[name]

    frame = read_folder(changed(forget)).frames[2]
    assert frame.glass == "O2Si"
    assert np.isnan([frame.temperature_K, frame.time_ps]).all()


def test_rounds_read_what_was_written(pool_folder: Path, tmp_path: Path) -> None:
    pool = read_folder(pool_folder)
    write_pool(pool, tmp_path / "frames.npz")
    labels, test = read_labels(tmp_path)
    assert (len(labels), len(test)) == (30, 8)
    for read, frame in ((labels[7], pool.frames[7]), (test[3], pool.test[3])):
        assert read.energy_eV == frame.label.energy_eV
        assert read.atoms.get_chemical_symbols() == frame.label.atoms.get_chemical_symbols()
        np.testing.assert_array_equal(read.forces_eV_A, frame.label.forces_eV_A)
        np.testing.assert_array_equal(read.virial_eV, frame.label.virial_eV)
        np.testing.assert_allclose(read.atoms.positions, frame.label.atoms.positions, atol=1e-12)


def test_key_depends_on_labels_and_not_on_names(pool_folder: Path, changed: Callable[..., Path]) -> None:
    def move(atoms: Atoms) -> None:
        atoms.calc.results["forces"][0, 0] += 1e-6

    key = read_folder(pool_folder).key
    assert read_folder(changed(lambda atoms: atoms.info.update(trajectory="renamed"))).key == key
    assert read_folder(changed(move)).key != key
    assert read_folder(changed(move, "test.extxyz")).key != key


def test_frames_that_are_no_labels_are_refused(changed: Callable[..., Path]) -> None:
    def not_finite(atoms: Atoms) -> None:
        atoms.calc.results["forces"][3, 1] = np.nan

    def no_stress(atoms: Atoms) -> None:
        del atoms.calc.results["stress"]

    def no_cell(atoms: Atoms) -> None:
        atoms.pbc = False

    cases = {
        "frame 2: no whole label; expected energy, forces and stress": no_stress,
        "frame 2: a number is not finite": not_finite,
        "frame 2: no periodic cell": no_cell,
        "frame 2: the comment line does not say `trajectory`": lambda atoms: atoms.info.pop("trajectory"),
    }
    for message, change in cases.items():
        with pytest.raises(InputError, match=message):
            read_folder(changed(change))


def test_a_test_set_that_is_not_apart_is_refused(changed: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="trajectory b is both chosen from and tested on"):
        read_folder(changed(lambda atoms: atoms.info.update(trajectory="b"), "test.extxyz"))


def test_folders_that_hold_no_pool_are_refused(pool_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no \.extxyz file"):
        read_folder(tmp_path)
    shutil.copy(pool_folder / "pool.extxyz", tmp_path)
    with pytest.raises(InputError, match="holds no test frames"):
        read_folder(tmp_path)
    (tmp_path / "pool.extxyz").rename(tmp_path / "test.extxyz")
    with pytest.raises(InputError, match="holds no frames to choose from"):
        read_folder(tmp_path)
    (tmp_path / "pool.extxyz").write_text("36\nLattice=nonsense\n")
    with pytest.raises(InputError, match="cannot be read as extended xyz"):
        read_folder(tmp_path)


def test_labels_of_a_campaign_are_a_pool(pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = read_folder(pool_folder).frames[:3]
    labels = [
        SimpleNamespace(key=str(number), group=group, frame=frame.label)
        for number, (group, frame) in enumerate(zip(("training", "training", "held_out"), frames, strict=True))
    ]
    picks: dict[str, dict[str, Any]] = {
        "0": {"trajectory": "LBS-20-60-20.n63.t00", "temperature_K": None},
        "1": {"trajectory": "LBS-20-60-20.n63.2000K.t01", "temperature_K": 1990.0, "time_ps": 0.4},
        "2": {"trajectory": "LBS-40-20-40.n85.t02", "temperature_K": 300.0},
    }
    monkeypatch.setattr(export, "parse_request", lambda *_: None)
    monkeypatch.setattr(export, "wanted_labels", lambda *_: labels)
    campaign: Any = SimpleNamespace(state=SimpleNamespace(picks=picks), root=Path("campaign"))
    pool = read_campaign(campaign)
    assert [frame.glass for frame in (*pool.frames, *pool.test)] == ["LBS-20-60-20", "LBS-20-60-20", "LBS-40-20-40"]
    assert np.isnan(pool.frames[0].temperature_K)
    assert (pool.frames[1].temperature_K, pool.frames[1].time_ps) == (1990.0, 0.4)
    labels.pop()
    with pytest.raises(InputError, match="campaign holds no test frames"):
        read_campaign(campaign)
