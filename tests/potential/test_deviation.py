from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.selection.classes import classify
from alloop.selection.deviation import (
    BINS_PER_DECADE,
    HIGHEST,
    LOWEST,
    DeviationStatistics,
    force_deviation,
    model_deviation,
    relative_force_deviation,
    relative_virial_deviation,
    summarize_force_deviation,
    virial_deviation,
)


def test_two_models_apart_by_a_known_vector() -> None:
    forces = np.zeros((2, 3, 3))
    forces[1, 0] = [2.0, 0.0, 0.0]
    forces[1, 1] = [2.0, 4.0, 4.0]
    np.testing.assert_allclose(force_deviation(forces), [1.0, 3.0, 0.0])
    summary = summarize_force_deviation(force_deviation(forces))
    assert (summary.maximum, summary.minimum, summary.mean) == (3.0, 0.0, pytest.approx(4 / 3))


def test_population_not_sample_standard_deviation() -> None:
    forces = np.zeros((4, 1, 3))
    forces[:, 0, 0] = [1.0, -1.0, 1.0, -1.0]
    assert force_deviation(forces) == pytest.approx([1.0])


def test_against_deepmd_formula_with_frame_axis() -> None:
    forces = np.random.default_rng(0).normal(size=(4, 5, 7, 3))
    deviation = force_deviation(forces)
    assert deviation.shape == (5, 7)
    np.testing.assert_allclose(deviation, np.linalg.norm(forces.std(axis=0), axis=-1))


def test_virial_is_per_atom_and_averages_by_root_mean_square() -> None:
    virials = np.zeros((2, 3, 3))
    virials[1, 0, 1], virials[1, 2, 2] = 40.0, 80.0
    summary = virial_deviation(virials, 10)
    assert (summary.maximum, summary.minimum) == (4.0, 0.0)
    assert summary.mean == pytest.approx(np.sqrt((2.0**2 + 4.0**2) / 9))
    assert virial_deviation(np.zeros((3, 6, 3, 3)), 5).maximum.shape == (6,)


def test_one_model_has_no_spread() -> None:
    assert not force_deviation(np.ones((1, 4, 3))).any()
    assert virial_deviation(np.ones((1, 3, 3)), 4).maximum == 0


def test_nan_stays_nan() -> None:
    forces = np.zeros((3, 4, 3))
    forces[2, 1, 0] = np.nan
    deviation = force_deviation(forces)
    assert np.isnan(deviation[1]) and np.isfinite(deviation[[0, 2, 3]]).all()
    assert np.isnan(summarize_force_deviation(deviation).maximum)


