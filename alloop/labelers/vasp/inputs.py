"""VASP's inputs: INCAR tags and which of them decide the level of theory, KPOINTS by a rule, POTCAR by species."""

from __future__ import annotations

import bz2
import difflib
import functools
import gzip
import hashlib
import lzma
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

Incar = dict[str, str]

_MINIMISER = "ALGO IALGO LDIAG NELM NELMIN NELMDL IMIX INIMIX MIXPRE AMIX BMIX AMIX_MAG BMIX_MAG AMIN MAXMIX WC TIME"
_START_AND_SYMMETRY = "ISTART ICHARG INIWAV ISYM SYMPREC"
_PARALLEL = "NCORE NPAR KPAR NSIM LPLANE LSCALAPACK LSCALU LASYNC NBLK MAXMEM"
_WRITTEN = "SYSTEM NWRITE LWAVE LCHARG LVTOT LVHAR LELF LORBIT LAECHG LCHARGH5 LH5"

FREE_TAGS = frozenset(" ".join((_MINIMISER, _START_AND_SYMMETRY, _PARALLEL, _WRITTEN)).split())
"""INCAR tags that cannot change energy, forces or stress beyond EDIFF; every other tag decides the level of theory."""

_FREE_VALUES = {
    "ALGO": {"NORMAL", "N", "VERYFAST", "V", "FAST", "F", "CONJUGATE", "C", "ALL", "A", "DAMPED", "D"},
    "IALGO": {"38", "48", "53", "54", "58"},
    "ICHARG": {"0", "1", "2"},
    "LDIAG": {".TRUE."},
}
"""Values of free tags for which they are free: other ones compute something else than the ground state."""

SINGLE_POINT = {"IBRION": "-1", "NSW": "0", "ISIF": "2"}
"""What makes a run a single point with forces and the whole stress tensor."""

_OWN_TAGS = {"IBRION", "NSW", "ISIF", "POTIM", "EDIFFG", "NBLOCK", "KBLOCK", "NFREE", "MDALGO", "TEBEG", "TEEND"}
_GRID = "the grid must follow ENCUT and PREC in every cell"
_BY_SPECIES = "it lists species, whose number and order differ from structure to structure"
_REFUSED = {
    "KSPACING": "the rule for k-points is label.vasp.kpoint_spacing_inv_A in param.json",
    "KGAMMA": "alloop's k-point meshes always hold the Gamma point",
    "NBANDS": "it depends on the number of atoms; VASP chooses it well for each structure",
    "MAGMOM": "it lists atoms, whose number differs from structure to structure",
    **dict.fromkeys(("NGX", "NGY", "NGZ", "NGXF", "NGYF", "NGZF"), _GRID),
    **dict.fromkeys(("LDAUL", "LDAUU", "LDAUJ", "ROPT", "RWIGS", "VDW_C6", "VDW_R0", "VDW_ALPHA", "VCA"), _BY_SPECIES),
    "NELECT": "it depends on the number of atoms; a cell of a glass is neutral",
    "ML_LMLFF": "labels must come from the electrons, not from a force field VASP learns meanwhile",
}
_OTHERS = (
    "ENCUT PREC EDIFF ISMEAR SIGMA LREAL GGA METAGGA IVDW LASPH ADDGRID ISPIN ENAUG LMAXMIX LHFCALC AEXX HFSCREEN "
    "LDAU LDAUTYPE LUSE_VDW"
)
_NUMBERS = ("ENCUT", "ENAUG", "EDIFF", "SIGMA", "ISMEAR", "NELM", "NELMIN", "ISPIN", "ISYM", "IVDW", "NCORE", "KPAR")
_LAYOUT = {"NCORE", "NPAR"}
_LOOSEST_EDIFF_EV = 1e-4
_TRUE, _FALSE = re.compile(r"\.?T(RUE)?\.?", re.IGNORECASE), re.compile(r"\.?F(ALSE)?\.?", re.IGNORECASE)


