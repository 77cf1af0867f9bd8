"""What `alloop check` shows of the labels to come: the level of theory, and whole inputs of one structure per glass."""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from rich.console import Console
from rich.table import Table

from alloop import config
from alloop.campaign import Campaign, flat
from alloop.config import GlassParam, Param
from alloop.errors import AlloopError, InputError
from alloop.frames import read_columns, read_structure
from alloop.glass.composition import cell_length_A, stoichiometric_counts
from alloop.glass.melt_quench import random_start
from alloop.label_params import CODES, LabelParam
from alloop.labelers import levels
from alloop.labelers.code import Code, CodeFault, RunSettings, fill_script
from alloop.labelers.levels import Level
from alloop.labelers.vasp.inputs import blocks, grouped_by_species, incar_value, read_potcar
from alloop.seeds import derived_seed
from alloop.store import write_json
from alloop.structure import from_record

_SHOWN_ATOMS = 3
_SHOWN_SHA256 = 12
_SHOWN_COMMAND = 40


@dataclass(frozen=True)
class Inputs:
    """The inputs of a code for one structure of a glass, as a label would have them.

    structure: where it comes from; species: blocks of atoms in their order in the input; cell: lengths (Å) and angles
    (degrees); kpoints: the mesh, None for codes without KPOINTS; gamma: whether the command for the Gamma point only is
    used; potentials: of each species (VASP); files: name to text of the inputs kept with a label, and of ``run.sh``.
    """

    glass: str
    structure: str
    n_atoms: int
    species: list[tuple[str, int]]
    cell: list[float]
    kpoints: list[int] | None
    command: str
    gamma: bool
    potentials: list[dict[str, Any]]
    files: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Description:
    """The level of theory of a campaign's labels, that of the foundation it begins with if any, and example inputs.

    incar_by_event: INCAR tags that labels asked for a reason of selection have besides (VASP).
    """

    level: Level
    foundation: Level | None = None
    inputs: list[Inputs] = field(default_factory=list)
    incar_by_event: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        foundation = self.foundation.to_json() if self.foundation else None
        return {
            "level": self.level.to_json(),
            "foundation": foundation,
            "inputs": [asdict(entry) for entry in self.inputs],
            "incar_by_event": self.incar_by_event,
        }


NOTHING: dict[str, Any] = {"level": None, "foundation": None, "inputs": [], "incar_by_event": {}}
"""The JSON form of a description that could not be made."""


def describe(campaign: Campaign) -> Description | None:
    """Return what a campaign's labels will be, or None if its configuration or files do not say yet."""
    try:
        param = config.load(campaign.root / "param.json")
        level = levels.target_level(param.label, param.elements, campaign.root)
    except InputError:
        return None
    foundation = levels.foundation_level(param.label.foundation, campaign.root)
    if param.label.labeler not in CODES:
        return Description(level, foundation)
    groups = param.label.vasp.incar_by_event if param.label.vasp else {}
    events = {event: {tag: incar_value(value) for tag, value in tags.items()} for event, tags in groups.items()}
    try:
        return Description(level, foundation, assemble(campaign, param, level), events)
    except (OSError, ValueError, CodeFault):
        return Description(level, foundation)


def assemble(campaign: Campaign, param: Param, level: Level) -> list[Inputs]:
    """Return the inputs of one structure of each glass, assembled by the code that assembles those of labels.

    OSError if the script of the run cannot be read, ValueError for a cell that no glass has, CodeFault if a potential
    has changed meanwhile.
    """
    how = levels.run_settings(param.label, param.elements, campaign.root)
    found = []
    for glass in param.glasses:
        atoms, origin = example_structure(campaign, param, glass)
        code, settings = levels.open_code(level.content, how, {"glass": glass.name, "reason": "candidate"})
        found.append(inputs_of(code, settings, atoms, glass.name, origin, _potentials(param.label, how, atoms)))
    return found


