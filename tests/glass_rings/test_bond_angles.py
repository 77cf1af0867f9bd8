from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.glass.angles import angle_distributions, angle_pairs, bond_angles
from alloop.glass.crystals import crystal, perturbed

TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)


def triangle(symbol: str = "B", length_A: float = 1.37) -> Atoms:
    turn = 2 * np.pi * np.arange(3) / 3
    ligands = length_A * np.column_stack([np.cos(turn), np.sin(turn), 0 * turn])
    return Atoms(f"{symbol}O3", positions=np.vstack([np.zeros((1, 3)), ligands]))


def tetrahedron(symbol: str = "B", length_A: float = 1.48) -> Atoms:
    return Atoms(f"{symbol}O4", positions=np.vstack([np.zeros((1, 3)), length_A * TETRAHEDRON]))


def boroxol() -> Atoms:
    """A regular flat B3O3 with an O outside on each B, and on one of these a fourth B: angles all known."""
    turn = np.pi * np.arange(6) / 3
    flat = np.column_stack([np.cos(turn), np.sin(turn), 0 * turn])
    ring = 1.37 * flat
    outer = 2 * ring[::2]
    bend = np.radians(180 - 135)
    fourth = outer[0] + 1.37 * np.array([np.cos(bend), np.sin(bend), 0])
    return Atoms("B3O3O3B", positions=np.vstack([ring[::2], ring[1::2], outer, fourth]))


def test_triangle_and_tetrahedron():
    assert bond_angles(triangle())["O-B3-O"] == pytest.approx([120.0] * 3)
    angles = bond_angles(tetrahedron())
    assert angles["O-B4-O"] == pytest.approx([np.degrees(np.arccos(-1 / 3))] * 6)
    assert set(angles) == {"O-B-O", "O-B4-O"}
    both = triangle() + tetrahedron()
    both.positions[4:] += 10
    mixed = bond_angles(both)
    assert [len(mixed[name]) for name in ("O-B-O", "O-B3-O", "O-B4-O")] == [9, 3, 6]


@pytest.mark.parametrize("angle", [0.0, 1e-6, 90.0, 144.0, 179.999999, 180.0])
def test_bridge_of_any_angle(angle):
    """Straight and folded ones too, where a cosine would lose half of the digits."""
    far = 1.62 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0])
    bridge = Atoms("SiOB", positions=[(1.62, 0, 0), (0, 0, 0), far])
    assert bond_angles(bridge)["B-O-Si"] == pytest.approx([angle], abs=1e-8)


def test_boroxol_inside_and_outside():
    angles = bond_angles(boroxol())
    assert angles["B-O-B in boroxol"] == pytest.approx([120.0] * 3)
    assert angles["B-O-B elsewhere"] == pytest.approx([135.0])
    assert sorted(angles["B-O-B"]) == pytest.approx([120.0] * 3 + [135.0])
    assert angles["O-B3-O"] == pytest.approx([120.0] * 9)
    assert "B-O-B in boroxol" not in bond_angles(boroxol(), boroxol=False)


def test_quartz_and_cristobalite():
    # Si-O-Si of alpha-quartz 143.73 degrees: Levien, Prewitt and Weidner, Am. Mineral. 65, 920 (1980); cristobalite
    # at 10 K 144.7: Pluth, Smith and Faber, J. Appl. Phys. 57, 1045 (1985)
    quartz = bond_angles(crystal("alpha-quartz"))
    assert quartz["Si-O-Si"] == pytest.approx([143.73] * 6, abs=0.05)
    assert quartz["O-Si4-O"].mean() == pytest.approx(109.47, abs=0.05)
    assert bond_angles(crystal("alpha-cristobalite"))["Si-O-Si"] == pytest.approx([144.66] * 8, abs=0.1)
    assert len(bond_angles(crystal("alpha-quartz") * (2, 1, 3))["Si-O-Si"]) == 36
    lithium = bond_angles(crystal("Li2O"), elements=("Li",))
    assert lithium["O-Li4-O"] == pytest.approx([np.degrees(np.arccos(-1 / 3))] * 48)


