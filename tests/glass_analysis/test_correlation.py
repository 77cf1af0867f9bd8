from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from alloop.glass.correlation import radial_distribution

TRICLINIC = np.array([[9.0, 0.0, 0.0], [2.5, 8.0, 0.0], [-1.5, 3.0, 7.0]])


def ideal_gas(seed: int, n: int = 300) -> Atoms:
    rng = np.random.default_rng(seed)
    symbols = ["O"] * (n // 2) + ["B"] * (n - n // 2)
    return Atoms(symbols, scaled_positions=rng.random((n, 3)), cell=TRICLINIC, pbc=True)


def test_ideal_gas_is_one_beyond_half_a_triclinic_cell():
    g = radial_distribution((ideal_gas(seed) for seed in range(12)), r_max_A=6.0, bin_width_A=0.5)
    assert g.n_frames == 12
    assert g.r_A[:2].tolist() == [0.25, 0.75]
    far = g.r_A > 1.5
    np.testing.assert_allclose(g.partial["B-O"][far], 1.0, atol=0.03)
    # one species of N atoms has N - 1 partners, plus its own images from the shortest lattice vector (7.8 Å) on
    np.testing.assert_allclose(g.partial["O-O"][far], 1 - 1 / 150, atol=0.03)
    np.testing.assert_allclose(g.total[far], 1 - 1 / 300, atol=0.02)


def test_shells_of_quartz_and_li2o(crystals):
    quartz = radial_distribution([crystals["alpha_quartz"]], r_max_A=9.0, bin_width_A=0.05)
    si_o = quartz.running_coordination("Si", "O")
    o_si = quartz.running_coordination("O", "Si")
    at_2 = int(np.searchsorted(quartz.edges_A, 2.0)) - 1
    assert si_o[at_2] == pytest.approx(4.0)
    assert o_si[at_2] == pytest.approx(2.0)
    # fluorite structure: 4 O around Li, 8 Li around O, 12 O around O at a / sqrt(2) = 3.289 Å
    li2o = radial_distribution([crystals["Li2O"]], r_max_A=4.0, bin_width_A=0.01)
    within = [int(np.searchsorted(li2o.edges_A, r)) - 1 for r in (2.1, 3.4)]
    assert li2o.running_coordination("O", "Li")[within[0]] == pytest.approx(8.0)
    assert li2o.running_coordination("O", "O")[within].tolist() == pytest.approx([0.0, 12.0])
    assert li2o.r_A[np.argmax(li2o.partial["Li-O"])] == pytest.approx(4.6515 * np.sqrt(3) / 4, abs=0.01)


def test_first_minimum_is_the_middle_of_a_gap(crystals):
    first, second = 4.6515 * np.sqrt(3) / 4, 4.6515 * np.sqrt(11) / 4  # fluorite structure, both distances of Li-O
    g = radial_distribution([crystals["Li2O"]], r_max_A=6.0, bin_width_A=0.02)
    assert g.first_minimum_A("O-Li") == pytest.approx((first + second) / 2, abs=0.02)
    with pytest.raises(ValueError, match="hold no B-O pair"):
        g.first_minimum_A("B-O")
    near = radial_distribution([crystals["Li2O"]], r_max_A=3.0, bin_width_A=0.02)
    with pytest.raises(ValueError, match=r"g\(r\) of Li-O has no minimum between two peaks below 3 Å, in 1 frames"):
        near.first_minimum_A("Li-O")


def test_a_supercell_has_the_same_g(crystals):
    small = crystals["B2O3_II"]
    one = radial_distribution([small], r_max_A=8.0, bin_width_A=0.13)
    two = radial_distribution([small * (2, 1, 3)], r_max_A=8.0, bin_width_A=0.13)
    assert set(one.partial) == {"B-B", "B-O", "O-O"}
    for name in one.partial:
        # exact symmetry puts some distances on a bin edge, where rounding decides; compare the running sums
        np.testing.assert_allclose(one.partial[name].sum(), two.partial[name].sum(), rtol=0.02)
    np.testing.assert_allclose(one.running_coordination("B", "O")[15:20], two.running_coordination("B", "O")[15:20])


def test_mean_over_frames_of_different_volume(crystals):
    small, large = crystals["Li2O"].copy(), crystals["Li2O"].copy()
    large.set_cell(large.cell * 1.1, scale_atoms=True)
    both = radial_distribution([small, large], r_max_A=3.0, bin_width_A=0.1)
    each = [radial_distribution([frame], r_max_A=3.0, bin_width_A=0.1) for frame in (small, large)]
    np.testing.assert_allclose(both.total, (each[0].total + each[1].total) / 2)
    assert both.mean_density_A3["Li"] == pytest.approx((8 / small.get_volume() + 8 / large.get_volume()) / 2)


def test_one_frame_is_held_at_a_time(crystals):
    handed_out = []

    def frames():
        for k in range(3):
            handed_out.append(k)
            yield crystals["Li2O"]

    assert radial_distribution(frames(), r_max_A=3.0).n_frames == 3
    assert handed_out == [0, 1, 2]


def test_refuses_what_has_no_g(crystals):
    li2o = crystals["Li2O"]
    with pytest.raises(ValueError, match="no frames"):
        radial_distribution([])
    with pytest.raises(ValueError, match="frame 0 is not periodic"):
        radial_distribution([Atoms("O2", positions=[(0, 0, 0), (0, 0, 1)])])
    with pytest.raises(ValueError, match="one composition"):
        radial_distribution([li2o, crystals["alpha_quartz"]], r_max_A=3.0)
    with pytest.raises(ValueError, match="bin width"):
        radial_distribution([li2o], r_max_A=3.0, bin_width_A=0.0)
    with pytest.raises(ValueError, match="no B-O pair"):
        radial_distribution([li2o], r_max_A=3.0).running_coordination("B", "O")
