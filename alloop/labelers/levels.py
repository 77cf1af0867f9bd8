"""The level of theory: everything that decides a label's numbers, as content that enters the label's key.

For a calculator that is its import path and options, of a person's pair tables their hash. For VASP it is the INCAR's
deciding tags, the k-point rule, and the TITEL and hash of every POTCAR; for CP2K the template without its SCF block,
and the basis sets and potentials.
How a code is run (commands, modules, scratch) is no part of it and is handed to attempts separately.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import Any

from alloop.errors import InputError
from alloop.label_params import CODES, Cp2kParam, FoundationParam, LabelParam
from alloop.labelers.code import Code, RunSettings
from alloop.labelers.run_troubles import Trouble, to_fill_in
from alloop.labelers.vasp.inputs import (
    Incar,
    Potcar,
    deciding_tags,
    find_potcar,
    free_tags,
    incar_problems,
    incar_value,
    override_problems,
    parse_incar,
    potcar_problems,
    read_potcar,
)
from alloop.resources import find_template
from alloop.structure import content_key

TABLES = "table-rehearsal"
"""The labeler whose numbers a file of pair tables decides."""


@dataclass(frozen=True)
class Level:
    """A level of theory: its name, for people and data sets, and its content, which goes into keys."""

    name: str
    content: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the level as a JSON object."""
        return {"name": self.name, "content": self.content}


def relax_content(labeler: str, force_eV_A: float, steps: int, *, cell: bool) -> dict[str, Any]:
    """Return what a label's content says of its relaxation; for VASP the INCAR tags."""
    if labeler == "vasp":
        tags = {"IBRION": "2", "NSW": str(steps), "ISIF": "3" if cell else "2"}
        return tags | {"EDIFFG": f"{-force_eV_A:g}"}
    return {"force_eV_A": force_eV_A, "steps": steps, "cell": cell}


def calculator_level(labeler: str, options: dict[str, Any], root: Path) -> Level:
    """Return the level of an ASE calculator: named as it is, with a hash of its options if it has any.

    Of a person's pair tables their hash stands for their path. InputError if they cannot be read.
    """
    if labeler == TABLES:
        options = {"sha256": next(iter(_tables(labeler, options, root)))}
    name = labeler + (f"-{content_key(options)[:6]}" if options else "")
    return Level(name, {"labeler": labeler, "options": options})


def _tables(labeler: str, options: dict[str, Any], root: Path) -> dict[str, str]:
    """Return, for a labeler of a person's own pair tables, hash and path of their settings; {} for all others."""
    if labeler != TABLES:
        return {}
    from alloop.glass.user_table import UserTableCalculator, table_hash

    if options.keys() != {"table"} or not isinstance(options["table"], str):
        raise InputError(
            f"labeler {TABLES} has the options {options}\n  -> name the file of the tables, in param.json: "
            '"options": {"table": "my.toml"}'
        )
    path = (root / Path(options["table"]).expanduser()).resolve()
    try:
        UserTableCalculator(path)
        return {table_hash(path): str(path)}
    except (OSError, ValueError) as error:
        raise InputError(f"labeler {TABLES}: {error}\n  -> mend the tables, or name others in its options") from None


def _labelers(label: LabelParam) -> list[tuple[str, str, dict[str, Any]]]:
    """Return key of the section, name and options of the labeler and, if there is one, of the foundation."""
    first = label.foundation
    foundation = [("label.foundation", first.labeler, first.options)] if first else []
    return [("label", label.labeler, label.options), *foundation]


def foundation_level(foundation: FoundationParam | None, root: Path) -> Level | None:
    """Return the level of the cheap labeler that begins a campaign, if there is one; InputError as the other's."""
    return calculator_level(foundation.labeler, foundation.options, root) if foundation else None


def target_level(label: LabelParam, elements: list[str], root: Path) -> Level:
    """Return the level of theory that a configuration and its files make; InputError if they make none."""
    if label.labeler not in CODES:
        return calculator_level(label.labeler, label.options, root)
    troubles = list(level_troubles(label, elements, root))
    if troubles:
        raise InputError("\n".join(f"{t.where}: {t.found}\n  -> {t.remedy}" for t in troubles))
    content = {"labeler": label.labeler, label.labeler: _code_level(label, elements, root)}
    return Level(f"{label.labeler}-{content_key(content)[:6]}", content)