def test_every_angle_of_each_centre_once():
    """Against a plain loop over a disordered frame with oxygen of one to three neighbours."""
    frame = perturbed(crystal("LiBSiO4") * 2, rattle_A=0.25, max_strain=0.05, rng=np.random.default_rng(3))
    found = bond_angles(frame, elements=("B", "Si", "Li"))
    cutoff = {"B": 1.9, "Si": 2.0, "Li": 2.6}
    expected: dict[str, list[float]] = {}
    shifts = [np.array([a, b, c]) @ frame.cell.array for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    for i, centre in enumerate(frame.symbols):
        bonded = []
        for j, ligand in enumerate(frame.symbols):
            if (centre == "O") == (ligand == "O"):
                continue
            for shift in shifts:
                v = frame.positions[j] + shift - frame.positions[i]
                if np.linalg.norm(v) < cutoff[ligand if centre == "O" else centre]:
                    bonded.append((ligand, v))
        for a in range(len(bonded)):
            for b in range(a):
                (one, u), (other, v) = bonded[a], bonded[b]
                angle = np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
                low, high = sorted((one, other))
                names = [f"{low}-O-{high}"] if centre == "O" else [f"O-{centre}-O", f"O-{centre}{len(bonded)}-O"]
                for name in names:
                    expected.setdefault(name, []).append(angle)
    assert set(expected) == set(found) - {"B-O-B elsewhere"}
    assert len(expected) > 8
    for name, values in expected.items():
        np.testing.assert_allclose(np.sort(found[name]), np.sort(values), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(centres=st.lists(st.integers(0, 6), max_size=25))
def test_pairs_of_bonds(centres):
    one, other = angle_pairs(np.array(centres, dtype=np.int64))
    found = {frozenset(pair) for pair in zip(one.tolist(), other.tolist(), strict=True)}
    expected = {frozenset((i, j)) for i in range(len(centres)) for j in range(i) if centres[i] == centres[j]}
    assert found == expected
    assert len(one) == len(expected)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_angles_know_no_order_origin_or_wrapping(seed):
    rng = np.random.default_rng(seed)
    frame = perturbed(crystal("B2O3-I") * (2, 2, 1), rattle_A=0.15, max_strain=0.05, rng=rng)
    other = frame[rng.permutation(len(frame))]
    other.positions += rng.normal(size=3) * 9
    other.wrap()
    one, two = bond_angles(frame), bond_angles(other)
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_allclose(np.sort(one[name]), np.sort(two[name]), atol=1e-6)


def test_histogram_of_random_directions_is_flat_per_solid_angle():
    rng = np.random.default_rng(2)
    clusters = []
    for _ in range(20):
        u = rng.normal(size=(600, 2, 3))
        u *= 1.3 / np.linalg.norm(u, axis=2)[:, :, None]
        centre = 10.0 * np.arange(600)[:, None] * [1.0, 0, 0]
        positions = np.concatenate([centre, centre + u[:, 0], centre + u[:, 1]])
        clusters.append(Atoms("O600B1200", positions=positions))
    found = angle_distributions(clusters, bin_width_deg=10, boroxol=False)
    assert found.n_frames == 20
    assert found.counts["B-O-B"].sum() == 12000
    flat = found.per_solid_angle("B-O-B")
    assert np.abs(flat[1:-1] - 1).max() < 0.2
    assert np.abs(flat - 1).max() < 0.5
    sine = np.sin(np.radians(found.angle_deg[4:14])) * np.pi / 360
    np.testing.assert_allclose(found.per_degree("B-O-B")[4:14], sine, rtol=0.15)
    assert (found.per_degree("B-O-B") * 10).sum() == pytest.approx(1)


def test_streaming_mean_and_deviation_are_those_of_all_angles():
    rng = np.random.default_rng(4)
    frames = [perturbed(crystal("B2O3-II") * 2, rattle_A=0.1, max_strain=0.05, rng=rng) for _ in range(4)]
    found = angle_distributions(iter(frames), bin_width_deg=2.0)
    for name in ("B-O-B", "O-B4-O"):
        angles = np.concatenate([bond_angles(frame)[name] for frame in frames])
        assert found.mean_deg[name] == pytest.approx(angles.mean())
        assert found.std_deg[name] == pytest.approx(angles.std())
        assert found.counts[name].tolist() == np.histogram(angles, bins=90, range=(0, 180))[0].tolist()


def test_straight_angle_is_in_the_last_bin(tmp_path):
    straight = Atoms("SiOSi", positions=[(-1.6, 0, 0), (0, 0, 0), (1.6, 0, 0)])
    found = angle_distributions([straight], bin_width_deg=7)
    assert len(found.angle_deg) == 26
    assert found.counts["Si-O-Si"].tolist() == [0] * 25 + [1]
    assert np.isfinite(found.per_solid_angle("Si-O-Si")).all()
    found.write_csv(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().startswith("angle_deg,Si-O-Si\n")


def test_refuses_what_has_no_angles():
    with pytest.raises(ValueError, match="no frames"):
        angle_distributions([])
    with pytest.raises(ValueError, match="bin width"):
        angle_distributions([triangle()], bin_width_deg=0)
    with pytest.raises(ValueError, match="other than O"):
        bond_angles(triangle(), elements=("B", "O"))
    with pytest.raises(ValueError, match="no Na-O bond cutoff"):
        bond_angles(triangle(), elements=("Na",))
    with pytest.raises(ValueError, match=r"no angle Si-O-Si occurs; there are O-B-O"):
        angle_distributions([triangle()]).per_degree("Si-O-Si")
    assert bond_angles(Atoms("O2", positions=[(0, 0, 0), (3, 0, 0)])) == {}
