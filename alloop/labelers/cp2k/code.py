"""CP2K as a labeler's code: inputs from a template, the data sets they use, and what may be tried when a run fails."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_numbers

from alloop.labelers.code import CodeFault, Correction
from alloop.labelers.cp2k.judge import INPUT, OUTPUT, abort_message, judge_cp2k
from alloop.labelers.verdict import Verdict

DEFAULT_BASIS, DEFAULT_POTENTIAL = "DZVP-MOLOPT-SR-GTH", "GTH-PBE"
DATA_DIRS = ("/usr/share/cp2k/data", "/usr/share/cp2k", "/usr/local/share/cp2k/data", "/opt/cp2k/data")
"""Where CP2K's data files are looked for if neither `data_dir` nor the environment's CP2K_DATA_DIR names a folder."""

_OT = """SCF_GUESS ATOMIC
MAX_SCF {inner}
&OT
  MINIMIZER {minimizer}
  PRECONDITIONER FULL_ALL
  ENERGY_GAP {gap}
&END OT
&OUTER_SCF
  EPS_SCF {eps}
  MAX_SCF {outer}
&END OUTER_SCF"""
_DIAGONALIZATION = """SCF_GUESS ATOMIC
MAX_SCF {inner}
&DIAGONALIZATION
  ALGORITHM STANDARD
&END DIAGONALIZATION
&MIXING
  METHOD BROYDEN_MIXING
  ALPHA {alpha}
  NBROYDEN {history}
