"""Judging CP2K's output of one single point: did it end, did it converge, and are all numbers there and sound.

The text is read here and not by dpdata, whose ``cp2k/output`` (1.1) takes the cell from a print of three decimals and
finds no stress in outputs of CP2K 8.1 and later: it makes frames without virial of them, and says nothing. ASE reads no
outputs of CP2K at all. Formats read: the tables of CP2K 7.1 to 2026.2 (``write_forces`` in ``force_env_utils.F``,
``write_stress_tensor`` in ``virial_methods.F``, ``write_qs_particle_coordinates`` in ``particle_methods.F``,
``write_cell`` in ``cell_methods.F`` of its sources).
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import find_mic
from ase.units import create_units

from alloop.labelers.verdict import Fault, Verdict
from alloop.structure import LabeledFrame

INPUT, OUTPUT = "label.inp", "cp2k.out"

_SI = create_units("2006")  # CP2K's own constants: physcon.F holds CODATA 2006 only
_ENERGY_eV = {"a.u.": _SI["Hartree"], "hartree": _SI["Hartree"], "ry": _SI["Rydberg"], "ev": 1.0}
_FORCE_eV_A = {
    "a.u.": _SI["Hartree"] / _SI["Bohr"],
    "hartree/bohr": _SI["Hartree"] / _SI["Bohr"],
    "hartree*bohr^-1": _SI["Hartree"] / _SI["Bohr"],
    "ev/angstrom": 1.0,
    "ev*angstrom^-1": 1.0,
}
_STRESS_eV_A3 = {
    "gpa": _SI["GPa"],
    "bar": 1e-4 * _SI["GPa"],
    "kbar": 0.1 * _SI["GPa"],
    "pa": 1e-9 * _SI["GPa"],
    "mpa": 1e-3 * _SI["GPa"],
}
_POSITION_A = 2e-6  # printed with six decimals
_VECTOR_A = 6e-4  # printed with three
_VOLUME_A3 = 1e-5
_CHARACTERS_SHOWN = 200
_BEGINNING = 65_536

_NUMBER = r"[-+]?(?:\d[\dEeDd.+-]*|\.\d+|NaN|Inf(?:inity)?|\*+)"
_ROW = rf"\s+({_NUMBER})\s+({_NUMBER})\s+({_NUMBER})"


class _Broken(Exception):
    """A judgement that ends the reading: fault and message."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class _Printed:
    """What an output tells of its structure: atoms, cell to three decimals of an Å, and the volume to six."""

    atoms: Atoms
    volume_A3: float | None


def judge_cp2k(place: Path, asked: Atoms | None = None, *, force_ceiling_eV_A: float | None = None) -> Verdict:
    """Judge one run: `place` is its folder, or its output file, plain or gzipped; never raises for what is in it.

    asked: the atoms in the order of the input; the frame holds exactly these. Without them the input beside the output
    is taken for what was asked, and if there is none the structure as printed, rounded to six decimals and its cell to
    three, which earns the flag ``rounded_structure``. force_ceiling_eV_A: an atom with a larger force earns the flag
    ``force_ceiling``.
    """
    output = _output_file(place)
    text = "" if output is None else _text(output)
    runs = text.split("PROGRAM STARTED AT")  # an output that was appended to: its last run counts
    return _judge(runs[-1], text, asked if asked is not None else _asked_by_input(place), force_ceiling_eV_A)


def _judge(text: str, whole: str, asked: Atoms | None, force_ceiling_eV_A: float | None) -> Verdict:
    version = _last(r"CP2K\| version string:\s+(?:CP2K version )?(.+?)\s*$", text)
    steps = _electronic_steps(text)
    energies = text.count("ENERGY| Total FORCE_EVAL") - len(re.findall(r"\) (?:gap|free energy) \[", text))
    frame, flags, fault = None, [], None
    try:
        _check_ended(text, whole)
        _check_converged(text, steps)
        if energies > 1:
            raise _Broken("unreadable", f"{energies} energies in one output; a label is a single point")
        printed = _structure(text)
        if asked is None:
            asked = printed.atoms
            flags.append("rounded_structure")
        else:
            _check_structure(printed, asked)
        frame = _frame(text, asked)
        message = f"{len(asked)} atoms, {steps or '?'} electronic steps, largest force {_largest(frame):.3f} eV/A"
        if force_ceiling_eV_A is not None and _largest(frame) > force_ceiling_eV_A:
            flags.append("force_ceiling")
    except _Broken as broken:
        fault, message = broken.fault, str(broken)
    return Verdict(
        code="cp2k",
        fault=fault,
        message=message,
        frame=frame,
        version=version,
        ionic_steps=energies,
        electronic_steps=(steps,) if steps else (),
        flags=tuple(flags),
        potentials=_potentials(text),
    )