def parse_incar(text: str) -> Incar:
    """Return the tags of an INCAR, upper case, with their values as written; a tag given twice counts the first time.

    Comments begin with ``#`` or ``!``, ``;`` separates statements on a line, a final backslash joins lines.
    ValueError for a line that is none of these, and for a backslash that would make the next line a comment too.
    """
    tags: Incar = {}
    for line in text.splitlines():
        if re.search(r"[#!].*\\\s*$", line):
            raise ValueError(f"the comment of line {line.strip()!r} ends with a backslash, which hides the next line")
    for line in re.sub(r"\\[ \t]*(\n|\Z)", " ", text).splitlines():
        for statement in re.split(r"[#!]", line, maxsplit=1)[0].split(";"):
            if not statement.strip():
                continue
            name, equals, value = statement.partition("=")
            if not equals or not name.strip() or not value.strip():
                raise ValueError(f"line {line.strip()!r} is no TAG = value")
            tags.setdefault(name.strip().upper(), value.strip())
    return tags


def canonical_value(value: str) -> str:
    """Return a value in one spelling: ``T``, ``.true.`` and ``.TRUE.`` are one, ``600`` and ``6E2`` are one."""
    words = []
    for word in value.split():
        if _TRUE.fullmatch(word):
            words.append(".TRUE.")
        elif _FALSE.fullmatch(word):
            words.append(".FALSE.")
        else:
            try:
                words.append(f"{float(word.lower().replace('d', 'e')):.12g}")
            except ValueError:
                words.append(word.upper())
    return " ".join(words)


def deciding_tags(incar: Incar) -> Incar:
    """Return the tags that decide the level of theory, in canonical spelling."""
    skipped = FREE_TAGS | _OWN_TAGS
    return {tag: canonical_value(incar[tag]) for tag in sorted(incar) if tag not in skipped}


def free_tags(incar: Incar) -> Incar:
    """Return the tags that decide nothing but how VASP gets there."""
    return {tag: value for tag, value in incar.items() if tag in FREE_TAGS}


def incar_problems(incar: Incar) -> list[tuple[str, str]]:
    """Return what makes an INCAR unfit for labels, as (found, remedy)."""
    found = [(f"holds {tag}: {why}", f"take {tag} out") for tag, why in _REFUSED.items() if tag in incar]
    if "ENCUT" not in incar:
        found.append(
            (
                "holds no ENCUT: VASP would take the largest ENMAX of each structure's POTCARs, so that glasses of "
                "other elements would be labelled at other levels of theory",
                "give ENCUT, such as 600",
            )
        )
    found += [
        (f"holds {tag} = {incar[tag]}; labels are single points with stress", f"take {tag} out; alloop writes it")
        for tag, wanted in (("NSW", "0"), ("ISIF", "2"), ("IBRION", "-1"))
        if tag in incar and canonical_value(incar[tag]) not in (wanted, *("3",) * (tag == "ISIF"))
    ]
    return found + _misspelt(incar) + _loose(incar) + _value_problems(incar)


def _misspelt(incar: Incar) -> list[tuple[str, str]]:
    """Return tags that VASP does not know, would pass over in silence, and that are nearly a tag labels may hold."""
    known = FREE_TAGS | _OWN_TAGS | set(_REFUSED) | set(_OTHERS.split())
    found = []
    for tag in sorted(set(incar) - known - set(_LOOK_ALIKES.split())):
        near = difflib.get_close_matches(tag, known, n=1, cutoff=0.75)
        if near:
            found.append((f"holds {tag}, which VASP does not know and passes over", f"did you mean {near[0]}?"))
    return found


_LOOK_ALIKES = (
    "AGGAC AGGAX CH_SIGMA EDIFFNL EMIN ENCUT4O ENCUTGW ENCUTLF HFSCREENC IOPT ISEARCH ISPIND LCHIMAG LEFG LMETAGGA "
    "LRHFCALC LSORBIT LUSEW LVEL MAXMOVE ML_FF_LMLFF NBANDSGW NBANDSO NBANDSV"
)
"""Tags VASP does know although they look like a slip of the pen (VASP wiki, "Category:INCAR tag")."""