def inputs_of(
    code: Code, settings: RunSettings, atoms: Atoms, glass: str, origin: str, potentials: list[dict[str, Any]]
) -> Inputs:
    """Return the inputs a code writes for a structure, of those it keeps with a label: no potentials, no data sets."""
    with tempfile.TemporaryDirectory(prefix="alloop-check-") as name:
        folder = Path(name)
        written = code.write(folder, atoms, {})
        variant = code.command(folder)
        files = {name: (folder / name).read_text(encoding="utf-8") for name in code.kept if (folder / name).exists()}
    command = settings.commands.get(variant) or settings.commands.get("default", "")
    mesh = files["KPOINTS"].splitlines()[3].split() if "KPOINTS" in files else None
    return Inputs(
        glass,
        origin,
        len(atoms),
        blocks(written.get_chemical_symbols()),
        np.round(written.cell.cellpar(), 4).tolist(),
        [int(number) for number in mesh] if mesh else None,
        command,
        variant == "gamma" and "gamma" in settings.commands,
        potentials,
        files | {"run.sh": fill_script(settings, command)},
    )


def _potentials(label: LabelParam, how: dict[str, Any], atoms: Atoms) -> list[dict[str, Any]]:
    if label.vasp is None or "potcars" not in how:
        return []
    found = []
    for element, _ in blocks(atoms[grouped_by_species(atoms)].get_chemical_symbols()):
        potcar = read_potcar(Path(how["potcars"][element]))
        record: dict[str, Any] = {
            "element": element,
            "data_set": label.vasp.potcars.get(element, element),
            "titel": potcar.titel,
        }
        record |= {"functional": potcar.lexch, "enmax_eV": potcar.enmax_eV, "zval": potcar.zval}
        found.append(record | {"sha256": potcar.sha256, "path": str(potcar.path)})
    return found


def example_structure(campaign: Campaign, param: Param, glass: GlassParam) -> tuple[Atoms, str]:
    """Return a structure of a glass and where it comes from: the end of a finished bootstrap run, or random atoms.

    ValueError if no stoichiometric cell is near the first size wanted.
    """
    for entry in _bootstrap_tasks(campaign):
        own = entry["spec"]["source"] == "melt-quench" and entry["name"].startswith(f"{glass.name}.")
        if own and entry["key"] in campaign.state.done:
            result = campaign.result(entry["key"])
            frame = int(np.flatnonzero(~read_columns(result)["strained"])[-1])
            return from_record(read_structure(result, frame)), f"bootstrap run {entry['name']}, frame {frame}"
    counts = stoichiometric_counts(glass.glass(), glass.n_atoms[0])
    rng = np.random.default_rng(derived_seed(param.seed, "check", glass.name))
    return random_start(counts, cell_length_A(counts, glass.glass().density_g_cm3), rng), "random atoms"


def _bootstrap_tasks(campaign: Campaign) -> list[dict[str, Any]]:
    try:
        if not campaign.state.decisions and campaign.exists():
            campaign.load()
    except (AlloopError, ValueError, KeyError):
        return []
    return campaign.state.decisions.get(("bootstrap", -1), {}).get("tasks", [])


# ------------------------------------------------------------------------------------------ files


def write_inputs(description: Description, folder: Path) -> None:
    """Write DIR/GLASS/ with all inputs of its example, ``POTCAR.spec`` in place of the potentials, and DIR/level.json.

    InputError if there are none to write.
    """
    if not description.inputs:
        raise InputError(f"no inputs to write: {description.level.name} is a calculator, or its problems come first")
    for entry in description.inputs:
        place = folder / entry.glass
        place.mkdir(parents=True, exist_ok=True)
        for name, text in entry.files.items():
            (place / name).write_text(text, encoding="utf-8")
        if entry.potentials:
            (place / "POTCAR.spec").write_text(_potcar_spec(entry.potentials), encoding="utf-8")
    write_json(folder / "level.json", description.level.to_json())


def _potcar_spec(potentials: list[dict[str, Any]]) -> str:
    """Return the data sets of a POTCAR in their order, one a line: data set, TITEL and SHA-256 of the file."""
    rows = [f"{entry['data_set']}\t{entry['titel']}\t{entry['sha256']}" for entry in potentials]
    return "\n".join(["# data set\tTITEL\tSHA-256", *rows]) + "\n"


# ------------------------------------------------------------------------------------------ print


