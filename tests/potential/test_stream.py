"""Ensembles on streams of structures: in order, a few at a time; the models are springs that count their work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from alloop.potential.ensemble import Ensemble, bounded_windows


class Springs:
    """Every atom is pulled to the origin, each element with its own spring; keeps how much was evaluated at once."""

    def __init__(self, stiffness_eV_A2: float) -> None:
        self.stiffness_eV_A2 = stiffness_eV_A2
        self.batches: list[tuple[int, int]] = []

    def get_type_map(self) -> list[str]:
        return ["O", "Si"]

    def eval(self, coords: np.ndarray, cells: np.ndarray, types: list[int]) -> tuple[np.ndarray, ...]:
        self.batches.append((len(coords), len(types)))
        x = coords.reshape(len(coords), -1, 3)
        stiffness = self.stiffness_eV_A2 * (1 + np.array(types))[:, None]
        return (0.5 * stiffness * x**2).sum(axis=(1, 2)), -stiffness * x, np.zeros((len(coords), 9))


def springs() -> tuple[Ensemble, list[Springs]]:
    ensemble, models = Ensemble.__new__(Ensemble), [Springs(1.0), Springs(3.0)]
    ensemble._models = models
    return ensemble, models


def structures(numbers: list[int], seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    return [
        Atoms(rng.permutation(["O"] * n + ["Si"]).tolist(), rng.random((n + 1, 3)), cell=[9, 9, 9], pbc=True)
        for n in numbers
    ]


@given(st.lists(st.integers(1, 6), max_size=25), st.integers(1, 20))
def test_stream_gives_what_one_call_gives_in_the_same_order(numbers: list[int], max_atoms: int) -> None:
    ensemble, models = springs()
    given_ = structures(numbers)
    expected = ensemble.evaluate_many(given_) if given_ else []
    for model in models:
        model.batches.clear()
    streamed = list(ensemble.evaluate_stream(iter(given_), max_atoms))
    assert [atoms for atoms, _ in streamed] == given_
    for (_, found), wanted in zip(streamed, expected, strict=True):
        np.testing.assert_array_equal(found.forces_eV_A, wanted.forces_eV_A)
        np.testing.assert_array_equal(found.energies_eV, wanted.energies_eV)
    assert all(frames == 1 or frames * atoms <= max_atoms for frames, atoms in models[0].batches)


def test_no_more_is_taken_than_fits() -> None:
    taken: list[int] = []

    def source() -> Iterator[Atoms]:
        for number, atoms in enumerate(structures([3] * 10_000)):
            taken.append(number)
            yield atoms

    ensemble, models = springs()
    stream = ensemble.evaluate_stream(source(), max_atoms=40)
    assert not taken
    next(stream)
    assert len(taken) == 11  # ten of four atoms, and the one that did not fit
    assert models[0].batches == [(10, 4)]


def test_compositions_of_a_window_are_evaluated_together() -> None:
    ensemble, models = springs()
    list(ensemble.evaluate_stream(structures([1, 4] * 10), max_atoms=1000))
    assert sorted(models[1].batches) == [(10, 2), (10, 5)]


def test_windows_hold_a_large_structure_alone_and_nothing_twice() -> None:
    given_ = structures([1, 9, 1, 1])
    assert [len(window) for window in bounded_windows(given_, 4)] == [1, 1, 2]
    assert not list(bounded_windows([], 4))


@pytest.mark.parametrize("wrong", [0, -5])
def test_windows_of_nothing_are_refused_at_once(wrong: Any) -> None:
    ensemble, _ = springs()
    with pytest.raises(ValueError, match="at least 1 is needed"):
        ensemble.evaluate_stream([], wrong)
