"""Environments of single atoms, as DeePMD's own evaluation describes them, without its backends."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.potential.descriptor import Describer, projection, write_describer
from alloop.selection.diversity import Environments, Known, Scale
from alloop.selection.picks import Candidate, Rules, pick
from alloop.tasks.describe import most_uncertain

TYPE_MAP = ["Li", "B", "O", "Si"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was never trained: what it says of an environment is as good as any."""
    from deepmd.dpmodel.model.model import get_model
    from deepmd.dpmodel.utils.serialization import save_dp_model

    descriptor = {"type": "se_e2_a", "rcut": 4.0, "rcut_smth": 0.5, "sel": [30, 30, 40, 20], "neuron": [6, 12]}
    fitting = {"neuron": [8], "seed": 2}
    params = {"type_map": TYPE_MAP, "descriptor": descriptor | {"axis_neuron": 4, "seed": 1}, "fitting_net": fitting}
    path = tmp_path_factory.mktemp("describer") / "model.dp"
    save_dp_model(str(path), {"model": get_model(params).serialize(), "model_def_script": params})
    return path


def glass(seed: int, n_atoms: int = 40) -> Atoms:
    """Atoms at random in a skewed cell, none closer than 1 Å."""
    rng = np.random.default_rng(seed)
    cell = 8.5 * (np.eye(3) + np.tril(rng.uniform(-0.15, 0.15, (3, 3))))
    atoms = Atoms(cell=cell, pbc=True)
    while len(atoms) < n_atoms:
        atoms += Atoms(rng.choice(TYPE_MAP), positions=rng.random((1, 3)) @ cell)
        if len(atoms) > 1 and atoms.get_distances(-1, range(len(atoms) - 1), mic=True).min() < 1.0:
            del atoms[-1]
    return atoms