def _loose(incar: Incar) -> list[tuple[str, str]]:
    """Return what VASP would accept and a person would regret, as (found, remedy)."""
    found = [
        (f"holds {tag} = {incar[tag]}, which is no number", "write a number")
        for tag in _NUMBERS
        if tag in incar and math.isnan(_number((incar[tag].split() or [""])[0]))
    ]
    found += [
        (f"holds {tag} = {value!r}, which is not one statement", "give each tag one value on a line of its own")
        for tag, value in incar.items()
        if not value.strip() or re.search(r"[;#!\\\n\r]" if tag == "SYSTEM" else r"[;#!\\\n\r=]", value)
    ]
    if _number(incar.get("EDIFF", "0")) > _LOOSEST_EDIFF_EV:
        found.append(
            (
                f"holds EDIFF = {incar['EDIFF']}: forces of electrons that far from converged are noise to a model",
                f"give {_LOOSEST_EDIFF_EV:g} or less, such as 1E-5",
            )
        )
    if set(incar) >= _LAYOUT:
        found.append(("holds NCORE and NPAR, of which VASP heeds NPAR only", "keep NCORE, take NPAR out"))
    meant = _GGA_NAMES.get(canonical_value(incar.get("GGA", "")))
    if meant:
        found.append((f"holds GGA = {incar['GGA']}; VASP knows functionals by two letters", f"write {meant}"))
    return found


_GGA_NAMES = {"PBE": "PE", "PBESOL": "PS", "RPBE": "RP", "REVPBE": "RE", "PW91": "91", "LDA": "CA"}


def override_problems(overrides: Mapping[str, Any], incar: Incar) -> list[tuple[str, str]]:
    """Return which overrides of an INCAR would change the level of theory or make no sense, as (found, remedy)."""
    found = [
        (
            f"{tag} decides the level of theory and must be one for all labels",
            "take it out; free are ALGO, NELM, AMIX, BMIX, ISYM, NCORE, KPAR, NSIM and their like",
        )
        for tag in overrides
        if tag.upper() not in FREE_TAGS
    ]
    changed = {tag.upper(): incar_value(value) for tag, value in overrides.items() if tag.upper() in FREE_TAGS}
    layout = {tag: (incar | changed)[tag] for tag in _LAYOUT & set(incar | changed)} if _LAYOUT & set(changed) else {}
    return found + _loose(changed | layout) + _value_problems(changed)


def _value_problems(incar: Incar) -> list[tuple[str, str]]:
    return [
        (f"{tag} = {incar[tag]} computes something else than the ground state", f"use one of {', '.join(sorted(free))}")
        for tag, free in _FREE_VALUES.items()
        if tag in incar and not {canonical_value(incar[tag]), incar[tag].upper()} & free
    ]


def incar_value(value: Any) -> str:
    """Return a JSON value as INCAR writes it."""
    if isinstance(value, bool):
        return ".TRUE." if value else ".FALSE."
    if isinstance(value, list):
        return " ".join(map(incar_value, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def write_incar(incar: Incar) -> str:
    """Return the text of an INCAR."""
    return "".join(f"{tag:<8} = {value}\n" for tag, value in incar.items())


def kpoint_mesh(cell_A: np.ndarray, spacing_inv_A: float | None) -> tuple[int, int, int]:
    """Return the Gamma-centred mesh of a cell: VASP's KSPACING rule, ceil(2 pi |b| / spacing), or 1 x 1 x 1 for None.

    The reciprocal vectors b are those with a.b = 1; the spacing holds the factor 2 pi, as KSPACING does
    (VASP wiki, "KSPACING").
    """
    if spacing_inv_A is None:
        return (1, 1, 1)
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(np.asarray(cell_A)).T, axis=1)
    mesh = np.maximum(1, np.ceil(lengths / spacing_inv_A - 1e-9).astype(int))
    return (int(mesh[0]), int(mesh[1]), int(mesh[2]))


def write_kpoints(mesh: tuple[int, int, int]) -> str:
    """Return the text of a KPOINTS file with a Gamma-centred mesh."""
    return f"Gamma-centred mesh\n0\nGamma\n{mesh[0]} {mesh[1]} {mesh[2]}\n0 0 0\n"


@dataclass(frozen=True)
class Potcar:
    """One element's data set of a POTCAR library: its file, the head of its contents, and a hash of all of them.

    lexch: functional it was made with (PE is PBE); enmax_eV: the cut-off it recommends; zval: electrons it treats.
    """

    path: Path
    titel: str
    element: str
    lexch: str
    enmax_eV: float
    zval: float
    sha256: str


def find_potcar(library: Path, name: str) -> Path:
    """Return the file of a data set such as ``Li_sv``: NAME/POTCAR or POTCAR.NAME, plain or compressed.

    FileNotFoundError names the places looked at.
    """
    places = [library / name / "POTCAR", library / f"POTCAR.{name}"]
    for place in places:
        for suffix in ("", *_DECOMPRESS):
            file = place.with_name(place.name + suffix)
            if file.is_file():
                return file
    raise FileNotFoundError(f"no {' or '.join(map(str, places))} (or compressed: {', '.join(_DECOMPRESS)})")


_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}


