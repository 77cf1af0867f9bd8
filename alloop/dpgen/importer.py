"""From a DP-GEN folder to an alloop campaign folder that goes on where DP-GEN stands.

``imported/`` of the new folder holds labelled data, start structures, the last ensemble and, in ``original/``, what
the way back needs, all as they were; ``dpgen.json`` there tells what is what.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from alloop import config
from alloop.dpgen.glasses import GlassSystem, glass_entries, read_cells
from alloop.dpgen.layout import EXPLORE, LABEL, LISTS, RECORD, DataSystem, DpgenFolder, iteration_name, list_name
from alloop.dpgen.reader import read_folder
from alloop.dpgen.translate import translate, trust_levels
from alloop.dpgen.translation import Known, Translation
from alloop.errors import InputError
from alloop.labelers.levels import target_level
from alloop.potential.checkpoints import backend_named
from alloop.store import filled_folder, write_json
from alloop.tasks.sources import file_hash

IMPORTED, INVENTORY = "imported", "dpgen.json"
UNKNOWN_LEVEL = "FILL-IN-THE-LEVEL"
STARTS_PER_SYSTEM = 20
"""Start structures of one system that are labelled and explored from; more are copied, and wait to be named."""
_BACKEND_OF = {".pt": "pytorch", ".jax": "jax"}


@dataclass
class Imported:
    """What an import made: the inventory that is written to ``imported/dpgen.json``, and what to tell a person."""

    root: Path
    inventory: dict[str, Any] = field(default_factory=dict)
    param: dict[str, Any] = field(default_factory=dict)


def import_dpgen(
    source: Path,
    target: Path,
    *,
    labeler: str | None = None,
    param_name: str = "param.json",
    machine_name: str = "machine.json",
) -> Imported:
    """Make the campaign folder `target` of a DP-GEN folder, whole or not at all; the source is not changed.

    labeler: alloop's name for what labelled the data, if DP-GEN's ``fp_style`` does not tell. InputError if target
    holds anything, or if nothing in the source can be explored or trained on.
    """
    target = target.resolve()
    with filled_folder(target, last="param.json") as aside:
        folder = read_folder(source, param_name, machine_name)
        found = _Import(folder, aside, labeler, param_name, machine_name).run()
    return Imported(target, found.inventory, found.param)


class _Import:
    """One import under way, writing into a folder that nobody sees yet."""

    def __init__(
        self, folder: DpgenFolder, root: Path, labeler: str | None, param_name: str, machine_name: str
    ) -> None:
        self.folder, self.root, self.labeler = folder, root, labeler
        self.names = (param_name, machine_name)
        self.place = root / IMPORTED
        self.remarks = list(folder.remarks)

    def run(self) -> Imported:
        """Write everything and return what was made."""
        cells = self._cells()
        glasses, systems = glass_entries(
            {number: [atoms for _, frames in files for atoms in frames] for number, files in cells.items()},
            self.remarks,
        )
        if not glasses:
            raise InputError(
                "no system of this DP-GEN campaign is a glass of SiO2, B2O3 and Li2O that alloop could explore:\n"
                + "\n".join(f"  {what}: {why}" for what, why in self.remarks)
            )
        usable = [system for system in self.folder.data if system.problem is None]
        if not usable:
            raise InputError(
                "no labelled data that alloop could train on:\n"
                + "\n".join(f"  {system.original}: {system.problem}" for system in self.folder.data)
            )
        counts = {number: sum(len(frames) for _, frames in files) for number, files in cells.items()}
        known = Known(self.folder.root, glasses, systems, self.folder.labelled_iterations, counts, self.labeler)
        found = translate(self.folder.param, self.folder.machine, known)
        found.left_out[:0] = self.remarks
        return self._write(found, cells, systems)

    def _cells(self) -> dict[int, list[tuple[Path, list[Atoms]]]]:
        data_format = str(self.folder.param.get("sys_format", "vasp/poscar"))
        type_map = [str(symbol) for symbol in self.folder.param.get("type_map", [])]
        return {
            number: [(file, read_cells(file, data_format, type_map)) for file in files]
            for number, files in enumerate(self.folder.structures)
        }

    def _write(
        self, found: Translation, cells: dict[int, list[tuple[Path, list[Atoms]]]], systems: list[GlassSystem]
    ) -> Imported:
        data = [self._copy_data(system, found) for system in self.folder.data]
        for name, text in found.templates.items():
            file = self.root / "templates" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        starts = self._write_starts(cells, systems, found)
        models = self._copy_models()
        param = found.param
        checkpoints = [f"{IMPORTED}/{model['checkpoint']}" for model in models if model["checkpoint"]]
        same_backend = all(model["backend"] == param["train"].get("backend", "tensorflow") for model in models)
        if same_backend and len(checkpoints) == param["train"]["models"] and "deepmd/input.json" in found.templates:
            param["train"]["init_models"] = checkpoints
        elif models:
            found.leave_out("models", "do not fit alloop's ensemble one to one; its first one trains from scratch")
        level = self._level(found)
        role = {"role": "training"} if len(starts) > 1 else {}
        param["bootstrap"] = {
            "trajectories": 0,
            "structures": starts,
            "data": [
                {"path": f"{IMPORTED}/{entry['path']}", "level": level} | role for entry in data if not entry["problem"]
            ],
        }
        self._copy_originals()
        candidates = self._write_candidates(found)
        inventory = self._inventory(found, data, systems, models, candidates)
        write_json(self.place / INVENTORY, inventory)
        write_json(self.root / "param.json", param)
        config.load(self.root / "param.json")
        return Imported(self.root, inventory, param)

    # ------------------------------------------------------------------------------------ parts

    def _copy_data(self, system: DataSystem, found: Translation) -> dict[str, Any]:
        """Copy one labelled system, bit for bit; add the type map it relies on if it has none of its own."""
        if system.iteration < 0:
            name = f"init{system.system:03d}-{Path(system.original).name}"
        else:
            name = f"iter{system.iteration:06d}-sys{system.system:03d}-{system.formula}"
        name = name.replace(".", "_")
        taken = {path.name for path in (self.place / "data").glob("*")}
        unique = next(n for n in (name, *(f"{name}-{i}" for i in range(1, len(taken) + 2))) if n not in taken)
        target = self.place / "data" / unique
        target.mkdir(parents=True)
        for item in sorted(system.folder.iterdir()):
            if item.is_dir() and item.name.startswith("set."):
                shutil.copytree(item, target / item.name)
            elif item.is_file() and (item.suffix == ".raw" or item.name == "nopbc"):
                shutil.copyfile(item, target / item.name)
        if not (target / "type_map.raw").exists():
            (target / "type_map.raw").write_text("\n".join(self.folder.param["type_map"]) + "\n")
        if system.problem is not None:
            found.leave_out(system.original, f"{system.frames} labelled frames are kept aside: {system.problem}")
        return {
            "path": f"data/{unique}",
            "original": system.original,
            **self._way_back(system),
            "iteration": system.iteration,
            "system": system.system,
            "formula": system.formula,
            "frames": system.frames,
            "sha256": file_hash(target),
            "problem": system.problem,
        }

    def _way_back(self, system: DataSystem) -> dict[str, str]:
        """Return where an export puts a system and, of initial data, by which entry of ``init_data_sys``."""
        if system.iteration >= 0:
            return {"export": system.original}
        entry = Path(self.folder.param["init_data_sys"][system.system])
        outside = entry.is_absolute() or ".." in entry.parts
        name = f"outside.{system.system:03d}" if outside else entry.as_posix()
        return {
            "export": (Path("init_data") / name / Path(system.original).relative_to(entry)).as_posix(),
            "entry": name,
        }

    def _write_starts(
        self, cells: dict[int, list[tuple[Path, list[Atoms]]]], systems: list[GlassSystem], found: Translation
    ) -> list[str]:
        """Write the start structures that are explored from as POSCARs of their own; return their paths."""
        explored = {(system.system, system.n_atoms) for system in systems}
        names: list[str] = []
        for number, files in cells.items():
            frames = [atoms for _, found_frames in files for atoms in found_frames]
            frames = [atoms for atoms in frames if (number, len(atoms)) in explored]
            chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), STARTS_PER_SYSTEM)).round().astype(int))
            if len(chosen) < len(frames):
                found.leave_out(
                    f"sys_configs[{number}]",
                    f"{len(chosen)} of {len(frames)} start structures are labelled and explored from; add others of "
                    f"{IMPORTED}/original/sys_configs to bootstrap.structures if they are wanted",
                )
            for index in chosen.tolist():
                file = self.place / "structures" / f"sys{number:03d}-{index:04d}.vasp"
                file.parent.mkdir(parents=True, exist_ok=True)
                write(file, frames[index], format="vasp", direct=False)
                names.append(f"{IMPORTED}/structures/{file.name}")
        return names

    def _copy_models(self) -> list[dict[str, Any]]:
        """Copy the last complete ensemble: checkpoints to go on from, frozen models for the way back.

        If none is complete, those are copied that iteration 0 was to start from.
        """
        iteration = self.folder.last_ensemble
        records = []
        for number, model in enumerate(iteration.models if iteration else self.folder.start_models):
            target = self.place / "models" / f"{number:03d}"
            target.mkdir(parents=True)
            backend = _BACKEND_OF.get(model.checkpoint.suffix, "tensorflow") if model.checkpoint else None
            files = list(backend_named(backend).files(model.checkpoint)) if backend and model.checkpoint else []
            files = files if all(file.exists() for file in files) else []
            for file in [*files, *([model.frozen] if model.frozen else [])]:
                _copy(file, target / file.name)
            for name in ("input.json", "lcurve.out"):
                if (model.folder / name).is_file():
                    shutil.copyfile(model.folder / name, target / name)
            records.append(
                {
                    "path": f"models/{target.name}",
                    "iteration": iteration.number if iteration else None,
                    "backend": backend,
                    "checkpoint": f"models/{target.name}/{model.checkpoint.name}"
                    if files and model.checkpoint
                    else None,
                    "frozen": f"models/{target.name}/{model.frozen.name}" if model.frozen else None,
                }
            )
        return records

    def _level(self, found: Translation) -> str:
        """Return the level of theory of the imported labels: that of the translated `label` section, if it is whole."""
        if found.label_is_known:
            try:
                label = config.LabelParam.model_validate(found.param["label"])
                return target_level(label, found.param["elements"], self.root).name
            except (InputError, ValueError) as error:
                found.to_fill_in.append(f"label: {str(error).partition(chr(10))[0]}")
        found.to_fill_in.append(
            f"bootstrap.data: the level of the imported labels stands as {UNKNOWN_LEVEL}; once label is right, "
            f"alloop check tells its name: sed -i s/{UNKNOWN_LEVEL}/NAME/ param.json"
        )
        return UNKNOWN_LEVEL

    def _copy_originals(self) -> None:
        root, original = self.folder.root, self.place / "original"
        names = [*self.names, RECORD]
        for iteration in self.folder.iterations:
            own = iteration_name(iteration.number)
            names.append(f"{own}/{EXPLORE}/cur_job.json")
            systems = [selection.system for selection in iteration.selections]
            names += [f"{own}/{LABEL}/{list_name(kind, system)}" for system in systems for kind in LISTS]
        for name in names:
            if (root / name).is_file():
                (original / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, original / name)
        for number, files in enumerate(self.folder.structures):
            for index, file in enumerate(files):
                target = original / "sys_configs" / self._start_name(number, index, file)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)

    def _start_name(self, system: int, index: int, file: Path) -> str:
        """Return a start structure's path below its prefix, or a new one if it lies elsewhere."""
        prefix = (self.folder.root / str(self.folder.param.get("sys_configs_prefix", ""))).resolve()
        path = Path(*file.parts).resolve()
        if path.is_relative_to(prefix):
            return path.relative_to(prefix).as_posix()
        return f"sys.{system:03d}/{index:04d}.{file.name}"

    def _write_candidates(self, found: Translation) -> list[dict[str, Any]]:
        """Write the candidates of the last labelled iteration that were not labelled, if their frames are there."""
        labelled = [iteration for iteration in self.folder.iterations if iteration.selections]
        records: list[dict[str, Any]] = []
        for selection in labelled[-1].selections if labelled else ():
            known = set(selection.labelled)
            names = [name for name in selection.candidates if name not in known]
            frames = []
            for name in names:
                file = self.folder.root / name.task / "traj" / f"{name.step}.lammpstrj"
                if name.atom is None and file.is_file():
                    (atoms,) = read_cells(file, "lammps/dump", self.folder.param["type_map"])
                    atoms.info = {"task": name.task, "step": name.step}
                    frames.append(atoms)
            path = None
            if frames:
                path = f"candidates/sys{selection.system:03d}.extxyz"
                (self.place / "candidates").mkdir(exist_ok=True)
                write(self.place / path, frames, format="extxyz")
            records.append({"system": selection.system, "unlabelled": len(names), "frames": len(frames), "path": path})
        total = sum(int(record["unlabelled"]) for record in records)
        there = sum(int(record["frames"]) for record in records)
        if total:
            what = f"{there} of them are in {IMPORTED}/candidates; to have them labelled, add the files to "
            gone = "their trajectories are gone, so they are left out"
            found.leave_out(
                f"{iteration_name(labelled[-1].number)}: {total} candidates without labels",
                what + "bootstrap.structures" if there else gone,
            )
        return records

    def _inventory(
        self,
        found: Translation,
        data: list[dict[str, Any]],
        systems: list[GlassSystem],
        models: list[dict[str, Any]],
        candidates: list[dict[str, Any]],
    ) -> dict[str, Any]:
        folder = self.folder
        frames: Counter[int] = Counter()
        for entry in data:
            frames[entry["iteration"]] += entry["frames"]
        starts = [
            [self._start_name(number, index, file) for index, file in enumerate(files)]
            for number, files in enumerate(folder.structures)
        ]
        return {
            "format": 1,
            "param": self.names[0],
            "machine": self.names[1] if folder.machine else None,
            "iterations": folder.labelled_iterations,
            "record": list(folder.record[-1]) if folder.record else None,
            "initial_frames": frames[-1],
            "per_iteration": [
                {
                    "iteration": iteration.number,
                    "stage": iteration.stage,
                    "models": len(iteration.models),
                    "frames": frames[iteration.number],
                    "trust_levels_eV_A": trust_levels(folder.param, iteration.job or {}),
                    "systems": {f"{s.system:03d}": s.counts() for s in iteration.selections},
                    "labelled": [name.line() for s in iteration.selections for name in s.labelled],
                }
                for iteration in folder.iterations
            ],
            "systems": [
                {"system": system.system, "glass": system.glass, "n_atoms": system.n_atoms} for system in systems
            ],
            "sys_configs": starts,
            "data": data,
            "models": models,
            "candidates": candidates,
            "not_translated": [{"key": key, "why": why} for key, why in found.left_out],
            "to_fill_in": found.to_fill_in,
        }


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, following links."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def read_inventory(root: Path) -> dict[str, Any] | None:
    """Return what ``imported/dpgen.json`` of a campaign folder tells, None if it was not imported."""
    file = root / IMPORTED / INVENTORY
    return json.loads(file.read_text()) if file.is_file() else None
