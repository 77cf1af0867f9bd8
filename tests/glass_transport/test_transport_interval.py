"""The 95 % interval of D holds the truth in 95 % of draws: 181 to 198 of 200, in every kind of motion tried."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from alloop.glass.transport import Estimate, Unwrapper, _mean_of_atoms, diffusion_coefficient_A2_ps

D_A2_PS = 0.01  # 1e-6 cm^2/s
N_DRAWS = 200


def walk_A(rng: np.random.Generator, n_frames: int, n_atoms: int, step_ps: float, D: float = D_A2_PS) -> np.ndarray:
    return np.cumsum(rng.normal(0, np.sqrt(2 * D * step_ps), (n_frames, n_atoms, 3)), axis=0)


def rattling_A(rng: np.random.Generator, shape: tuple[int, ...], step_ps: float, rms_A: float) -> np.ndarray:
    """Ornstein-Uhlenbeck motion with a correlation time of 0.5 ps and this rms along each axis."""
    keep = np.exp(-step_ps / 0.5)
    kicks = rng.normal(0, rms_A * np.sqrt(1 - keep**2), shape)
    kicks[0] /= np.sqrt(1 - keep**2)
    return lfilter([1], [1, -keep], kicks, axis=0)


def hopping_A(rng: np.random.Generator, n_frames: int, n_atoms: int, per_ps: float, step_ps: float) -> np.ndarray:
    """Rare hops of one length in random directions with the D of the walk."""
    hops = rng.random((n_frames, n_atoms)) < per_ps * step_ps
    directions = rng.normal(size=(n_frames, n_atoms, 3))
    directions *= (np.sqrt(6 * D_A2_PS / per_ps) / np.linalg.norm(directions, axis=2))[:, :, None]
    return np.cumsum(hops[:, :, None] * directions, axis=0)


def covered(estimates: list[Estimate], truth: float = D_A2_PS) -> int:
    return sum(estimate.low <= truth <= estimate.high for estimate in estimates)


def draw_A(kind: str, rng: np.random.Generator, n_atoms: int, length_ps: float, step_ps: float) -> np.ndarray:
    n_frames = round(length_ps / step_ps) + 1
    if kind == "hops":
        return hopping_A(rng, n_frames, n_atoms, 0.005, step_ps)
    if kind == "pairs":
        return np.repeat(walk_A(rng, n_frames, n_atoms // 2, step_ps), 2, axis=1)
    walk = walk_A(rng, n_frames, n_atoms, step_ps)
    return walk + rattling_A(rng, walk.shape, step_ps, 0.4) if kind == "cage" else walk


CASES = [
    ("walk", 20, 151, 1.0),
    ("walk", 20, 200, 0.25),
    ("walk", 50, 250, 1.0),
    ("walk", 100, 500, 2.0),
    ("cage", 20, 450, 1.0),
    ("cage", 50, 250, 1.0),
    ("hops", 50, 250, 1.0),
    ("pairs", 60, 250, 1.0),
]


@pytest.mark.parametrize(("kind", "n_atoms", "length_ps", "step_ps"), CASES)
def test_the_interval_covers_the_truth(kind, n_atoms, length_ps, step_ps):
    rng = np.random.default_rng(20)
    estimates = [
        diffusion_coefficient_A2_ps(draw_A(kind, rng, n_atoms, length_ps, step_ps), time_step_ps=step_ps)
        for _ in range(N_DRAWS)
    ]
    assert 181 <= covered(estimates) <= 198
    values = np.array([estimate.value for estimate in estimates])
    assert values.mean() == pytest.approx(D_A2_PS, abs=4 * values.std() / np.sqrt(N_DRAWS))
    # and it says something: in the median no wider than 2.2 times what 95 % of the draws take
    widths = np.array([estimate.high - estimate.low for estimate in estimates])
    assert np.median(widths) < 2.2 * np.ptp(np.quantile(values, [0.025, 0.975]))


def test_it_covers_on_a_drifting_rattling_lattice_wrapped_or_not():
    rng = np.random.default_rng(21)
    cell_A = np.array([[14.0, 0.0, 0.0], [2.0, 13.0, 0.0], [-3.0, 1.0, 15.0]])
    symbols = ["Li"] * 20 + ["O", "Si", "O"] * 20
    inside, outside = [], []
    for _ in range(N_DRAWS):
        flow_A = np.cumsum(rng.normal(0.03, 0.1, (101, 1, 3)), axis=0)
        atoms_A = rng.random((80, 3)) @ cell_A + flow_A + rattling_A(rng, (101, 80, 3), 2.0, 0.15)
        atoms_A[:, :20] += walk_A(rng, 101, 20, 2.0)
        wrapped_A = (atoms_A @ np.linalg.inv(cell_A) % 1.0) @ cell_A
        for frames_A, estimates in ((wrapped_A, inside), (atoms_A, outside)):
            unwrapper = Unwrapper(symbols)
            for frame_A in frames_A:
                unwrapper.add(frame_A, cell_A)
            estimates.append(diffusion_coefficient_A2_ps(unwrapper.positions_A(), time_step_ps=2.0))
    assert 181 <= covered(inside) <= 198
    for one, other in zip(inside, outside, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-9)


def test_atoms_at_rest_may_have_no_diffusion_and_the_interval_says_so():
    rng = np.random.default_rng(22)
    estimates = [
        diffusion_coefficient_A2_ps(rattling_A(rng, (251, 30, 3), 1.0, 0.3), time_step_ps=1.0) for _ in range(N_DRAWS)
    ]
    assert 181 <= covered(estimates, 0.0) <= 198
    assert all(estimate.high - estimate.low > 1e-6 for estimate in estimates)
    assert all(estimate.high < D_A2_PS / 50 for estimate in estimates)


def test_few_atoms_are_worth_little():
    rng = np.random.default_rng(23)
    for n_atoms, wide in ((2, 5.0), (5, 1.5)):
        draws = [diffusion_coefficient_A2_ps(walk_A(rng, 251, n_atoms, 1.0), time_step_ps=1.0) for _ in range(N_DRAWS)]
        assert covered(draws) >= 175  # single-atom values are too skewed for so few of them
        assert np.median([draw.high - draw.low for draw in draws]) > wide * D_A2_PS


def test_atoms_that_move_as_one_give_no_certainty():
    one_A = walk_A(np.random.default_rng(24), 251, 1, 1.0)
    rigid = diffusion_coefficient_A2_ps(np.repeat(one_A, 30, axis=1), time_step_ps=1.0)
    assert (rigid.low, rigid.high) == (-np.inf, np.inf)
    flow_A = np.arange(251.0)[:, None, None] * np.ones((1, 30, 3))
    flowing = diffusion_coefficient_A2_ps(flow_A, time_step_ps=1.0)
    assert (flowing.low, flowing.high) == (-np.inf, np.inf)
    # groups of five: 8 walkers, not 40
    grouped = [
        diffusion_coefficient_A2_ps(
            np.repeat(walk_A(np.random.default_rng(seed), 251, 8, 1.0), 5, axis=1), time_step_ps=1.0
        )
        for seed in range(N_DRAWS)
    ]
    assert 181 <= covered(grouped) <= 198


def test_copies_of_atoms_add_no_information():
    values = np.random.default_rng(25).exponential(size=8)
    once = _mean_of_atoms(values, 1.0, 10**9)
    copied = _mean_of_atoms(np.repeat(values, 5), 5.0, 10**9)
    assert (copied.value, copied.low, copied.high) == pytest.approx((once.value, once.low, once.high))