# ------------------------------------------------------------------------------------------ files


def find_cp2k_outputs(place: Path) -> list[Path]:
    """Return every output of CP2K at and below a folder, in the order of their paths; a file given is one if it is one.

    Outputs are files called ``cp2k.out``, whatever is in them, and ``*.out`` and ``*.log`` that begin as CP2K's do; all
    of them plain or gzipped. Links to folders are not followed.
    """
    if not place.is_dir():
        return [place] if place.is_file() and _is_output(place) else []
    found = []
    for folder, subfolders, names in os.walk(place):
        subfolders.sort()
        files = [Path(folder) / name for name in sorted(names) if re.search(r"\.(out|log)(\.gz)?$", name)]
        found += [file for file in files if _is_output(file)]
    return found


def _is_output(file: Path) -> bool:
    if file.name in (OUTPUT, f"{OUTPUT}.gz"):
        return True
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            begin = stream.read(_BEGINNING)
    except (OSError, EOFError, zlib.error):
        return False
    return b"CP2K|" in begin or b"DBCSR| " in begin


def _output_file(place: Path) -> Path | None:
    if not place.is_dir():
        return place if place.is_file() else None
    found = [place / name for name in (OUTPUT, f"{OUTPUT}.gz") if (place / name).is_file()]
    return next(iter(found or (file for file in find_cp2k_outputs(place) if file.parent == place)), None)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return ""
    return data.decode("utf-8", errors="replace")


def _asked_by_input(place: Path) -> Atoms | None:
    """Return the atoms of the input beside an output, or None unless it gives A, B, C and COORD in Å as alloop does."""
    folder = place if place.is_dir() else place.parent
    file = next((folder / name for name in (INPUT, f"{INPUT}.gz") if (folder / name).is_file()), None)
    text = "" if file is None else _text(file)
    sections = [
        re.search(rf"^\s*&{name}\s*\n((?:(?!\s*&).*\n)*)\s*&END", text, re.MULTILINE) for name in ("CELL", "COORD")
    ]
    if not all(sections):
        return None
    cell, coord = ([line.split() for line in section[1].splitlines()] for section in sections if section)
    try:
        atoms = Atoms([row[0] for row in coord], positions=[[float(x) for x in row[1:]] for row in coord], pbc=True)
        atoms.set_cell([[float(x) for x in row[1:]] for row in cell])
    except (KeyError, ValueError, IndexError):
        return None
    return atoms if [row[0] for row in cell] == ["A", "B", "C"] and atoms.cell.rank == 3 else None


# ------------------------------------------------------------------------------------------ how it ended


def abort_message(text: str) -> str | None:
    """Return what CP2K says in the box with which it stops, as one line, or None if it did not stop so."""
    _, found, box = text.partition("[ABORT]")
    if not found:
        return None
    lines = box.splitlines()[1:20]  # the drawing takes the first nine columns; MPI may write in between
    last = next((number for number, line in enumerate(lines) if line.startswith(" ****")), len(lines))
    said = " ".join(" ".join(line[9:79].rstrip("* ") for line in lines[:last] if line.startswith(" *")).split())
    return re.sub(r"\s*\S+\.F:\d+$", "", said) or None


def _check_ended(text: str, whole: str) -> None:
    if not whole.strip():
        raise _Broken("empty", "no output, or an empty one; see whether the command could start CP2K")
    if "PROGRAM ENDED AT" in text:
        return
    said = abort_message(text)
    if "SCF run NOT converged" in text:
        raise _Broken("unconverged", "the electronic steps did not converge, and CP2K stopped")
    if "CP2K|" not in text and said is None:
        last = whole.strip().splitlines()[-1].strip()[:_CHARACTERS_SHOWN]
        raise _Broken("unreadable", f"this is no output of CP2K; its last line is {last!r}")
    reason = f"CP2K stopped: {said[:_CHARACTERS_SHOWN]}" if said else "the output ends before 'PROGRAM ENDED AT'"
    raise _Broken("truncated", reason)


