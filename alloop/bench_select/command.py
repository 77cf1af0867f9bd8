"""The command bench-select: parse, call one function, print."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from alloop import __version__
from alloop.errors import InputError

if TYPE_CHECKING:
    from alloop.bench_select.experiment import Experiment
    from alloop.bench_select.pool import Pool

METHODS = ("random", "dpgen", "top_deviation", "diversity", "full")
HELP = (
    "Compare ways to choose labels: active learning replayed on a pool that is labelled already.\n\n"
    "FOLDER holds labelled frames as .extxyz (test.extxyz apart); without it the campaign's own labels are used, the "
    "held-out ones to test on, with its own events and rules of selection. Every method begins from the same random "
    "labels, trains small ensembles on more and more labels, and chooses by what they say of the rest of the pool. "
    "Shown is how many labels each method needs for the error that random choice ends with, and for --target. Every "
    "round is kept in --out and never repeated: Ctrl-C is safe, and the same command goes on.\n\n"
    "Example: python benchmarks/labelled_pool.py pool, then: alloop bench-select pool --plot curves.png"
)


def bench_select(
    pool: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="a labelled pool; the campaign's own")] = None,
    folder: Annotated[
        Path, typer.Option("-C", "--campaign", metavar="DIR", help="campaign folder; relative paths start there")
    ] = Path(),
    methods: Annotated[str, typer.Option(help="which to compare; random is always among them")] = ",".join(METHODS),
    seeds: Annotated[int, typer.Option(min=1, help="how often, each time from other labels and weights")] = 3,
    sizes: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="labels after each round; the profile's if not given")
    ] = None,
    profile: Annotated[str, typer.Option(help="size of the models: quick (to try it) or full")] = "full",
    trust: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="fixed trust levels, eV/Å; quantiles of the pool if not given"),
    ] = None,
    target: Annotated[
        float | None, typer.Option(metavar="ERROR", help="also labels needed for this force RMSE, eV/Å")
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="rounds at a time, a core each; all cores")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="where rounds and summary are kept")] = Path("bench-select"),
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="draw the curves (.png, .pdf, .svg)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")] = False,
) -> None:
    """Compare ways to choose labels; see `HELP`."""
    from alloop.bench_select.report import compare, describe_pool, plot_comparison, print_comparison
    from alloop.store import write_json

    if target is not None and not (target > 0 and math.isfinite(target)):
        raise InputError(f"--target is {target:g}; give a force RMSE above zero, in eV/Å")
    experiment = _experiment(folder, pool, out, methods, seeds, sizes, profile, trust)
    console = Console(stderr=True)

    def tell(text: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)

    described = describe_pool(experiment.pool)
    tell(_sentence(described))
    tell(experiment.pool.ruleset.sentence())
    began = time.monotonic()
    rounds = experiment.run(slots or len(os.sched_getaffinity(0)), tell)
    records = experiment.to_json(rounds)
    spent = {record["round"]: sum(record["seconds"].values()) for record in records}  # methods share their first
    found: dict[str, Any] = {
        "alloop": __version__,
        "pool": described,
        "settings": experiment.settings(),
        "seconds": round(time.monotonic() - began, 1),
        "seconds_of_all_rounds": round(sum(spent.values()), 1),
        "comparison": compare(records, target),
        "rounds": records,
    }
    write_json(experiment.folder / "summary.json", found)
    if plot is not None:
        plot_comparison(found["comparison"], folder / plot)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    print_comparison(found["comparison"], Console(width=None if sys.stdout.isatty() else 160))
    tell(f"record: {experiment.folder / 'summary.json'}" + (f"; plot: {folder / plot}" if plot else ""))


def _experiment(
    folder: Path,
    pool: Path | None,
    out: Path,
    methods: str,
    seeds: int,
    sizes: str | None,
    profile: str,
    trust: tuple[float, float] | None,
) -> Experiment:
    """Return the comparison that the options ask for; InputError names the option that is wrong."""
    from alloop.bench_select.experiment import PROFILES, Experiment

    if profile not in PROFILES:
        raise InputError(f"--profile {profile!r} is none of {', '.join(PROFILES)}")
    if trust is not None and not 0 <= trust[0] < trust[1]:
        raise InputError(f"--trust is {trust[0]:g} {trust[1]:g}; give two numbers, LOW below HIGH, in eV/Å")
    own = PROFILES[profile]
    if sizes is not None:
        own = replace(own, sizes=_parsed_sizes(sizes))
    names = _parsed_methods(methods)
    found = _pool(folder, pool)
    return Experiment(found, (folder / out).resolve(), names, tuple(range(seeds)), own, trust)


def _pool(folder: Path, pool: Path | None) -> Pool:
    from alloop.bench_select.pool import read_campaign, read_folder
    from alloop.campaign import Campaign

    if pool is not None:
        return read_folder(folder / pool)
    campaign = Campaign(folder)
    if not campaign.exists():
        raise InputError(
            f"no labelled pool is given, and no campaign has begun in {campaign.root}\n"
            "  name a folder of labelled frames (benchmarks/labelled_pool.py makes one), or a campaign with -C"
        )
    campaign.load()
    return read_campaign(campaign)


def _parsed_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--sizes {text!r} is no list of whole numbers; expected such as 40,80,160,320") from None


def _parsed_methods(text: str) -> tuple[str, ...]:
    """Return the methods in the order of report, random first as all others are measured by it."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise InputError(
            f"--methods {text!r}: {', '.join(unknown) or 'none'} is no method; there are {', '.join(METHODS)}"
        )
    return tuple(name for name in METHODS if name in names or name == "random")


def _sentence(described: dict[str, Any]) -> str:
    parts = []
    for side, what in (("choose", "to choose from"), ("test", "to test on")):
        own = described[side]
        events = ", ".join(f"{count} with {event}" for event, count in own["events"].items())
        parts.append(f"{own['frames']} frames of {own['trajectories']} trajectories {what} ({events})")
    if described["past_gate"]:
        parts.append(f"{described['past_gate']} more are past a hard gate and not chosen from")
    return f"pool {described['key']}: " + "; ".join(parts)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("bench-select", help=HELP)(bench_select)