def _code_level(label: LabelParam, elements: list[str], root: Path) -> dict[str, Any]:
    if label.labeler == "cp2k":
        return _cp2k(label, root).level(elements)
    own = label.vasp
    assert own is not None
    return {
        "incar": deciding_tags(_incar(label, root)),
        "kpoint_spacing_inv_A": own.kpoint_spacing_inv_A,
        "potcars": {
            element: {"titel": potcar.titel, "sha256": potcar.sha256}
            for element, potcar in _potcars(label, elements, root).items()
        },
    }


def _incar(label: LabelParam, root: Path) -> Incar:
    assert label.vasp is not None
    return parse_incar(find_template(label.vasp.incar, root).read_text(encoding="utf-8"))


def _potcar_file(label: LabelParam, element: str, root: Path) -> Path:
    assert label.vasp is not None
    library = (root / Path(label.vasp.potcar_library).expanduser()).resolve()
    return find_potcar(library, label.vasp.potcars.get(element, element))


def _potcars(label: LabelParam, elements: list[str], root: Path) -> dict[str, Potcar]:
    return {element: read_potcar(_potcar_file(label, element, root)) for element in elements}


def run_settings(label: LabelParam, elements: list[str], root: Path) -> dict[str, Any]:
    """Return, as JSON, how labels of a code are run now: what `open_code` needs besides a level; {} for calculators.

    Of a person's pair tables it tells where they are, by their hash, as ``tables``.
    """
    where: dict[str, str] = {}
    for _, labeler, options in _labelers(label):
        where |= _tables(labeler, options, root)
    tables = {"tables": where} if where else {}
    if label.labeler not in CODES:
        return tables
    run = label.run
    variants = {"default": run.command, "gamma": run.command_gamma, "safe": run.command_safe}
    found: dict[str, Any] = tables | {
        "labeler": label.labeler,
        "settings": {
            "commands": {name: command for name, command in variants.items() if command},
            "script": find_template(run.script, root).read_text(encoding="utf-8"),
            "modules": run.modules,
            "environment": run.environment,
            "scratch": run.scratch,
            "timeout_s": run.timeout_minutes * 60,
            "silent_s": run.silent_minutes * 60,
            "keep": run.keep,
        },
        "force_ceiling_eV_A": run.force_ceiling_eV_A,
    }
    if label.vasp is not None and label.labeler == "vasp":
        found["incar"] = free_tags(_incar(label, root))
        found["incar_by_glass"] = label.vasp.incar_by_glass
        found["incar_by_event"] = label.vasp.incar_by_event
        found["potcars"] = {element: str(_potcar_file(label, element, root)) for element in elements}
    if label.labeler == "cp2k":
        own = label.cp2k or Cp2kParam()
        found["data_dir"] = str((root / Path(own.data_dir).expanduser()).resolve()) if own.data_dir else None
        found["scf"] = own.scf
    return found


def open_code(content: dict[str, Any], how: dict[str, Any], about: dict[str, Any]) -> tuple[Code, RunSettings]:
    """Return the code at a level of theory and how to run it.

    content: a level's, with the tags of a relaxation if one is asked; how: `run_settings`; about: glass and reason of
    selection of the structure, if any.
    """
    ceiling = None if about.get("reason") == "overlap" else how["force_ceiling_eV_A"]
    settings = RunSettings(**how["settings"])
    if content["labeler"] == "cp2k":
        from alloop.labelers.cp2k.code import Cp2k

        data_dir = Path(how["data_dir"]) if how["data_dir"] else None
        level = content["cp2k"]
        return Cp2k(level["template"], data_dir, level=level, scf=how["scf"], force_ceiling_eV_A=ceiling), settings
    from alloop.labelers.vasp.code import Vasp

    overrides: dict[str, Any] = how["incar_by_glass"].get(about.get("glass"), {})
    overrides = overrides | how["incar_by_event"].get(about.get("reason"), {})
    free = how["incar"] | {tag.upper(): incar_value(value) for tag, value in overrides.items()}
    potcars = {element: Path(file) for element, file in how["potcars"].items()}
    relax = content.get("relax")
    return Vasp(content["vasp"], free, potcars, relax=relax, force_ceiling_eV_A=ceiling), settings


