"""`alloop analyze`: any structure or trajectory ASE can read, analysed frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alloop.errors import InputError
from alloop.report.status import number


def analyse_files(
    paths: list[Path], cutoffs: list[str], formers: tuple[str, ...], rings: str, max_ring: int, every: int
) -> Iterator[dict[str, Any]]:
    """Yield the analysis of every frame; InputError says what is wrong with a file or an option."""
    from alloop.glass.analysis import analyze_frame, read_frames

    try:
        cutoffs_A = dict(_cutoff(text) for text in cutoffs)
        for path in paths:
            for atoms in read_frames(path, f"::{every}"):
                yield analyze_frame(
                    atoms, cutoffs_A=cutoffs_A, formers=formers, ring_definition=rings, max_ring=max_ring
                )
    except ValueError as error:
        raise InputError(str(error)) from None


def _cutoff(text: str) -> tuple[str, float]:
    pair, _, value = text.partition("=")
    try:
        return pair, float(value)
    except ValueError:
        raise ValueError(f"--cutoff {text!r}: expected a pair and a distance in Å, such as B-O=1.9") from None


def print_analysis(frames: list[dict[str, Any]], console: Console) -> None:
    """Print one row per frame, and the coordination of the last one."""
    table = Table("frame", "atoms", "density g/cm³", "4B", "5Si", "rings", "boroxol rings", "B in boroxol")
    for index, frame in enumerate(frames):
        counts = ", ".join(f"{size}: {count}" for size, count in frame["rings"]["counts"].items()) or "-"
        table.add_row(
            str(index),
            str(frame["n_atoms"]),
            number(frame["density_g_cm3"], 2),
            number(frame["fraction_4B"]),
            number(frame["fraction_5Si"]),
            counts,
            str(frame["boroxol"]["rings"]),
            number(frame["boroxol"]["fraction_B"]),
        )
    console.print(table)
    if not frames:
        return
    last = frames[-1]
    for element, counts in last["coordination"].items():
        console.print(
            f" {element} by O neighbours: " + ", ".join(f"{n}: {c}" for n, c in counts.items()), highlight=False
        )
    oxygen = ", ".join(f"{n}: {c}" for n, c in last["oxygen_by_formers"].items())
    console.print(f" O by formers (0 free, 1 NBO, 2 BO, 3 tricluster): {oxygen}", highlight=False)
    nearest = ", ".join(f"{pair} {distance:.2f}" for pair, distance in last["min_distance_A"].items())
    console.print(f" nearest distances (Å): {nearest}\n (last frame; cutoffs {last['cutoffs_A']})", highlight=False)
