"""`alloop analyze`: any structure or trajectory ASE can read, analysed frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from alloop.errors import InputError
from alloop.report.status_text import number

if TYPE_CHECKING:
    from alloop.report.trajectory import Frames

MINIMUM = "min"
"""In place of a cutoff's length: the first minimum of g(r)."""
_REACH_A, _BIN_A = 6.0, 0.02
_ROWS = 20


def analyse_files(
    frames: Frames, cutoffs_A: dict[str, float], formers: str, rings: str, max_ring: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name (file and number) and analysis of every frame; InputError for an unusable file or option.

    formers: elements with commas between; rings and max_ring as in `alloop.glass.analysis.analyze_frame`.
    """
    from alloop.glass.analysis import analyze_frame
    from alloop.glass.rings import check_ring_options

    try:
        elements = tuple(name.strip() for name in formers.split(","))
        check_ring_options(elements, rings, max_ring)
        _check_formers(elements, cutoffs_A)
        for path in frames.paths:
            for number, atoms in enumerate(frames.of(path)):
                name = f"{path.name} {number * frames.every}"
                found = analyze_frame(
                    atoms, cutoffs_A=cutoffs_A, formers=elements, ring_definition=rings, max_ring=max_ring
                )
                yield name, found
    except ValueError as error:
        raise InputError(str(error)) from None


def cutoffs_of(frames: Frames, texts: list[str]) -> dict[str, float]:
    """Return lengths (Å) by pair from texts such as ``B-O=1.9`` or ``B-O=min``; InputError for anything else.

    ``min`` is the first minimum of the pair's g(r), averaged over all frames of all files.
    """
    from alloop.glass.correlation import radial_distribution
    from alloop.glass.neighbours import canonical_lengths_A

    given = [(text, *text.partition("=")[::2]) for text in texts]
    try:
        wants_g = any(value == MINIMUM for _, _, value in given)
        g = radial_distribution(frames.all(), r_max_A=_REACH_A, bin_width_A=_BIN_A) if wants_g else None
    except ValueError as error:
        raise InputError(f"--cutoff with the first minimum of g(r): {error}") from None
    found: dict[str, float] = {}
    for text, pair, value in given:
        try:
            length_A = g.first_minimum_A(pair) if g and value == MINIMUM else _length_A(value)
            found |= canonical_lengths_A({pair: length_A}, "cutoff")
        except ValueError as error:
            raise InputError(f"--cutoff {text!r}: {error}") from None
    return found


def elements_of_types(text: str) -> tuple[str, ...]:
    """Return elements from text such as ``B,Li,O,Si``, none for an empty one; InputError for what is no element."""
    found = tuple(name.strip() for name in text.split(",")) if text else ()
    if unknown := [name for name in found if name == "X" or name not in atomic_numbers]:
        raise InputError(
            f"--types {text}: {unknown[0]!r} is no element; name one for each atom type, such as B,Li,O,Si"
        )
    return found


def _length_A(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(
            "this is no pair and distance; write it in Å, such as --cutoff B-O=1.9, or --cutoff B-O=min for the first "
            "minimum of g(r)"
        ) from None


def _check_formers(formers: tuple[str, ...], cutoffs_A: dict[str, float]) -> None:
    from alloop.glass.coordination import resolve_cutoffs_A
    from alloop.glass.neighbours import pair_name

    for former in formers:
        pair = pair_name(former, "O")
        if pair not in resolve_cutoffs_A(cutoffs_A):
            raise ValueError(f"--formers {former}: no {pair} cutoff is known; give one, such as --cutoff {pair}=2.0")


def print_analysis(frames: list[tuple[str, dict[str, Any]]], console: Console) -> None:
    """Print one row per frame (of many the first and last), mean and spread, and coordination and Qn of the last one.

    NBO and triclusters are fractions of the oxygen atoms.
    """
    names = ("density g/cm³", "4B", "5Si", "NBO", "triclusters")
    table = Table(Column("frame", no_wrap=True), "atoms", *names, "rings", "boroxol rings", "B in boroxol")
    ends = _ROWS // 2
    for place, (name, frame) in enumerate(frames):
        if len(frames) > _ROWS and ends <= place < len(frames) - ends:
            if place == ends:
                table.add_row(f"... {len(frames) - 2 * ends} more")
            continue
        counts = ", ".join(f"{size}: {count}" for size, count in frame["rings"]["counts"].items()) or "-"
        columns = [number(value, digits) for value, digits in _columns(frame)]
        table.add_row(escape(name), str(frame["n_atoms"]), *columns[: len(names)], counts, *columns[len(names) :])
    if len(frames) > 1:
        spread = [_spread([_columns(frame)[k] for _, frame in frames]) for k in range(len(_columns(frames[0][1])))]
        table.add_section()
        table.add_row("mean ± deviation", "", *spread[: len(names)], "", *spread[len(names) :])
    console.print(table)
    if not frames:
        return
    name, last = frames[-1]
    for element, counts in last["coordination"].items():
        console.print(
            f" {element} by O neighbours: " + ", ".join(f"{n}: {c}" for n, c in counts.items()), highlight=False
        )
    oxygen = ", ".join(f"{n}: {c}" for n, c in last["oxygen_by_formers"].items())
    console.print(f" O by formers (0 free, 1 NBO, 2 BO, 3 tricluster): {oxygen}", highlight=False)
    for element, counts in last["qn"].items():
        species = ", ".join(f"Q{n}: {c}" for n, c in counts.items())
        console.print(f" {element} by bridging O (Qn): {species}", highlight=False)
    nearest = ", ".join(f"{pair} {distance:.2f}" for pair, distance in last["min_distance_A"].items())
    cutoffs = ", ".join(f"{pair} {value:g}" for pair, value in last["cutoffs_A"].items())
    console.print(f" nearest distances (Å): {nearest}", highlight=False)
    console.print(f" ({escape(name)}; cutoffs in Å: {cutoffs})", highlight=False)


def _columns(frame: dict[str, Any]) -> list[tuple[float | None, int]]:
    """Return the numbers of a row that have a mean, each with its digits."""
    boroxol = frame["boroxol"]
    oxygen = frame["oxygen_by_formers"]
    total = sum(oxygen.values())
    nbo, triclusters = (oxygen.get(n, 0) / total if total else None for n in ("1", "3"))
    fractions = (frame["fraction_4B"], frame["fraction_5Si"], nbo, triclusters)
    return [
        (frame["density_g_cm3"], 2),
        *((fraction, 3) for fraction in fractions),
        (boroxol["rings"], 0),
        (boroxol["fraction_B"], 3),
    ]


def _spread(values: list[tuple[float | None, int]]) -> str:
    known = [value for value, _ in values if value is not None]
    digits = values[0][1] + (1 if values[0][1] == 0 else 0)
    if not known:
        return "-"
    mean = f"{np.mean(known):.{digits}f}"
    return f"{mean} ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else mean