def print_description(description: Description, console: Console) -> None:
    """Print the level of theory by name and content and, for codes, the example inputs."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    level, foundation = description.level, description.foundation
    say(f"level of theory: {level.name} (so bootstrap.data[].level names data of the same level)")
    for line in _content(level):
        say(f"  {line}")
    if foundation:
        say(f"level of theory to begin with (label.foundation): {foundation.name}")
    if not description.inputs:
        return
    if potentials := {entry["element"]: entry for inputs in description.inputs for entry in inputs.potentials}:
        console.print(_potentials_table(list(potentials.values())))
    console.print(_structures_table(description.inputs))
    for glasses, text in _grouped(description.inputs, "INCAR").items():
        say(f"INCAR of {glasses}:\n{_indented(text)}")
    first = description.inputs[0]
    for name in sorted(set(first.files) - {"INCAR", "KPOINTS", "POSCAR", "run.sh"}):
        say(f"{name} of {first.glass}:\n{_indented(_without_most_atoms(first.files[name]))}")
    for event, overrides in description.incar_by_event.items():
        say(f"INCAR of {event} has besides: {', '.join(f'{tag} = {value}' for tag, value in overrides.items())}")
    for glasses, text in _grouped(description.inputs, "run.sh").items():
        say(f"script of {glasses}:\n{_indented(text)}")
    if any(entry.kpoints == [1, 1, 1] and not entry.gamma for entry in description.inputs):
        say("hint: for the Gamma point only, vasp_gam takes half the time: label.run.command_gamma")


def _content(level: Level) -> list[str]:
    content = dict(level.content)
    vasp = content.get("vasp")
    if vasp is None:
        leaves = {key: value for key, value in flat(content).items() if key != "labeler" and value != {}}
        return [f"{key} = {_short(value)}" for key, value in leaves.items()]
    tags = [f"{tag} = {value}" for tag, value in vasp["incar"].items()]
    spacing = vasp["kpoint_spacing_inv_A"]
    mesh = "the Gamma point" if spacing is None else f"Gamma-centred meshes, at most {spacing:g} per Å apart"
    return [", ".join(tags), f"k-points: {mesh}"]


def _short(value: Any) -> str:
    """Return a setting on one line: of a whole template only its size, of a hash its beginning."""
    text, lines = str(value), str(value).count("\n") + 1
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text[:_SHOWN_SHA256]
    return text if lines == 1 else f"{lines} lines"


def _potentials_table(potentials: list[dict[str, Any]]) -> Table:
    table = Table("element", "data set", "TITEL", "functional", "ENMAX eV", "ZVAL", "SHA-256", title="POTCAR")
    for entry in potentials:
        numbers = (f"{entry['enmax_eV']:g}", f"{entry['zval']:g}", entry["sha256"][:_SHOWN_SHA256])
        table.add_row(entry["element"], entry["data_set"], entry["titel"], entry["functional"], *numbers)
    return table


def _structures_table(inputs: list[Inputs]) -> Table:
    table = Table("glass", "from", "atoms", "POSCAR", "cell Å", "k-points", "command", title="one structure per glass")
    for entry in inputs:
        species = " ".join(f"{symbol}{count}" for symbol, count in entry.species)
        cell = " ".join(f"{length:.2f}" for length in entry.cell[:3])
        mesh = " ".join(map(str, entry.kpoints)) if entry.kpoints else "-"
        command = entry.command
        command = command if len(command) <= _SHOWN_COMMAND else f"...{command[3 - _SHOWN_COMMAND :]}"
        table.add_row(entry.glass, entry.structure, str(entry.n_atoms), species, cell, mesh, command)
    return table


def _grouped(inputs: list[Inputs], name: str) -> dict[str, str]:
    """Return the texts of a file by the glasses that share it, in the order of the first of each."""
    sharing: dict[str, list[str]] = {}
    for entry in inputs:
        if name in entry.files:
            sharing.setdefault(entry.files[name], []).append(entry.glass)
    everyone = len(inputs) > 1 and len(sharing) == 1
    return {"every glass" if everyone else ", ".join(glasses): text for text, glasses in sharing.items()}


_ATOM = re.compile(r"\s*[A-Z][a-z]?(\s+-?\d+\.\d+([eE][-+]?\d+)?){3}\s*")


def _without_most_atoms(text: str) -> str:
    """Return an input without the coordinates of most of its atoms."""
    kept, run = [], 0
    for line in text.splitlines():
        run = run + 1 if _ATOM.fullmatch(line) else 0
        if run <= _SHOWN_ATOMS:
            kept.append(line)
        elif run == _SHOWN_ATOMS + 1:
            kept.append("...")
    return "\n".join(kept)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
