"""Does active learning pay? The last ensemble against a control trained as long, on the first iteration's data only.

    python benchmarks/control.py CAMPAIGN [--slots 2] [--json FILE]

For a finished campaign, trains a control ensemble with the same network, seeds, schedule and total steps as the
campaign's (its first ensemble is the campaign's own), but never shows it a label that was selected by exploration.
Both, and every ensemble of the campaign, are measured on ONE set: the final held-out sets together. Control tasks live
in ``iterations/control`` of the campaign folder and are taken up again if the script is interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alloop.campaign import Campaign
from alloop.potential.environment import md_environment
from alloop.store import Task, make_task, read_json


def run_tasks(campaign: Campaign, tasks: list[Task], slots: int, *, together: bool = False) -> None:
    """Run tasks that have no result yet, `slots` at a time or all together in one process, one thread each."""
    folders = prepared(campaign, tasks)

    def run(batch: list[Path]) -> int:
        command = [sys.executable, "-m", "alloop.attempt", *map(str, batch)]
        return subprocess.run(command, env=os.environ | md_environment(1), check=False).returncode

    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(run, [folders] if together else [[folder] for folder in folders]))
    failed = [task.name for task in tasks if not campaign.store.is_done(task)]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see attempts/*/failed.json under {folders[0].parent}")


def prepared(campaign: Campaign, tasks: list[Task]) -> list[Path]:
    """Write the folders of tasks that no decision asks for, have the state know them, and return the folders."""
    folders = []
    for task in tasks:
        paths = {key: campaign.state.tasks[key].folder for key in task.inputs}
        folders.append(campaign.store.prepare(task, campaign.state.identity["id"], paths))
        campaign.state.tasks[task.key] = task
    return folders


def control_ensemble(campaign: Campaign, slots: int) -> tuple[list[str], int]:
    """Train the control through all iterations and return its last models' keys and the steps each has seen."""
    decisions = campaign.state.decisions
    first = decisions["train", 0]["common"]
    models = campaign.state.models(0)
    total = first["steps"]
    for iteration in range(1, campaign.state.iteration + 1):
        decision = decisions["train", iteration]
        total += decision["common"]["steps"]
        tasks = []
        for number, entry in enumerate(decision["tasks"]):
            data = {"training": first["training"], "held_out": first["held_out"]}
            init = models[number] if entry["spec"]["init"] else None
            spec = decision["common"] | entry["spec"] | data | {"init": init}
            inputs = tuple(first["training"]) + tuple(first["held_out"]) + ((init,) if init else ())
            tasks.append(make_task("train", "control/train", f"iteration.{iteration}.model.{number:02d}", spec, inputs))
        run_tasks(campaign, tasks, slots)
        models = [task.key for task in tasks]
    return models, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    campaign = Campaign(arguments.campaign)
    state = campaign.load()
    if ("assess", state.iteration) not in state.decisions:
        raise SystemExit("the campaign is not finished: no assessment on the final held-out sets yet; alloop run")
    models, steps = control_ensemble(campaign, arguments.slots)
    measured = state.tasks[state.decisions["assess", state.iteration]["tasks"][-1]["key"]]
    spec = measured.spec | {"models": models}
    held_out = tuple(spec["sets"]["held_out"])
    task = make_task("evaluate", "control/evaluate", "control", spec, tuple(models) + held_out)
    run_tasks(campaign, [task], 1)
    series = [
        {"ensemble": number} | campaign.summary(entry["key"])["held_out"]
        for number, entry in enumerate(state.decisions["assess", state.iteration]["tasks"])
    ]
    control = read_json(campaign.store.result(task) / "summary.json")["held_out"]
    last = series[-1]["force_rmse_eV_A"]
    record = {
        "campaign": state.identity["name"],
        "series": series,
        "control": control,
        "steps_per_model": steps,
        "last_over_first": last / series[0]["force_rmse_eV_A"],
        "last_over_control": last / control["force_rmse_eV_A"],
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