def _check_converged(text: str, steps: int | None) -> None:
    if "SCF run NOT converged" in text:
        raise _Broken("unconverged", f"the electronic steps did not converge ({_step_count(text)} of them)")
    if "SCF run converged in" not in text:
        raise _Broken("unconverged", "the output does not say 'SCF run converged'")


def _step_count(text: str) -> int:
    return len(
        re.findall(r"^ +\d+ (?:OT|Broy|P_Mix|Mult|Puls|Kerk|NoMix|DIIS|New)\S*.* [-+.\dEe]+$", text, re.MULTILINE)
    )


def _electronic_steps(text: str) -> int | None:
    found = _last(r"outer SCF loop converged in\s+\d+ iterations or\s+(\d+) steps", text)
    found = found or _last(r"SCF run converged in\s+(\d+) steps", text)
    return int(found) if found else None


def _potentials(text: str) -> tuple[str, ...]:
    kinds = re.findall(r"^\s+\d+\. Atomic kind: (\S+)", text, re.MULTILINE)
    names = re.findall(r"Potential information for\s+(\S+)", text)
    return tuple(f"{kind} {name}" for kind, name in zip(kinds, names, strict=False))


# ------------------------------------------------------------------------------------------ structure


def _structure(text: str) -> _Printed:
    table = re.search(r"ATOMIC COORDINATES IN (\S+)\s+Atom +Kind +Element.*\n\s*\n?((?: +\d+ +\d+ .*\n)+)", text)
    vectors = [_last_match(rf"^ CELL\| Vector {name} \[(\S+?)\]:{_ROW}", text) for name in ("a", "b", "c")]
    if table is None or not all(vectors):
        raise _Broken("unreadable", "atoms or cell are not printed; the template needs PRINT_LEVEL MEDIUM")
    if table[1].lower() != "angstrom" or any(vector[1].lower() != "angstrom" for vector in vectors if vector):
        raise _Broken("unreadable", f"coordinates are printed in {table[1]}, not in angstrom; take UNIT out")
    rows = [re.match(rf" +\d+ +\d+ +([A-Z][a-z]?) +\d+{_ROW}", line) for line in table[2].splitlines()]
    if not all(row is not None and row[1] in atomic_numbers for row in rows):
        raise _Broken("unreadable", "the table of atomic coordinates cannot be read")
    symbols = [row[1] for row in rows if row]
    positions = [_numbers(row.groups()[1:], "a coordinate") for row in rows if row]
    cell = [_numbers(vector.groups()[1:], "the cell") for vector in vectors if vector]
    volume = _last(rf"^ CELL\| Volume \[angstrom\^3\]:\s+({_NUMBER})", text)
    atoms = Atoms(symbols, positions=positions, cell=cell, pbc=True)
    return _Printed(atoms, float(volume) if volume else None)


def _check_structure(printed: _Printed, asked: Atoms) -> None:
    found, wanted = printed.atoms.get_chemical_symbols(), asked.get_chemical_symbols()
    if len(found) != len(wanted):
        raise _Broken("wrong_atoms", f"{len(found)} atoms, asked for {len(wanted)}")
    if found != wanted:
        index = next(i for i, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])
        raise _Broken("wrong_atoms", f"atom {index} is {found[index]}, asked for {wanted[index]}")
    off_A = np.abs(printed.atoms.cell.array - asked.cell.array).max()
    if off_A > _VECTOR_A:
        raise _Broken("wrong_cell", f"a cell vector is {off_A:.4f} A off the one asked for")
    if printed.volume_A3 is not None:
        volume_A3 = asked.get_volume()
        if abs(printed.volume_A3 - volume_A3) > max(_VOLUME_A3, 1e-8 * volume_A3):
            raise _Broken("wrong_cell", f"volume {printed.volume_A3} A3, asked for {volume_A3:.6f}")
    _, apart_A = find_mic(printed.atoms.positions - asked.positions, asked.cell, pbc=True)
    if apart_A.max() > _POSITION_A:
        index = int(apart_A.argmax())
        raise _Broken("wrong_atoms", f"atom {index} is {apart_A[index]:.6f} A from where it was asked for")


# ------------------------------------------------------------------------------------------ numbers


def _frame(text: str, asked: Atoms) -> LabeledFrame:
    energy_eV = _energy_eV(text)
    forces_eV_A = _forces_eV_A(text, len(asked))
    stress_eV_A3 = _stress_eV_A3(text)
    for name, values in (("energy", energy_eV), ("a force", forces_eV_A), ("the stress", stress_eV_A3)):
        if not np.isfinite(values).all():
            raise _Broken("not_finite", f"{name} is NaN or infinite")
    atoms = Atoms(asked.get_chemical_symbols(), positions=asked.positions, cell=asked.cell, pbc=True)
    return LabeledFrame(atoms, energy_eV, forces_eV_A, stress_eV_A3 * asked.get_volume())