def level_troubles(label: LabelParam, elements: list[str], root: Path) -> Iterator[Trouble]:
    """Yield everything that keeps a level of theory from being whole: templates, POTCARs, data files, pair tables."""
    for key, labeler, options in _labelers(label):
        try:
            _tables(labeler, options, root)
        except InputError as error:
            found, _, remedy = str(error).partition("\n  -> ")
            yield Trouble(f"param.json: {key}.options", found, remedy)
    if label.labeler == "cp2k":
        yield from _cp2k_troubles(label, elements, root)
    elif label.labeler == "vasp":
        incar = yield from _incar_troubles(label, root)
        yield from _potcar_troubles(label, elements, root, incar)


def _incar_troubles(label: LabelParam, root: Path) -> Generator[Trouble, None, Incar]:
    """Yield what is wrong with the INCAR and its overrides, and return it, empty if it cannot be read."""
    own = label.vasp
    assert own is not None
    where, incar = f"templates/{own.incar}", Incar()
    try:
        incar = _incar(label, root)
    except UnicodeDecodeError as error:
        yield Trouble(where, f"is not UTF-8 text: {error}", "save it again with UTF-8 encoding")
    except ValueError as error:
        yield Trouble(where, str(error), "mend that line")
    except OSError as error:
        yield Trouble("param.json: label.vasp.incar", str(error), "put the file there, or leave the key out")
    else:
        for found, remedy in incar_problems(incar):
            yield Trouble(where, found, remedy)
    for key, groups in (("incar_by_glass", own.incar_by_glass), ("incar_by_event", own.incar_by_event)):
        for name, overrides in groups.items():
            for found, remedy in override_problems(overrides, incar):
                yield Trouble(f"param.json: label.vasp.{key}.{name}", found, remedy)
    return incar


def _potcar_troubles(label: LabelParam, elements: list[str], root: Path, incar: Incar) -> Iterator[Trouble]:
    own = label.vasp
    assert own is not None
    key = "param.json: label.vasp.potcars"
    for element in sorted(set(own.potcars) - set(elements)):
        yield Trouble(f"{key}.{element}", f"is no element of this campaign ({', '.join(elements)})", "take it out")
    library = (root / Path(own.potcar_library).expanduser()).resolve()
    if to_fill_in(own.potcar_library) or not library.is_dir():
        found = f"is still {own.potcar_library!r}" if to_fill_in(own.potcar_library) else f"{library} is no folder"
        remedy = "name the site's folder of PBE data sets (potpaw_PBE), the one that holds O/POTCAR or POTCAR.O"
        yield Trouble("param.json: label.vasp.potcar_library", found, remedy)
        return
    functionals = {}
    for element in elements:
        try:
            potcar = read_potcar(_potcar_file(label, element, root))
        except (OSError, ValueError, EOFError, LZMAError) as error:
            yield Trouble(f"{key}.{element}", str(error), "name a data set of the library, such as Li_sv for Li")
            continue
        functionals[element] = potcar.lexch
        for found, remedy in potcar_problems(potcar, element, incar):
            yield Trouble(f"{key}.{element}", found, remedy)
    if "GGA" not in incar and len(set(functionals.values())) > 1:
        found = "the data sets were made with several functionals: "
        found += ", ".join(f"{element} with {functional}" for element, functional in functionals.items())
        yield Trouble(key, found, "take all of them from one library (PBE: potpaw_PBE)")


def _cp2k(label: LabelParam, root: Path) -> Any:
    from alloop.labelers.cp2k.code import Cp2k

    own = label.cp2k or Cp2kParam()
    template = find_template(own.template, root).read_text(encoding="utf-8")
    data_dir = (root / Path(own.data_dir).expanduser()).resolve() if own.data_dir else None
    kinds = {element: {str(what): name for what, name in choice.items()} for element, choice in own.kinds.items()}
    return Cp2k(template, data_dir, basis=own.basis, potential=own.potential, kinds=kinds, scf=own.scf)


def _cp2k_troubles(label: LabelParam, elements: list[str], root: Path) -> Iterator[Trouble]:
    name = (label.cp2k or Cp2kParam()).template
    try:
        code = _cp2k(label, root)
    except OSError as error:
        yield Trouble("param.json: label.cp2k.template", str(error), "put the file there, or leave the key out")
        return
    for found, remedy in code.problems(elements):
        yield Trouble(f"templates/{name}", found, remedy)
