from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from ase import Atoms
from scipy import stats

from alloop.glass.transport import (
    Diffusion,
    Estimate,
    combine_trajectories,
    diffusion,
    diffusion_coefficient_A2_ps,
    mean_squared_displacement_A2,
)

CELL_A = np.array([[11.0, 0.0, 0.0], [1.0, 12.0, 0.0], [0.5, -2.0, 10.0]])


def frames(seed: int, n_frames: int = 301, n_lithium: int = 12, D_A2_ps: float = 0.02) -> list[Atoms]:
    """A lattice of O at rest with lithium walkers, 1 ps apart, wrapped."""
    rng = np.random.default_rng(seed)
    positions_A = rng.random((2 * n_lithium, 3)) @ CELL_A + np.zeros((n_frames, 1, 1))
    positions_A[:, :n_lithium] += np.cumsum(rng.normal(0, np.sqrt(2 * D_A2_ps), (n_frames, n_lithium, 3)), axis=0)
    made = [Atoms(f"Li{n_lithium}O{n_lithium}", positions=p, cell=CELL_A, pbc=True) for p in positions_A]
    for atoms in made:
        atoms.wrap()
    return made


@pytest.fixture(scope="module")
def result() -> Diffusion:
    return diffusion(iter(frames(0)), time_step_ps=1.0)


def test_msd_is_the_mean_over_all_time_origins():
    walk_A = np.cumsum(np.random.default_rng(1).normal(size=(37, 4, 3)), axis=0) + 500
    direct = [((walk_A[lag:] - walk_A[: 37 - lag]) ** 2).sum(axis=2).mean(axis=0) for lag in range(37)]
    np.testing.assert_allclose(mean_squared_displacement_A2(walk_A), direct, rtol=1e-9, atol=1e-9)


def test_straight_lines_have_a_msd_of_v2_t2():
    velocity = np.array([[0.1, 0.2, 0.2], [0.0, 0.3, -0.4]])  # speeds of 0.3 and 0.5
    line_A = np.arange(101)[:, None, None] * velocity
    np.testing.assert_allclose(mean_squared_displacement_A2(line_A), np.arange(101)[:, None] ** 2 * [0.09, 0.25])
    # the line through t^2 at lags about t has the slope 2 t
    estimate = diffusion_coefficient_A2_ps(line_A, time_step_ps=0.5, window_ps=(10, 30))
    assert estimate.value == pytest.approx(2 * 20 * (0.09 + 0.25) / 2 / 0.25 / 6)


def test_a_known_line_with_a_cage_gives_its_slope_and_intercept():
    # half the atoms at +a and -a in turn add 4 a^2 to the MSD at odd lags, nothing at even ones
    flips_A = 0.5 * (-1.0) ** np.arange(201)[:, None, None] * np.array([1.0, 0, 0]) * np.ones((1, 6, 1))
    msd = mean_squared_displacement_A2(flips_A).mean(axis=1)
    np.testing.assert_allclose(msd, np.arange(201) % 2 * 1.0, atol=1e-9)
    rng = np.random.default_rng(2)
    walk_A = np.cumsum(rng.normal(0, 0.2, (1001, 40, 3)), axis=0)
    made = [
        Atoms("Li40O", positions=[*p, [0, 0, 0]], cell=[20] * 3, pbc=True)
        for p in walk_A + rng.normal(0, 0.5, walk_A.shape)
    ]
    found = diffusion(made, time_step_ps=1.0, window_ps=(5, 30), drop_ps=0)
    assert found.D_A2_ps.value == pytest.approx(0.02, rel=0.15)
    assert found.intercept_A2 == pytest.approx(6 * 0.5**2, rel=0.1)  # twice the square of the rattling, 3 directions
    fitted = found.intercept_A2 + 6 * found.D_A2_ps.value * found.lags_ps[5:31]
    np.testing.assert_allclose(
        fitted, np.polyval(np.polyfit(np.arange(5, 31), found.msd_A2[5:31], 1), np.arange(5, 31))
    )


