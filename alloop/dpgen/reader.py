"""Read a DP-GEN campaign folder, changing nothing in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from alloop.dpgen.layout import (
    EXPLORE,
    LABEL,
    LABELLED,
    LISTS,
    RECORD,
    STAGES,
    TRAIN,
    DataSystem,
    DpgenFolder,
    FrameName,
    Iteration,
    Model,
    Selection,
    iteration_name,
    list_name,
)
from alloop.errors import InputError
from alloop.param_file import read_json_object

Remarks = list[tuple[str, str]]
_TASK = re.compile(r"task\.(\d+)\.(\d+)")
_FRAME_FILE = re.compile(r"(task\.\d+\.\d+)/traj/(\d+)\.lammpstrj$")
_MODEL_SUFFIXES = (".pb", ".pth", ".savedmodel", ".pt2", ".pte")
_CHECKPOINTS = ("model.ckpt.index", "model.ckpt.pt", "model.ckpt.jax")


def read_folder(root: Path, param_name: str = "param.json", machine_name: str = "machine.json") -> DpgenFolder:
    """Return what a DP-GEN folder holds; InputError for one that is none, or whose record or lists are broken.

    Folders that DP-GEN has set aside (``.bk000``) are left out. Models, trajectories or a machine file that are
    missing are no error: what is not there is not read.
    """
    root = root.resolve()
    if not root.is_dir():
        raise InputError(f"{root} is no folder\n  give the folder in which dpgen run was started")
    numbers = _iteration_numbers(root)
    if not (root / RECORD).is_file() and (numbers or not (root / param_name).is_file()):
        raise InputError(f"{root} holds no {RECORD}\n  give the folder in which dpgen run was started, or restore it")
    param = _read_object(root / param_name, "--param")
    machine = _read_object(root / machine_name, "--machine") if (root / machine_name).is_file() else {}
    remarks: Remarks = [] if machine else [(machine_name, "is not there; programs and queues are alloop's defaults")]
    record = read_record(root / RECORD)
    stages = _stages(record, numbers, root)
    type_map = [str(symbol) for symbol in param.get("type_map", [])]
    iterations = tuple(_read_iteration(root, n, stages.get(n, -1), type_map, remarks) for n in numbers)
    return DpgenFolder(
        root=root,
        param=param,
        machine=machine,
        record=record,
        iterations=iterations,
        start_models=_read_start_models(root, param),
        init_data=_read_init_data(root, param, type_map, remarks),
        structures=_read_structures(root, param, remarks),
        remarks=tuple(remarks),
    )


def _read_object(path: Path, option: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent}\n  if it has another name, give it with: {option} NAME")
    if path.suffix in (".yaml", ".yml"):
        import yaml  # type: ignore[import-untyped]

        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid YAML: {error}\n  mend it, or give another with {option}") from None
        if not isinstance(found, dict):
            raise InputError(f"{path} holds no keys\n  give DP-GEN's own file with {option}")
        return found
    return read_json_object(path)


def read_record(path: Path) -> tuple[tuple[int, int], ...]:
    """Return (iteration, stage) of every line that is not blank; () if there is no file; InputError for others."""
    if not path.is_file():
        return ()
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) >= len(STAGES):
            raise InputError(
                f"{path}, line {number}: found {line.strip()!r}, expected an iteration and a stage from 0 to 8\n"
                "  mend the line: its last line tells where the campaign stands"
            )
        found.append((int(words[0]), int(words[1])))
    return tuple(found)


def _iteration_numbers(root: Path) -> list[int]:
    found = (re.fullmatch(r"iter\.(\d{6,})", path.name) for path in root.iterdir() if path.is_dir())
    return sorted(int(match.group(1)) for match in found if match)


def _stages(record: tuple[tuple[int, int], ...], numbers: list[int], root: Path) -> dict[int, int]:
    """Return iteration -> last complete stage; InputError if one that is complete has no folder."""
    if not record:
        return {}
    last, stage = record[-1]
    missing = [number for number in range(last + 1) if number not in numbers]
    if missing:
        raise InputError(
            f"{root / RECORD} tells of {iteration_name(missing[0])}, which is not there\n"
            "  restore the folder: it holds labels and models"
        )
    return dict.fromkeys(range(last), LABELLED) | {last: stage}


def _read_iteration(root: Path, number: int, stage: int, type_map: list[str], remarks: Remarks) -> Iteration:
    folder = root / iteration_name(number)
    job_file = folder / EXPLORE / "cur_job.json"
    tasks = sorted(path for path in (folder / LABEL).glob("task.*") if _TASK.fullmatch(path.name))
    data: list[DataSystem] = []
    for place in sorted((folder / LABEL).glob("data.*")):
        if place.suffix.removeprefix(".").isdigit():
            system = int(place.suffix.removeprefix("."))
            data += [
                read_system(found, found.relative_to(root).as_posix(), number, system, type_map)
                for found in _system_folders(place)
            ]
    if data and stage < LABELLED - 1:
        frames = sum(system.frames for system in data)
        why = f"{frames} labelled frames are left out: {RECORD} stands before their labelling, as if to do it again"
        remarks.append((f"{folder.name}/{LABEL}", why))
        data = []
    elif 0 <= stage < LABELLED and tasks and not data:
        remarks.append(
            (
                f"{folder.name}/{LABEL}",
                f"{len(tasks)} labelling runs were never collected (it stopped in stage {stage + 1}, "
                f"{STAGES[stage + 1]}); "
                "let dpgen run finish that stage and import again if they are wanted",
            )
        )
    return Iteration(
        number=number,
        stage=stage,
        job=json.loads(job_file.read_text()) if job_file.is_file() else None,
        models=_read_models(folder / TRAIN),
        data=tuple(data),
        selections=_read_selections(folder, tasks),
        tasks=len(tasks),
    )


# ---------------------------------------------------------------------------------------- labelled data


def _system_folders(place: Path) -> list[Path]:
    """Return a folder and those below it that are systems: they hold a ``type.raw``."""
    return sorted({file.parent for file in place.rglob("type.raw")})


def read_system(folder: Path, original: str, iteration: int, system: int, type_map: list[str]) -> DataSystem:
    """Return what a system folder holds; what keeps alloop from training on it is its `problem`.

    Without ``type_map.raw`` the campaign's type map counts, as it does for DeePMD.
    """
    kinds = [int(word) for word in (folder / "type.raw").read_text().split()]
    own_map = folder / "type_map.raw"
    names = own_map.read_text().split() if own_map.is_file() else type_map
    symbols = tuple(names[kind] if 0 <= kind < len(names) else f"type{kind}" for kind in kinds)
    frames, problem = _count_frames(folder, len(kinds))
    if (folder / "nopbc").exists():
        problem = "is not periodic"
    unknown = sorted(set(symbols) - set(type_map))
    if unknown:
        problem = f"holds {', '.join(unknown)}, which type_map lacks"
    return DataSystem(folder, original, iteration, system, symbols, frames, problem)


def _count_frames(folder: Path, n_atoms: int) -> tuple[int, str | None]:
    """Return the frames of all sets and, if the arrays are not those of labelled frames, what is wrong."""
    columns = {"box": 9, "coord": 3 * n_atoms, "energy": 1, "force": 3 * n_atoms, "virial": 9}
    sets = sorted(path for path in folder.glob("set.*") if path.is_dir())
    total, problem = 0, None if sets else "holds no set.000"
    for place in sets:
        if (place / "real_atom_types.npy").exists():
            return 0, "is of mixed type; convert it to one system per stoichiometry with dpdata"
        sizes = {}
        for name, width in columns.items():
            file = place / f"{name}.npy"
            if not file.is_file():
                problem = f"has no {name}.npy in {place.name}; alloop trains on energy, forces and virial"
                continue
            try:
                size = np.load(file, mmap_mode="r").size
            except (OSError, ValueError) as error:
                return total, f"{place.name}/{name}.npy cannot be read: {error}"
            if size % width:
                return total, f"{place.name}/{name}.npy has {size} numbers, no multiple of {width}"
            sizes[name] = size // width
        if len(set(sizes.values())) > 1:
            return total, f"{place.name}: arrays of different numbers of frames {sizes}"
        total += next(iter(sizes.values()), 0)
    return total, problem if total or problem else "holds no frame"


def _read_init_data(root: Path, param: dict[str, Any], type_map: list[str], remarks: Remarks) -> tuple[DataSystem, ...]:
    prefix = root / str(param.get("init_data_prefix", ""))
    found: list[DataSystem] = []
    for number, entry in enumerate(param.get("init_data_sys", [])):
        place, where = prefix / entry, f"init_data_sys[{number}]"
        if "#" in str(entry) or place.is_file():
            remarks.append((where, f"{entry} is an HDF5 file; convert it to deepmd/npy with dpdata and import again"))
        elif not place.is_dir():
            remarks.append((where, f"{place} is not there; its labels are missing from the import"))
        else:
            for folder in _system_folders(place):
                original = (Path(entry) / folder.relative_to(place)).as_posix()
                found.append(read_system(folder, original, -1, number, type_map))
    return tuple(found)


def _read_structures(root: Path, param: dict[str, Any], remarks: Remarks) -> tuple[tuple[Path, ...], ...]:
    prefix = root / str(param.get("sys_configs_prefix", ""))
    found = []
    for number, patterns in enumerate(param.get("sys_configs", [])):
        wanted = [patterns] if isinstance(patterns, str) else patterns
        # Path.glob takes neither absolute patterns nor ones that lead out of the folder
        files = [Path(name) for pattern in wanted for name in sorted(glob(str(prefix / pattern)))]  # noqa: PTH207
        if not files:
            remarks.append((f"sys_configs[{number}]", f"no file matches {', '.join(wanted)} in {prefix}"))
        found.append(tuple(files))
    return tuple(found)


# ---------------------------------------------------------------------------------------- models and lists


def _read_start_models(root: Path, param: dict[str, Any]) -> tuple[Model, ...]:
    """Return the models of ``training_iter0_model_path``, if ``training_init_model`` asks for them."""
    given = param.get("training_iter0_model_path") or []
    if not param.get("training_init_model"):
        return ()
    patterns = [given] if isinstance(given, str) else given
    return _models_in([Path(place) for pattern in patterns for place in sorted(glob(str(root / pattern)))])  # noqa: PTH207


def _read_models(folder: Path) -> tuple[Model, ...]:
    return _models_in(sorted(path for path in folder.glob("[0-9][0-9][0-9]") if path.is_dir()))


def _models_in(places: list[Path]) -> tuple[Model, ...]:
    found = []
    for place in places:
        frozen = [place / f"frozen_model{suffix}" for suffix in _MODEL_SUFFIXES]
        checkpoint = next((place / name for name in _CHECKPOINTS if (place / name).exists()), None)
        if checkpoint is not None and checkpoint.suffix == ".index":
            checkpoint = checkpoint.with_suffix("")
        found.append(Model(place, next((path for path in frozen if path.exists()), None), checkpoint))
    return tuple(model for model in found if model.frozen or model.checkpoint)


def _read_selections(folder: Path, tasks: list[Path]) -> tuple[Selection, ...]:
    systems = {int(path.name.split(".")[-2]) for path in (folder / LABEL).glob("candidate.shuffled.*.out")}
    found = []
    for system in sorted(systems):
        candidates, accurate, failed = (folder / LABEL / list_name(name, system) for name in LISTS)
        names = tuple(read_list(candidates))
        own = [task for task in tasks if int(task.name.split(".")[1]) == system]
        labelled = tuple(name for task in own if (name := _labelled(task, names, folder.name)))
        others = [sum(1 for _ in read_list(path)) for path in (accurate, failed)]
        found.append(Selection(system, names, others[0], others[1], labelled))
    return tuple(found)


def read_list(path: Path) -> Iterator[FrameName]:
    """Yield the frames of a list, none if there is no file; InputError for a line that names none."""
    if not path.is_file():
        return
    with path.open() as stream:
        for number, line in enumerate(stream, start=1):
            words = line.split()
            if not words:
                continue
            try:
                task, step, *atom = words
                yield FrameName(task, int(step), *map(int, atom))
            except (ValueError, TypeError):
                raise InputError(
                    f"{path}, line {number}: found {line.strip()!r}, expected an MD task and a step\n"
                    "  is the file cut short? Restore it, or take the line out"
                ) from None


def _labelled(task: Path, candidates: tuple[FrameName, ...], iteration: str) -> FrameName | None:
    """Return the frame a labelling run was made from: where its link points, which may be gone, or by its number."""
    link = task / "conf.dump"
    match = _FRAME_FILE.search(str(link.readlink())) if link.is_symlink() else None
    number = int(task.name.split(".")[2])
    by_number = candidates[number] if number < len(candidates) else None
    if match is None:
        return by_number
    name = FrameName(f"{iteration}/{EXPLORE}/{match.group(1)}", int(match.group(2)))
    same = by_number is not None and (by_number.task, by_number.step) == (name.task, name.step)
    return by_number if same else name
