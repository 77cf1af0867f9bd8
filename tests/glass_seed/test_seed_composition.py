from __future__ import annotations

import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.glass.composition import (
    TABLE_1,
    Glass,
    cell_length_A,
    composition_parameters,
    formula_units,
    stoichiometric_counts,
)

CELLS_NEAR_300 = {
    "LBS-20-60-20": {"Si": 14, "B": 84, "Li": 28, "O": 168},
    "LBS-40-40-20": {"Si": 32, "B": 64, "Li": 32, "O": 176},
    "LBS-10-50-40": {"Si": 8, "B": 80, "Li": 64, "O": 168},
    "LBS-20-40-40": {"Si": 16, "B": 64, "Li": 64, "O": 160},
    "LBS-30-30-40": {"Si": 24, "B": 48, "Li": 64, "O": 152},
    "LBS-40-20-40": {"Si": 36, "B": 36, "Li": 72, "O": 162},
    "LBS-50-10-40": {"Si": 45, "B": 18, "Li": 72, "O": 153},
    "LBS-8-32-60": {"Si": 6, "B": 48, "Li": 90, "O": 129},
    "LBS-15-25-60": {"Si": 12, "B": 40, "Li": 96, "O": 132},
    "LBS-10-20-70": {"Si": 9, "B": 36, "Li": 126, "O": 135},
    "LBS-5-35-60": {"Si": 4, "B": 56, "Li": 96, "O": 140},
}


@pytest.mark.parametrize(("name", "counts"), CELLS_NEAR_300.items())
def test_cells_near_300_atoms_of_the_eleven_glasses(name: str, counts: dict[str, int]) -> None:
    assert stoichiometric_counts(TABLE_1[name], 300) == counts


def test_table_1_has_measured_4b_and_density() -> None:
    assert set(TABLE_1) == set(CELLS_NEAR_300)
    glass = TABLE_1["LBS-50-10-40"]
    assert glass.experimental_4B == pytest.approx(0.568)
    assert glass.density_g_cm3 == 2.32
    assert composition_parameters(glass) == pytest.approx((4.0, 5.0))
    r_and_k = composition_parameters(TABLE_1["LBS-8-32-60"])
    assert r_and_k == pytest.approx((1.875, 0.25))


@pytest.mark.parametrize(
    ("mole_fractions", "counts"),
    [
        ({"SiO2": 1.0}, {"Si": 10, "O": 20}),
        ({"SiO2": 2 / 3, "Li2O": 1 / 3}, {"Si": 6, "Li": 6, "O": 15}),
        ({"B2O3": 0.75, "Li2O": 0.25, "SiO2": 0.0}, {"B": 12, "Li": 4, "O": 20}),
    ],
)
def test_an_oxide_may_be_absent(mole_fractions: dict[str, float], counts: dict[str, int]) -> None:
    glass = Glass("glass", mole_fractions, 2.2)
    assert stoichiometric_counts(glass, 30) == counts
    assert (composition_parameters(glass) is None) == ("B" not in counts)


@given(
    units=st.tuples(*[st.integers(0, 9)] * 3).filter(any),
    percent=st.booleans(),
    n_atoms=st.integers(100, 1000),
)
def test_cells_are_exact_neutral_and_as_close_as_possible(
    units: tuple[int, int, int], percent: bool, n_atoms: int
) -> None:
    scale = (100 if percent else 1) / sum(units)
    glass = Glass("glass", dict(zip(("SiO2", "B2O3", "Li2O"), (u * scale for u in units), strict=True)), 2.2)
    counts = stoichiometric_counts(glass, n_atoms)
    si, b, li, o = (counts.get(element, 0) for element in ("Si", "B", "Li", "O"))
    assert 4 * si + 3 * b + li == 2 * o
    assert [Fraction(n) * sum(units) for n in (si, Fraction(b, 2), Fraction(li, 2))] == [
        u * (si + Fraction(b, 2) + Fraction(li, 2)) for u in units
    ]
    per_unit = {"SiO2": 3, "B2O3": 5, "Li2O": 3}
    smallest = sum(per_unit[oxide] * number for oxide, number in formula_units(glass).items())
    assert sum(counts.values()) == smallest or abs(sum(counts.values()) - n_atoms) <= smallest / 2


def test_mole_percent_and_fractions_mean_the_same() -> None:
    glass = Glass("glass", {"SiO2": 20, "B2O3": 60, "Li2O": 20}, 2.21)
    assert glass.mole_fractions == pytest.approx({"SiO2": 0.2, "B2O3": 0.6, "Li2O": 0.2})
    assert pickle.loads(pickle.dumps(glass)) == glass


def test_cell_length_of_silica_from_its_molar_mass() -> None:
    # 60.0843 g/mol (CIAAW) and 2.20 g/cm3 make 45.35 A^3 a formula unit.
    assert cell_length_A({"Si": 10, "O": 20}, 2.20) == pytest.approx(
        (10 * 60.0843 / 0.602214076 / 2.20) ** (1 / 3), 1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"SiO2": 0.5, "B2O3": 0.3, "Li2O": 0.1}, 2.2), "sum to 0.9"),
        (({"SiO2": 50, "B2O3": 30, "Li2O": 19}, 2.2), "sum to 99"),
        (({"SiO2": 1.2, "B2O3": -0.2}, 2.2), "B2O3 is -0.2"),
        (({"SiO2": float("nan")}, 2.2), "nan"),
        (({"SiO2": 0.5, "Na2O": 0.5}, 2.2), "unknown oxide Na2O; use SiO2, B2O3, Li2O"),
        (({"SiO2": 1.0}, 0.0), "density is 0"),
        (({"SiO2": 1.0}, 2.2, 36.7), "fraction between 0 and 1"),
    ],
)
def test_wrong_glasses_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Glass("glass", *arguments)


def test_a_cell_far_too_small_for_the_composition_is_refused_with_possible_sizes() -> None:
    with pytest.raises(ValueError, match="91, 182, 273"):
        stoichiometric_counts(TABLE_1["LBS-8-32-60"], 40)
    with pytest.raises(ValueError, match="no exactly stoichiometric cell"):
        stoichiometric_counts(Glass("glass", {"SiO2": 0.333, "B2O3": 0.334, "Li2O": 0.333}, 2.2), 300)
    with pytest.raises(ValueError, match="at least 1"):
        stoichiometric_counts(TABLE_1["LBS-20-60-20"], 0)
    with pytest.raises(ValueError, match="no cell"):
        cell_length_A({}, 2.2)
