from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.selection.bands import band_names, band_of, coldest_first
from alloop.selection.pair_lengths import length_matrix_A, same_pair, split_pair


def test_lengths_by_precedence():
    matrix = length_matrix_A(("Li", "B", "O"), {"any": 0.8, "X-Li": 1.2, "O-Li": 1.5, "B-X": 1.3})
    assert matrix.tolist() == [[1.2, 1.3, 1.5], [1.3, 1.3, 1.3], [1.5, 1.3, 0.8]]
    assert length_matrix_A(("Li", "O"), {"B-O": 1.0}).tolist() == [[0, 0], [0, 0]]
    assert length_matrix_A(("O",), {"O-O": 1.0, "X-X": 2.0}).tolist() == [[1.0]]
    assert length_matrix_A((), {}).shape == (0, 0)


@pytest.mark.parametrize("pair", ["B", "", "-", "B-", "-O", "B-O-B", "B O"])
def test_refuses_what_is_no_pair(pair):
    with pytest.raises(ValueError, match="is no pair"):
        split_pair(pair)


def test_pairs_are_the_same_either_way_round():
    assert same_pair("B-O", "O-B") and same_pair("any", "X-X") and not same_pair("B-O", "B-X")
    with pytest.raises(ValueError, match="given twice"):
        length_matrix_A(("B", "O"), {"B-O": 1.0, "O-B": 1.1})


def test_bands():
    edges_K = [600.0, 1250.0, 2250.0]
    assert band_names(edges_K) == ["below 600 K", "600-1250 K", "1250-2250 K", "from 2250 K"]
    assert [band_of(t, edges_K) for t in (1.0, 599.9, 600.0, 1250, 2249, 2250, 9e9)] == [
        *["below 600 K"] * 2,
        "600-1250 K",
        *["1250-2250 K"] * 2,
        *["from 2250 K"] * 2,
    ]
    assert band_of(300, []) == "all temperatures"


@given(st.lists(st.floats(1, 5000), unique=True, max_size=5).map(sorted), st.floats(1, 5000), st.floats(1, 5000))
def test_bands_ascend_with_temperature(edges_K, one_K, other_K):
    names = band_names(edges_K)
    assert len(names) == len(edges_K) + 1
    low, high = (names.index(band_of(t, edges_K)) for t in sorted((one_K, other_K)))
    assert low <= high


@given(st.lists(st.floats(1, 1e7).map(lambda kelvin: float(f"{kelvin:g}")), unique=True, max_size=6), st.randoms())
def test_bands_are_put_in_the_order_of_temperatures(edges_K: list[float], random: Random) -> None:
    names = band_names(sorted(edges_K))
    assert coldest_first(random.sample(names, len(names))) == names
