"""The command analyze: parse, call functions, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from alloop.errors import InputError

HELP = (
    "Analyse glasses: coordination, 4B, 5Si, Qn, rings, boroxol, nearest distances; one JSON object per frame.\n\n"
    "Of whole trajectories, on request: g(r), neutron and X-ray S(Q), bond angles, diffusion (every file a replica), "
    "and the history of three-membered boron rings. A FILE that ends in .csv or .json gets numbers, another one a plot "
    "(.png; .pdf and .svg are vectors).\n\n"
    "Example: alloop analyze cooling.extxyz --history rings.pdf --events rings --frame-ps 0.5 --ramp-K 2000 300"
)


def analyze(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="what ASE can read, or results of tasks")],
    cutoff: Annotated[
        list[str] | None, typer.Option(metavar="B-O=1.9", help="pair cutoff in Å, or min (repeatable)")
    ] = None,
    formers: Annotated[str, typer.Option(help="network formers of the rings, such as B or B,Si")] = "B",
    rings: Annotated[str, typer.Option(help="ring definition: guttman, king or primitive")] = "guttman",
    max_ring: Annotated[int, typer.Option(min=2, help="largest ring, in formers")] = 12,
    every: Annotated[int, typer.Option(min=1, help="read every n-th frame")] = 1,
    types: Annotated[str, typer.Option(metavar="B,Li,O,Si", help="elements of a LAMMPS dump's atom types")] = "",
    frames: Annotated[bool, typer.Option(help="analyse frame by frame, too")] = True,
    rdf: Annotated[Path | None, typer.Option(metavar="FILE", help="total and partial g(r)")] = None,
    sq: Annotated[Path | None, typer.Option(metavar="FILE", help="neutron and X-ray structure factor")] = None,
    isotope: Annotated[
        list[str] | None, typer.Option(metavar="7Li", help="scatterer in place of the natural one: 7Li, 11B")
    ] = None,
    angles: Annotated[Path | None, typer.Option(metavar="FILE", help="distributions of bond angles")] = None,
    msd: Annotated[Path | None, typer.Option(metavar="FILE", help="mean squared displacement and diffusion")] = None,
    history: Annotated[Path | None, typer.Option(metavar="FILE", help="three-membered boron rings in time")] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="DIR", help="with --history: rings that form or break, before and after")
    ] = None,
    frame_ps: Annotated[float | None, typer.Option(metavar="PS", help="time between two frames of a file")] = None,
    mobile: Annotated[str, typer.Option(metavar="ELEMENT", help="what diffuses")] = "Li",
    window_ps: Annotated[
        tuple[float, float], typer.Option(metavar="FROM TO", help="times in which the MSD is fitted")
    ] = (50.0, 150.0),
    drop_ps: Annotated[float, typer.Option(metavar="PS", help="time left out at the start for diffusion")] = 50.0,
    temperature_K: Annotated[
        float | None, typer.Option("--temperature-K", metavar="K", help="of the run: for conductivity and history")
    ] = None,
    ramp_K: Annotated[
        tuple[float, float] | None,
        typer.Option("--ramp-K", metavar="FROM TO", help="temperatures of first and last frame, for the history"),
    ] = None,
    folder: Annotated[
        Path, typer.Option("-C", "--campaign", metavar="DIR", help="folder that relative paths start from")
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="print JSON objects, one a line, instead of text")] = False,
) -> None:
    """Analyse structures and trajectories; see `HELP`."""
    from alloop.report import trajectory
    from alloop.report.analysis import analyse_files, cutoffs_of, elements_of_types, print_analysis

    console = Console(width=None if sys.stdout.isatty() else 120)
    files = tuple(folder / path for path in paths)
    given = trajectory.Frames(files, every, frame_ps, elements_of_types(types))
    cutoffs_A = cutoffs_of(given, cutoff or [])

    def tell(name: str, record: dict[str, Any], text: str) -> None:
        if as_json:
            sys.stdout.write(json.dumps({name: record}) + "\n")
        else:
            console.print(text, markup=False, highlight=False)

    if events is not None and history is None:
        raise InputError("--events writes the structures of a history; give --history FILE, too")
    if frames:
        found = analyse_files(given, cutoffs_A, formers, rings, max_ring)
        if as_json:
            for _, frame in found:
                sys.stdout.write(json.dumps(frame) + "\n")
        else:
            print_analysis(list(found), console)
    if rdf is not None:
        trajectory.write_rdf(given, folder / rdf)
    if sq is not None:
        trajectory.write_structure_factor(given, folder / sq, isotope or [])
    if angles is not None:
        trajectory.write_angles(given, folder / angles, cutoffs_A)
    if msd is not None:
        diffusion, record = trajectory.find_diffusion(given, mobile, window_ps, drop_ps, temperature_K)
        trajectory.write_diffusion(diffusion, record, folder / msd)
        tell("diffusion", record, trajectory.diffusion_text(record))
    if history is not None:
        story = trajectory.find_history(given, cutoffs_A, temperature_K, ramp_K)
        trajectory.write_history(story, folder / history)
        record = {key: value for key, value in story.as_dict().items() if key in ("counts_by_temperature", "survival")}
        text = trajectory.history_text(story)
        if events is not None:
            record["event_structures"] = trajectory.write_events(story, given, folder / events)
            text += f"; {record['event_structures']} structures before and after in {folder / events}"
        tell("ring_history", record, text)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(help=HELP)(analyze)
