"""DeePMD's own descriptor of single atoms, in NumPy alone: what selection compares environments by.

A training process writes the model that describes, once (:func:`write_describer`); from then on that file is read
without TensorFlow, torch or JAX. The description of an environment must never change within a campaign: it depends
on the file, the number of dimensions and the seed only, which belong on record together.

This is the only module that touches ``deepmd.dpmodel``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop.potential.checkpoints import backend_named
from alloop.potential.dataset import type_indices
from alloop.selection.diversity import Environments

SUFFIX = ".dp"
DIMENSIONS = 32
_ATOMS_AT_ONCE = 64


def write_describer(model: Path, checkpoint: Path, target: Path, backend: str = "tensorflow") -> Path:
    """Write a trained model to `target` (``*.dp``) as :class:`Describer` reads it; return `target`.

    TensorFlow's is taken from the frozen, not compressed `model`; PyTorch's and JAX's from the `checkpoint`, since
    what those freeze cannot be read back. Imports the backend, so it is for the process that trained. The same
    model gives the same content: the moment of writing is left out. ValueError for an unknown backend or another
    ending of `target`.
    """
    if target.suffix != SUFFIX:
        raise ValueError(f"{target.name} must end in {SUFFIX}, the format DeePMD keeps a model's numbers in")
    source = model if backend_named(backend).flag == "--tf" else checkpoint
    data = _serializer(backend)(str(source))
    from deepmd.dpmodel.utils.serialization import save_dp_model

    save_dp_model(str(target), data | {"time": ""})
    return target


def _serializer(backend: str) -> Any:
    if backend == "tensorflow":
        from deepmd.tf.utils.serialization import serialize_from_file
    elif backend == "pytorch":
        from deepmd.pt.utils.serialization import serialize_from_file
    else:
        from deepmd.jax.utils.serialization import serialize_from_file
    return serialize_from_file


def projection(seed: int, element: int, width: int, dimensions: int) -> np.ndarray:
    """Return the matrix (width, dimensions) that shortens the descriptors of an element.

    Independent normal numbers of variance 1/dimensions keep distances on average (Johnson, Lindenstrauss,
    Contemp. Math. 26, 189 (1984)). It depends on the four arguments only, by the streams NumPy promises never to
    change (those of `RandomState`; a `Generator`'s may). A descriptor that is short enough is kept as it is, followed
    by zeros.
    """
    if width <= dimensions:
        return np.eye(width, dimensions)
    bits = np.random.MT19937(np.random.SeedSequence((seed, element, width, dimensions)))
    draws = np.random.RandomState(bits).standard_normal((width, dimensions))
    return draws / np.sqrt(dimensions)


class Describer:
    """Describes atoms by the descriptor of one fixed model, shortened to so many dimensions.

    ValueError for a file that is no model of this DeePMD, or from describing an element the model does not know.
    """

    def __init__(self, path: Path, dimensions: int = DIMENSIONS, seed: int = 0) -> None:
        if dimensions < 1:
            raise ValueError(f"dimensions is {dimensions}; expected 1 or more")
        self.dimensions, self.seed = dimensions, seed
        self._model = _read(path)
        self.type_map: list[str] = list(self._model.get_type_map())
        self.cutoff_A = float(self._model.get_rcut())
        self._descriptor = self._model.atomic_model.descriptor
        self._mixed = bool(self._model.mixed_types())
        self._projections: dict[int, np.ndarray] = {}

    def describe(
        self, structures: Sequence[Atoms], atoms_of_interest: Sequence[np.ndarray] | None = None
    ) -> list[Environments]:
        """Return the environments of some atoms (of all if not given) of each structure, in the order asked for.

        vectors (n, dimensions) float32, invariant under rotation, translation, wrapping, and permutation of the
        other atoms up to rounding. Time grows with the number of atoms asked for, not with the size of the structure.
        Atoms that overlap may give numbers that are not finite. ValueError for a structure that is not periodic in
        all directions, or an index outside it.
        """
        wanted = [np.arange(len(atoms)) for atoms in structures] if atoms_of_interest is None else atoms_of_interest
        return [
            self._describe(atoms, np.asarray(indices, dtype=int))
            for atoms, indices in zip(structures, wanted, strict=True)
        ]

    def raw(self, atoms: Atoms, indices: np.ndarray) -> np.ndarray:
        """Return the model's own descriptors (n, width) float64 of some atoms of a structure."""
        if not atoms.pbc.all():
            raise ValueError(f"periodic directions are {atoms.pbc.tolist()}; a structure must be periodic in all three")
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(atoms):
            raise ValueError(f"atoms {indices.min()} to {indices.max()} are asked for of {len(atoms)}")
        types = type_indices(atoms, self.type_map)
        if self._descriptor.has_message_passing():
            return self._whole(atoms, types)[indices]
        if len(indices) == 0:
            return np.zeros((0, self._descriptor.get_dim_out()))
        surroundings = _Surroundings(atoms, types, self.cutoff_A)
        once, back = np.unique(indices, return_inverse=True)
        blocks = np.split(once, range(_ATOMS_AT_ONCE, len(once), _ATOMS_AT_ONCE))
        return np.concatenate([self._local(surroundings, block) for block in blocks])[back]

    def _describe(self, atoms: Atoms, indices: np.ndarray) -> Environments:
        raw, elements = self.raw(atoms, indices), atoms.numbers[indices].astype(np.int16)
        vectors = np.zeros((len(indices), self.dimensions), dtype=np.float32)
        for element in np.unique(elements).tolist():
            rows = elements == element
            vectors[rows] = raw[rows] @ self._projection(element, raw.shape[1])
        return Environments(elements, vectors)

    def _projection(self, element: int, width: int) -> np.ndarray:
        if element not in self._projections:
            self._projections[element] = projection(self.seed, element, width, self.dimensions)
        return self._projections[element]

    def _local(self, surroundings: _Surroundings, indices: np.ndarray) -> np.ndarray:
        """Descriptors that depend on the neighbours only: of these atoms alone, with what is near them."""
        from deepmd.dpmodel.utils.nlist import build_neighbor_list

        coords, types = surroundings.near(indices)
        neighbours = build_neighbor_list(
            coords.reshape(1, -1),
            types[None],
            len(indices),
            self.cutoff_A,
            self._model.get_sel(),
            distinguish_types=not self._mixed,
        )
        return np.asarray(self._descriptor(coords[None], types[None], neighbours)[0][0])

    def _whole(self, atoms: Atoms, types: np.ndarray) -> np.ndarray:
        """Descriptors that pass messages: of all atoms at once."""
        from deepmd.dpmodel.utils.nlist import extend_input_and_build_neighbor_list

        coords, extended, mapping, neighbours = extend_input_and_build_neighbor_list(
            atoms.positions[None],
            types[None],
            self.cutoff_A,
            self._model.get_sel(),
            mixed_types=self._mixed,
            box=atoms.cell.array.reshape(1, 9),
        )
        return np.asarray(self._descriptor(coords, extended, neighbours, mapping=mapping)[0][0])


class _Surroundings:
    """A periodic structure together with its images as far as the cutoff reaches."""

    def __init__(self, atoms: Atoms, types: np.ndarray, cutoff_A: float) -> None:
        from deepmd.dpmodel.utils.nlist import extend_coord_with_ghosts
        from scipy.spatial import cKDTree

        wrapped = atoms.get_positions(wrap=True, pbc=True)
        coords, extended, _ = extend_coord_with_ghosts(
            wrapped.reshape(1, -1), types[None], atoms.cell.array.reshape(1, 9), cutoff_A
        )
        self.coords, self.types, self.cutoff_A = coords.reshape(-1, 3), extended[0], cutoff_A
        self._tree = cKDTree(self.coords)

    def near(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coordinates (m, 3) and types (m,) of these atoms, followed by all others within the cutoff of one."""
        found = self._tree.query_ball_point(self.coords[indices], self.cutoff_A * (1 + 1e-9))
        others = np.setdiff1d(np.concatenate([np.asarray(near, dtype=int) for near in found]), indices)
        order = np.concatenate([indices, others])
        return self.coords[order], self.types[order]


def _read(path: Path) -> Any:
    """Return the model of a ``.dp`` file."""
    from deepmd.dpmodel.model.base_model import BaseModel
    from deepmd.dpmodel.utils.serialization import load_dp_model

    try:
        return BaseModel.deserialize(load_dp_model(str(path))["model"])
    except (OSError, KeyError, ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{path} holds no model that this DeePMD can describe atoms with ({error}); "
            "write it anew with write_describer in the process that trained the model"
        ) from error