&END MIXING"""
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "diagonalization": (_DIAGONALIZATION, {"inner": 50, "alpha": 0.4, "history": 8}),
    "ot": (_OT, {"inner": 25, "outer": 8, "minimizer": "DIIS", "gap": 0.01}),
    "ot-cg": (_OT, {"inner": 50, "outer": 12, "minimizer": "CG", "gap": 0.001}),
    "diagonalization-damped": (_DIAGONALIZATION, {"inner": 400, "alpha": 0.05, "history": 20}),
}
"""Ways to the same ground state, in the order they are tried: none changes EPS_SCF, grid, basis or functional."""

_PLACEHOLDERS = ("CELL", "COORD", "KINDS", "SCF")
_IN_RECIPES = ("SCF_GUESS", "MAX_SCF", "&OT", "&OUTER_SCF", "&DIAGONALIZATION", "&MIXING")
_NEEDED = (
    (r"RUN_TYPE\s+ENERGY_FORCE", "RUN_TYPE ENERGY_FORCE", "in GLOBAL"),
    (r"STRESS_TENSOR\s+(?:ANALYTICAL|NUMERICAL)", "STRESS_TENSOR ANALYTICAL", "in FORCE_EVAL"),
    (r"&FORCES(?:\s+\S+)?", "&FORCES ON", "in FORCE_EVAL/PRINT"),
    (r"&STRESS_TENSOR(?:\s+\S+)?", "&STRESS_TENSOR ON", "in FORCE_EVAL/PRINT"),
)
_ERRORS = {
    "input": r"unknown keyword|unknown subsection|invalid value for enumeration|object was expected|OLD file <"
    r"|requested (?:basis set|atomic potential) .* not found|No (?:potential type|basis set type) was defined",
    "odd_electrons": r"Use the LSD option for an odd number of electrons",
    "launch": r"not enough slots available|command not found|unable to find the specified executable|cannot execute"
    r"|error while loading shared libraries",
    "memory": r"[Oo]ut of memory|Cannot allocate memory|bad_alloc|oom.kill",
    "cholesky": r"Cholesky decompos",
    "segfault": r"SIGSEGV|Segmentation fault",
    "unconverged": r"SCF run NOT converged",
    "job_ended": r"[Jj]ob/step already completing|[Uu]nable to confirm allocation"
    r"|DUE TO (?:TIME LIMIT|NODE FAILURE|PREEMPTION)",
}
_FINAL = {"input", "odd_electrons", "launch", "no_energy", "no_forces", "no_stress", "wrong_atoms", "wrong_cell"}
_ELECTRONIC = {"unconverged", "not_finite", "cholesky", "merged_columns"}

Problem = tuple[str, str]


@dataclass(frozen=True)
class DataSet:
    """One element's basis set or pseudopotential in one of CP2K's data files: its names there, and its lines."""

    element: str
    names: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """The name that tells the number of valence electrons (``GTH-PBE-q6``), if one does."""
        return next((name for name in self.names if re.search(r"-q\d+$", name)), self.names[0])

    @property
    def sha256(self) -> str:
        """Hash of what the entry says, whatever the blanks in it."""
        return hashlib.sha256("\n".join(" ".join(line.split()) for line in self.text.splitlines()).encode()).hexdigest()


def read_data_sets(text: str) -> list[DataSet]:
    """Return the entries of a file of basis sets or potentials: a line "element name [name ...]", then numbers."""
    entries: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        words = re.split(r"[#!]", line, maxsplit=1)[0].split()
        if not words:
            continue
        if words[0].capitalize() in atomic_numbers and len(words) > 1:
            entries.append((words, [line.rstrip()]))
        elif entries:
            entries[-1][1].append(line.rstrip())
    return [DataSet(words[0].capitalize(), tuple(words[1:]), "\n".join(lines)) for words, lines in entries]


class Cp2k:
    """CP2K as the code behind a label.

    template_text: an input with @CELL@, @COORD@, @KINDS@ and @SCF@. data_dir: folder of CP2K's data files; by default
    that of the environment's CP2K_DATA_DIR, then those of DATA_DIRS. basis, potential: names of the data sets of every
    element, in the files the template names; kinds: element -> {"basis": ..., "potential": ...} where one differs.
    scf: the one of RECIPES that is tried first. level: what `level` gave when the label was asked for; its template
    and its choice of data sets are then used in place of the others, and the data sets must still have its hashes.
    Nothing is read before it is needed: see `problems`.
    """

    name: str = "cp2k"
    log: str = OUTPUT
    kept: tuple[str, ...] = (INPUT, OUTPUT)
    dropped: tuple[str, ...] = ("*.wfn*", "*.kp*", "*.restart*")

    def __init__(
        self,
        template_text: str,
        data_dir: Path | None = None,
        *,
        basis: str = DEFAULT_BASIS,
        potential: str = DEFAULT_POTENTIAL,
        kinds: Mapping[str, Mapping[str, str]] | None = None,
        scf: str = "diagonalization",
        level: Mapping[str, Any] | None = None,
        force_ceiling_eV_A: float | None = None,
    ) -> None:
        self.template_text = template_text if level is None else level["template"]
        self.data_dir = data_dir
        self.defaults = {"basis": basis, "potential": potential}
        self.kinds = {element: dict(choice) for element, choice in (kinds or {}).items()}
        self.promised: Mapping[str, Any] = {} if level is None else level["kinds"]
        self.kinds |= {element: dict(choice) for element, choice in self.promised.items()}
        self.scf = scf
        self.force_ceiling_eV_A = force_ceiling_eV_A
        self._lines = _bare_lines(self.template_text)

    # ---------------------------------------------------------------------------------- the protocol

    def write(self, folder: Path, atoms: Atoms, correction: Correction) -> Atoms:
        """Write the input and the data sets it uses; return the atoms, whose order is kept.

        correction: {"scf": one of RECIPES, "command": variant}. CodeFault for an element without data sets, or whose
        data sets are no longer those of the level of theory.
        """
        chosen = {element: self._kept_promise(element) for element in dict.fromkeys(atoms.get_chemical_symbols())}
        for kind, names in self._file_names().items():
            for name in names:
                used = [sets[kind] for sets in chosen.values() if sets[kind][0] == name]
                (folder / name).write_text("".join(f"{entry.text}\n" for _, entry in used) or "# none used\n")
        recipe, values = RECIPES[correction.get("scf", self.scf)]
        cell = zip("ABC", atoms.cell.array.tolist(), strict=True)
        rows = zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True)
        filling = {
            "CELL": "\n".join(f"{name} {x!r} {y!r} {z!r}" for name, (x, y, z) in cell),
            "COORD": "\n".join(f"{symbol} {x!r} {y!r} {z!r}" for symbol, (x, y, z) in rows),
            "KINDS": "\n".join(
                _kind(element, sets["basis"][1], sets["potential"][1]) for element, sets in chosen.items()
            ),
            "SCF": recipe.format(eps=self._eps_scf(), **values),
        }
        text = f"# command: {correction.get('command', 'default')}\n{_filled(self.template_text, filling)}"
        (folder / INPUT).write_text(text)
        return atoms.copy()

    def command(self, folder: Path) -> str:
        """Return "default", or "safe" (fewer processes or threads, if the site has such) after a crash."""
        with (folder / INPUT).open() as stream:
            return stream.readline().partition("command:")[2].strip() or "default"

    def judge(self, folder: Path, asked: Atoms) -> Verdict:
        """Judge the outputs of a run of `asked`."""
        return judge_cp2k(folder, asked, force_ceiling_eV_A=self.force_ceiling_eV_A)

    def errors(self, folder: Path) -> list[str]:
        """Return the names of the error texts in the log, such as input, memory or cholesky."""
        log = folder / self.log
        text = log.read_text(errors="replace") if log.is_file() else ""
        text = f"{abort_message(text) or ''}\n{text}"
        return [name for name, pattern in _ERRORS.items() if re.search(pattern, text)]

    def next_correction(self, faults: list[str], tried: list[Correction]) -> dict[str, Any] | None:
        """Return the next way to the same ground state, or None.

        After electronic trouble the next recipe of RECIPES; after a crash, a hang or want of memory the command "safe",
        and if it still crashes the next recipe. Wrong inputs, and outputs without what was asked for, stay as they are.
        """
        if _FINAL.intersection(faults) or faults == ["unreadable"]:
            return None
        last = dict(tried[-1]) if tried else {}
        if not _ELECTRONIC.intersection(faults):
            if last.get("command") != "safe":
                return {"scf": self.scf} | last | {"command": "safe"}
            if {"hang", "memory"}.intersection(faults):
                return None
        used = {self.scf, *(correction.get("scf", self.scf) for correction in tried)}
        left = [name for name in self._recipes() if name not in used]
        return last | {"scf": left[0]} if left else None

    def level(self, elements: Iterable[str]) -> dict[str, Any]:
        """Return what decides the numbers: the template but for comments, blanks and @SCF@, and the data sets' hashes.

        ValueError for an element without data sets.
        """
        kinds: dict[str, dict[str, str]] = {}
        for element in sorted(elements):
            chosen = self._chosen(element)
            kinds[element] = {kind: entry.name for kind, (_, entry) in chosen.items()}
            kinds[element] |= {f"{kind}_sha256": entry.sha256 for kind, (_, entry) in chosen.items()}
        return {"template": "\n".join(map(_canonical, self._lines)), "kinds": kinds}

    # ---------------------------------------------------------------------------------- before any run

    def problems(self, elements: Iterable[str]) -> list[Problem]:
        """Return all that can be seen to be wrong without running anything, as (found, remedy)."""
        found = _template_problems(self._lines)
        if self.scf not in RECIPES:
            found.append((f"scf is {self.scf!r}", f"use one of {', '.join(RECIPES)}"))
        elif self.scf not in self._recipes():
            found.append((f"scf is {self.scf!r}, which goes with neither k-points nor smearing", "use diagonalization"))
        files = self._file_names()
        for kind, keyword in _FILE_KEYWORDS.items():
            if not files[kind]:
                found.append((f"names no {keyword}", f"add {keyword} to DFT"))
        for name in (name for names in files.values() for name in names):
            problem = self._file_problem(name)
            if problem is not None:
                found.append(problem)
        return found or [problem for element in elements for problem in self._element_problems(element)]

    def _file_problem(self, name: str) -> Problem | None:
        if Path(name).name != name:
            return f"names the file {name} with its folder", "give the bare name here, and the folder as data_dir"
        if self._find(name) is None:
            places = ", ".join(map(str, self._places()))
            return f"data file {name} is not in {places}", "give the folder of CP2K's data files as data_dir"
        return None

    def _element_problems(self, element: str) -> list[Problem]:
        try:
            chosen = self._chosen(element)
        except ValueError as error:
            found, _, remedy = str(error).partition("; ")
            return [(found, remedy)]
        valence = {kind: re.search(r"-q(\d+)$", entry.name) for kind, (_, entry) in chosen.items()}
        numbers = {kind: match[1] for kind, match in valence.items() if match}
        if len(set(numbers.values())) > 1:
            names = " and ".join(entry.name for _, entry in chosen.values())
            return [(f"{element} has {names}, for different numbers of electrons", "choose two that belong together")]
        return []

    # ---------------------------------------------------------------------------------- parts

    def _recipes(self) -> list[str]:
        """Return the recipes this template allows: the orbital transformation takes neither k-points nor smearing."""
        partial = any(re.match(r"&(KPOINTS|SMEAR)\b", line, re.IGNORECASE) for line in self._lines)
        return [name for name in RECIPES if not (partial and name.startswith("ot"))]

    def _eps_scf(self) -> str:
        found = next((m for m in (re.match(r"EPS_SCF\s+(\S+)", line, re.I) for line in self._lines) if m), None)
        return found[1] if found else "1.0E-5"  # CP2K's default

    def _file_names(self) -> dict[str, list[str]]:
        return {
            kind: [line.split()[1] for line in self._lines if line.upper().startswith(f"{keyword} ")]
            for kind, keyword in _FILE_KEYWORDS.items()
        }

    def _places(self) -> list[Path]:
        if self.data_dir is not None:
            return [self.data_dir]
        named = os.environ.get("CP2K_DATA_DIR")
        return [Path(place) for place in ((named,) if named else ()) + DATA_DIRS]

    def _find(self, name: str) -> Path | None:
        return next((place / name for place in self._places() if (place / name).is_file()), None)

    def _chosen(self, element: str) -> dict[str, tuple[str, DataSet]]:
        """Return basis and potential of an element, each with the name of its file; ValueError if one is missing."""
        return {kind: self._data_set(element, kind) for kind in _FILE_KEYWORDS}

    def _kept_promise(self, element: str) -> dict[str, tuple[str, DataSet]]:
        try:
            chosen = self._chosen(element)
        except ValueError as error:
            raise CodeFault("config", str(error), final=False) from error
        promised = self.promised.get(element, {})
        for kind, (file, entry) in chosen.items():
            if promised.get(f"{kind}_sha256", entry.sha256) != entry.sha256:
                raise CodeFault(
                    "config",
                    f"{kind} {entry.name} of {element} in {self._find(file)} is not the one of this label's level of "
                    "theory any more; bring the old file back, or: alloop relabel",
                    final=False,
                )
        return chosen

    def _data_set(self, element: str, kind: str) -> tuple[str, DataSet]:
        wanted = self.kinds.get(element, {}).get(kind, self.defaults[kind])
        known: list[str] = []
        for name in self._file_names()[kind]:
            path = self._find(name)
            for entry in read_data_sets(path.read_text(errors="replace")) if path else ():
                if entry.element == element:
                    if wanted in entry.names:
                        return name, entry
                    known.append(entry.name)
        near = difflib.get_close_matches(wanted, known, n=3) or known[:5]
        there = f"there are {', '.join(near)}" if near else f"there is none for {element}"
        raise ValueError(
            f"no {kind} {wanted!r} for {element} in {', '.join(self._file_names()[kind]) or 'any file'}; "
            f"{there}: choose with {kind} or kinds, or name another file in the template"
        )


_FILE_KEYWORDS = {"basis": "BASIS_SET_FILE_NAME", "potential": "POTENTIAL_FILE_NAME"}


def _bare_lines(text: str) -> list[str]:
    lines = (" ".join(re.split(r"[#!]", line, maxsplit=1)[0].split()) for line in text.splitlines())
    return [line for line in lines if line]


def _canonical(line: str) -> str:
    """Return a line in capitals, but for names of files, whose case counts."""
    keyword, _, value = line.partition(" ")
    return f"{keyword.upper()} {value}" if keyword.upper().endswith("FILE_NAME") else line.upper()


def _template_problems(lines: list[str]) -> list[Problem]:
    text = "\n".join(lines)
    remedy = "copy the shipped template and edit that"
    found: list[Problem] = []
    missing = [f"@{word}@" for word in _PLACEHOLDERS if lines.count(f"@{word}@") != 1]
    if missing:
        found.append((f"has no line of its own, or several, for {', '.join(missing)}", remedy))
    unknown = sorted(set(re.findall(r"@(\w+)@", text)) - set(_PLACEHOLDERS))
    if unknown:
        found.append((f"asks for @{unknown[0]}@, which is not filled in", f"use {', '.join(_PLACEHOLDERS)} only"))
    if re.search(r"^@INCLUDE\b", text, re.MULTILINE | re.IGNORECASE):
        found.append(("includes another file, whose content would not count as level of theory", "paste it in"))
    found += [
        (f"lacks {words}, without which there is no label", f"add it {place}")
        for pattern, words, place in _NEEDED
        if not re.search(rf"^{pattern}$", text, re.MULTILINE | re.IGNORECASE)
        or re.search(rf"^{re.escape(words.split()[0])} +OFF$", text, re.MULTILINE | re.IGNORECASE)
    ]
    if re.search(r"^PRINT_LEVEL +(LOW|SILENT)$", text, re.MULTILINE | re.IGNORECASE):
        found.append(("has a PRINT_LEVEL at which atoms and cell are not printed", "set PRINT_LEVEL MEDIUM"))
    found += [
        (f"holds {word}, which is part of what @SCF@ stands for", f"take {word} out; the option scf chooses it")
        for word in _IN_RECIPES
        if any(line.upper().split()[0] == word for line in lines)
    ]
    opened = sum(line.startswith("&") for line in lines) - 2 * sum(line.upper().startswith("&END") for line in lines)
    if opened:
        found.append((f"{abs(opened)} section(s) {'without &END' if opened > 0 else 'ended twice'}", remedy))
    return found


def _kind(element: str, basis: DataSet, potential: DataSet) -> str:
    return f"&KIND {element}\n  BASIS_SET {basis.name}\n  POTENTIAL {potential.name}\n&END KIND"


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Return the template with every @WORD@ replaced, the lines of a value indented as the word was."""
    lines: list[str] = []
    for line in template.splitlines():
        word = re.fullmatch(r"(\s*)@(\w+)@\s*(?:[#!].*)?", line)
        lines += [word[1] + part for part in values[word[2]].splitlines()] if word else [line]
    return "\n".join(lines) + "\n"
