"""The glass analysis of one frame as plain numbers, and reading frames from any file ASE knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms, units

from .coordination import (
    coordination,
    fraction_with,
    min_distances_A,
    oxygen_by_formers,
    oxygen_cutoff_A,
    qn_species,
    resolve_cutoffs_A,
)
from .lammps_dump import UnknownTypesError, dump_frames, is_text_dump
from .neighbours import check_positions, neighbour_list
from .rings import check_ring_options, find_boroxol, find_rings, ring_counts

_LEAST_REACH_A = 3.5  # the list also serves the closest contacts, which mostly lie within this distance
_G_PER_CM3 = units.kg / 1e3 / (units.m / 1e2) ** 3  # in atomic mass units per Å^3


def density_g_cm3(atoms: Atoms) -> float | None:
    """Mass density in g/cm^3, None for a frame without a cell volume."""
    volume = float(atoms.cell.volume)
    return float(atoms.get_masses().sum()) / volume / _G_PER_CM3 if volume > 0 else None


def analyze_frame(
    atoms: Atoms,
    *,
    cutoffs_A: Mapping[str, float] | None = None,
    formers: Sequence[str] = ("B",),
    ring_definition: str = "guttman",
    max_ring: int = 12,
) -> dict[str, Any]:
    """Coordination, oxygen classes, Qn, rings, boroxol rings and closest contacts of one frame, ready for JSON.

    Keys: `n_atoms`, `composition`, `density_g_cm3` (None without a cell), `cutoffs_A` (all that were in force),
    `coordination` (histograms by element), `fraction_4B` and `fraction_5Si` (None without that element),
    `oxygen_by_formers`, `qn`, `rings` (`definition`, `formers`, `counts` by ring size), `boroxol` (`rings`,
    `fraction_B`, None without boron) and `min_distance_A`. Histogram keys are strings. `cutoffs_A` overrides the
    defaults by pair, in either order. Directions that are not periodic are treated as such, so a frame without a cell
    is a cluster. ValueError for unknown options, no atoms, or a position that is not finite (naming the atom).
    """
    check_positions(atoms)
    check_ring_options(formers, ring_definition, max_ring)
    cutoffs = resolve_cutoffs_A(cutoffs_A)
    for former in formers:
        oxygen_cutoff_A(former, cutoffs)
    neighbours = neighbour_list(atoms, max(*cutoffs.values(), _LEAST_REACH_A))
    coordinated = coordination(neighbours, cutoffs)
    rings = find_rings(neighbours, formers=formers, definition=ring_definition, max_ring=max_ring, cutoffs_A=cutoffs)
    boroxol = find_boroxol(atoms, cutoffs_A=cutoffs, neighbours=neighbours)
    return {
        "n_atoms": len(atoms),
        "composition": dict(sorted(Counter(atoms.symbols).items())),
        "density_g_cm3": density_g_cm3(atoms),
        "cutoffs_A": cutoffs,
        "coordination": coordinated,
        "fraction_4B": fraction_with(coordinated.get("B"), 4),
        "fraction_5Si": fraction_with(coordinated.get("Si"), 5),
        "oxygen_by_formers": oxygen_by_formers(neighbours, cutoffs),
        "qn": qn_species(neighbours, cutoffs),
        "rings": {"definition": ring_definition, "formers": list(formers), "counts": ring_counts(rings)},
        "boroxol": {"rings": len(boroxol.rings), "fraction_B": boroxol.fraction_B},
        "min_distance_A": min_distances_A(atoms, neighbours),
    }


def read_frames(path: str | Path, index: str | int | slice = ":", types: Sequence[str] = ()) -> Iterator[Atoms]:
    """Frames of a structure or trajectory file in any format ASE reads, one at a time.

    `index` selects frames as in ASE (":", "-1", "::10", an integer or a slice); `types` names the elements of a
    LAMMPS dump's atom types 1, 2, ..., which a dump that does not tell elements itself needs. ValueError, when that
    point is reached, for a file that does not exist, is empty, cannot be read or holds no such frame, and for a frame
    without atoms or with a position that is not finite.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file} is not a file; give a structure or trajectory file that ASE can read")
    if file.stat().st_size == 0:
        raise ValueError(f"{file} is empty; the run that writes it has not written a frame yet, or failed")
    if is_text_dump(file):
        frames = dump_frames(file, index, types)
    else:
        frames = ase.io.iread(file, index=index, do_not_split_by_at_sign=True)
    n_read = 0
    while True:
        try:
            atoms = next(frames, None)
        except UnknownTypesError:
            raise
        except Exception as error:  # every reader of ASE has its own exceptions
            raise ValueError(
                f"frame {n_read} of the selection {index!r} in {file} cannot be read "
                f"({type(error).__name__}: {error}); "
                "give a file in a format ASE knows by its name, such as .extxyz, POSCAR or .cif, and an index it has"
            ) from error
        if atoms is None:
            break
        try:
            check_positions(atoms)
        except ValueError as error:
            raise ValueError(f"{file}, frame {n_read} of the selection {index!r}: {error}") from error
        yield atoms
        n_read += 1
    if n_read == 0:
        raise ValueError(f"{file} holds no frame in the selection {index!r}; ask for ':' to get all it has")