def turned(atoms: Atoms, seed: int) -> tuple[Atoms, np.ndarray]:
    """The same structure turned, shifted, its atoms in other periodic images and in another order."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(atoms))
    other = atoms[order]
    other.positions += rng.integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array + rng.normal(size=3)
    other.set_cell(atoms.cell.array @ rotation.T)
    other.positions = other.positions @ rotation.T
    return other, order


# ---------------------------------------------------------------------------------------- the adapter


def test_deepmd_is_one_this_adapter_was_tried_with() -> None:
    """Another release may keep or read models otherwise: try it with these tests, then name it here."""
    assert version("deepmd-kit").startswith("3.2.")
    from deepmd.dpmodel.model.base_model import BaseModel
    from deepmd.dpmodel.utils.nlist import build_neighbor_list, extend_coord_with_ghosts
    from deepmd.dpmodel.utils.serialization import load_dp_model, save_dp_model

    assert all(map(callable, (BaseModel.deserialize, build_neighbor_list, extend_coord_with_ghosts)))
    assert callable(load_dp_model) and callable(save_dp_model)


def test_describing_needs_no_backend(model: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ase.build import bulk\n"
        "from alloop.potential.descriptor import Describer\n"
        "Describer(Path(sys.argv[1])).describe([bulk('Si', cubic=True)])\n"
        "print([name for name in ('tensorflow', 'torch', 'jax') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.slow
def test_descriptor_is_the_one_deepmd_evaluates(
    trained: tuple[Path, Any], start_script: Callable[[Path, str], Any]
) -> None:
    """Written in the process that has just trained; twice the same numbers."""
    told = start_script(
        trained[0],
        """
        import dpdata
        from alloop.potential.descriptor import Describer, write_describer
        from deepmd.infer import DeepPot
        result = train(request(n_steps=50), folder / "describing")
        path = write_describer(result.model, result.checkpoint, folder / "model.dp")
        describer, reference = Describer(path), DeepPot(str(result.model))
        index = {symbol: number for number, symbol in enumerate(reference.get_type_map())}
        told = {"error": [], "largest": []}
        for system in request().training_systems:
            atoms = dpdata.LabeledSystem(str(system), fmt="deepmd/npy")[0].to_ase_structure()[0]
            types = [index[symbol] for symbol in atoms.get_chemical_symbols()]
            expected = reference.eval_descriptor(atoms.positions.reshape(1, -1), atoms.cell.array.reshape(1, 9), types)
            found = describer.raw(atoms, np.arange(len(atoms)))
            told["error"].append(float(np.abs(found - expected[0]).max()))
            told["largest"].append(float(np.abs(expected).max()))
        again = Describer(write_describer(result.model, result.checkpoint, folder / "again.dp"))
        told["again"] = float(np.abs(again.raw(atoms, np.arange(5)) - found[:5]).max())
        print(json.dumps(told))
        """,
    ).result()
    assert max(told["error"]) < 1e-12 * max(1.0, *told["largest"])
    assert min(told["largest"]) > 1e-3 and told["again"] == 0.0


def test_file_that_is_no_model_and_wrong_names_are_told(tmp_path: Path) -> None:
    (tmp_path / "model.dp").write_text("no model")
    with pytest.raises(ValueError, match="write it anew"):
        Describer(tmp_path / "model.dp")
    with pytest.raises(ValueError, match=r"must end in \.dp"):
        write_describer(tmp_path / "model.pb", tmp_path / "model.ckpt-1", tmp_path / "model.npz")
    with pytest.raises(ValueError, match="unknown DeePMD backend"):
        write_describer(tmp_path / "model.pb", tmp_path / "model.ckpt-1", tmp_path / "model.dp", "abacus")


# ---------------------------------------------------------------------------------------- what it describes


def test_shape_precision_and_elements(model: Path) -> None:
    atoms = glass(1)
    wanted = np.array([7, 3, 7])
    found = Describer(model).describe([atoms, atoms], [wanted, np.array([], dtype=int)])
    assert found[0].vectors.shape == (3, 32) and found[0].vectors.dtype == np.float32
    assert found[0].elements.tolist() == atoms.numbers[wanted].tolist()
    np.testing.assert_array_equal(found[0].vectors[0], found[0].vectors[2])
    assert found[1].vectors.shape == (0, 32)


def test_atom_is_described_alike_with_others_and_alone(model: Path) -> None:
    atoms = glass(1)
    describer = Describer(model)
    everything = describer.raw(atoms, np.arange(len(atoms)))
    alone = np.concatenate([describer.raw(atoms, np.array([n])) for n in range(len(atoms))])
    np.testing.assert_allclose(alone, everything, atol=1e-14)


def test_whole_frames_by_deepmds_own_list_of_neighbours_give_the_same(model: Path) -> None:
    atoms, describer = glass(2), Describer(model)
    types = np.array([TYPE_MAP.index(symbol) for symbol in atoms.symbols])
    expected = describer._whole(atoms, types)
    np.testing.assert_allclose(describer.raw(atoms, np.arange(len(atoms))), expected, atol=1e-13)


def test_cell_smaller_than_the_cutoff_sees_its_images(model: Path) -> None:
    describer = Describer(model)
    small = Atoms("SiO", positions=[[0, 0, 0], [1.6, 0.2, 0.1]], cell=[3.5, 3.4, 3.6], pbc=True)
    few, many = describer.raw(small, np.arange(2)), describer.raw(small.repeat(3), np.arange(2))
    np.testing.assert_allclose(few, many, atol=1e-13)


def test_lonely_atom_is_described(model: Path) -> None:
    found = Describer(model).describe([Atoms("Si", cell=[30, 30, 30], pbc=True)])[0]
    assert np.isfinite(found.vectors).all()


@pytest.mark.parametrize("seed", range(3))
def test_turning_shifting_wrapping_and_reordering_change_nothing(model: Path, seed: int) -> None:
    atoms, describer = glass(seed), Describer(model)
    other, order = turned(atoms, seed)
    one, two = describer.describe([atoms, other])
    scale = np.abs(one.vectors).max()
    np.testing.assert_allclose(two.vectors, one.vectors[order], atol=1e-6 * scale)
    np.testing.assert_array_equal(two.elements, one.elements[order])
    moved = atoms.copy()
    moved.positions[0] += 0.3
    assert np.abs(describer.describe([moved])[0].vectors - one.vectors).max() > 1e-3 * scale


def test_structures_that_cannot_be_described_are_told(model: Path) -> None:
    describer = Describer(model)
    with pytest.raises(ValueError, match="must be periodic"):
        describer.describe([Atoms("Si", cell=[9, 9, 9])])
    with pytest.raises(ValueError, match="atoms of Ge"):
        describer.describe([Atoms("Ge", cell=[9, 9, 9], pbc=True)])
    with pytest.raises(ValueError, match="are asked for of 1"):
        describer.describe([Atoms("Si", cell=[9, 9, 9], pbc=True)], [np.array([1])])
    with pytest.raises(ValueError, match="dimensions"):
        Describer(model, dimensions=0)


def test_projection_never_changes() -> None:
    """These numbers are in records of campaigns: they may not follow a release of NumPy."""
    found = projection(seed=3, element=14, width=1600, dimensions=32)
    np.testing.assert_allclose(found[0, :3], [0.08026413534716956, 0.262362312490892, 0.18139604972475282], rtol=1e-12)
    assert not np.allclose(found, projection(3, 8, 1600, 32)) and not np.allclose(found, projection(4, 14, 1600, 32))


def test_projection_keeps_distances_on_average_and_short_descriptors_exactly() -> None:
    rng = np.random.default_rng(1)
    pairs = rng.normal(size=(200, 1600))
    ratio = np.linalg.norm(pairs @ projection(1, 14, 1600, 32), axis=1) / np.linalg.norm(pairs, axis=1)
    assert np.square(ratio).mean() == pytest.approx(1, abs=0.06) and ratio.std() < 0.2
    short = rng.normal(size=(5, 20))
    longer = short @ projection(1, 14, 20, 32)
    np.testing.assert_array_equal(longer[:, :20], short)
    assert longer.shape == (5, 32) and not longer[:, 20:].any()


def test_a_known_frame_of_which_all_atoms_moved_a_little_is_not_asked_for(model: Path) -> None:
    """By the default of `select.novelty`: 0.002 Å along each axis are less than it, another structure is more."""
    describer, known_frame = Describer(model), glass(90)
    rng = np.random.default_rng(1)
    everyone = np.arange(len(known_frame))

    def moved(by_A: float) -> Atoms:
        other = known_frame.copy()
        other.positions += by_A * rng.normal(size=other.positions.shape)
        return other

    frames = [*(moved(0.002) for _ in range(5)), glass(91)]
    known = Known(Scale.fit(Environments.together(describer.describe([known_frame, glass(92)]))))
    known.cover(Environments.together(describer.describe([known_frame])))
    candidates = [
        Candidate(f"{n}", f"t{n}", 0.0, "s", "accurate", "mine", 0.5, frozenset({"mine"}), offending={"mine": own})
        for n, own in enumerate(describer.describe(frames, [everyone] * 6))
    ]
    rules = Rules(6, 6, 0.0, 0, {"mine": 6}, event_share=1.0)
    assert pick(candidates, set(), rules, 1, known) == [(5, "mine")]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_picks_do_not_change_with_the_frames_orientation(model: Path, seed: int) -> None:
    """Nor does a training frame that was turned, shifted, wrapped and reordered become a new one.

    But for what is drawn by content keys (the audit, and frames of equal novelty): a key is of the numbers in a file.
    """
    describer = Describer(model)
    frames = [glass(100 + seed * 20 + number) for number in range(12)]
    reference = Environments.together(describer.describe([glass(90), glass(91)]))
    rules = Rules(8, 8, 0.0, 0, {"density": 3}, novelty=0.0)
    deviations = [np.random.default_rng(number).uniform(0.1, 1, len(atoms)) for number, atoms in enumerate(frames)]

    def picks(structures: list[Atoms], atoms: list[int], deviations: list[np.ndarray]) -> list[tuple[int, str]]:
        known = Known(Scale.fit(reference))
        known.cover(Environments.together(describer.describe(frames[:3])))
        found = describer.describe(structures, [np.array([atom]) for atom in atoms])
        told = [
            most_uncertain(np.arange(len(a)), a.numbers, own) for a, own in zip(structures, deviations, strict=True)
        ]
        events = describer.describe(structures, told)
        candidates = [
            Candidate(
                *(f"{n}", f"t{n}", 0.0, "s", "candidate", "candidate", 0.5, frozenset({"density"} if n % 2 else ())),
                offending={"candidate": own} | ({"density": events[n]} if n % 2 else {}),
            )
            for n, own in enumerate(found)
        ]
        return pick(candidates, set(), rules, seed, known)

    others = [turned(atoms, number) for number, atoms in enumerate(frames)]
    chosen = picks(frames, [0] * 12, deviations)
    assert len(chosen) == 8 and min(index for index, _ in chosen) >= 3
    assert Counter(reason for _, reason in chosen) == {"density": 3, "candidate": 5}, "events of all 40 atoms"
    places = [int(np.flatnonzero(order == 0)[0]) for _, order in others]
    turned_too = [own[order] for own, (_, order) in zip(deviations, others, strict=True)]
    assert picks([atoms for atoms, _ in others], places, turned_too) == chosen
