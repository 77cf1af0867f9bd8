"""Does a foundation first and VASP second pay? Two stages against training on the same VASP labels alone.

    python benchmarks/foundation.py FOLDER [--seeds 1 2 3] [--promote 8 16] [--slots 2] [--json FILE]

For every seed and number M of promoted structures, FOLDER/seed.N.promote.M holds a campaign run by ``alloop run``: a
cheap labeler (`foundation_field`) labels the bootstrap and one iteration of exploration, M of its structures (three in
four of them for training) get labels of VASP (the double of the tests), an ensemble is trained on the cheap labels,
energies shifted, and goes on with VASP's. The control has the same VASP labels, network and total of steps, but sees no
cheap label: it is trained from scratch by the same tasks.
Both are measured on structures that neither trained on, all labelled by what the double computes: those of held-out
bootstrap trajectories, and those that held-out explorations brought home. What is done is not done again, and the
script may be interrupted at any time; campaigns of one seed share what comes before the promotion.

Recorded per ensemble: root mean square errors of forces and energies; besides, of the fields: the foundation's own
force error, and per glass the shift of an atom's energy that the campaign found and the true one (the mean difference
of the two fields). Single elements' shifts are not compared: two compositions leave most of them open.

Found (``results/foundation.json``): on 6 VASP labels the two stages' force RMSE is 0.71 to 0.78 of the control's for
three seeds, about what the control needs 12 labels for; on 12 labels it is 0.87 to 1.02 of it. A pair potential is
learnt from few labels, and from there on it is the number of steps that limits both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "vasp_double"))

import vasp_double
from control import run_tasks
from foundation_field import FoundationField

from alloop.campaign import Campaign, label_task
from alloop.frames import read_all_structures
from alloop.seeds import derived_seed
from alloop.store import Task, make_task, read_json
from alloop.structure import from_record

HERE = Path(__file__).resolve().parent
PARAM: dict[str, Any] = {
    "name": "foundation",
    "elements": ["Li", "B", "O", "Si"],
    "glasses": [{"name": "LBS-20-60-20", "n_atoms": [42]}, {"name": "LBS-40-20-40", "n_atoms": [51]}],
    "bootstrap": {
        "trajectories": 4,
        "melt_ps": 3.0,
        "quench_ps": 5.0,
        "snapshots": 10,
        "strained_copies": 1,
        "held_out_fraction": 0.25,
    },
    "train": {
        "models": 2,
        "cutoff_A": 4.5,
        "neuron": [8, 16],
        "axis_neuron": 4,
        "fitting_neuron": [32, 32, 32],
        "steps": 6000,
        "warm_steps": 3000,
        "learning_rate": 0.02,
        "warm_learning_rate": 0.005,
        "final_learning_rate": 0.0001,
    },
    "explore": {
        "temperatures_K": [600, 1500, 2500],
        "ramps": [{"from_K": 2500, "to_K": 300}],
        "trajectories": 1,
        "chunks": 1,
        "chunk_ps": 0.5,
        "deviation_every": 10,
        "frames_per_chunk": 12,
    },
    "select": {
        "trust_low_eV_A": 0.2,
        "trust_high_eV_A": 8.0,
        "max_labels": 40,
        "max_per_trajectory": 8,
        "audit": 2,
        "held_out_fraction": 0.25,
    },
    "label": {
        "labeler": "vasp",
        "vasp": {"potcar_library": "potpaw", "potcars": {"Li": "Li_sv"}},
        "run": {"command": vasp_double.double_command()},
        "foundation": {"labeler": "foundation_field:FoundationField", "iterations": 1},
        "per_process": 16,
    },
    "stop": {"max_iterations": 1},
}


def prepare(folder: Path, seed: int, promote: int, slots: int) -> None:
    """Make a campaign folder, with what another campaign of this seed has finished before its promotion."""
    if (folder / "param.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    vasp_double.make_potcar_library(folder / "potpaw")
    for other in sorted(folder.parent.glob(f"seed.{seed}.promote.*")):
        if (other / "iterations" / "iter.000001").exists():
            for part in ("bootstrap", "iter.000000"):
                shutil.copytree(other / "iterations" / part, folder / "iterations" / part)
            break
    label = PARAM["label"] | {"foundation": PARAM["label"]["foundation"] | {"promote": promote}}
    own = {"name": f"foundation-{seed}", "seed": seed, "label": label, "pools": {"local": {"slots": slots}}}
    (folder / "param.json").write_text(json.dumps(PARAM | own, indent=1) + "\n")


def run_campaign(folder: Path) -> Campaign:
    """Run the campaign in a folder, or what is left of it, and return it finished."""
    campaign = Campaign(folder)
    campaign.load()
    if not finished(campaign):
        command = [sys.executable, "-m", "alloop", "run", "-C", str(folder)]
        path = ":".join(filter(None, [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH")]))
        code = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False).returncode
        campaign = Campaign(folder)
        campaign.load()
        if not finished(campaign):
            raise SystemExit(f"{folder}: alloop run ended with {code} and is not finished; the same command goes on")
    return campaign


def finished(campaign: Campaign) -> bool:
    """Tell whether the campaign has come to its end, one iteration and the first ensemble on VASP's labels."""
    return campaign.state.decided("assess", 1) and not campaign.state.open("assess", 1)


