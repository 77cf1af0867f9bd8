from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.glass.correlation import RadialDistribution, radial_distribution
from alloop.glass.crystals import crystal
from alloop.glass.scattering import (
    NEUTRON_LENGTHS_FM,
    XRAY_Q_MAX_PER_A,
    _transform,
    lorch_window,
    neutron_correlation,
    neutron_lengths_fm,
    structure_factors_direct,
    structure_factors_from_g,
    xray_form_factor,
)

TRICLINIC = np.array([[13.0, 0.0, 0.0], [2.5, 12.0, 0.0], [-1.5, 3.0, 11.0]])


def ideal_gas(seed: int, n: int = 200) -> Atoms:
    rng = np.random.default_rng(seed)
    symbols = ["Si"] * (n // 4) + ["O"] * (n - n // 4)
    return Atoms(symbols, scaled_positions=rng.random((n, 3)), cell=TRICLINIC, pbc=True)


def hard_spheres(seed: int, n: int, length_A: float, diameter_A: float) -> Atoms:
    """Spheres dropped one after the other where there is room: short-range order and nothing beyond, as in a glass."""
    rng = np.random.default_rng(seed)
    placed = np.zeros((0, 3))
    while len(placed) < n:
        trial = rng.random(3) * length_A
        apart = placed - trial
        apart -= length_A * np.round(apart / length_A)
        if (np.einsum("ij,ij->i", apart, apart) > diameter_A**2).all():
            placed = np.vstack([placed, trial])
    symbols = rng.permutation(["Si"] * (n // 5) + ["B"] * (n // 5) + ["O"] * (n - 2 * (n // 5)))
    return Atoms(symbols, positions=placed, cell=[length_A] * 3, pbc=True)


@pytest.fixture(scope="module")
def glass() -> list[Atoms]:
    return [hard_spheres(seed, 500, 20.0, 2.0) for seed in range(6)]


def test_ideal_gas_is_one_at_every_q():
    s = structure_factors_direct((ideal_gas(seed) for seed in range(30)), q_max_per_A=6.0, bin_width_per_A=0.25)
    assert s.n_frames == 30
    # one vector gives S with a standard deviation of 1 in units of sqrt(c_a c_b) / (c_a c_b); five of the mean
    error = 5 / np.sqrt(s.n_vectors)
    c = {"Si": 0.25, "O": 0.75}
    for name, values in s.partial.items():
        a, b = name.split("-")
        assert (np.abs(values - 1) < error / np.sqrt(c[a] * c[b])).all(), name
    assert (np.abs(s.neutron() - 1) < error).all()
    assert (np.abs(s.xray() - 1) < error).all()


def test_dimers_in_random_places_show_one_sine():
    """Diatomic ideal gas: S_BO = 1 + (1/2) / (1/4) sin(Qd) / (Qd), S_BB = S_OO = 1 (Debye)."""
    rng = np.random.default_rng(5)
    n, d, length = 60, 1.4, 15.0

    def frame() -> Atoms:
        direction = rng.normal(size=(n, 3))
        direction *= d / np.linalg.norm(direction, axis=1)[:, None]
        boron = rng.random((n, 3)) * length
        return Atoms(f"B{n}O{n}", positions=np.vstack([boron, boron + direction]), cell=[length] * 3, pbc=True)

    frames = [frame() for _ in range(60)]
    direct = structure_factors_direct(frames, q_max_per_A=8.0, bin_width_per_A=0.2)
    expected = 1 + 2 * np.sinc(direct.q_per_A * d / np.pi)
    error = 5 * 2 / np.sqrt(direct.n_vectors)
    assert (np.abs(direct.pair("O", "B") - expected) < error).all()
    assert (np.abs(direct.pair("B", "B") - 1) < error).all()
    g = radial_distribution(frames, r_max_A=7.5, bin_width_A=0.02)
    q = np.arange(1.5, 8.0, 0.1)
    transformed = structure_factors_from_g(g, q, lorch=False)
    np.testing.assert_allclose(transformed.pair("B", "O"), 1 + 2 * np.sinc(q * d / np.pi), atol=0.1)


def constant_g(h: np.ndarray, edges: np.ndarray, density: float = 0.08) -> RadialDistribution:
    return RadialDistribution(edges, {"O-O": 1 + h}, 1 + h, {"O": density}, 1)


def test_transform_of_a_step_is_the_sphere_form():
    """Dilute hard spheres, g = 0 below sigma and 1 beyond: S = 1 - 4 pi rho (sin x - x cos x) / Q^3, x = Q sigma."""
    edges = np.linspace(0, 10, 201)
    sigma, density = 2.5, 0.02
    step = constant_g(np.where(edges[1:] <= sigma + 1e-9, -1.0, 0.0), edges, density)
    q = np.concatenate([[1e-6], np.linspace(0.05, 30, 600)])
    found = structure_factors_from_g(step, q, lorch=False).pair("O", "O")
    x = q[1:] * sigma
    np.testing.assert_allclose(found[1:], 1 - 4 * np.pi * density * (np.sin(x) - x * np.cos(x)) / q[1:] ** 3, atol=1e-9)
    assert found[0] == pytest.approx(1 - density * 4 / 3 * np.pi * sigma**3)


def test_transform_of_a_gaussian_shell_with_and_without_lorch():
    """rho r^2 4 pi h a Gaussian shell of weight 4 at R: S - 1 = 4 sin(QR)/(QR) exp(-Q^2 s^2 / 2) for s << R."""
    edges = np.linspace(0, 8, 1601)
    r, density, radius, width = 0.5 * (edges[1:] + edges[:-1]), 0.08, 1.62, 0.02
    shell = 4 * np.exp(-((r - radius) ** 2) / (2 * width**2)) / np.sqrt(2 * np.pi) / width
    h = shell / (4 * np.pi * density * r**2)
    q = np.linspace(0.5, 20, 100)
    expected = 4 * np.sinc(q * radius / np.pi) * np.exp(-((q * width) ** 2) / 2)
    plain = structure_factors_from_g(constant_g(h, edges, density), q, lorch=False).pair("O", "O")
    np.testing.assert_allclose(plain - 1, expected, atol=2e-3)
    lorch = structure_factors_from_g(constant_g(h, edges, density), q).pair("O", "O")
    damped = np.sin(np.pi * radius / 8) / (np.pi * radius / 8)
    np.testing.assert_allclose(lorch - 1, damped * expected, atol=2e-3)
    assert lorch_window([0.0, 4.0, 8.0], 8.0) == pytest.approx([1.0, 2 / np.pi, 0.0])


@pytest.mark.parametrize("repeat", [(1, 1, 1), (2, 1, 3)])
def test_bragg_peaks_of_lithium_oxide(repeat):
    """Antifluorite: I(hkl) per cell of 4 Li2O; only all-even or all-odd h k l are there, S is zero in between."""
    a = 4.6515
    found = structure_factors_direct([crystal("Li2O") * repeat], q_max_per_A=4.6, bin_width_per_A=0.001)
    # F_O = 4 and F_Li = 4 (i^(h+k+l) + (-i)^(h+k+l)): (111) 0, (200) -8, (220) 8, (311) 0
    peaks = {(1, 1, 1): (4, 0), (2, 0, 0): (4, -8), (2, 2, 0): (4, 8), (3, 1, 1): (4, 0)}
    fraction = {"O": 1 / 3, "Li": 2 / 3}
    for hkl, (f_o, f_li) in peaks.items():
        length = 2 * np.pi / a * np.linalg.norm(hkl)
        at = int(np.argmin(np.abs(found.q_per_A - length)))
        assert found.q_per_A[at] == pytest.approx(length, abs=1e-9)
        n_cells = int(np.prod(repeat))
        n = 12 * n_cells
        # the supercell has no other vector of this length only if it is the unit cell itself
        peak_vectors = {(1, 1, 1): 4, (2, 0, 0): 3, (2, 2, 0): 6, (3, 1, 1): 12}[hkl]
        share = peak_vectors / found.n_vectors[at]
        for name, product in {"O-O": f_o * f_o, "Li-Li": f_li * f_li, "Li-O": f_o * f_li}.items():
            one, other = name.split("-")
            own = n * fraction[one] if one == other else 0.0
            intensity = share * product * n_cells**2
            assert found.partial[name][at] == pytest.approx(
                1 + (intensity - own) / (n * fraction[one] * fraction[other]), abs=1e-9
            )
    empty = np.abs(found.q_per_A[:, None] - [2 * np.pi / a * np.linalg.norm(hkl) for hkl in peaks]).min(axis=1) > 0.01
    # no intensity: rho rho* = 0, so that S_ab - 1 = -delta_ab / c_a
    assert found.partial["Li-O"][empty] == pytest.approx(1.0, abs=1e-9)
    assert found.partial["O-O"][empty] == pytest.approx(1 - 3.0, abs=1e-9)


def test_first_sharp_reflections_of_quartz_are_where_the_textbook_has_them():
    # alpha-quartz: d(100) = 4.257, d(101) = 3.343 Å (ICDD 46-1045: 4.2550 and 3.3435)
    s = structure_factors_direct([crystal("alpha-quartz")], q_max_per_A=2.2, bin_width_per_A=0.001)
    total = s.xray()
    strong = s.q_per_A[total > 0.1 * total.max()]
    assert 2 * np.pi / strong == pytest.approx([4.257, 3.343], abs=0.005)
    assert s.q_per_A[np.argmax(total)] == pytest.approx(2 * np.pi / 3.343, abs=0.005)


def test_transform_and_direct_sum_are_one_function_under_a_common_window(glass):
    """Windowing g(r) by a Gaussian is the same as spreading the lattice sum by its transform: an identity, no fit.

    4 pi rho integral r^2 (g - 1) w sinc(Qr) dr = sum over q not 0 of (S(q) - 1) K(Q, q) / V for
    unlike atoms, with K(Q, q) = 4 pi integral r^2 w sinc(Qr) sinc(qr) dr, closed for a Gaussian w.
    """
    frame = glass[0]
    alpha = 0.9  # w = exp(-(alpha r)^2 / 2): 1e-9 at 7 Å
    g = radial_distribution([frame], r_max_A=8.0, bin_width_A=0.005)
    q = np.linspace(0.4, 6.0, 57)
    found = _transform(g, g.partial["Si-O"] - 1.0, q, np.exp(-((alpha * g.r_A) ** 2) / 2))
    k = structure_factors_direct([frame], q_max_per_A=12.0, bin_width_per_A=0.002)
    excess, weight = k.pair("Si", "O") - 1.0, 2.0 * k.n_vectors
    gauss = [np.exp(-((q[:, None] - s * k.q_per_A) ** 2) / (2 * alpha**2)) for s in (1, -1)]
    kernel = (2 * np.pi) ** 1.5 / (2 * alpha * np.outer(q, k.q_per_A)) * (gauss[0] - gauss[1])
    expected = kernel @ (excess * weight) / frame.cell.volume
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(expected).max() > 0.1


def test_both_ways_agree_on_a_glass_without_further_ado(glass):
    direct = structure_factors_direct(glass, q_max_per_A=15.0, bin_width_per_A=0.1)
    g = radial_distribution(glass, r_max_A=10.0, bin_width_A=0.01)
    here = direct.q_per_A > 1.2
    transformed = structure_factors_from_g(g, direct.q_per_A[here])
    for one, other in (transformed.neutron(), direct.neutron()), (transformed.xray(), direct.xray()):
        assert np.abs(one - other[here]).max() < 0.1
        assert np.sqrt(np.mean((one - other[here]) ** 2)) < 0.03
    assert np.ptp(direct.neutron()[here]) > 0.5
    assert np.abs(direct.neutron()[direct.q_per_A > 14] - 1).max() < 0.05


def test_beyond_the_cell_the_transform_sees_the_box_as_a_crystal():
    """r_max of several cells turns S(Q) into the Bragg peaks of the box, narrower and higher with r_max."""
    small = ideal_gas(1, 40)
    near_peak = structure_factors_direct([small], q_max_per_A=1.0, bin_width_per_A=1e-4)
    first = near_peak.q_per_A[np.argmax(near_peak.pair("O", "O"))]
    heights = [
        structure_factors_from_g(radial_distribution([small], r_max_A=r, bin_width_A=0.05), [first]).pair("O", "O")[0]
        for r in (6.0, 24.0, 48.0)
    ]
    assert abs(heights[2] - 1) > 3 * abs(heights[0] - 1)


def test_partials_add_up_to_the_total(glass):
    s = structure_factors_direct(glass[:2], q_max_per_A=6.0, bin_width_per_A=0.1)
    b = {"Si": 4.1491, "B": 6.65, "O": 5.803}
    c = s.fractions
    mean = sum(c[e] * b[e] for e in c)
    by_hand = sum(c[x] * c[y] * b[x] * b[y] * (s.pair(x, y) - 1) for x in c for y in c) / mean**2 + 1
    np.testing.assert_allclose(s.neutron(isotopes=("11B",)), by_hand)
    equal = s.neutron(lengths_fm={"Si": 3.0, "B": 3.0, "O": 3.0})
    blind = glass[0].copy(), glass[1].copy()
    for frame in blind:
        frame.symbols[:] = "O"
    np.testing.assert_allclose(equal, structure_factors_direct(blind, q_max_per_A=6.0, bin_width_per_A=0.1).neutron())
    assert (structure_factors_direct(blind, q_max_per_A=6.0).xray() >= 0).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_direct_sum_knows_no_origin_order_or_choice_of_cell_vectors(seed):
    rng = np.random.default_rng(seed)
    frame = ideal_gas(seed, 24)
    options = {"q_max_per_A": 3.0, "bin_width_per_A": 0.3}
    other = frame[rng.permutation(len(frame))]
    other.positions += rng.normal(size=3) * 20 + rng.integers(-2, 3, size=(len(other), 3)) @ TRICLINIC
    skewed = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ TRICLINIC  # the same lattice
    other.set_cell(skewed, scale_atoms=False)
    one, two = (structure_factors_direct([atoms], **options) for atoms in (frame, other))
    assert one.n_vectors.tolist() == two.n_vectors.tolist()
    for name in one.partial:
        np.testing.assert_allclose(one.partial[name], two.partial[name], atol=1e-8)


def test_number_of_vectors_is_that_of_the_sphere():
    s = structure_factors_direct([ideal_gas(0, 8)], q_max_per_A=5.0)
    volume = abs(np.linalg.det(TRICLINIC))
    assert s.n_vectors.sum() == pytest.approx(volume / (2 * np.pi) ** 3 * 4 / 3 * np.pi * 125 / 2, rel=0.02)
    assert s.q_per_A.max() <= 5.0
    assert (np.diff(s.q_per_A) > 0).all()


def test_form_factors():
    numbers = {"Li": 3, "B": 5, "O": 8, "Si": 14}
    for element, z in numbers.items():
        assert xray_form_factor(element, 0.0) == pytest.approx(z, abs=0.005)
        f = xray_form_factor(element, np.linspace(0, XRAY_Q_MAX_PER_A, 50))
        assert (np.diff(f) < 0).all()
        assert (f > 0).all()
    # Hartree-Fock values at sin(theta)/lambda = 0.5 / Å, International Tables C, table 6.1.1.1
    q = 4 * np.pi * 0.5
    assert xray_form_factor("O", q) == pytest.approx(2.338, abs=0.005)
    assert xray_form_factor("Si", q) == pytest.approx(6.24, abs=0.01)


@pytest.mark.parametrize("element", ["Li", "B", "O", "Si"])
def test_form_factors_equal_electron_ones_by_mott_and_bethe(element):
    """f_x = Z - 41.78214 s^2 f_e with electron scattering factors of an independent fit.

    Its error, some 0.005 Å, comes multiplied by 41.8 s^2, so that the comparison ends at s = 0.6 / Å.
    """
    xrd = pytest.importorskip("pymatgen.analysis.diffraction.xrd")
    from ase.data import atomic_numbers

    s = np.linspace(0.05, 0.6, 12)
    electron = sum(a * np.exp(-b * s**2) for a, b in xrd.ATOMIC_SCATTERING_PARAMS[element])
    expected = atomic_numbers[element] - 41.78214 * s**2 * electron
    np.testing.assert_allclose(xray_form_factor(element, 4 * np.pi * s), expected, atol=0.1)


def test_oxygen_form_factor_equals_the_fit_of_waasmaier_and_kirfel():
    from ase.utils.xrdebye import waasmaier

    *pairs, constant = waasmaier["O"]
    s = np.linspace(0, 2, 41)
    expected = constant + sum(a * np.exp(-b * s**2) for a, b in zip(pairs[::2], pairs[1::2], strict=True))
    np.testing.assert_allclose(xray_form_factor("O", 4 * np.pi * s), expected, atol=0.02)


def test_isotopes_and_own_lengths():
    assert neutron_lengths_fm(("Li", "B")) == {"Li": -1.90, "B": 5.30}
    assert neutron_lengths_fm(("Li", "B"), isotopes=("7Li", "11B")) == {"Li": -2.22, "B": 6.65}
    assert neutron_lengths_fm(("Na",), lengths_fm={"Na": 3.63}) == {"Na": 3.63}
    # the natural element is the mixture: 19.9 % 10B of -0.1 fm, 7.5 % 6Li of 2.00 fm (Sears)
    lengths = neutron_lengths_fm(("Li", "B"), isotopes=("7Li", "11B"))
    assert NEUTRON_LENGTHS_FM["B"] == pytest.approx(0.801 * lengths["B"] - 0.199 * 0.1, abs=0.02)
    assert NEUTRON_LENGTHS_FM["Li"] == pytest.approx(0.925 * lengths["Li"] + 0.075 * 2.00, abs=0.01)
    for bad in ("B", "12B", "Li7"):
        with pytest.raises(ValueError, match="not a known isotope"):
            neutron_lengths_fm(("B",), isotopes=(bad,))
    with pytest.raises(ValueError, match=r"lengths_fm=\{'Na'"):
        neutron_lengths_fm(("Na", "O"))


def test_neutron_correlation_of_quartz():
    """The Si-O peak of T(r) holds 4 oxygen atoms: its area over r is 2 c_Si b_Si b_O 4 / <b>^2."""
    g = radial_distribution([crystal("alpha-quartz")], r_max_A=6.0, bin_width_A=0.01)
    t = neutron_correlation(g)
    assert t.density_A3 == pytest.approx(9 / crystal("alpha-quartz").cell.volume)
    assert t.mean_length_fm == pytest.approx((4.1491 + 2 * 5.803) / 3)
    peak = (t.r_A > 1.5) & (t.r_A < 1.75)
    area = np.sum((t.T_per_A2 * t.r_A)[peak]) * 0.01
    assert area == pytest.approx(2 / 3 * 4 * 4.1491 * 5.803 / t.mean_length_fm**2, rel=1e-3)
    np.testing.assert_allclose(t.T_per_A2 - t.G_per_A2, 4 * np.pi * t.density_A3 * t.r_A)
    assert t.G_per_A2[10] == pytest.approx(-4 * np.pi * t.density_A3 * t.r_A[10])


def test_neutron_correlation_and_structure_factor_are_a_pair(glass):
    """The total S(Q) is the sine transform of G(r): S - 1 = (1/Q) integral of G sin(Qr) dr."""
    g = radial_distribution(glass[:2], r_max_A=10.0, bin_width_A=0.005)
    q = np.linspace(1, 12, 30)
    t = neutron_correlation(g, isotopes=("11B",))
    by_hand = (t.G_per_A2 * np.sin(np.outer(q, t.r_A))).sum(axis=1) * 0.005 / q
    found = structure_factors_from_g(g, q, lorch=False).neutron(isotopes=("11B",))
    np.testing.assert_allclose(found - 1, by_hand, atol=2e-3)


def test_streaming_holds_one_frame_and_averages(glass):
    handed_out = []

    def frames():
        for k in range(2):
            handed_out.append(k)
            yield glass[k]

    both = structure_factors_direct(frames(), q_max_per_A=2.0)
    each = [structure_factors_direct([frame], q_max_per_A=2.0) for frame in glass[:2]]
    np.testing.assert_allclose(both.partial["B-O"], (each[0].partial["B-O"] + each[1].partial["B-O"]) / 2)
    assert handed_out == [0, 1]
    stretched = glass[0].copy()
    stretched.set_cell(stretched.cell * 1.02, scale_atoms=True)
    mixed = structure_factors_direct([glass[0], stretched], q_max_per_A=2.0)
    assert mixed.n_vectors.sum() > both.n_vectors.sum()


def test_csv(tmp_path, glass):
    s = structure_factors_direct(glass[:1], q_max_per_A=1.0)
    s.write_csv(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text().startswith("q_per_A,B-B,B-O,B-Si,O-O,Si-O,Si-Si\n")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)[:, 0], s.q_per_A, rtol=1e-5)


def test_refuses_what_has_no_structure_factor(glass):
    with pytest.raises(ValueError, match="no frames"):
        structure_factors_direct([])
    with pytest.raises(ValueError, match="frame 0 is not periodic"):
        structure_factors_direct([Atoms("O2", positions=[(0, 0, 0), (0, 0, 1)])])
    with pytest.raises(ValueError, match="one composition"):
        structure_factors_direct([glass[0], crystal("Li2O")], q_max_per_A=1.0)
    with pytest.raises(ValueError, match="raise q_max_per_A"):
        structure_factors_direct([crystal("Li2O")], q_max_per_A=0.5)
    with pytest.raises(ValueError, match="shell width"):
        structure_factors_direct(glass, q_max_per_A=-1.0)
    g = radial_distribution([crystal("Li2O")], r_max_A=3.0)
    with pytest.raises(ValueError, match="positive numbers in 1/Å"):
        structure_factors_from_g(g, [0.0, 1.0])
    s = structure_factors_from_g(g, [1.0, 30.0])
    with pytest.raises(ValueError, match="shorten the range"):
        s.xray()
    with pytest.raises(ValueError, match="no B-O pair"):
        s.pair("B", "O")
    with pytest.raises(ValueError, match="no X-ray form factor of Na"):
        xray_form_factor("Na", 1.0)
    with pytest.raises(ValueError, match="mean scattering length"):
        s.neutron(lengths_fm={"Li": -2.9015})
