"""Frames of a LAMMPS text dump, one at a time, with the elements that its atom types stand for."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import ase.io
from ase import Atoms
from ase.io.formats import string2index

_FIRST_LINE = "ITEM: TIMESTEP"
_OF_ELEMENTS = ("element", "mass")  # columns from which ASE tells elements


class UnknownTypesError(ValueError):
    """The elements of a dump's atom types are not known."""


def is_text_dump(file: Path) -> bool:
    """Tell whether a file begins as LAMMPS's text dumps do."""
    with file.open("rb") as content:
        return content.read(5) == b"ITEM:"


def dump_frames(file: Path, index: str | int | slice, types: Sequence[str]) -> Iterator[Atoms]:
    """Yield the frames that `index` selects, as in ASE; counted from the start, one at a time is in memory.

    types: elements of the atom types 1, 2, ...; of no effect on a dump that has a column of elements or masses.
    UnknownTypesError if it is needed and names too few; IndexError for a number of a frame that is not there.
    """
    wanted = string2index(index) if isinstance(index, str) else index
    with file.open() as lines:
        blocks = _blocks(lines)
        chosen: Iterator[str]
        if isinstance(wanted, slice) and all(part is None or part >= 0 for part in (wanted.start, wanted.stop)):
            chosen = itertools.islice(blocks, wanted.start, wanted.stop, wanted.step)
        else:
            found = list(blocks)
            chosen = iter(found[wanted] if isinstance(wanted, slice) else [found[wanted]])
        for block in chosen:
            yield _frame(block, types, file)


def _blocks(lines: TextIO) -> Iterator[str]:
    """Yield the text of each frame; what comes before the first is left out."""
    block: list[str] = []
    for line in lines:
        if line.startswith(_FIRST_LINE) and block:
            if block[0].startswith(_FIRST_LINE):
                yield "".join(block)
            block = []
        block.append(line)
    if block and block[0].startswith(_FIRST_LINE):
        if not block[-1].endswith("\n"):
            raise ValueError("the last frame is cut off within a number: the run was killed, or still writes")
        yield "".join(block)


def _frame(block: str, types: Sequence[str], file: Path) -> Atoms:
    columns = next((line for line in block.splitlines() if line.startswith("ITEM: ATOMS")), "").split()[2:]
    told = any(name in columns for name in _OF_ELEMENTS)
    if not (told or types):
        raise UnknownTypesError(
            f"{file} tells atom types, no elements; name them in the order of the types, such as --types B,Li,O,Si"
        )
    try:
        return ase.io.read(io.StringIO(block), format="lammps-dump-text", specorder=None if told else list(types))
    except IndexError:
        raise UnknownTypesError(
            f"{file} has more atom types than the {len(types)} of --types {','.join(types)}; name all in their order"
        ) from None