def test_the_result_says_what_was_done(result):
    assert (result.element, result.n_atoms, result.n_frames, result.n_trajectories) == ("Li", 12, 251, 1)
    assert (result.window_ps, result.dropped_ps, result.drift) == ((50.0, 150.0), 50.0, "network")
    assert result.lags_ps.shape == result.msd_A2.shape == (251,)
    assert (result.lags_ps[-1], result.msd_A2[0]) == (250.0, 0.0)
    assert result.D_A2_ps.low < 0.02 < result.D_A2_ps.high
    assert result.number_density_A3 == pytest.approx(12 / np.linalg.det(CELL_A))
    with pytest.raises(FrozenInstanceError):
        result.n_atoms = 3


def test_dropped_frames_are_not_used(result):
    late = diffusion(frames(0)[50:], time_step_ps=1.0, drop_ps=0)
    assert late.D_A2_ps == result.D_A2_ps
    np.testing.assert_array_equal(late.msd_A2, result.msd_A2)


def test_frame_spacing_scales_time_only(result):
    slow = diffusion(frames(0), time_step_ps=2.0, window_ps=(100, 300), drop_ps=100)
    assert slow.D_A2_ps.high == pytest.approx(result.D_A2_ps.high / 2)
    np.testing.assert_allclose(slow.lags_ps, result.lags_ps * 2)


def test_exchange_of_atoms_between_elements(result):
    order = np.random.default_rng(3).permutation(24)
    mixed = diffusion((atoms[order] for atoms in frames(0)), time_step_ps=1.0)
    assert mixed.D_A2_ps.value == pytest.approx(result.D_A2_ps.value, rel=1e-9)
    assert mixed.D_A2_ps.high == pytest.approx(result.D_A2_ps.high, rel=1e-9)
    # lithium called oxygen and oxygen lithium: the walkers are found under their new name
    swapped = frames(0)
    for atoms in swapped:
        atoms.symbols = ["O"] * 12 + ["Li"] * 12
    assert diffusion(swapped, time_step_ps=1.0, element="O").D_A2_ps.value == pytest.approx(result.D_A2_ps.value)


def test_units_and_conductivity():
    # n = 1e22 cm^-3 and D = 1e-8 cm^2/s at 300 K: 1e28 (1.602177e-19)^2 1e-12 / (1.380649e-23 300) = 0.061975 S/m
    made = Diffusion(
        "Li", Estimate(1e-4, -1e-4, 3e-4), 0.01, (50, 150), 50, "all", 10, 300, 1, np.zeros(2), np.zeros(2)
    )
    assert (made.D_cm2_s.value, made.D_cm2_s.low, made.D_cm2_s.high) == pytest.approx((1e-8, -1e-8, 3e-8))
    assert made.C_times_D_per_cm_s.value == pytest.approx(1e14)
    assert made.C_times_D_per_m_s.value == pytest.approx(1e16)
    sigma = made.conductivity_S_cm(300.0)
    assert (sigma.value, sigma.low, sigma.high) == pytest.approx((6.1975e-4, -6.1975e-4, 3 * 6.1975e-4), rel=1e-4)
    assert made.conductivity_S_cm(600.0, charge_e=-2).high == pytest.approx(2 * sigma.high)
    with pytest.raises(ValueError, match="temperature is 0 K"):
        made.conductivity_S_cm(0)
    with pytest.raises(ValueError, match="charge is 0 e"):
        made.conductivity_S_cm(300, charge_e=0)


def test_replicas_combine_with_the_scatter_between_them():
    singles = [diffusion(frames(seed, 301 + seed), time_step_ps=1.0) for seed in range(4)]
    both = combine_trajectories(singles)
    values = [single.D_A2_ps.value for single in singles]
    want = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (both.D_A2_ps.low, both.D_A2_ps.high) == pytest.approx(want)
    assert (both.n_trajectories, both.n_frames, both.n_atoms) == (4, 4 * 251 + 6, 12)
    assert both.msd_A2.shape == both.lags_ps.shape == (251,)
    assert both.msd_A2[100] == pytest.approx(np.mean([single.msd_A2[100] for single in singles]))
    assert both.C_times_D_per_m_s.value == pytest.approx(np.mean([s.C_times_D_per_m_s.value for s in singles]))


