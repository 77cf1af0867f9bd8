"""Seeds from CIF files: all atoms of an ordered one, and no guess at what stands where in a disordered one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alloop.frames import read_columns, read_structure
from alloop.structure import from_record
from alloop.tasks import bootstrap
from alloop.tasks.sources import file_hash, read_structures_file

HEAD = """data_B2O3
_cell_length_a 4.3358
_cell_length_b 4.3358
_cell_length_c 8.3397
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_space_group_name_H-M 'P 31 2 1'
_symmetry_Int_Tables_number 152
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
"""
B, O1, O2 = "B1 B 0.3954 0.2299 0.2244", "O1 O 0.6009 0.1477 0.1282", "O2 O 0.1607 0.0 0.3333333"


def cif(folder: Path, *rows: str, occupancy: bool = True) -> Path:
    path = folder / "b2o3.cif"
    path.write_text(HEAD + "_atom_site_occupancy\n" * occupancy + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("occupancy", [True, False])
def test_an_ordered_cif_makes_seeds_with_the_bonds_of_the_crystal(occupancy: bool, tmp_path: Path) -> None:
    path = cif(tmp_path, *(f"{row}{' 1.0' * occupancy}" for row in (B, O1, O2)), occupancy=occupancy)
    spec = {"source": "crystal", "crystal": "file", "sha256": file_hash(path), "n_atoms": 60, "copies": 3, "md_K": []}
    spec |= {"max_strain": 0.02, "rattle_A": 0.02, "seed": 5}
    bootstrap.run(SimpleNamespace(spec=spec, out=tmp_path, work=tmp_path, files={"file": path}))  # type: ignore[arg-type]
    assert len(read_columns(tmp_path)["temperature_K"]) == 3
    for number in range(3):
        atoms = from_record(read_structure(tmp_path, number))
        assert atoms.get_chemical_formula() == "B24O36" and atoms.pbc.all()
        symbols, distances = np.array(atoms.get_chemical_symbols()), atoms.get_all_distances(mic=True)
        bonded = distances[np.ix_(symbols == "B", symbols == "O")] < 1.7
        assert set(bonded.sum(axis=1)) == {3} and set(bonded.sum(axis=0)) == {2}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((f"{B} 0.5", f"{B.replace('B1 B', 'Si1 Si')} 0.5", f"{O1} 1", f"{O2} 1"), "B 0.5, Si 0.5"),
        ((f"{B} 1", f"{O1} 1", f"{O2} 0.75"), "site 3, at 0.1607 0.0000 0.3333 of the cell, is occupied by O 0.75"),
    ],
)
def test_a_disordered_cif_is_refused_by_file_and_site(rows: tuple[str, ...], words: str, tmp_path: Path) -> None:
    path = cif(tmp_path, *rows)
    with pytest.raises(ValueError, match=r"b2o3\.cif, frame 0: site .* every site taken by one element") as refused:
        read_structures_file(path)
    assert words in str(refused.value)