def potcar_bytes(path: Path) -> bytes:
    """Return the contents of a POTCAR file, decompressed."""
    data = path.read_bytes()
    return _DECOMPRESS[path.suffix](data) if path.suffix in _DECOMPRESS else data


def read_potcar(path: Path) -> Potcar:
    """Return what a POTCAR file holds; ValueError if it is none, or holds several data sets."""
    status = path.stat()
    return _read_potcar(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _read_potcar(path: Path, size: int, time_ns: int) -> Potcar:
    data = potcar_bytes(path)
    text = data.decode("latin-1")
    titels = re.findall(r"^\s*TITEL\s*=\s*(.+?)\s*$", text, re.MULTILINE)
    if len(titels) != 1:
        raise ValueError(f"{path} holds {len(titels)} TITEL lines; one element's POTCAR has one")
    element = re.search(r"VRHFIN\s*=\s*([A-Za-z]{1,2})\s*:", text)
    lexch = re.search(r"LEXCH\s*=\s*(\S+)", text)
    enmax = re.search(r"ENMAX\s*=\s*([\d.]+)", text)
    zval = re.search(r"ZVAL\s*=\s*([\d.]+)", text)
    if element is None or lexch is None or enmax is None or zval is None or "End of Dataset" not in text:
        raise ValueError(f"{path} is no whole POTCAR: VRHFIN, LEXCH, ENMAX, ZVAL or the end of the data set is missing")
    name, functional = element[1].capitalize(), lexch[1].upper()
    sha256 = hashlib.sha256(data).hexdigest()
    return Potcar(path, titels[0], name, functional, float(enmax[1]), float(zval[1]), sha256)


_LEXCH_OF_GGA = {"PE": "PE", "91": "91", "PS": "PE", "RP": "PE", "RE": "PE", "OR": "PE", "BO": "PE", "MK": "PE"}


def potcar_problems(potcar: Potcar, element: str, incar: Incar) -> list[tuple[str, str]]:
    """Return what is wrong with using a data set for an element under an INCAR, as (found, remedy)."""
    found = []
    if potcar.element != element:
        found.append((f"{potcar.path} is for {potcar.element} ({potcar.titel}), not {element}", "name another one"))
    gga = canonical_value(incar.get("GGA", "")).upper() or potcar.lexch
    if potcar.lexch != _LEXCH_OF_GGA.get(gga, potcar.lexch):
        found.append(
            (
                f"{potcar.path} was made with functional {potcar.lexch}, INCAR says GGA = {gga}",
                "choose the library of the INCAR's functional (PBE: potpaw_PBE)",
            )
        )
    cutoff_eV = _number(incar.get("ENCUT", "nan"))
    if cutoff_eV < potcar.enmax_eV:
        found.append(
            (f"{potcar.titel} asks for at least {potcar.enmax_eV:g} eV, ENCUT is {cutoff_eV:g}", "raise ENCUT")
        )
    return found


def _number(value: str) -> float:
    try:
        return float(value.lower().replace("d", "e"))
    except ValueError:
        return float("nan")


def grouped_by_species(atoms: Atoms) -> np.ndarray:
    """Return the order of atoms in POSCAR: species in the order they first appear, each in one block."""
    symbols = atoms.get_chemical_symbols()
    rank = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbols))}
    return np.argsort([rank[symbol] for symbol in symbols], kind="stable")


def blocks(symbols: Iterable[str]) -> list[tuple[str, int]]:
    """Return species and number of atoms of every block of equal neighbours, as POSCAR's head lists them."""
    return [(symbol, len(list(group))) for symbol, group in groupby(symbols)]


def write_poscar(atoms: Atoms) -> str:
    """Return the text of a POSCAR, atoms in the order given, positions in Å with all their digits."""
    species = blocks(atoms.get_chemical_symbols())
    rows = [f"{x:.16f} {y:.16f} {z:.16f}" for x, y, z in np.asarray(atoms.cell)]
    rows += [" ".join(symbol for symbol, _ in species), " ".join(str(count) for _, count in species), "Cartesian"]
    rows += [f"{x:.16f} {y:.16f} {z:.16f}" for x, y, z in atoms.positions]
    return "\n".join(["alloop", "1.0", *rows]) + "\n"