def test_the_interval_between_replicas_covers():
    rng = np.random.default_rng(4)
    made = Diffusion("Li", Estimate(0, 0, 0), 0.01, (50, 150), 0, "all", 20, 201, 1, np.arange(2.0), np.zeros(2))
    hits = 0
    for _ in range(200):
        walks_A = np.cumsum(rng.normal(0, np.sqrt(0.04), (4, 101, 20, 3)), axis=1)
        found = [diffusion_coefficient_A2_ps(walk_A, time_step_ps=2.0) for walk_A in walks_A]
        both = combine_trajectories([replace(made, D_A2_ps=estimate) for estimate in found]).D_A2_ps
        hits += both.low <= 0.01 <= both.high
    assert 181 <= hits <= 198


def test_unlike_or_too_few_trajectories_are_not_combined(result):
    with pytest.raises(ValueError, match="1 trajectory was given"):
        combine_trajectories([result])
    with pytest.raises(ValueError, match=r"differ in .*'network'.* and .*'none'"):
        combine_trajectories([result, replace(result, drift="none")])
    with pytest.raises(ValueError, match="combined already"):
        combine_trajectories([result, replace(result, n_trajectories=2)])


@pytest.mark.parametrize(
    ("n_frames", "options", "message"),
    [
        (0, {}, "too short: 0 ps after 50 ps dropped at its start, but lags to 150 ps need at least that, so 200 ps"),
        (30, {}, "too short: 0 ps after 50 ps"),
        (200, {}, "too short: 149 ps after 50 ps dropped .* run longer or choose an earlier window"),
        (
            9,
            {"time_step_ps": 70.0, "drop_ps": 0, "window_ps": (80, 150)},
            "every 70 ps have fewer than two lags from 80",
        ),
        (9, {"time_step_ps": 0.0}, "time between frames is 0.0 ps"),
        (9, {"window_ps": (150, 50)}, r"window of lags is \(150, 50\) ps; give two times, the earlier first"),
        (9, {"drop_ps": -1}, "-1 ps are to be dropped"),
        (60, {"element": "Na"}, "no Na atom"),
    ],
)
def test_unusable_trajectories_and_options_are_refused(n_frames, options, message):
    with pytest.raises(ValueError, match=message):
        diffusion(frames(5, max(n_frames, 1))[:n_frames], **{"time_step_ps": 1.0} | options)


def test_just_long_enough_is_enough():
    assert diffusion(frames(5, 201), time_step_ps=1.0).n_frames == 151


def test_frames_that_do_not_belong_together_are_refused():
    options = {"time_step_ps": 1.0, "window_ps": (2, 5), "drop_ps": 0}
    made = frames(6, 10)
    with pytest.raises(ValueError, match=r"frame 3 .* has other atoms, or the same in another order"):
        diffusion([*made[:3], made[3][::-1]], **options)
    made[2].pbc = [True, True, False]
    with pytest.raises(ValueError, match="frame 2 is not periodic in all three directions"):
        diffusion(made, **options)
    made[1].positions[5] = np.nan
    with pytest.raises(ValueError, match=r"atom 5 \(Li\) has the position"):
        diffusion(made, **options)


def test_one_atom_and_arrays_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="1 atom cannot show how far D may be off"):
        diffusion(frames(7, n_lithium=1), time_step_ps=1.0)
    with pytest.raises(ValueError, match=r"shape \(5, 3\); give \(frames, atoms, 3\)"):
        diffusion_coefficient_A2_ps(np.zeros((5, 3)), time_step_ps=1.0)