def _energy_eV(text: str) -> float:
    found = _last_match(rf"^ ENERGY\| Total FORCE_EVAL \( \S+ \) energy [\[(](\S+?)[\])]:?\s+({_NUMBER})", text)
    if found is None:
        raise _Broken("no_energy", "no 'ENERGY| Total FORCE_EVAL' in the output")
    return _numbers(found.groups()[1:], "the energy")[0] * _unit(found[1], _ENERGY_eV, "energy")


def _forces_eV_A(text: str, count: int) -> np.ndarray:
    """Return forces (N, 3) of the last table, in the columns of CP2K up to 2024 or the lines of later versions."""
    title = _last_match(r"^ (?:ATOMIC FORCES in|FORCES\| Atomic forces) \[(\S+?)\]\s*\n", text)
    if title is None:
        raise _Broken("no_forces", "no atomic forces in the output; the template needs &FORCES ON in FORCE_EVAL/PRINT")
    table = re.compile(r"(?:\s*#? ?Atom.*\n| FORCES\| +Atom.*\n|\s*\n)*((?: (?:FORCES\|)? *\d+ .*\n)*)").match(
        text, title.end()
    )
    rows = table[1].splitlines() if table else []
    if len(rows) != count:
        raise _Broken("no_forces", f"forces of {len(rows)} atoms, expected {count}")
    values = [re.match(rf" (?:FORCES\| +\d+| *\d+ +\d+ +[A-Z][a-z]?){_ROW}", row) for row in rows]
    if not all(values):
        raise _Broken("unreadable", "the table of forces cannot be read")
    forces = np.array([_numbers(value.groups(), "a force") for value in values if value])
    return forces * _unit(title[1], _FORCE_eV_A, "force")


def _stress_eV_A3(text: str) -> np.ndarray:
    """Return what CP2K calls the stress tensor (3, 3), which is the virial per volume: positive under compression."""
    title = r"^ (?:STRESS\| Analytical stress tensor|STRESS\| Numerical stress tensor|(?:NUMERICAL )?STRESS TENSOR)"
    rows = r"\s*\n" + "".join(rf"\s*(?:STRESS\|)?\s+{axis}{_ROW}\s*\n" for axis in ("[xX]", "[yY]", "[zZ]"))
    found = _last_match(title + r" \[(\S+?)\]\s*\n\s*(?:STRESS\|)?\s+[xX]\s+[yY]\s+[zZ]" + rows, text)
    if found is None:
        raise _Broken(
            "no_stress",
            "no stress tensor in the output; the template needs STRESS_TENSOR ANALYTICAL, and &STRESS_TENSOR ON in "
            "FORCE_EVAL/PRINT",
        )
    stress = np.array(_numbers(found.groups()[1:], "the stress")).reshape(3, 3)
    return stress * _unit(found[1], _STRESS_eV_A3, "stress")


def _numbers(tokens: tuple[str, ...], what: str) -> list[float]:
    """Return Fortran numbers; stars raise, as does what is none. ``1.0-100`` is an exponent of three digits."""
    values = []
    for token in tokens:
        if "*" in token:
            raise _Broken("merged_columns", f"{what} is too large for its column, which holds stars")
        try:
            values.append(float(re.sub(r"(?<=\d)([-+]\d{3})$", r"E\1", token).replace("D", "E")))
        except ValueError:
            raise _Broken("unreadable", f"{what} reads {token!r}, which is no number") from None
    return values


def _unit(name: str, units: dict[str, float], what: str) -> float:
    try:
        return units[name.lower()]
    except KeyError:
        raise _Broken("unreadable", f"{what} is printed in {name}; expected one of {', '.join(units)}") from None


def _largest(frame: LabeledFrame) -> float:
    return float(np.linalg.norm(frame.forces_eV_A, axis=1).max(initial=0.0))


def _last_match(pattern: str, text: str) -> re.Match[str] | None:
    found = None
    for found in re.finditer(pattern, text, re.MULTILINE):  # noqa: B007
        pass
    return found


def _last(pattern: str, text: str) -> str | None:
    found = _last_match(pattern, text)
    return found[1] if found else None
