"""`alloop analyze`: any structure or trajectory ASE can read, analysed frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alloop.errors import InputError
from alloop.glass.correlation import RadialDistribution
from alloop.report.status import number


def analyse_files(
    paths: list[Path], cutoffs: list[str], formers: str, rings: str, max_ring: int, every: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name (file and number) and analysis of every n-th frame; InputError for an unusable file or option.

    cutoffs: texts such as ``B-O=1.9`` (Å); formers: elements with commas between; rings and max_ring as in
    `alloop.glass.analysis.analyze_frame`.
    """
    from alloop.glass.analysis import analyze_frame, read_frames
    from alloop.glass.rings import check_ring_options

    try:
        cutoffs_A = _cutoffs_A(cutoffs)
        elements = tuple(name.strip() for name in formers.split(","))
        check_ring_options(elements, rings, max_ring)
        _check_formers(elements, cutoffs_A)
        for path in paths:
            for number, atoms in enumerate(read_frames(path, f"::{every}")):
                name = f"{path.name} {number * every}"
                found = analyze_frame(
                    atoms, cutoffs_A=cutoffs_A, formers=elements, ring_definition=rings, max_ring=max_ring
                )
                yield name, found
    except ValueError as error:
        raise InputError(str(error)) from None


def _cutoffs_A(texts: list[str]) -> dict[str, float]:
    from alloop.glass.neighbours import canonical_lengths_A

    found: dict[str, float] = {}
    for text in texts:
        pair, _, value = text.partition("=")
        try:
            length_A = float(value)
        except ValueError:
            raise ValueError(
                f"--cutoff {text!r} is no pair and distance; write it in Å, such as --cutoff B-O=1.9"
            ) from None
        try:
            found |= canonical_lengths_A({pair: length_A}, "cutoff")
        except ValueError as error:
            raise ValueError(f"--cutoff {text!r}: {error}") from None
    return found


def _check_formers(formers: tuple[str, ...], cutoffs_A: dict[str, float]) -> None:
    from alloop.glass.coordination import resolve_cutoffs_A
    from alloop.glass.neighbours import pair_name

    for former in formers:
        pair = pair_name(former, "O")
        if pair not in resolve_cutoffs_A(cutoffs_A):
            raise ValueError(f"--formers {former}: no {pair} cutoff is known; give one, such as --cutoff {pair}=2.0")


def print_analysis(frames: list[tuple[str, dict[str, Any]]], console: Console) -> None:
    """Print one row per frame, and the coordination of the last one."""
    table = Table("frame", "atoms", "density g/cm³", "4B", "5Si", "rings", "boroxol rings", "B in boroxol")
    for name, frame in frames:
        counts = ", ".join(f"{size}: {count}" for size, count in frame["rings"]["counts"].items()) or "-"
        table.add_row(
            escape(name),
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
    name, last = frames[-1]
    for element, counts in last["coordination"].items():
        console.print(
            f" {element} by O neighbours: " + ", ".join(f"{n}: {c}" for n, c in counts.items()), highlight=False
        )
    oxygen = ", ".join(f"{n}: {c}" for n, c in last["oxygen_by_formers"].items())
    console.print(f" O by formers (0 free, 1 NBO, 2 BO, 3 tricluster): {oxygen}", highlight=False)
    nearest = ", ".join(f"{pair} {distance:.2f}" for pair, distance in last["min_distance_A"].items())
    cutoffs = ", ".join(f"{pair} {value:g}" for pair, value in last["cutoffs_A"].items())
    console.print(f" nearest distances (Å): {nearest}", highlight=False)
    console.print(f" ({escape(name)}; cutoffs in Å: {cutoffs})", highlight=False)


def write_rdf(paths: list[Path], every: int, file: Path) -> None:
    """Write total and partial g(r), averaged over all frames, as a plot, or as columns if the file ends in .csv."""
    from alloop.glass.analysis import read_frames
    from alloop.glass.correlation import radial_distribution

    try:
        frames = (atoms for path in paths for atoms in read_frames(path, f"::{every}"))
        found = radial_distribution(frames)
        if file.suffix == ".csv":
            found.write_csv(file)
        else:
            _plot_rdf(found, file)
    except (OSError, ValueError) as error:
        raise InputError(f"g(r) to {file}: {error}") from None


def _plot_rdf(found: RadialDistribution, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), constrained_layout=True)
    for name, values in sorted(found.partial.items()):
        axes.plot(found.r_A, values, linewidth=1, label=name)
    axes.plot(found.r_A, found.total, color="black", label="total")
    axes.set(xlabel="r (Å)", ylabel="g(r)", title=f"mean over {found.n_frames} frame(s)", xlim=(0, found.edges_A[-1]))
    axes.legend(ncols=2, fontsize="small")
    try:
        figure.savefig(file, dpi=150)
    finally:
        plt.close(figure)
