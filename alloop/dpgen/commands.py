"""The commands import-dpgen and export-dpgen: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

IMPORT_HELP = (
    "Make a campaign of a DP-GEN folder, which goes on where DP-GEN stands; DIR is not changed.\n\n"
    "All labelled data come along bit for bit and are trained on, the first ensemble starts from DP-GEN's last models "
    "with the same network, and exploration begins from sys_configs, whose structures are labelled too. param.json and "
    "machine.json are translated as far as they go; what has no place in alloop is listed, with the reason. All of it "
    "is in NEW/imported, see imported/dpgen.json. The way back: alloop export-dpgen.\n\n"
    "Example: alloop import-dpgen ~/dpgen/glass -C glass, then: alloop check -C glass, alloop plan, alloop run"
)
EXPORT_HELP = (
    "Write the campaign as a DP-GEN folder, in which dpgen run (0.14) goes on with the next iteration.\n\n"
    "It holds all finished labels, the last complete ensemble, candidate lists and deviations of every iteration, and "
    "record.dpgen, so that DP-GEN goes on at the stage where alloop stands. What was imported from DP-GEN goes back "
    "byte for byte, and alloop's iterations are numbered after it. Held-out labels are among the data, as DP-GEN knows "
    "no such set; excluded ones are not. The campaign is not changed and may be running.\n\n"
    "Example: alloop export-dpgen ../back -C glass, then in ../back: dpgen run param.json machine.json"
)

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]


def import_dpgen(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="the DP-GEN folder, where dpgen run was started")],
    folder: Annotated[
        Path, typer.Option("-C", "--campaign", metavar="NEW", help="the campaign folder to make, new or empty")
    ] = Path(),
    labeler: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="what labelled the data, as label.labeler names it (for fp_style custom)"),
    ] = None,
    param: Annotated[str, typer.Option(metavar="NAME", help="DP-GEN's param file in DIR")] = "param.json",
    machine: Annotated[str, typer.Option(metavar="NAME", help="DP-GEN's machine file in DIR")] = "machine.json",
    as_json: AsJson = False,
) -> None:
    """Make a campaign of a DP-GEN folder; see `IMPORT_HELP`."""
    from alloop.dpgen.importer import import_dpgen

    found = import_dpgen(directory, folder, labeler=labeler, param_name=param, machine_name=machine)
    if as_json:
        _print_json({"campaign": str(found.root)} | found.inventory)
        return
    told = found.inventory
    frames = sum(entry["frames"] for entry in told["data"])
    iterations = told["iterations"]
    _say(
        f"campaign {found.root} made of {directory}: {iterations} iteration{'s' * (iterations != 1)}, "
        f"{frames} labelled frames in {len(told['data'])} systems, {len(told['models'])} models"
    )
    for entry in told["per_iteration"]:
        for system, counts in entry["systems"].items():
            text = ", ".join(f"{value} {name}" for name, value in counts.items())
            _say(f"  iteration {entry['iteration']}, system {system}: {text}")
    _list("not translated:", [f"{entry['key']}: {entry['why']}" for entry in told["not_translated"]])
    _list("to fill in:", told["to_fill_in"])
    _say(f" next: alloop check -C {folder}")


def export_dpgen(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="the DP-GEN folder to make, new or empty")],
    folder: Annotated[Path, typer.Option("-C", "--campaign", metavar="DIR", help="the campaign folder")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write the campaign as a DP-GEN folder; see `EXPORT_HELP`."""
    from alloop import config
    from alloop.campaign import Campaign
    from alloop.dpgen.exporter import export_dpgen

    param = config.load(folder.resolve() / "param.json")
    campaign = Campaign(folder)
    campaign.load()
    found = export_dpgen(campaign, param, directory)
    iteration, stage = found.next_stage
    if as_json:
        content = {
            "folder": str(found.root),
            "iterations": found.iterations,
            "frames": found.frames,
            "next_iteration": iteration,
            "next_stage": stage,
            "notes": found.notes,
            "to_fill_in": found.to_fill_in,
        }
        _print_json(content)
        return
    text = ", ".join(f"{count} {name}" for name, count in found.frames.items())
    _say(
        f"{found.root}: {found.iterations} iterations, {sum(found.frames.values())} labelled frames ({text}); "
        f"dpgen run goes on in iteration {iteration}, stage {stage}"
    )
    _list("to know:", found.notes)
    _list("to fill in:", found.to_fill_in)


def register(app: typer.Typer) -> None:
    """Add both commands to the command line."""
    app.command("import-dpgen", help=IMPORT_HELP)(import_dpgen)
    app.command("export-dpgen", help=EXPORT_HELP)(export_dpgen)


def _list(title: str, items: Sequence[str]) -> None:
    if items:
        _say("\n".join([f" {title}", *(f"  - {item}" for item in items)]))


def _say(text: str) -> None:
    """Print a message whose words are all meant: no markup, no break inside a path."""
    Console(width=None if sys.stdout.isatty() else 120).print(text, markup=False, highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
