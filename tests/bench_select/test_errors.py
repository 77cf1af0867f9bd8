from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alloop.bench_select.errors import event_masks, meaning, measured_errors, unit, worst
from alloop.bench_select.pool import Pool, read_folder


def test_worst_share_is_of_each_model_by_itself() -> None:
    error = np.zeros((2, 100, 3))
    error[0, 5, 1] = error[0, 7, 2] = error[0, 9, 0] = 3.0  # 3 of 300 components
    error[1, 50:, :] = 1.0
    assert worst(error, 0.01) == pytest.approx(np.sqrt((9.0 + 1.0) / 2))
    assert worst(error, 1e-6) == pytest.approx(np.sqrt((9.0 + 1.0) / 2))  # one component at least
    assert worst(error, 1.0) == pytest.approx(np.sqrt(np.square(error).mean()))


def test_masks_of_events_by_frame_and_atom() -> None:
    events = [{}, {"overlap": np.array([0, 2])}, {"five_coordinated_Si": np.array([1])}]
    masks = event_masks(["overlap", "five_coordinated_Si"], events, np.array([2, 3, 2]))
    assert np.flatnonzero(masks["overlap"][0]).tolist() == [2, 3, 4]
    assert np.flatnonzero(masks["overlap"][1]).tolist() == [2, 4]
    assert np.flatnonzero(masks["five_coordinated_Si"][0]).tolist() == [5, 6]
    assert np.flatnonzero(masks["five_coordinated_Si"][1]).tolist() == [6]


def test_errors_of_models_that_are_off_by_a_known_amount(pool_folder: Path) -> None:
    pool = read_folder(pool_folder)
    forces = np.concatenate([frame.label.forces_eV_A for frame in pool.test])
    energies = np.array([frame.label.energy_eV for frame in pool.test])
    found = measured_errors(pool, np.stack([forces + 0.1, forces + 0.2]), np.stack([energies, energies + 0.36]))
    rms = np.sqrt((0.1**2 + 0.2**2) / 2)
    assert found["forces"] == pytest.approx(rms)
    assert found["worst_1_percent"] == pytest.approx(rms)
    assert found["overlap_atoms"] == pytest.approx(rms)
    assert found["energy"] == pytest.approx(0.36 / 36 / np.sqrt(2))
    assert {kind: unit(kind) for kind in found} == dict.fromkeys(found, "eV/Å") | {"energy": "eV/atom"}
    assert meaning("overlap_atoms") == "the atoms of the near-overlaps"
    assert meaning("oxygen_tricluster_frames") == "all atoms of test frames that show oxygen_tricluster"


def test_what_no_test_frame_shows_is_not_measured(pool_folder: Path) -> None:
    pool = read_folder(pool_folder)
    calm = Pool(pool.frames, tuple(f for f in pool.test if f.temperature_K < 1000), pool.type_map)
    forces = np.concatenate([frame.label.forces_eV_A for frame in calm.test])
    found = measured_errors(calm, forces[None], np.array([[frame.label.energy_eV for frame in calm.test]]))
    assert found["forces"] == 0.0
    assert found["overlap_atoms"] is None