def lineage_steps(campaign: Campaign, key: str | None) -> int:
    """Return the training steps in a model's weights, its forebears' included."""
    steps = 0
    while key is not None:
        steps += campaign.state.tasks[key].spec["steps"]
        key = campaign.state.tasks[key].spec["init"]
    return steps


def control_tasks(campaign: Campaign, seed: int, steps: int) -> list[Task]:
    """Return the trainings from scratch on the VASP labels of the last ensemble."""
    decision = campaign.state.decisions["train", 1]
    common, tasks = decision["common"], []
    for number in range(len(decision["tasks"])):
        own = {"steps": steps, "start_lr": PARAM["train"]["learning_rate"], "init": None}
        spec = common | own | {"seed": derived_seed(seed, "control", number)}
        tasks.append(make_task("train", "control/train", f"model.{number:02d}", spec, tuple(decision["inputs"])))
    return tasks


def unseen(campaign: Campaign) -> dict[str, list[dict[str, Any]]]:
    """Return the structures of held-out trajectories, of the bootstrap and of the exploration."""
    state = campaign.state
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, iteration in (("bootstrap", -1), ("explore", 0)):
        for entry in state.decisions[kind, iteration]["tasks"]:
            trajectory = entry["name"].rsplit(".c", 1)[0]
            if state.trajectories[trajectory] == "held_out":
                found.setdefault(kind, []).extend(read_all_structures(campaign.result(entry["key"])))
    return found


def true_labels(campaign: Campaign, structures: dict[str, list[dict[str, Any]]]) -> dict[str, list[Task]]:
    """Return the tasks of labels with the numbers that an undisturbed run of the double tells."""
    tasks: dict[str, list[Task]] = {}
    for kind, records in structures.items():
        for number, record in enumerate(records):
            energy_eV, forces_eV_A, virial_eV = vasp_double.expected(from_record(record))
            given = {"energy_eV": energy_eV, "forces_eV_A": forces_eV_A.tolist(), "virial_eV": virial_eV.tolist()}
            content = {"imported": "expected", "given": given}
            tasks.setdefault(kind, []).append(label_task("control/label", f"{kind}.s{number:04d}", record, content, ()))
    return tasks


def measure(campaign: Campaign, ensembles: dict[str, list[str]], slots: int) -> dict[str, Any]:
    """Return the errors of ensembles (name -> keys of models) on the structures that none trained on."""
    labels = true_labels(campaign, unseen(campaign))
    run_tasks(campaign, [task for tasks in labels.values() for task in tasks], slots, together=True)
    sets = {kind: sorted({task.key for task in tasks}) for kind, tasks in labels.items()}
    sets["all"] = sorted({key for keys in sets.values() for key in keys})
    tasks = []
    for name, models in ensembles.items():
        spec = {"models": models, "type_map": PARAM["elements"], "sets": sets}
        tasks.append(make_task("evaluate", "control/evaluate", name, spec, (*models, *sets["all"])))
    run_tasks(campaign, tasks, slots)
    return {task.name: brief(read_json(campaign.store.result(task) / "summary.json")) for task in tasks}


