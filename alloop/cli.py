"""The commands: parse, call one function, print."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from alloop import __version__
from alloop.bench_select import command as bench_select
from alloop.campaign import Campaign
from alloop.dpgen import commands as dpgen_commands
from alloop.errors import BAD_INPUT, NOT_CONVERGED, AlloopError, InputError
from alloop.report import analyze_command
from alloop.report.html import command as report_command

if TYPE_CHECKING:
    from alloop.config import Param

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Active learning of DeePMD potentials for glasses: from an empty folder to the analysed glass.\n\n"
    "A campaign is a folder with a param.json. Begin with [bold]alloop init DIR --example quickstart[/bold], "
    "look with [bold]alloop check[/bold] and [bold]alloop plan[/bold], start or resume with [bold]alloop run[/bold], "
    "and look at it in the morning with [bold]alloop status[/bold].\n\n"
    "Exit codes: 0 done, converged; 2 bad input; 3 stopped and not converged; 4 another driver holds the campaign; "
    "5 a kind of work needs a person.",
)
console = Console(width=None if sys.stdout.isatty() else 120)

Folder = Annotated[Path, typer.Option("-C", "--campaign", metavar="DIR", help="the campaign folder")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
From = Annotated[Path, typer.Option("-C", "--campaign", metavar="DIR", help="folder that relative paths start from")]
HERE = Path()
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def _load(folder: Path) -> tuple[Campaign, Param]:
    from alloop.config import load  # here and below: only commands that need it wait for it

    return Campaign(folder), load(folder.resolve() / "param.json")


def _opened(folder: Path) -> Campaign:
    """Return the campaign of a folder that has one, or at least a param.json for one."""
    campaign = Campaign(folder)
    if not campaign.exists():
        from alloop.config import load

        load(folder.resolve() / "param.json")
    return campaign


def _say(text: str) -> None:
    """Print a message whose words are all meant: no markup, no break inside a path."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _marked(mark: str, message: str, where: Console) -> None:
    """Print a message after a red mark: wrapped between words on a terminal, unbroken to a file or a pipe."""
    lines = f"{mark} {message}".splitlines()
    if where.is_terminal:
        lines = [part for line in lines for part in _wrapped(line, max(where.width, 40))]
    text = Text("\n".join(lines))
    text.stylize("red", 0, len(mark))
    where.print(text, soft_wrap=True)


def _wrapped(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())] + "  "
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="the new campaign folder")],
    example: Annotated[str, typer.Option(help="which example to start from")] = "quickstart",
    folder: From = HERE,
) -> None:
    """Make a new campaign folder from an example; edit its param.json, then: alloop check."""
    from alloop.resources import example_file, examples, shipped_templates

    if example not in examples():
        raise InputError(f"no example {example!r}; there are: {', '.join(examples())}")
    directory = folder / directory
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise InputError(
            f"{directory} is not an empty folder; choose a new one, so that nothing of yours is overwritten"
        )
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(example_file(example), directory / "param.json")
    shutil.copytree(shipped_templates(), directory / "templates", ignore=shutil.ignore_patterns("examples"))
    _say(f"campaign folder {directory} made from example {example}\n next: alloop check -C {directory}")


