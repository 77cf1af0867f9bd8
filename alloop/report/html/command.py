"""The command report: parse, call one function, write."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from alloop.errors import InputError

HELP = (
    "Write one self-contained HTML file: the campaign's story (learning curves, selection, calibration, cost), the "
    "errors of the potential by glass, the quenched glasses beside experiment, and a checklist of the literature's "
    "figures.\n\n"
    "It reads only, also while the campaign runs. --figures writes every figure as .pdf and .svg, too."
)


def report(
    folder: Annotated[Path, typer.Option("-C", "--campaign", metavar="DIR", help="the campaign folder")] = Path(),
    out: Annotated[Path, typer.Option(metavar="FILE", help="the page, in the campaign folder")] = Path("report.html"),
    figures: Annotated[Path | None, typer.Option(metavar="DIR", help="write figures as .pdf and .svg")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print what the page shows as one JSON object")] = False,
) -> None:
    """Write a report; see `HELP`."""
    from alloop.campaign import Campaign
    from alloop.report.html.data import build_report
    from alloop.report.html.page import render, sections
    from alloop.report.snapshot import read_status

    console = Console(stderr=True)

    def tell(text: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)

    campaign = Campaign(folder)
    if not campaign.exists():
        raise InputError(f"{campaign.root} has no campaign yet, so there is nothing to report; begin one: alloop run")
    driver = str(read_status(campaign)["driver"])
    campaign.load()
    found = build_report(campaign, driver, tell)
    page, file = render(found, tell), folder / out
    try:
        file.write_text(page)
        if figures is not None:
            (folder / figures).mkdir(parents=True, exist_ok=True)
            for section in sections(found):
                for figure in section.figures:
                    figure.write(folder / figures)
    except OSError as error:
        raise InputError(f"cannot write the report: {error}") from None
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        tell(f"wrote {file} ({len(page) / 1e6:.1f} MB)")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(help=HELP)(report)
