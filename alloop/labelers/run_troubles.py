"""What keeps vasp or cp2k from being run here, whatever they compute: script, command, environment, scratch folder."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alloop.label_params import CODES, LabelParam, RunParam
from alloop.labelers.code import clean_environment
from alloop.labelers.cp2k.judge import INPUT
from alloop.resources import find_template

_PROFILE_SECONDS = 2.0
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Trouble:
    """Something that keeps a code from labelling: the key or file it is in, what was found, what to do."""

    where: str
    found: str
    remedy: str


def to_fill_in(value: str) -> bool:
    """Tell whether a value is one an example leaves to the site, written in angle brackets."""
    return value.startswith("<") and value.endswith(">")


def run_troubles(label: LabelParam, root: Path) -> Iterator[Trouble]:
    """Yield what is wrong with how vasp or cp2k is run; root: the campaign folder, whose ``templates/`` come first.

    Nothing is wrong with calculators.
    """
    if label.labeler not in CODES:
        return
    run = label.run
    script = None
    try:
        script = find_template(run.script, root).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield Trouble("param.json: label.run.script", str(error), "put the file there, or leave the key out")
    else:
        yield from _script_troubles(run, script)
    commands = {name: getattr(run, name) for name in ("command", "command_gamma", "command_safe")}
    for key, command in commands.items():
        if command is not None:
            yield from _command_troubles(f"param.json: label.run.{key}", command, run, script)
    yield from _mismatches(label)
    for number, module in enumerate(run.modules):
        if to_fill_in(module):
            where = f"param.json: label.run.modules[{number}]"
            yield Trouble(where, f"is still {module!r}", "name the module to load, or leave `modules` out for none")
    for name in run.environment:
        if not _VARIABLE_NAME.fullmatch(name):
            where = "param.json: label.run.environment"
            yield Trouble(where, f"{name!r} is no name of an environment variable", "letters, digits and _ only")
    yield from _scratch_troubles(run.scratch)


def _mismatches(label: LabelParam) -> Iterator[Trouble]:
    """Yield where the command and what it is to compute do not go together."""
    where, command = "param.json: label.run.command", label.run.command or ""
    if label.labeler == "vasp" and label.vasp and label.vasp.kpoint_spacing_inv_A and "vasp_gam" in command:
        found = "vasp_gam knows the Gamma point only, and kpoint_spacing_inv_A asks for meshes in small cells"
        yield Trouble(where, found, "name vasp_std here, vasp_gam in command_gamma")
    if label.labeler == "cp2k" and INPUT not in command and not to_fill_in(command):
        yield Trouble(where, f"does not name {INPUT}, the input CP2K is to read", f"end it with -i {INPUT}")


def _script_troubles(run: RunParam, script: str) -> Iterator[Trouble]:
    where = f"templates/{run.script}"
    needed = {"@COMMAND@": "command"}
    needed |= {"@MODULES@": "modules"} if run.modules else {}
    needed |= {"@ENVIRONMENT@": "environment"} if run.environment else {}
    for word, key in needed.items():
        if word not in script:
            yield Trouble(where, f"lacks {word}, where label.run.{key} goes", "write it in")


def _command_troubles(where: str, command: str, run: RunParam, script: str | None) -> Iterator[Trouble]:
    """Yield what is wrong with a command; whether its program is there is known without modules and own script only."""
    if to_fill_in(command):
        yield Trouble(
            where, f"is still {command!r}", "write the command that starts the program, such as srun vasp_std"
        )
        return
    try:
        words = shlex.split(command)
    except ValueError as error:
        yield Trouble(where, f"{command!r} is no command: {error}", "close the quotes")
        return
    if not words:
        yield Trouble(where, "is empty", "write the command that starts the program, such as srun vasp_std")
        return
    program = words[0]
    if "=" in program:
        yield Trouble(where, f"begins with the assignment {program!r}", "move it to label.run.environment")
    elif not ("$" in program or "`" in program or run.modules or script != _shipped_script()):
        yield from _program_troubles(where, program)


def _shipped_script() -> str:
    return find_template("run.sh").read_text(encoding="utf-8")


def _program_troubles(where: str, program: str) -> Iterator[Trouble]:
    remedy = (
        "give its whole path, or name its module in label.run.modules; if only the machines that run it have it, "
        "put it on PATH in templates/run.sh"
    )
    path = Path(program).expanduser()
    if "/" not in program:
        if not _on_path(program):
            yield Trouble(where, f"program {program!r} is not found on the system's PATH", remedy)
    elif not path.is_absolute():
        found = f"program {program!r} is looked for in the private folder of each run, where it is not"
        yield Trouble(where, found, "give its whole path")
    elif not path.is_file():
        yield Trouble(where, f"program {program!r} does not exist", remedy)
    elif not os.access(path, os.X_OK):
        yield Trouble(where, f"program {program!r} may not be executed", f"chmod +x {program}, or name another one")


@functools.cache
def _on_path(program: str) -> bool:
    """Tell whether the shipped script would find a program: on the system's PATH or on the one of /etc/profile."""
    environment = clean_environment()
    if shutil.which(program, path=environment["PATH"]):
        return True
    look = '[ -r /etc/profile ] && source /etc/profile; type -P "$0"'
    try:
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", look, program],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROFILE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True  # it cannot be known
    return done.returncode == 0


def _scratch_troubles(scratch: str | None) -> Iterator[Trouble]:
    if scratch is None:
        return
    where, remedy = "param.json: label.run.scratch", "name a folder that exists where labels run, or leave the key out"
    folder = Path(os.path.expandvars(scratch)).expanduser()
    if to_fill_in(scratch):
        yield Trouble(where, f"is still {scratch!r}", remedy)
    elif "$" in str(folder):
        yield Trouble(where, f"{scratch!r} names a variable that is not set here", remedy)
    elif not folder.is_absolute():
        yield Trouble(where, f"{scratch!r} is no whole path", remedy)
    else:
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            yield Trouble(where, f"nothing can be written to {nearest}", remedy)
