from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.glass.transport import Unwrapper, diffusion

TRICLINIC = np.array([[9.0, 0.0, 0.0], [2.5, 8.0, 0.0], [-1.5, 3.0, 7.0]])
SYMBOLS = ["Li", "O", "B", "Li", "Si", "O", "Li"]


def walk_A(seed: int, n_frames: int = 60, step_A: float = 0.4) -> np.ndarray:
    """Positions (n_frames, 7, 3) that leave the cell after a few frames."""
    rng = np.random.default_rng(seed)
    return rng.random((7, 3)) @ TRICLINIC + np.cumsum(rng.uniform(-step_A, step_A, (n_frames, 7, 3)), axis=0)


def breathing(n_frames: int) -> np.ndarray:
    """Cells (n_frames, 3, 3) that swell by 3 % and shear at once."""
    t = np.arange(n_frames)
    strain = np.zeros((n_frames, 3, 3))
    strain[:, range(3), range(3)] = 1 + 0.03 * np.sin(0.3 * t)[:, None] * [1.0, -0.5, 0.7]
    strain[:, 1, 0] = 0.02 * np.cos(0.2 * t)
    return TRICLINIC @ strain


def wrapped(positions_A: np.ndarray, cell_A: np.ndarray) -> np.ndarray:
    return (positions_A @ np.linalg.inv(cell_A) % 1.0) @ cell_A


def followed(positions_A: np.ndarray, cells_A: np.ndarray, drift: str = "none", symbols=SYMBOLS) -> Unwrapper:
    unwrapper = Unwrapper(symbols, drift=drift)
    for frame_A, cell_A in zip(positions_A, np.broadcast_to(cells_A, (len(positions_A), 3, 3)), strict=True):
        unwrapper.add(frame_A, cell_A)
    return unwrapper


def test_a_fixed_triclinic_cell_gives_the_true_displacements():
    positions_A = walk_A(0)
    got_A = followed(wrapped(positions_A, TRICLINIC), TRICLINIC).positions_A()
    true_A = (positions_A - positions_A[0])[:, [0, 3, 6]]
    assert np.abs(true_A).max() > 2  # the walk does leave the cell
    np.testing.assert_allclose(got_A, true_A, atol=1e-9)


@pytest.mark.parametrize("drift", ["network", "all", "none"])
def test_wrapped_and_unwrapped_frames_agree_in_a_changing_cell(drift):
    cells_A = breathing(200)
    scaled = walk_A(1, 200) @ np.linalg.inv(TRICLINIC)
    outside = followed(scaled @ cells_A, cells_A, drift)
    inside = followed((scaled % 1.0) @ cells_A, cells_A, drift)
    np.testing.assert_allclose(inside.positions_A(), outside.positions_A(), atol=1e-9)
    assert inside.number_density_A3() == pytest.approx(3 * np.mean(1 / np.linalg.det(cells_A)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), order=st.permutations(range(7)))
def test_image_choice_and_order_of_atoms_change_nothing(seed, order):
    positions_A = walk_A(seed, 20)
    images = np.random.default_rng(seed).integers(-3, 4, (20, 7, 3)) @ TRICLINIC
    want_A = followed(positions_A, TRICLINIC, "network").positions_A()
    mixed = followed((positions_A + images)[:, order], TRICLINIC, "network", [SYMBOLS[k] for k in order])
    lithium = [k for k in order if SYMBOLS[k] == "Li"]
    np.testing.assert_allclose(mixed.positions_A(), want_A[:, [(0, 3, 6).index(k) for k in lithium]], atol=1e-9)


def test_breathing_of_the_cell_alone_is_no_motion():
    cells_A = breathing(50)
    scaled = np.broadcast_to(np.random.default_rng(3).random((7, 3)), (50, 7, 3))
    assert np.abs(followed(scaled @ cells_A, cells_A).positions_A()).max() < 1e-12
    frames = [Atoms(SYMBOLS, scaled_positions=s, cell=c, pbc=True) for s, c in zip(scaled, cells_A, strict=True)]
    with pytest.raises(ValueError, match="none of the atoms moves; check that the frames are not copies"):
        diffusion(frames, time_step_ps=1.0, window_ps=(5, 20), drop_ps=0)


