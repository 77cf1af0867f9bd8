from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.selection.deviation import force_deviation, summarize_force_deviation, virial_deviation


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