@given(st.integers(2, 5), st.floats(-1e3, 1e3), st.integers(0, 10**6))
def test_common_force_and_order_of_models_do_not_matter(n_models: int, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    forces = rng.normal(size=(n_models, 6, 3))
    expected = force_deviation(forces)
    np.testing.assert_allclose(force_deviation(rng.permutation(forces) + shift), expected, atol=1e-9)
    np.testing.assert_allclose(force_deviation(3.0 * forces), 3.0 * expected)


@pytest.mark.parametrize("shape", [(4, 3), (0, 4, 3), (2, 4, 2)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="forces have shape"):
        force_deviation(np.zeros(shape))
    with pytest.raises(ValueError, match="virials have shape"):
        virial_deviation(np.zeros((2, 9)), 4)
    with pytest.raises(ValueError, match="n_atoms"):
        virial_deviation(np.zeros((2, 3, 3)), 0)


def test_relative_force_is_measured_by_the_mean_force_and_the_level() -> None:
    forces = np.zeros((2, 3, 3))
    forces[:, 0, 0] = [2.0, 4.0]  # mean 3, deviation 1
    forces[:, 1, 1] = [1.0, -1.0]  # mean 0, deviation 1
    np.testing.assert_allclose(relative_force_deviation(forces, 0.5), [1 / 3.5, 2.0, 0.0])


def test_relative_virial_divides_each_component_by_its_own_mean() -> None:
    virials = np.zeros((2, 3, 3))
    virials[:, 0, 0] = [20.0, 60.0]  # per atom of 10: mean 4, deviation 2
    virials[:, 1, 2] = [-10.0, 10.0]  # mean 0, deviation 1
    summary = relative_virial_deviation(virials, 10, 0.25)
    assert (summary.maximum, summary.minimum) == (pytest.approx(4.0), 0.0)
    assert summary.mean == pytest.approx(np.sqrt(((2 / 4.25) ** 2 + 4.0**2) / 9))
    norm_of_all_nine = virials.std(axis=0).max() / (np.linalg.norm(virials.mean(axis=0)) + 0.25 * 10)
    assert summary.maximum != pytest.approx(norm_of_all_nine)


def test_many_frames_are_the_frames_one_by_one() -> None:
    rng = np.random.default_rng(1)
    forces, virials = rng.normal(size=(4, 12, 6, 3)), rng.normal(size=(4, 12, 3, 3))
    levels = {"force_level_eV_A": 0.3, "virial_level_eV": 0.2}
    many = model_deviation(forces, virials, **levels)
    assert many.atoms_eV_A.shape == (12, 6) and many.relative_force is not None and many.relative_virial is not None
    for frame in range(12):
        one = model_deviation(forces[:, frame], virials[:, frame], **levels)
        np.testing.assert_allclose(many.atoms_eV_A[frame], one.atoms_eV_A)
        assert one.relative_force is not None and one.relative_virial is not None
        for whole, single in (
            (many.force_eV_A, one.force_eV_A),
            (many.virial_eV, one.virial_eV),
            (many.relative_force, one.relative_force),
            (many.relative_virial, one.relative_virial),
        ):
            for name in ("maximum", "minimum", "mean"):
                assert getattr(whole, name)[frame] == pytest.approx(float(getattr(single, name)))
    plain = model_deviation(forces, virials)
    assert plain.relative_force is None and plain.relative_virial is None


def test_one_model_or_models_that_agree_have_no_relative_spread_either() -> None:
    rng = np.random.default_rng(2)
    one = model_deviation(
        rng.normal(size=(1, 5, 3)), rng.normal(size=(1, 3, 3)), force_level_eV_A=1.0, virial_level_eV=1.0
    )
    assert one.relative_force is not None and one.relative_virial is not None
    assert one.relative_force.maximum == one.relative_virial.maximum == 0
    assert not relative_force_deviation(np.zeros((3, 4, 3)), 0.1).any()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_not_finite_reach_every_summary(broken: float) -> None:
    forces, virials = np.ones((3, 2, 4, 3)), np.ones((3, 2, 3, 3))
    forces[1, 0, 2, 0] = virials[1, 0, 0, 0] = broken
    with np.errstate(invalid="ignore"):
        found = model_deviation(forces, virials, force_level_eV_A=0.1, virial_level_eV=0.1)
    assert found.relative_force is not None and found.relative_virial is not None
    assert np.isnan(found.atoms_eV_A[0]).tolist() == [False, False, True, False]
    for summary in (found.force_eV_A, found.virial_eV, found.relative_force, found.relative_virial):
        for values in (summary.maximum, summary.minimum, summary.mean):
            assert np.isnan(values).tolist() == [True, False]
    assert classify(found.force_eV_A.maximum, 0.1, 1.0).tolist() == ["failed", "accurate"]


@pytest.mark.parametrize("level", [0.0, -1.0, np.nan, np.inf])
def test_levels_that_could_divide_by_nothing_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match="give a positive number of eV/Å"):
        relative_force_deviation(np.ones((2, 3, 3)), level)
    with pytest.raises(ValueError, match="give a positive number of eV/atom"):
        relative_virial_deviation(np.ones((2, 3, 3)), 3, level)


def test_forces_and_virials_of_other_frames_are_refused() -> None:
    with pytest.raises(ValueError, match=r"forces are of \(models, frames\) \(2, 4\), virials of \(2, 5\)"):
        model_deviation(np.ones((2, 4, 3, 3)), np.ones((2, 5, 3, 3)))


@given(st.integers(2, 5), st.integers(0, 10**6))
def test_deviation_knows_neither_direction_nor_order(n_models: int, seed: int) -> None:
    """Forces turned together; atoms, frames and models in another order; with the unit, the level follows."""
    rng = np.random.default_rng(seed)
    forces, virials = rng.normal(size=(n_models, 3, 6, 3)), rng.normal(size=(n_models, 3, 3, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    atoms, frames, models = rng.permutation(6), rng.permutation(3), rng.permutation(n_models)
    expected = relative_force_deviation(forces, 0.2)
    np.testing.assert_allclose(relative_force_deviation(forces @ turn, 0.2), expected)
    shuffled = forces[models][:, frames][:, :, atoms]
    np.testing.assert_allclose(relative_force_deviation(shuffled, 0.2), expected[frames][:, atoms])
    np.testing.assert_allclose(relative_force_deviation(5 * forces, 1.0), expected)
    axes = rng.permutation(3)
    relative = relative_virial_deviation(virials, 6, 0.3)
    renamed = relative_virial_deviation(virials[..., axes, :][..., axes], 6, 0.3)
    for name in ("maximum", "minimum", "mean"):
        np.testing.assert_allclose(getattr(renamed, name), getattr(relative, name))
    assert (relative_force_deviation(forces, 0.1) > expected).all()


VALUES = st.lists(
    st.one_of(
        st.floats(0, 1e5),
        st.floats(-6, 4).map(lambda exponent: 10**exponent),
        st.sampled_from([0.0, math.nan, math.inf, LOWEST, HIGHEST]),
    ),
    max_size=60,
)


def counted(values: list[float]) -> DeviationStatistics:
    found = DeviationStatistics()
    found.add(np.array(values), classify(np.array(values), 0.1, 1.0))
    return found


@given(VALUES, VALUES, VALUES)
def test_statistics_of_parts_are_those_of_the_whole_in_any_order(
    one: list[float], two: list[float], three: list[float]
) -> None:
    whole = counted(one + two + three).to_json()
    assert counted(one).merged(counted(two)).merged(counted(three)).to_json() == whole
    assert counted(three).merged(counted(one).merged(counted(two))).to_json() == whole
    step_by_step = DeviationStatistics()
    for value in one + two + three:
        step_by_step.add(np.array(value), classify(np.array([value]), 0.1, 1.0))
    assert step_by_step.to_json() == whole
    assert DeviationStatistics.from_json(json.loads(json.dumps(whole, allow_nan=False))).to_json() == whole


@given(VALUES, st.floats(0, 1))
def test_quantiles_are_right_to_the_width_of_a_bin(values: list[float], share: float) -> None:
    found = counted(values).quantile(share)
    if not values:
        assert math.isnan(found)
        return
    ranked = sorted(values, key=lambda value: value if math.isfinite(value) else math.inf)
    exact = ranked[max(1, math.ceil(share * len(values) - 1e-9)) - 1]
    if not math.isfinite(exact):
        assert math.isnan(found)
    elif LOWEST <= exact < HIGHEST:
        assert found == pytest.approx(exact, rel=10 ** (1 / BINS_PER_DECADE) - 1 + 1e-9)
    elif exact < LOWEST:
        assert 0 <= found <= LOWEST
    else:
        assert found >= HIGHEST * (1 - 1e-9)


def test_statistics_count_classes_and_what_is_not_finite_apart() -> None:
    found = counted([0.05, 0.5, 0.5, 5.0, math.nan, math.inf])
    assert (found.total, found.not_finite, found.minimum, found.maximum) == (6, 2, 0.05, 5.0)
    assert found.classes == {"accurate": 1, "candidate": 2, "failed": 3}
    assert found.quantile(0.5) == pytest.approx(0.5, rel=0.04)
    assert math.isnan(found.quantile(0.9))
    assert DeviationStatistics().total == 0 and math.isnan(DeviationStatistics().quantile(0.5))
    nothing_but_zero = counted([0.0] * 4)
    assert nothing_but_zero.quantile(0.99) == nothing_but_zero.maximum == 0.0


def test_statistics_refuse_what_is_no_deviation() -> None:
    with pytest.raises(ValueError, match=r"a deviation is -0\.5"):
        DeviationStatistics().add(np.array([0.1, -0.5]))
    with pytest.raises(ValueError, match="2 deviations, 1 classes"):
        DeviationStatistics().add(np.array([0.1, 0.2]), np.array(["accurate"]))
    with pytest.raises(ValueError, match=r"the share is 1\.5"):
        DeviationStatistics().quantile(1.5)
    with pytest.raises(ValueError, match="count the values again"):
        DeviationStatistics.from_json(DeviationStatistics().to_json() | {"bins_per_decade": 10})


def test_a_histogram_is_made_of_whole_bins() -> None:
    values = np.random.default_rng(0).lognormal(-1.0, 2.0, 5000)
    edges = np.geomspace(0.01, 100.0, 33)
    found = counted([*values, 0.0, np.nan, 5e3]).histogram(edges)
    assert found.tolist() == np.histogram(np.clip([*values, 0.0, 5e3], 0.01, 100.0), edges)[0].tolist()
    with pytest.raises(ValueError, match="not all between two of 64 bins per decade"):
        counted([1.0]).histogram(np.array([0.01, 0.3, 100.0]))