def field_errors(structures: list[Atoms]) -> dict[str, Any]:
    """Return the foundation's own force RMSE against the double, and the double's RMS force."""
    wrong, right = [], []
    for atoms in structures:
        copy = atoms.copy()
        copy.calc = FoundationField()
        right.append(vasp_double.expected(atoms)[1])
        wrong.append(copy.get_forces() - right[-1])
    rms = [float(np.sqrt((np.concatenate(found) ** 2).mean())) for found in (wrong, right)]
    return {"force_rmse_eV_A": rms[0], "rms_force_eV_A": rms[1]}


def shifts(campaign: Campaign, structures: list[Atoms]) -> dict[str, dict[str, float]]:
    """Return per composition the shift found and the true one (mean and spread over structures), eV per atom."""
    found = campaign.state.decisions["pretrain", 1]["common"]["energy_shift_eV"]
    true: dict[str, list[tuple[float, float]]] = {}
    for atoms in structures:
        copy = atoms.copy()
        copy.calc = FoundationField()
        difference = vasp_double.expected(atoms)[0] - copy.get_potential_energy()
        own = sum(count * found[element] for element, count in Counter(atoms.symbols).items())
        true.setdefault(str(atoms.symbols.formula.convert("metal")), []).append(
            (own / len(atoms), difference / len(atoms))
        )
    return {
        formula: {
            "found_eV_atom": float(np.mean([own for own, _ in pairs])),
            "true_eV_atom": float(np.mean([difference for _, difference in pairs])),
            "spread_eV_atom": float(np.std([difference for _, difference in pairs])),
        }
        for formula, pairs in true.items()
    }


def levels_trained_on(campaign: Campaign, kind: str) -> dict[str, int]:
    """Return how many labels of each level of theory an ensemble's decision names for training."""
    keys = campaign.state.decisions[kind, 1]["common"]["training"]
    return dict(Counter(campaign.state.picks[key]["level"] for key in keys))


def compare(folder: Path, seed: int, promote: int, slots: int) -> dict[str, Any]:
    """Return the record of one seed and promotion: campaign, control, and both measured."""
    prepare(folder, seed, promote, slots)
    campaign = run_campaign(folder)
    state = campaign.state
    models = state.models(1)
    steps = lineage_steps(campaign, models[0])
    control = control_tasks(campaign, seed, steps)
    run_tasks(campaign, control, slots)
    pretrained = [entry["key"] for entry in state.decisions["pretrain", 1]["tasks"]]
    ensembles = {"two_stage": models, "control": [task.key for task in control], "pretrained": pretrained}
    errors = measure(campaign, ensembles, slots)
    structures = [from_record(record) for records in unseen(campaign).values() for record in records]
    trained = {kind: levels_trained_on(campaign, kind) for kind in ("pretrain", "train")}
    return {
        "seed": seed,
        "promote": promote,
        "ratio": errors["two_stage"]["all"]["force_rmse_eV_A"] / errors["control"]["all"]["force_rmse_eV_A"],
        "errors": errors,
        "steps": steps,
        "trained_on": trained,
        "only_vasp_last": list(trained["train"]) == [state.target_level],
        "foundation": field_errors(structures),
        "shift": shifts(campaign, structures),
        "quarantined": len(state.quarantined),
        "task_seconds": {kind: round(cost.seconds) for kind, cost in campaign.costs.items()},
    }


def brief(errors: dict[str, Any]) -> dict[str, Any]:
    """Return of one ensemble's errors what is recorded."""
    names = ("labels", "force_rmse_eV_A", "energy_rmse_eV_atom")
    return {kind: {name: found[name] for name in names} for kind, found in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--promote", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    records = []
    for promote, seed in itertools.product(arguments.promote, arguments.seeds):
        folder = arguments.folder.resolve() / f"seed.{seed}.promote.{promote}"
        records.append(compare(folder, seed, promote, arguments.slots))
    ratios = {
        str(promote): float(np.mean([record["ratio"] for record in records if record["promote"] == promote]))
        for promote in arguments.promote
    }
    text = json.dumps({"mean_ratio_by_promote": ratios, "train": PARAM["train"], "runs": records}, indent=1) + "\n"
    print(text)
    if arguments.json:
        arguments.json.write_text(text)


if __name__ == "__main__":
    main()
