"""VASP's output files as people keep them: plain, packed, and with suffixes of their own."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

_PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".lzma": lzma.open}
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What reading a packed file raises where it is cut off or is not packed at all."""
_OUTCAR = re.compile(r"OUTCAR(?P<own>.*)|(?P<front>[\w.-]+)[._-]OUTCAR")
_VASPRUN = re.compile(r"vasprun(?P<own>.*)\.xml(?P<tail>([-._].*)?)")
_OTHER = re.compile(r"\.(py|json|ya?ml|md|txt|tar|tgz|zip|h5|npz|png)$|\.tar\b")


@dataclass(frozen=True)
class VaspRun:
    """The files of one run. name: what a person calls it; at least one of the two files is there."""

    name: str
    outcar: Path | None = None
    vasprun: Path | None = None


def find_outputs(root: Path) -> list[VaspRun]:
    """Return every run at and below a folder, in the order of their paths; a file given is one run.

    Files are OUTCAR and vasprun.xml, also packed (gz, bz2, xz, lzma) and with suffixes such as ``OUTCAR.relax1.gz``
    or ``vasprun_x.xml``. Two files of one folder are one run if nothing but a packing tells their names from the
    plain ones, or if their suffixes are the same; every other file is a run by itself. Of the same file plain and
    packed, the plain one counts. Links to folders are not followed. A folder without such files gives an empty list.
    """
    root = Path(root)
    if root.is_file():
        kind, _ = _kind(root.name) or ("outcar", "")
        if kind == "vasprun" or _begins_as_xml(root):
            return [VaspRun(root.name, vasprun=root)]
        return [VaspRun(root.name, outcar=root)]
    runs: list[VaspRun] = []
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        runs += _runs_of(Path(folder), sorted(names), root)
    return runs


def run_of(folder: Path) -> VaspRun:
    """Return the run of one folder: the files of its plain names, else of its first run; neither file if none."""
    if not folder.is_dir():
        return find_outputs(folder)[0] if folder.is_file() else VaspRun(folder.name)
    runs = _runs_of(folder, sorted(path.name for path in folder.iterdir() if path.is_file()), folder)
    return runs[0] if runs else VaspRun(folder.name)


@contextmanager
def plain_copy(path: Path, *, mend: bool) -> Iterator[Path]:
    """Yield a file that a parser can open by name: the file itself, or an unpacked copy gone afterwards.

    mend: also replace bytes that are no UTF-8. Raises what DAMAGED lists if the packing is damaged.
    """
    if not mend and not is_packed(path):
        yield path
        return
    with TemporaryDirectory(prefix="alloop-vasp-") as folder:
        copy = Path(folder) / "output"
        with open_text(path) as source, copy.open("w", encoding="utf-8") as target:
            target.writelines(source)
        yield copy


def is_packed(path: Path) -> bool:
    """Tell whether the name says that a file is packed."""
    return path.suffix in _PACKED


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacking it by its suffix."""
    file: IO[bytes] = _PACKED.get(path.suffix, open)(path, "rb")
    return file


def open_text(path: Path) -> IO[str]:
    """Open a file for reading as text, unpacking it by its suffix; bytes that are no UTF-8 become U+FFFD."""
    file: IO[str] = _PACKED.get(path.suffix, open)(path, "rt", encoding="utf-8", errors="replace")
    return file


def _begins_as_xml(path: Path) -> bool:
    try:
        with open_bytes(path) as file:
            return file.read(64).lstrip().startswith(b"<")
    except DAMAGED:
        return False


def _kind(name: str) -> tuple[str, str] | None:
    """Return which output a file name means, and its own suffix without the packing; None for other files."""
    if _OTHER.search(name):
        return None
    stem = name[: -len(Path(name).suffix)] if Path(name).suffix in _PACKED else name
    if found := _OUTCAR.fullmatch(stem):
        return "outcar", found["own"] or found["front"] or ""
    if found := _VASPRUN.fullmatch(stem):
        return "vasprun", found["own"] + found["tail"]
    return None


def _runs_of(folder: Path, names: list[str], root: Path) -> list[VaspRun]:
    """Return the runs of the files of one folder, the one of the plain names first."""
    files: dict[str, dict[str, Path]] = {}
    for name in names:  # sorted, so a plain file comes before its packed twin
        if found := _kind(name):
            kind, own = found
            files.setdefault(own, {}).setdefault(kind, folder / name)
    runs = []
    for own, pair in sorted(files.items()):
        named = folder if own == "" and folder != root else next(iter(pair.values()))
        runs.append(VaspRun(str(named.relative_to(root)), pair.get("outcar"), pair.get("vasprun")))
    return runs
