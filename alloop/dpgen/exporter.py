"""From an alloop campaign to a folder in which ``dpgen run`` goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.config import Param, parse
from alloop.decisions.exploration import trajectories
from alloop.decisions.selection import campaign_param
from alloop.decisions.training import apply_network
from alloop.dpgen.export_files import copy_originals, copy_system, read_original, write_model, write_readable
from alloop.dpgen.export_iteration import Explored, write_iteration
from alloop.dpgen.export_param import (
    LABEL_SCRIPT,
    continued_training,
    job_losses,
    job_of,
    label_script,
    new_machine,
    new_param,
    updated_param,
)
from alloop.dpgen.importer import IMPORTED, read_inventory
from alloop.dpgen.layout import LABELLED, RECORD, STAGES, TRAIN, TRAINED, iteration_name
from alloop.dpgen.reader import read_record
from alloop.errors import InputError
from alloop.frames import read_all_structures, read_columns
from alloop.glass.composition import stoichiometric_counts
from alloop.label_params import CODES
from alloop.potential.dataset import write_systems
from alloop.resources import find_template
from alloop.store import filled_folder
from alloop.structure import from_record
from alloop.tasks.label import read_label

OWN_DATA = "alloop-bootstrap"
STARTS_PER_SYSTEM = 5


@dataclass
class Exported:
    """What an export wrote: iterations and frames in all, the next stage, and what to tell a person."""

    root: Path
    iterations: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    next_stage: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)
    to_fill_in: list[str] = field(default_factory=list)


def export_dpgen(campaign: Campaign, param: Param, target: Path) -> Exported:
    """Write the DP-GEN folder `target` of a loaded campaign, whole or not at all; the campaign is not changed.

    All finished labels of the present level of theory are written, held-out ones too; excluded ones are not.
    InputError if target holds anything or the campaign holds no label.
    """
    target = target.resolve()
    with filled_folder(target, last="record.dpgen") as aside:
        found = _Export(campaign, param, aside).run()
    found.root = target
    return found


class _Export:
    """One export under way, writing into a folder that nobody sees yet."""

    def __init__(self, campaign: Campaign, param: Param, root: Path) -> None:
        self.campaign, self.param, self.root = campaign, param, root
        self.state = campaign.state
        self.imported = read_inventory(campaign.root)
        self.offset = self.imported["iterations"] if self.imported else 0
        self.found = Exported(root)
        self.systems = {(entry["glass"], entry["n_atoms"]): entry["system"] for entry in self._known("systems")}
        self.sys_configs: list[list[str]] = []
        self.labels = set(self.state.labels("training") + self.state.labels("held_out"))

    def _known(self, key: str) -> list[Any]:
        return list(self.imported[key]) if self.imported else []

    def run(self) -> Exported:
        """Write everything and return what was written."""
        labelled = self._labelled_iterations()
        if not self.labels and not self.imported:
            raise InputError("no label is finished yet, so DP-GEN would have nothing to train on\n  first: alloop run")
        self._write_starts()
        init_data = self._write_data()
        jobs = [self._write_iteration(iteration) for iteration in range(labelled)]
        models = self._write_models()
        self._write_record(labelled, models)
        self._write_param(init_data, jobs)
        self._tell()
        return self.found

    def _labelled_iterations(self) -> int:
        """Return how many iterations have asked for labels; unfinished labels of the last one are left out."""
        number = 0
        while self.state.decided("select", number):
            number += 1
        if number and self.state.open("select", number - 1):
            done, total = self.state.stage_counts("select", number - 1)
            self.found.notes.append(
                f"iteration {number - 1} of alloop has {total - done} of {total} labels unfinished; they are left out"
            )
        return number

    # ------------------------------------------------------------------------------------ data

    def _of_imported(self) -> dict[str, dict[int, str]]:
        """Return the keys of labels that came with the import: path of their system -> frame -> key."""
        imported = {f"{IMPORTED}/{entry['path']}": entry["path"] for entry in self._known("data")}
        places = {
            entry["key"]: imported[entry["files"]["file"]]
            for entry in self._bootstrap_entries()
            if entry.get("files", {}).get("file") in imported
        }
        found: dict[str, dict[int, str]] = {}
        for key, pick in self.state.picks.items():
            if pick["given"] and pick["source"]["task"] in places:
                found.setdefault(places[pick["source"]["task"]], {})[pick["source"]["frame"]] = key
        return found

    def _bootstrap_entries(self) -> list[dict[str, Any]]:
        decision = self.state.decisions.get(("bootstrap", -1))
        return list(decision["tasks"]) if decision else []

    def _write_data(self) -> list[tuple[int | None, str]]:
        """Write imported data where they came from and other bootstrap labels as initial data.

        Returns the entries of ``init_data_sys``, each with its number in the imported one, None for new ones.
        """
        of_imported = self._of_imported()
        theirs = {key for keys in of_imported.values() for key in keys.values()}
        names: dict[int, str] = {}
        if all(self.state.picks[key]["level"] == self.state.level for key in theirs):
            for entry in self._known("data"):
                keys = of_imported.get(entry["path"], {})
                dropped = [frame for frame, key in keys.items() if key in self.state.excluded]
                if entry["iteration"] < 0:
                    names[entry["system"]] = entry["entry"]
                copy_system(self.campaign.root / IMPORTED / entry["path"], self.root / entry["export"], dropped)
                self._count("imported", entry["frames"] - len(dropped))
                if dropped:
                    self.found.notes.append(f"{entry['original']}: {len(dropped)} excluded frame(s) are left out")
        else:
            self.found.notes.append(
                "the imported labels are of another level of theory than the campaign's present one: they are left "
                f"out, and those made anew are initial data ({OWN_DATA})"
            )
        mine = [
            key
            for key, pick in self.state.picks.items()
            if key in self.labels and pick["iteration"] < 0 and key not in theirs
        ]
        if mine:
            write_systems(self._frames(mine), self.root / "init_data" / OWN_DATA, self.param.elements)
            self._count("bootstrap", len(mine))
        return [(number, names[number]) for number in sorted(names)] + [(None, OWN_DATA)] * bool(mine)

    def _frames(self, keys: list[str]) -> list[Any]:
        return [read_label(self.campaign.result(key)) for key in keys]

    def _count(self, what: str, frames: int) -> None:
        self.found.frames[what] = self.found.frames.get(what, 0) + frames

    def _write_starts(self) -> None:
        """Write start structures: the imported ones, and for cells DP-GEN does not know yet some of the bootstrap's."""
        folder = self.root / "sys_configs"
        self.sys_configs = [list(names) for names in self._known("sys_configs")]
        for names in self.sys_configs:
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.campaign.root / IMPORTED / "original" / "sys_configs" / name, folder / name)
        configurations = [self.param, *(parse(start["config"], "a start") for start in self.state.starts)]
        for entry in [glass for configuration in configurations for glass in configuration.glasses]:
            for wanted in entry.n_atoms:
                counts = stoichiometric_counts(entry.glass(), wanted)
                size = sum(counts.values())
                if (entry.name, size) in self.systems:
                    continue
                self.systems[entry.name, size] = len(self.sys_configs)
                self.sys_configs.append(self._new_starts(len(self.sys_configs), counts))

    def _new_starts(self, system: int, counts: dict[str, int]) -> list[str]:
        from ase.io import write

        found = []
        for entry in self._bootstrap_entries():
            if entry["key"] not in self.state.done:
                continue
            result = self.campaign.result(entry["key"])
            strained = read_columns(result).get("strained")
            for frame, record in enumerate(read_all_structures(result)):
                atoms = from_record(record)
                if (strained is None or not strained[frame]) and atoms.symbols.formula.count() == counts:
                    found.append(atoms)
        chosen = np.unique(np.linspace(0, len(found) - 1, min(len(found), STARTS_PER_SYSTEM)).round().astype(int))
        names = []
        for number in chosen.tolist():
            atoms = found[number]
            order = np.argsort([self.param.elements.index(symbol) for symbol in atoms.symbols], kind="stable")
            name = f"sys.{system:03d}/{number:04d}.vasp"
            (self.root / "sys_configs" / name).parent.mkdir(parents=True, exist_ok=True)
            write(self.root / "sys_configs" / name, atoms[order], format="vasp", direct=False)
            names.append(name)
        if not names:
            self.found.to_fill_in.append(f"param.json: sys_configs[{system}], start structures of {counts}")
        return names

    # ------------------------------------------------------------------------------------ iterations

    def _write_iteration(self, iteration: int) -> dict[str, Any]:
        """Write one alloop iteration after the imported ones; return its entry of ``model_devi_jobs``."""
        explore = self.state.decisions["explore", iteration]
        then = campaign_param(self.campaign, explore)
        by_name = {t.name: t for t in trajectories(then)}
        explored = []
        for entry in explore["tasks"]:
            trajectory = by_name[entry["name"].rsplit(".c", 1)[0]]
            system = self.systems[trajectory.glass, trajectory.n_atoms]
            if entry["key"] in self.state.done:
                spec = explore["common"] | entry["spec"]
                levels = spec["trust_low_eV_A"], spec["trust_high_eV_A"]
                explored.append(Explored(entry, system, self.campaign.result(entry["key"]), levels))
        job = job_of(then, sorted({chunk.system for chunk in explored}))
        select = self.state.decisions["select", iteration]
        picks = [pick for pick in select["picks"] if pick["source"]["task"] in {c.entry["key"] for c in explored}]
        mine = {key: pick for key, pick in self.state.picks.items() if pick["iteration"] == iteration}
        system_of = {chunk.entry["key"]: chunk.system for chunk in explored}
        keys = [key for key, pick in mine.items() if key in self.labels and pick["source"]["task"] in system_of]
        if production := sum(pick["reason"] == "production" and key in self.labels for key, pick in mine.items()):
            self.found.notes.append(f"{production} label(s) of frames met in production are left out: DP-GEN has none")
        labels: dict[int, list[Any]] = {}
        for key in keys:
            system = system_of[self.state.picks[key]["source"]["task"]]
            labels.setdefault(system, []).append(read_label(self.campaign.result(key)))
        folder = self.root / iteration_name(self.offset + iteration)
        write_iteration(folder, job, explored, picks, labels, self.param.elements)
        self._count("explored", len(keys))
        self.found.notes += [note for note in job_losses(then) if note not in self.found.notes]
        return job

    def _write_models(self) -> int | None:
        """Write the last complete ensemble; return the DP-GEN iteration it is of, None if there is none."""
        trained = [
            number
            for (kind, number), decision in self.state.decisions.items()
            if kind == "train" and all(entry["key"] in self.state.done for entry in decision["tasks"])
        ]
        if trained:
            iteration = max(trained)
            backend = self.state.decisions["train", iteration]["common"]["backend"]
            folder = self.root / iteration_name(self.offset + iteration) / TRAIN
            for number, key in enumerate(self.state.models(iteration)):
                write_model(self.campaign.result(key), folder, number, backend)
            return self.offset + iteration
        models = [model for model in self._known("models") if model["iteration"] is not None]
        for model in models:
            source = self.campaign.root / IMPORTED / model["path"]
            folder = self.root / iteration_name(model["iteration"]) / TRAIN
            shutil.copytree(source, folder / source.name)
            if model["frozen"]:
                frozen = Path(model["frozen"])
                (folder / f"graph.{source.name}{frozen.suffix}").symlink_to(Path(source.name) / frozen.name)
        iterations = [model["iteration"] for model in models if model["frozen"]]
        return iterations[0] if iterations else None

    def _write_record(self, labelled: int, models: int | None) -> None:
        """Write ``record.dpgen``: the imported one as it was, as far as its work is here, and alloop's stages."""
        done = self.offset + labelled
        last = (done, TRAINED) if models == done else (done - 1, LABELLED)
        file = self.campaign.root / IMPORTED / "original" / RECORD
        old = read_record(file) if self.imported else ()
        kept = [line for line in old if line <= last]
        text = file.read_bytes().decode().rstrip("\n") + "\n" if kept else ""
        if len(kept) < len(old):
            self.found.notes.append(
                f"{RECORD}: cut back from iteration {old[-1][0]} stage {old[-1][1]} to {last[0]} {last[1]}, "
                "as what those stages left behind was not imported; dpgen run does them again"
            )
            text = "".join(f"{a} {b}\n" for a, b in kept)
        begin = kept[-1] if kept else (0, -1)
        new = [(a, b) for a in range(last[0] + 1) for b in range(len(STAGES)) if begin < (a, b) <= last]
        text += "".join(f"{a} {b}\n" for a, b in new)
        if text:
            (self.root / RECORD).write_bytes(text.encode())
        self.found.iterations = done
        self.found.next_stage = (last[0], last[1] + 1) if last[1] < LABELLED else (last[0] + 1, 0)
        if self.imported:
            copy_originals(self.campaign.root / IMPORTED / "original", self.root)

    def _write_param(self, init_data: list[tuple[int | None, str]], jobs: list[dict[str, Any]]) -> None:
        original = self._original("param")
        template = apply_network(
            json.loads(find_template(self.param.train.template, self.campaign.root).read_text()), self._network()
        )
        if original is None:
            param = new_param(self.param, template, self.found.to_fill_in)
        else:
            param = updated_param(original, self.found.notes)
            param |= continued_training(param, self.param, template, self.found.notes)
        if "init_batch_size" in param:
            old = dict(enumerate(param["init_batch_size"]))
            param["init_batch_size"] = [old.get(-1 if n is None else n, "auto") for n, _ in init_data]
        if "sys_batch_size" in param:
            more = len(self.sys_configs) - len(param["sys_batch_size"])
            param["sys_batch_size"] = list(param["sys_batch_size"]) + ["auto"] * more
        old_jobs = param.get("model_devi_jobs", [])
        lost = [job_of(self.param, sorted(set(self.systems.values())))] * (self.offset - len(old_jobs))
        done = old_jobs[: self.offset] + lost + jobs
        ahead = old_jobs[len(done) :] or [job_of(self.param, sorted(set(self.systems.values())))]
        if not old_jobs[len(done) :]:
            self.found.notes.append(f"param.json: model_devi_jobs[{len(done)}], the next exploration, is alloop's own")
        param |= {
            "numb_models": self.param.train.models,
            "init_data_prefix": "./init_data",
            "init_data_sys": [name for _, name in init_data],
            "sys_configs_prefix": "./sys_configs",
            "sys_configs": self.sys_configs,
            "model_devi_jobs": done + ahead,
        }
        write_readable(self.root / "param.json", param)
        machine = self._original("machine") or new_machine(self.param, self.found.to_fill_in)
        write_readable(self.root / "machine.json", machine)
        if original is None:
            self._write_programs()

    def _network(self) -> dict[str, Any]:
        """Return the network of the last ensemble asked for, or the one the first will have."""
        trained = [number for kind, number in self.state.decisions if kind == "train"]
        if trained:
            return dict(self.state.decisions["train", max(trained)]["common"]["network"])
        own = self.param.train
        network = {"cutoff_A": own.cutoff_A, "smoothing_A": own.smoothing_A, "sel": "auto", "neuron": own.neuron}
        return network | {"axis_neuron": own.axis_neuron, "fitting_neuron": own.fitting_neuron}

    def _write_programs(self) -> None:
        if self.param.label.labeler not in CODES:
            (self.root / LABEL_SCRIPT).write_text(label_script(self.param))
        elif self.param.label.vasp is not None:
            incar = find_template(self.param.label.vasp.incar, self.campaign.root).read_text()
            spacing = self.param.label.vasp.kpoint_spacing_inv_A
            more = f"KSPACING = {spacing:g}\nKGAMMA = .TRUE.\nNSW = 0\nISIF = 2\nIBRION = -1\n" if spacing else ""
            (self.root / "INCAR").write_text(incar.rstrip("\n") + "\n" + more)
            if not spacing:
                self.found.to_fill_in.append("INCAR: KSPACING, which DP-GEN needs")

    def _original(self, what: str) -> dict[str, Any] | None:
        """Return the imported ``param`` or ``machine`` file, None if there is none."""
        if self.imported is None or not self.imported[what]:
            return None
        return read_original(self.campaign.root / IMPORTED / "original", self.imported[what])

    def _tell(self) -> None:
        """Add what DP-GEN will do with this that a person may not expect."""
        held_out = len(self.state.labels("held_out"))
        if held_out:
            self.found.notes.append(
                f"{held_out} held-out labels are among the data: DP-GEN knows no such set and will train on them"
            )
        if self.state.excluded:
            self.found.notes.append(f"{len(self.state.excluded)} excluded labels are left out")
        least = json.loads((self.root / "param.json").read_text()).get("fp_task_min", 0)
        for place in sorted(self.root.glob("iter.*/02.fp/data.*")):
            frames = sum(len(np.load(file)) for file in place.rglob("energy.npy"))
            if frames < least:
                self.found.notes.append(
                    f"{place.relative_to(self.root)}: {frames} frames, fewer than fp_task_min {least}; DP-GEN will "
                    "not train on them unless you lower it"
                )