def test_a_breathing_cell_leaves_msd_as_in_its_mean():
    cells_A = breathing(300)
    scaled = np.cumsum(np.random.default_rng(4).normal(0, 0.01, (300, 7, 3)), axis=0)
    options = {"time_step_ps": 1.0, "window_ps": (20, 80), "drop_ps": 0, "drift": "none"}
    still = [Atoms(SYMBOLS, positions=s @ cells_A.mean(axis=0), cell=cells_A.mean(axis=0), pbc=True) for s in scaled]
    moving = [Atoms(SYMBOLS, positions=s @ c, cell=c, pbc=True) for s, c in zip(scaled, cells_A, strict=True)]
    one, other = diffusion(still, **options), diffusion(moving, **options)
    np.testing.assert_allclose(other.msd_A2, one.msd_A2, atol=1e-9)
    assert other.D_A2_ps.low == pytest.approx(one.D_A2_ps.low, abs=1e-9)
    assert other.D_A2_ps.high == pytest.approx(one.D_A2_ps.high, abs=1e-9)


def test_drift_is_the_mass_weighted_motion_of_its_carriers():
    positions_A = walk_A(5)
    moved_A = positions_A - positions_A[0]
    masses = np.array([atomic_masses[atomic_numbers[symbol]] for symbol in SYMBOLS])
    lithium = np.array([symbol == "Li" for symbol in SYMBOLS])
    for drift, carriers in (("network", ~lithium), ("all", np.ones(7, dtype=bool))):
        weights = masses * carriers / masses[carriers].sum()
        want_A = moved_A[:, lithium] - np.einsum("a,tak->tk", weights, moved_A)[:, None]
        np.testing.assert_allclose(followed(positions_A, TRICLINIC, drift).positions_A(), want_A, atol=1e-9)


def test_a_moving_lattice_is_no_diffusion():
    positions_A = walk_A(6)
    flow_A = np.cumsum(np.full((60, 1, 3), [0.3, -0.2, 0.1]), axis=0)
    for drift, same in (("network", True), ("all", True), ("none", False)):
        at_rest = followed(positions_A, TRICLINIC, drift).positions_A()
        flowing = followed(wrapped(positions_A + flow_A, TRICLINIC), TRICLINIC, drift).positions_A()
        assert np.allclose(flowing, at_rest, atol=1e-9) is same


def test_a_step_beyond_a_third_of_the_cell_is_refused_and_one_below_is_not():
    height_A = 1 / np.linalg.norm(np.linalg.inv(TRICLINIC), axis=0).max()
    start_A = np.random.default_rng(7).random((7, 3)) @ TRICLINIC
    for part in (0.32, 0.34):
        next_A = start_A.copy()
        next_A[4] += part * height_A * np.array([0.6, 0.0, -0.8])
        unwrapper = followed([start_A], TRICLINIC)
        if part < 1 / 3:
            unwrapper.add(wrapped(next_A, TRICLINIC), TRICLINIC)
            continue
        with pytest.raises(
            ValueError, match=r"too far apart to unwrap: atom 4 \(Si\).* used frame 1 .* write frames more"
        ):
            unwrapper.add(wrapped(next_A, TRICLINIC), TRICLINIC)


def test_frames_are_read_one_at_a_time_and_not_kept():
    def frames() -> Iterator[Atoms]:
        rng = np.random.default_rng(8)
        positions_A = rng.random((400, 3)) * 20
        for _ in range(600):
            positions_A = positions_A + rng.uniform(-0.1, 0.1, (400, 3))
            yield Atoms("Li4O396", positions=positions_A, cell=[20, 20, 20], pbc=True)

    tracemalloc.start()
    try:
        result = diffusion(frames(), time_step_ps=1.0, window_ps=(50, 150))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result.n_frames, result.n_atoms) == (550, 4)
    assert peak < 550 * 400 * 3 * 8 / 4


@pytest.mark.parametrize(
    ("symbols", "options", "message"),
    [
        (["O", "B"], {}, "no Li atom in the frames, which hold B, O"),
        ([], {}, "no Li atom in the frames, which hold no atoms"),
        (["Li", "Li"], {}, "all atoms are Li, there is no network .* use drift='all'"),
        (["Li", "O"], {"drift": "frame"}, "'frame' is not a drift .* network, all, none"),
    ],
)
def test_unsuitable_atoms_and_options_are_refused(symbols, options, message):
    with pytest.raises(ValueError, match=message):
        Unwrapper(symbols, **options)


def test_broken_frames_are_refused():
    unwrapper = Unwrapper(["Li", "O"])
    good_A = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"used frame 0 has positions of shape \(3, 3\); expected \(2, 3\)"):
        unwrapper.add(np.zeros((3, 3)), TRICLINIC)
    with pytest.raises(ValueError, match="all finite"):
        unwrapper.add(good_A * np.nan, TRICLINIC)
    with pytest.raises(ValueError, match=r"used frame 0 has the cell .* give three vectors"):
        unwrapper.add(good_A, np.ones((3, 3)))