@app.command()
def check(
    folder: Folder = HERE,
    inputs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write the inputs of one structure per glass there (vasp, cp2k)")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="also label a tiny cell with every labeler, in every batch pool")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look for every problem of configuration, templates, programs and files; show what labels will be.

    Starts no work, but for one tiny label per labeler with --live.
    """
    from alloop.config import load
    from alloop.preflight import examine
    from alloop.remarks import remarks
    from alloop.report.inputs import NOTHING, describe, print_description, write_inputs

    campaign = Campaign(folder)
    problems, description = examine(campaign), describe(campaign)
    remarked = [] if problems else remarks(campaign, load(campaign.root / "param.json"))
    if description and not as_json:
        print_description(description, console)
    if inputs is not None and description:
        write_inputs(description, inputs)
    tried = _rehearse(campaign, description.inputs, as_json) if live and description and not problems else []
    if as_json:
        found = {"problems": [own.__dict__ for own in problems], "remarks": [own.__dict__ for own in remarked]}
        _print_json(found | (description.to_json() if description else NOTHING) | {"live": tried})
    for mark, told in [*(("x", own) for own in problems), *(("!", own) for own in remarked)] if not as_json else ():
        _marked(mark, str(told), console)
    if problems or not all(record["labelled"] for record in tried):
        raise typer.Exit(BAD_INPUT)
    if not as_json:
        _say(f"no problem found in {campaign.root}; next: alloop plan, alloop run")


def _rehearse(campaign: Campaign, inputs: list[Any], as_json: bool) -> list[dict[str, Any]]:
    """Label a tiny cell with every labeler, telling what comes of it unless JSON is to be printed."""
    from alloop.config import load
    from alloop.rehearsal import rehearse, told

    param = load(campaign.root / "param.json")
    found = []
    for trial, record in rehearse(campaign, param, inputs):
        found += [record] if record else []
        if not as_json:
            mark, text = told(trial, record)
            _marked(mark, text, console) if mark else _say(text)
    return found


@app.command()
def plan(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Show what a run would do: tasks, files, core-hours at the measured pace. Runs nothing."""
    from alloop.remarks import remarks
    from alloop.report.plan import build_plan, print_plan

    campaign, param = _load(folder)
    campaign.load()
    found = build_plan(campaign, param, param.stop.max_iterations)
    remarked = remarks(campaign, param)
    if as_json:
        _print_json(found | {"remarks": [own.__dict__ for own in remarked]})
        return
    print_plan(found, console)
    for own in remarked:
        _marked("!", str(own), console)


@app.command()
def run(
    folder: Folder = HERE,
    iterations: Annotated[int | None, typer.Option(min=1, help="explore this many more iterations, then stop")] = None,
    barrier: Annotated[
        bool, typer.Option("--barrier", help="classical order: train all, explore all, label all")
    ] = False,
    take_over: Annotated[bool, typer.Option("--take-over", help="take the campaign from a driver that hangs")] = False,
) -> None:
    """Start OR resume the campaign: the same command, also after a crash. Ctrl-C stops it safely."""
    from alloop import loop
    from alloop.preflight import require

    campaign, param = _load(folder)
    require(campaign, param)
    if not take_over:
        campaign.refuse_if_held()
    campaign.load()
    limit = param.stop.max_iterations
    if iterations is not None:
        limit = campaign.state.explored_through() + iterations
    _drive(campaign, param, loop.limits(param, limit, barrier=barrier), take_over=take_over)


def _drive(campaign: Campaign, param: Param, limits: Any, *, take_over: bool) -> None:
    """Take the campaign, drive it to the end of this run, show where it stands, and exit with the run's code."""
    from alloop import loop
    from alloop.report.progress import Watcher
    from alloop.report.snapshot import read_status
    from alloop.report.status_text import print_status

    limit = {"max_iterations": limits.max_iterations, "slots": limits.slots, "barrier": limits.barrier}
    campaign.take(param, take_over=take_over, limit=limit)
    watcher = Watcher(console)
    watcher.say(f"campaign [bold]{param.name}[/bold] on {limits.slots} slots; Ctrl-C stops it safely")
    try:
        ending = loop.run(campaign, param, limits, watcher)
    finally:
        watcher.close()
    print_status(read_status(campaign), console)
    _say(ending.reason)
    raise typer.Exit(ending.code)


@app.command()
def stop(
    folder: Folder = HERE,
    now: Annotated[bool, typer.Option("--now", help="end running tasks too, instead of letting them finish")] = False,
    cancel_jobs: Annotated[
        bool, typer.Option("--cancel-jobs", help="also cancel the batch jobs, whatever runs in them")
    ] = False,
) -> None:
    """Ask the driver, from any shell, to stop deciding and let running work finish.

    Without a driver: a successor that templates/driver.sbatch has queued will not start, and --cancel-jobs cancels the
    batch jobs that earlier drivers left.
    """
    from alloop.stopping import stop as stop_campaign

    stop_campaign(_opened(folder), _say, now=now, cancel_jobs=cancel_jobs)


@app.command()
def status(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Show where the campaign stands; works while the driver is dead."""
    from alloop.report.snapshot import read_status
    from alloop.report.status_text import print_status

    found = read_status(_opened(folder))
    _print_json(found) if as_json else print_status(found, console)


@app.command()
def stats(
    folder: Folder = HERE,
    as_json: AsJson = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="draw it (.png, .pdf, .svg)")] = None,
) -> None:
    """Show selection statistics per iteration, glass and temperature, and event."""
    from alloop.report.statistics import build_statistics, plot_statistics, print_statistics

    campaign = _opened(folder)
    campaign.load()
    found = build_statistics(campaign)
    if plot is not None:
        plot_statistics(found, plot)
    _print_json(found) if as_json else print_statistics(found, console)
    if plot is not None and not as_json:
        _say(f"plot written to {plot}")


@app.command()
def show(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="key or its first digits, name, or path of its folder")],
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show the whole provenance of a label: why and where it comes from, inputs, attempts, result and cost."""
    from alloop.report.provenance import build_provenance, find_label
    from alloop.report.provenance_text import print_provenance

    campaign = _opened(folder)
    campaign.load()
    found = build_provenance(campaign, find_label(campaign, label))
    _print_json(found) if as_json else print_provenance(found, console)


@app.command()
def why(
    frame: Annotated[str, typer.Argument(metavar="FRAME", help="CHUNK.sSTEP, as in the names of labels, or a label")],
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Tell the fate of one explored frame: what was seen in it, why it was labelled or not, and how wrong it was."""
    from alloop.report.fate import build_fate, find_frame, print_fate

    campaign = _opened(folder)
    campaign.load()
    found = build_fate(campaign, *find_frame(campaign, frame))
    _print_json(found) if as_json else print_fate(found, console)


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="a new or empty folder")],
    formats: Annotated[str, typer.Option("--format", help="npy (DeePMD systems), extxyz, or both")] = "npy,extxyz",
    level: Annotated[str | None, typer.Option(metavar="NAME", help="level of theory; the campaign's own")] = None,
    role: Annotated[str, typer.Option(help="training, held_out or all")] = "all",
    excluded: Annotated[bool, typer.Option("--excluded", help="also labels a person excluded, in sets apart")] = False,
    link: Annotated[bool, typer.Option("--link", help="link the models instead of copying them")] = False,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Write the labelled data of one level of theory, and the models trained on it, into a folder of their own."""
    from alloop.export import export as write_export
    from alloop.export import parse_request, summary_lines

    campaign = _opened(folder)
    campaign.load()
    request = parse_request(campaign, formats, level, role, excluded=excluded, link=link)
    record = write_export(campaign, directory, request)
    if as_json:
        _print_json(record)
    for line in summary_lines(record, directory) if not as_json else ():
        _say(line)


@app.command()
def quench(
    folder: Folder = HERE,
    take_over: Annotated[bool, typer.Option("--take-over", help="take the campaign from a driver that hangs")] = False,
) -> None:
    """Run the production melt-quench with the last complete ensemble; resumable like run."""
    from alloop import loop
    from alloop.preflight import require

    campaign, param = _load(folder)
    require(campaign, param)
    if param.quench is None:
        raise InputError('param.json has no quench section; add one, such as {"quench": {"when": "always"}}')
    if not take_over:
        campaign.refuse_if_held()
    campaign.load()
    if campaign.state.iteration < 0 or campaign.state.open("train", campaign.state.iteration):
        raise InputError("no complete ensemble yet; train one first: alloop run")
    param = param.model_copy(update={"quench": param.quench.model_copy(update={"when": "always"})})
    limits = loop.limits(param, campaign.state.iteration, quench_only=True)
    _drive(campaign, param, limits, take_over=take_over)


@app.command()
def label(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="structures ASE can read")] = None,
    labeler: Annotated[
        str | None, typer.Option(help="a calculator instead of param.json's labeler, such as sevennet-0")
    ] = None,
    relax: Annotated[bool, typer.Option("--relax", help="relax the atoms first")] = False,
    cell: Annotated[bool, typer.Option("--cell", help="with --relax: the cell too")] = False,
    force: Annotated[float, typer.Option(min=0, help="with --relax: largest force left, eV/Å")] = 0.02,
    steps: Annotated[int, typer.Option(min=1, help="with --relax: steps at most")] = 200,
    judge: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="only judge outputs of VASP or CP2K that are already there")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="the labels, as extxyz")] = Path(
        "labels.extxyz"
    ),
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Label given structures with any labeler, relax them, or judge outputs that are already there.

    Labels are kept under iterations/given: the same structure is never paid for twice. Exit code 3 if some failed.
    """
    from alloop.labelling import Relaxation, label_files
    from alloop.report.labels import judge_outputs, print_labels, print_verdicts

    if judge is not None:
        if not judge.exists():
            raise InputError(f"{judge} does not exist; give a folder with OUTCAR, vasprun.xml or CP2K outputs")
        verdicts = judge_outputs(judge)
        _print_json(verdicts) if as_json else print_verdicts(verdicts, console)
        if not verdicts:
            raise InputError(f"no output of VASP or CP2K in {judge}")
        return
    if not files:
        raise InputError("no structure given; give files ASE can read, or --judge FOLDER")
    relaxation = Relaxation(force, steps, cell) if relax else None
    found, level = label_files(folder, [folder / file for file in files], labeler, relaxation, folder / output, console)
    _print_json(found) if as_json else print_labels(found, level, console)
    done = sum(record["labelled"] for record in found)
    if done and not as_json:
        _say(f"{done} label(s) written to {folder / output}")
    if done < len(found):
        raise typer.Exit(NOT_CONVERGED)


Labels = Annotated[list[str], typer.Argument(metavar="LABEL...", help="keys, names or folders; see: alloop status")]


@app.command()
def retry(
    tasks: Annotated[list[str] | None, typer.Argument(metavar="[TASK...]", help="keys, names or folders")] = None,
    failed: Annotated[
        str | None, typer.Option("--class", help="all of this failure class, such as unconverged")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="all quarantined work that is still of use")] = False,
    folder: Folder = HERE,
) -> None:
    """Give quarantined work another chance, after its cause was mended; a running driver takes it up by itself."""
    from alloop.requests import ask, quarantined

    campaign = _opened(folder)
    campaign.load()
    keys = quarantined(campaign, tasks or [], failed, everything=everything)
    outcome = ask(campaign, "retry", keys=keys)
    _say(f"{len(keys)} task(s) will be tried again ({outcome})" + ("" if outcome == "asked" else "; next: alloop run"))


@app.command()
def exclude(
    labels: Labels,
    reason: Annotated[str, typer.Option(help="why; it stays on record")],
    undo: Annotated[bool, typer.Option("--undo", help="bring them back")] = False,
    folder: Folder = HERE,
) -> None:
    """Take labels out of training and held-out sets, on record; the next ensemble is trained without them."""
    from alloop.report.provenance import find_label
    from alloop.requests import ask

    campaign = _opened(folder)
    campaign.load()
    keys = [find_label(campaign, text) for text in labels]
    outcome = ask(campaign, "exclude", keys=keys, reason=reason, undo=undo)
    _say(f"{len(keys)} label(s) {'brought back' if undo else 'excluded'} ({outcome})")


@app.command()
def relabel(
    folder: Folder = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="do it; without this the cost is shown only")] = False,
) -> None:
    """Have all labels made anew at the level of theory param.json names now; the old ones are kept, and superseded."""
    from alloop.requests import relabel as relabel_campaign

    campaign, param = _load(folder)
    count, old, new = relabel_campaign(campaign, param, really=yes)
    if yes:
        _say(f"{count} label(s) of {old} will be made anew as {new}; next: alloop run")
    else:
        _say(f"{count} label(s) of {old} would be made anew as {new}; to do it: alloop relabel --yes")


@app.command()
def schema(folder: From = HERE, as_json: AsJson = False) -> None:
    """Show every key of param.json with type, default and meaning; --json prints the JSON schema."""
    from alloop.report.schema import json_schema, print_schema

    if as_json:
        _print_json(json_schema())
        return
    print_schema(console)


dpgen_commands.register(app)
bench_select.register(app)
analyze_command.register(app)
report_command.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"alloop {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a problem a person can mend ends as one message and its exit code."""
    try:
        app()
    except AlloopError as error:
        _marked("alloop:", str(error), Console(stderr=True))
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.filename is None and error.errno not in _DISK:
            raise
        found = f"{error.filename or 'disk'}: {error.strerror}\n  see whose folder it is, and if the disk is full"
        _marked("alloop:", found, Console(stderr=True))
        raise SystemExit(BAD_INPUT) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
