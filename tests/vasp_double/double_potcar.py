"""POTCAR files with the structure of real ones and nothing inside, for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ase.data import atomic_masses, atomic_numbers

ZVAL: dict[str, float] = {"Li": 1.0, "Li_sv": 3.0, "B": 3.0, "O": 6.0, "Si": 4.0, "Na": 1.0, "Na_pv": 7.0, "Al": 3.0}
ENMAX_EV: dict[str, float] = {"Li": 140.0, "Li_sv": 499.034, "B": 318.614, "O": 400.0, "Si": 245.345}
CONFIGURATION: dict[str, str] = {"Li": "s1p0", "Li_sv": "1s2s2p", "B": "s2p1", "O": "s2p4", "Si": "s2p2"}
GLASS_POTENTIALS: dict[str, str] = {
    "Li_sv": "PAW_PBE Li_sv 10Sep2004",
    "B": "PAW_PBE B 06Sep2000",
    "O": "PAW_PBE O 08Apr2002",
    "Si": "PAW_PBE Si 05Jan2001",
}


def potcar_text(name: str, title: str) -> str:
    """Return a dataset named such as Li_sv with its TITEL, for instance PAW_PBE Li_sv 10Sep2004."""
    element = re.split(r"[_.]", name)[0]
    zval, enmax = ZVAL.get(name, 4.0), ENMAX_EV.get(name, 300.0)
    lexch = {"PAW_PBE": "PE", "PAW": "CA"}.get(title.split()[0], "PE")
    header = [
        f"   VRHFIN ={element}: {CONFIGURATION.get(name, 'made for tests')}",
        f"   LEXCH  = {lexch}",
        "   EATOM  =   100.0000 eV,    7.3499 Ry",
        "",
        f"   TITEL  = {title}",
        "   LULTRA =        F    use ultrasoft PP ?",
        "   IUNSCR =        1    unscreen: 0-lin 1-nonlin 2-no",
        "   RPACOR =    1.200    partial core radius",
        f"   POMASS ={atomic_masses[atomic_numbers[element]]:9.3f}; ZVAL   ={zval:9.3f}    mass and valenz",
        "   RCORE  =    1.500    outmost cutoff radius",
        "   RWIGS  =    1.630; RWIGS  =    0.863    wigner-seitz radius (au A)",
        f"   ENMAX  ={enmax:9.3f}; ENMIN  ={0.75 * enmax:9.3f} eV",
        "   LCOR   =        T    correct aug charges",
        "   LPAW   =        T    paw PP",
        "   EAUG   =  600.000",
        "   RMAX   =    1.529    core radius for proj-oper",
        "   RAUG   =    1.300    factor for augmentation sphere",
        "   RDEP   =    1.501    radius for radial grids",
        "",
        "   Atomic configuration",
        "    0 entries",
        "     n  l   j            E        occ.",
        "   Description",
        "     l       E           TYP  RCUT    TYP  RCUT",
    ]
    return "\n".join(
        [
            f"  {title:<38}",
            f"  {zval:.14f}     ",
            " parameters from PSCTR are:",
            *(f"{line:<80}" for line in header),
            "END of PSCTR-controll parameters",
            " local part",
            "   0.10000000E+01  0.00000000E+00  0.00000000E+00",
            "  made for tests: there is no pseudopotential in this file",
            " End of Dataset",
            "",
        ]
    )


def make_potcar_library(folder: Path, titles: Mapping[str, str] | None = None) -> Path:
    """Write folder/NAME/POTCAR for every name and TITEL (by default those of borosilicates); return folder."""
    for name, title in (GLASS_POTENTIALS if titles is None else titles).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "POTCAR").write_text(potcar_text(name, title))
    return folder


def joined_potcar(library: Path, names: Sequence[str]) -> str:
    """Return the POTCAR of these names in their order, a name as often as it is given."""
    return "".join((library / name / "POTCAR").read_text() for name in names)
