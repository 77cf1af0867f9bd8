"""DP-GEN's labelling (``fp_style``) and machines as the sections `label` and `pools` of an alloop `param.json`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.dpgen.translation import Known, Translation, as_list
from alloop.labelers.vasp.inputs import find_potcar, incar_problems, parse_incar, write_incar

UNKNOWN_LABELER = "fill_in.your_module:Calculator"
_LOCAL = ("shell", "lazylocalcontext", "lazylocal", "localcontext", "local")
_SINGLE_POINT_TAGS = ("NSW", "ISIF", "IBRION")


def label_section(
    param: Mapping[str, Any], machine: Mapping[str, Any], known: Known, found: Translation
) -> dict[str, Any]:
    """Return the `label` section; what a person must add to it is told in `found.to_fill_in`."""
    style = str(param.get("fp_style", "none"))
    if known.labeler is not None:
        return {"labeler": known.labeler}
    if style == "vasp":
        return _vasp(param, machine, known, found)
    if style == "cp2k":
        found.label_is_known = False
        why = "bring its settings into alloop's template and label.cp2k: basis, potential, kinds"
        found.to_fill_in.append(f"templates/cp2k/label.inp: your CP2K input; {why}")
        for key in ("user_fp_params", "external_input_path", "fp_params"):
            if key in param:
                found.leave_out(key, why)
        return {"labeler": "cp2k", "run": _run(machine, "mpirun -np 16 cp2k.psmp -i label.inp", found)}
    found.label_is_known = False
    found.to_fill_in.append(
        f"label.labeler: what stands behind fp_style {style}, as an import path package.module:Calculator; "
        "give it to import-dpgen with --labeler, and the imported data bear its name"
    )
    found.leave_out("fp_style", f"alloop has no {style}")
    if "fp_params" in param:
        found.leave_out("fp_params", f"belongs to fp_style {style}")
    return {"labeler": UNKNOWN_LABELER}


def _vasp(param: Mapping[str, Any], machine: Mapping[str, Any], known: Known, found: Translation) -> dict[str, Any]:
    """Return the labeler VASP; of ``fp_pp_files``, one per element, the names of the data sets are taken."""
    files = [str(name) for name in as_list(param.get("fp_pp_files"))]
    potcars = {}
    for element, name in zip(param["type_map"], files, strict=False):
        data_set = re.sub(r"(^|[/._-])POTCAR(?=[/._-]|$)", "", name).strip("/._-")
        if data_set and data_set != element:
            potcars[element] = data_set
    library = (known.root / Path(str(param.get("fp_pp_path", ""))).expanduser()).resolve()
    try:
        for element in param["type_map"]:
            find_potcar(library, potcars.get(element, element))
    except OSError as error:
        told = f"DP-GEN reads {', '.join(files) or 'no files'} in {library}"
        found.to_fill_in.append(f"label.vasp.potcar_library and potcars: {told}; {error}")
    if param.get("cvasp"):
        found.leave_out("cvasp", "alloop corrects failed runs of VASP by itself")
    own: dict[str, Any] = {"incar": "vasp/INCAR", "potcar_library": str(library), "potcars": potcars}
    spacing = _incar(param, known, found)
    if spacing is not None:
        own["kpoint_spacing_inv_A"] = spacing
    return {"labeler": "vasp", "vasp": own, "run": _run(machine, "srun vasp_std", found)}


def _incar(param: Mapping[str, Any], known: Known, found: Translation) -> float | None:
    """Add the INCAR without the tags alloop sets itself to the templates; return its KSPACING."""
    path = known.root / str(param.get("fp_incar", "INCAR"))
    try:
        incar = parse_incar(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found.label_is_known = False
        found.to_fill_in.append(
            f"templates/vasp/INCAR: the INCAR of all labels; {path.name} could not be read ({error})"
        )
        return None
    spacing = incar.pop("KSPACING", None)
    gamma = incar.pop("KGAMMA", ".TRUE.")
    if gamma.strip(". ").upper().startswith("F"):
        found.label_is_known = False
        found.leave_out("fp_incar: KGAMMA", f"{gamma}: alloop's meshes hold the Gamma point, so labels may differ")
    for tag in _SINGLE_POINT_TAGS:
        incar.pop(tag, None)
    for problem, _ in incar_problems(incar):
        refused = [tag for tag in incar if f"holds {tag}:" in problem]
        if refused:
            found.leave_out(f"fp_incar: {refused[0]}", f"{incar.pop(refused[0])}: {problem.partition(': ')[2]}")
        else:
            found.to_fill_in.append(f"templates/vasp/INCAR: it {problem}")
    found.templates["vasp/INCAR"] = write_incar(incar)
    if spacing is None:
        found.to_fill_in.append("label.vasp.kpoint_spacing_inv_A: the INCAR has no KSPACING; without, Gamma point only")
        return None
    return float(spacing)


def _section(machine: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section of ``machine.json``; of a list the first entry counts, as for DP-GEN."""
    section = machine.get(name, {})
    if isinstance(section, list):
        section = section[0] if section else {}
    return section if isinstance(section, dict) else {}


def _run(machine: Mapping[str, Any], example: str, found: Translation) -> dict[str, Any]:
    section = _section(machine, "fp")
    resources = section.get("resources", {})
    command = section.get("command") or machine.get("fp_command")
    if not command:
        found.to_fill_in.append(f"label.run.command: such as {example}")
    own: dict[str, Any] = {"command": str(command or example)}
    if resources.get("module_list"):
        own["modules"] = [str(module) for module in resources["module_list"]]
    if resources.get("envs"):
        own["environment"] = {str(key): str(value) for key, value in resources["envs"].items()}
    return own


def pool_section(machine: Mapping[str, Any], found: Translation) -> dict[str, Any]:
    """Return slots and threads of this computer; queues, other hosts and unknown keys are left out."""
    own: dict[str, Any] = {}
    for name in ("train", "model_devi", "fp"):
        section = _section(machine, name)
        place, resources = section.get("machine", {}), section.get("resources", {})
        batch, context = str(place.get("batch_type", "")), str(place.get("context_type", ""))
        if not section:
            continue
        if batch.lower() in _LOCAL and context.lower() in _LOCAL:
            if name == "model_devi":
                threads = resources.get("envs", {}).get("OMP_NUM_THREADS")
                own = {"slots": int(resources.get("para_deg", 1))} | ({"threads": int(threads)} if threads else {})
        else:
            told = {key: resources.get(key) for key in ("queue_name", "number_node", "cpu_per_node", "gpu_per_node")}
            text = ", ".join(f"{key} {value}" for key, value in told.items() if value not in (None, ""))
            found.leave_out(f"machine.{name}", f"{batch} over {context} ({text}): choose alloop's pool for it")
        words = shlex.split(str(section.get("command", "")))
        if name != "fp" and words and ("/" in words[0] or len(words) > 1):
            found.leave_out(f"machine.{name}.command", "alloop runs the DeePMD and LAMMPS of its own environment")
    for key in machine:
        if key not in ("train", "model_devi", "fp", "api_version", "deepmd_version") and not key.startswith("_"):
            found.leave_out(f"machine.{key}", "has no counterpart, or is a key of an old version")
    return own
