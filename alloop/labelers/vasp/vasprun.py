"""Read what a vasprun.xml says of its run, in one pass that keeps little (formats of VASP 4.6 to 6.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from alloop.labelers.vasp.files import DAMAGED, open_bytes
from alloop.labelers.vasp.reading import ElectronicLoop, Printed, Reading, damaged

_HEAVY = {"dos", "eigenvalues", "projected", "dynmat", "kpoints", "dielectricfunction", "initialization"}


def read_vasprun(path: Path) -> tuple[Reading, bool]:
    """Return what a vasprun.xml says, and whether it is VASP's. What cannot be parsed ends the file there.

    ``place`` holds the parser's message if the document is not well-formed. Raises OSError if the file cannot be
    opened.
    """
    reading = Reading(path.name)
    known = False
    parents: list[str] = []
    steps = 0
    with open_bytes(path) as file:
        try:
            for event, element in ElementTree.iterparse(file, events=("start", "end")):
                tag = element.tag
                if event == "start":
                    parents.append(tag)
                    known = known or tag == "modeling"
                    continue
                parents.pop()
                if tag == "scstep":
                    steps += 1
                    element.clear()
                elif tag == "calculation":
                    _take_calculation(reading, element, steps)
                    steps = 0
                    element.clear()
                elif parents == ["modeling"]:
                    _take_part(reading, element)
                    element.clear()
                elif tag in _HEAVY:
                    element.clear()
            reading.finished = known
        except ElementTree.ParseError as error:
            reading.place = f"in ionic step {len(reading.loops) + 1} ({error})"
        except DAMAGED as error:
            reading.damage = damaged(error)
    return reading, known


def ends_as_modeling(path: Path) -> bool:
    """Tell whether the file's last words close VASP's root element."""
    try:
        with open_bytes(path) as file:
            tail = b""
            while chunk := file.read(1 << 20):
                tail = (tail + chunk)[-200:]
    except DAMAGED:
        return False
    return tail.rstrip().endswith(b"</modeling>")


def _take_part(reading: Reading, element: Any) -> None:
    """Take in one part of the document beside the ionic steps."""
    if element.tag == "generator":
        reading.version = _text(element, "i[@name='version']")
    elif element.tag == "parameters":
        reading.nelm = _integer(element, "NELM")
        reading.isif = _integer(element, "ISIF")
        reading.icharg = _integer(element, "ICHARG")
    elif element.tag == "atominfo":
        _take_atoms(reading, element)
    elif element.tag == "varray" and element.get("name") == "forces":
        reading.learned_last = True  # steps of a machine-learned force field stand beside the calculations


def _take_atoms(reading: Reading, element: Any) -> None:
    counts, titles = [], []
    for row in element.findall("array[@name='atomtypes']/set/rc"):
        cells = [cell.text or "" for cell in row.findall("c")]
        if len(cells) >= 5 and cells[0].strip().isdigit():
            counts.append(int(cells[0]))
            titles.append(" ".join(cells[4].split()))
    reading.counts, reading.titles = tuple(counts), tuple(titles)


def _take_calculation(reading: Reading, element: Any, steps: int) -> None:
    """Take in one ionic step: how many electronic steps, and its numbers as printed."""
    reading.loops.append(ElectronicLoop(steps))
    reading.learned_last = False
    reading.last = Printed(
        energy=_text(element, "energy/i[@name='e_fr_energy']"),
        forces=_rows(element, "varray[@name='forces']"),
        positions=_rows(element, "structure/varray[@name='positions']"),
        stress=_rows(element, "varray[@name='stress']"),
        cell=_rows(element, "structure/crystal/varray[@name='basis']"),
    )


def _rows(element: Any, path: str) -> list[str] | None:
    array = element.find(path)
    return None if array is None else [row.text or "" for row in array.findall("v")]


def _text(element: Any, path: str) -> str | None:
    found = element.find(path)
    return None if found is None else (found.text or "").strip()


def _integer(element: Any, tag: str) -> int | None:
    text = _text(element, f".//i[@name='{tag}']") or ""
    return int(text) if text.lstrip("-").isdigit() else None
