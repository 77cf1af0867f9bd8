"""Read what an OUTCAR says of its run, in one pass over its lines (formats of VASP 5.2 to 6.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from alloop.labelers.vasp.files import DAMAGED, open_text
from alloop.labelers.vasp.reading import ElectronicLoop, Printed, Reading, damaged

_VERSION = re.compile(r"\bvasp\.(\d\S*)")
_ITERATION = re.compile(r"Iteration\s*(\d+)\(\s*(\d+)\)")
_TAG = re.compile(r"\s+(NELM|ISIF|ICHARG)\s*=\s*(\d+)")
_IONS = re.compile(r"NIONS\s*=\s*(\d+)")
_KEYS = ("Iteration", "TOTEN", "FORCE", "in kB", "EDIFF", "VOLUME and", "stop encountered", "General timing")


class _Pass:
    """One pass over an OUTCAR: what was seen so far, and the ionic step it is in."""

    def __init__(self, path: Path) -> None:
        self.reading = Reading(path.name)
        self.ions: int | None = None
        self.known = False
        self.titles: list[str] = []
        self.short_titles: list[str] = []
        self.ionic = self.electronic = 0
        self._begin_step()

    def _begin_step(self) -> None:
        self.printed = Printed()
        self.indices: set[int] = set()
        self.energies = 0
        self.reached: bool | None = None
        self.stopped = self.in_stress = False

    def header(self, line: str) -> None:
        """Take in one line before the first electronic step."""
        reading = self.reading
        if found := _TAG.match(line):
            setattr(reading, found[1].lower(), int(found[2]))
        elif "NIONS" in line and (found := _IONS.search(line)):
            self.ions = int(found[1])
        elif "TITEL" in line and "=" in line:
            self.titles.append(" ".join(line.partition("=")[2].split()))
        elif line.lstrip().startswith("POTCAR:"):
            self.short_titles.append(" ".join(line.partition(":")[2].split()))
        elif "ions per type" in line:
            reading.counts = tuple(int(word) for word in line.partition("=")[2].split() if word.isdigit())
        elif reading.version is None and (found := _VERSION.search(line)):
            reading.version = found[1]
        else:
            return
        self.known = True

    def body(self, line: str, rest: Iterator[str]) -> None:
        """Take in one line that holds one of the keys; tables are read on from the rest of the lines."""
        if "Iteration" in line:
            if found := _ITERATION.search(line):
                self.ionic, self.electronic = int(found[1]), int(found[2])
                self.indices.add(self.electronic)
        elif "TOTEN" in line:
            self._energy(line)
        elif "TOTAL-FORCE" in line:
            if "ML" not in line:
                self.printed.forces = list(_table(rest, self.ions or 0))
        elif "FORCE on cell =-STRESS" in line:
            self.in_stress = self.in_stress or "ML" not in line
        elif "in kB" in line:
            if self.in_stress and self.printed.stress is None and line.split()[:2] == ["in", "kB"]:
                self.printed.stress = [line.split("kB", 1)[1]]
        elif "VOLUME and BASIS" in line:
            self.printed.cell = _cell(rest)
        elif "aborting loop" in line and "EDIFF" in line:
            self.reached = "not reached" not in line
        elif "hard stop encountered" in line:
            self.stopped = True
        elif "General timing and accounting" in line:
            self.reading.finished = True

    def _energy(self, line: str) -> None:
        """Take in an energy: of an electronic step, of an ionic step, or of a machine-learned force field."""
        if "free  energy ML TOTEN" in line:
            self.reading.learned_last = True
        elif "free  energy   TOTEN" in line:
            self.printed.energy = line.partition("=")[2].partition("eV")[0]
            steps = max([*self.indices, len(self.indices), self.energies])
            self.reading.loops.append(ElectronicLoop(steps, self.reached, self.stopped))
            self.reading.last = self.printed
            self.reading.learned_last = False
            self._begin_step()
        elif "free energy    TOTEN" in line:
            self.energies += 1

    def result(self) -> Reading:
        """Return what the whole file says."""
        reading = self.reading
        names = self.titles or self.short_titles[: len(self.short_titles) // 2]
        reading.titles = tuple(names)
        reading.unlabelled_forces = self.printed.forces is not None and bool(self.indices)
        reading.late_forces = self.printed.forces is not None and not self.indices
        if self.ionic:
            reading.place = f"in electronic step {self.electronic} of ionic step {self.ionic}"
            if not self.indices:
                reading.place = f"after ionic step {self.ionic}"
        else:
            reading.place = "before the first electronic step"
        return reading


def read_outcar(path: Path) -> tuple[Reading, bool]:
    """Return what an OUTCAR says, and whether any line of it is VASP's. What cannot be unpacked ends it.

    Raises OSError if the file cannot be opened.
    """
    state = _Pass(path)
    with open_text(path) as file:
        lines = iter(file)
        try:
            _read(state, lines)
        except DAMAGED as error:
            state.reading.damage = damaged(error)
    return state.result(), state.known or state.ionic > 0 or state.reading.finished


def _read(state: _Pass, lines: Iterator[str]) -> None:
    for line in lines:
        if "\ufffd" in line:
            state.reading.undecodable = True
        if _ITERATION.search(line) or "free  energy" in line or "General timing" in line:
            state.body(line, lines)
            break
        state.header(line)
    for line in lines:
        for key in _KEYS:
            if key in line:
                state.body(line, lines)
                break
        else:
            if "\ufffd" in line:
                state.reading.undecodable = True


def _table(rest: Iterator[str], ions: int) -> Iterator[str]:
    """Yield the rows between the rules of a force table, at most one more than there are atoms."""
    next(rest, None)
    for row in islice(rest, ions + 1):
        if row.lstrip().startswith("---"):
            return
        yield row.rstrip("\n")


def _cell(rest: Iterator[str]) -> list[str]:
    """Return the lattice vectors printed after ``VOLUME and BASIS``; numbers run together by a sign are told apart."""
    for line in islice(rest, 5):
        if "direct lattice vectors" in line:
            return [row.rstrip("\n").replace("-", " -") for row in islice(rest, 3)]
    return []
