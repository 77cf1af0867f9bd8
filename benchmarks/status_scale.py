"""How long `alloop status` and loading take in a large campaign.

    python benchmarks/status_scale.py make FOLDER [--labels 100000] [--iterations 20] [--per-decision 20]
    python benchmarks/status_scale.py measure FOLDER [--json FILE]

`make` writes a campaign as its driver would have left it when it was killed: all decisions through the campaign's own
code, every result and attempt in the true format; labels share the content of ``label.json`` and ``log.txt`` by hard
links, and nothing is synchronised to disk. 100000 labels take 0.7 million inodes and 3 GB, and two minutes or more.
A few hundred labels wait, some were interrupted, some are quarantined.

`measure` times, each as its own process: `alloop status --json` without a driver and with one; `Campaign.load` with the
index of results and without; writing the snapshot. Caches of the file system are warm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alloop import config, store
from alloop.campaign import Campaign
from alloop.process import this_process
from alloop.report.snapshot import write_snapshot
from alloop.state import task_entries
from alloop.store import Task, make_task

PARAM = {"name": "scale", "seed": 1, "glasses": ["LBS-20-60-20", "LBS-20-40-40"], "stop": {"max_iterations": 1000}}
CHUNKS = 100
MODELS = 4
_LINKS = 30_000
"""Hard links to one file; ext4 allows 65000."""


class Maker:
    """Writes results and attempts of tasks as attempts would, quickly."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.templates: dict[str, tuple[Path, int]] = {}
        self.identity = this_process().to_json() | {"start_ticks": 1}

    def linked(self, name: str, text: str, target: Path) -> dict[str, Any]:
        """Put a file with this content in place as a hard link; return its entry in a manifest."""
        template, count = self.templates.get(text, (Path(), 0))
        if count % _LINKS == 0:
            template = self.campaign.run_folder / f"template.{uuid.uuid4().hex[:8]}"
            template.write_text(text)
        self.templates[text] = (template, count + 1)
        os.link(template, target / name)
        return {"size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def begin(self, task: Task, waited_s: float) -> Path:
        """Write a task's folder and an attempt at it."""
        folder = self.campaign.folder(task.key)
        attempt = folder / "attempts" / uuid.uuid4().hex[:8]
        (attempt / "out").mkdir(parents=True)
        about = {"key": task.key, "kind": task.kind, "group": task.group, "name": task.name, "inputs": {}, "files": {}}
        spec = {"asked": _now(), "campaign": self.campaign.state.identity["id"], "about": {}, "spec": task.spec}
        (folder / "task.json").write_text(json.dumps(about | spec))
        owner = self.identity | {"started": _now(), "pool": "local", "job": None, "waited_s": waited_s}
        (attempt / "attempt.json").write_text(json.dumps(owner | {"threads": 1, "cores": 32, "gpus": 0}, indent=1))
        return attempt

    def done(self, key: str, files: dict[str, str], number: int = 0) -> None:
        """Give a task its result."""
        task = self.campaign.state.tasks[key]
        attempt = self.begin(task, waited_s=number % 97)
        self.linked("log.txt", "one line\n", attempt)
        entries = {name: self.linked(name, text, attempt / "out") for name, text in files.items()}
        record = self.identity | {
            "started": _now(),
            "seconds": 300.0 + number % 211,
            "waited_s": number % 97,
            "threads": 1,
            "cores": 32,
            "gpus": 0,
            "failed_attempts": 0,
            "notes": {"code": "vasp 6.3.2", "flags": []} if task.kind == "label" else {},
            "ended": _now(),
            "attempt": attempt.name,
        }
        manifest = {"key": key, "files": entries, "record": record}
        (attempt / "out" / store.MANIFEST).write_text(json.dumps(manifest, indent=1))
        (attempt / "out").rename(attempt.parents[1] / "result")

    def failed(self, key: str, kind: str) -> None:
        """Give a task a failed attempt."""
        attempt = self.begin(self.campaign.state.tasks[key], waited_s=5.0)
        store.fail(attempt, kind, f"vasp: {kind}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def make(folder: Path, labels: int, iterations: int, per_decision: int) -> None:
    """Write the campaign."""
    (folder / "iterations").mkdir(parents=True)
    (folder / "param.json").write_text(json.dumps(PARAM))
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # nothing here is worth keeping
    campaign = Campaign(folder)
    campaign.take(config.load(folder / "param.json"), take_over=False, limit={"max_iterations": 1000, "slots": 2})
    maker = Maker(campaign)
    sources = bootstrap(campaign, maker)
    number = 0
    for iteration in range(iterations):
        ensemble(campaign, maker, iteration)
        chunks = explore(campaign, maker, iteration, sources)
        share = labels // iterations + (labels % iterations if iteration == iterations - 1 else 0)
        made: list[dict[str, Any]] = []
        while len(made) < share:
            count = min(per_decision, share - len(made))
            picks = list(picked(campaign, chunks, iteration, number, count))
            campaign.decide("pick", iteration=iteration, level=campaign.level, picks=picks)
            number += count
            made += picks
            settle(campaign, maker, picks, number, closed=iteration < iterations - 1 or len(made) < share - 300)
        close(campaign, maker, iteration, made, last=iteration == iterations - 1)
    write_snapshot(campaign)
    campaign.index.flush()


def bootstrap(campaign: Campaign, maker: Maker) -> list[str]:
    """Decide the bootstrap and give it results."""
    tasks = [
        make_task("bootstrap", "bootstrap/seed", f"{glass}.n63.t{copy:02d}", {"seed": copy, "glass": glass})
        for glass in PARAM["glasses"]  # type: ignore[attr-defined]
        for copy in range(2)
    ]
    roles = {task.name: "held_out" if task.name.endswith("1") else "training" for task in tasks}
    campaign.decide("bootstrap", iteration=-1, tasks=task_entries(tasks, {}), trajectories=roles)
    for task in tasks:
        finish(campaign, maker, task.key, {"frames.npz": "frames"})
    campaign.decide("seed_labels", iteration=-1, level=campaign.level, picks=[])
    return [task.key for task in tasks]


def finish(campaign: Campaign, maker: Maker, key: str, files: dict[str, str], number: int = 0) -> None:
    """Give a task its result, and have the campaign note it."""
    maker.done(key, files, number)
    campaign._note(campaign.state.tasks[key])


def ensemble(campaign: Campaign, maker: Maker, iteration: int) -> None:
    """Decide a training on all labels so far, and finish it."""
    common = {role: sorted(campaign.state.labels(role)) for role in ("training", "held_out")}
    inputs = common["training"] + common["held_out"]
    tasks = [
        make_task(
            "train", f"iter.{iteration:06d}/train", f"model.{number:02d}", common | {"of": iteration, "seed": number}
        )
        for number in range(MODELS)
    ]
    entries = task_entries(tasks, common)
    campaign.decide("train", iteration=iteration, inputs=inputs, common=common, tasks=entries)
    for task in tasks:
        finish(campaign, maker, task.key, {"summary.json": '{"model": "model.pb"}', "model.pb": "model"})


def explore(campaign: Campaign, maker: Maker, iteration: int, sources: list[str]) -> list[str]:
    """Decide chunks and finish them."""
    common = {"models": campaign.state.models(iteration)}
    tasks = []
    for number in range(CHUNKS):
        glass = PARAM["glasses"][number % 2]  # type: ignore[index]
        name = f"{glass}.n63.{300 + number}K.t00.c{iteration:02d}"
        spec = common | {"start": sources[0], "of": [iteration, number]}
        tasks.append(make_task("explore", f"iter.{iteration:06d}/explore", name, spec, (sources[0],)))
    roles = {task.name.rsplit(".c", 1)[0]: "held_out" if n % 7 == 0 else "training" for n, task in enumerate(tasks)}
    more = {"trajectories": roles if iteration == 0 else {}, "last_chunk": {}}
    entries = task_entries(tasks, common)
    campaign.decide("explore", iteration=iteration, inputs=common["models"], common=common, tasks=entries, **more)
    for task in tasks:
        finish(campaign, maker, task.key, {"summary.json": json.dumps({"classes": {"accurate": 1}})})
    return [task.key for task in tasks]


def picked(campaign: Campaign, chunks: list[str], iteration: int, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield picks as the selection records them."""
    level = campaign.level
    for number in range(first, first + count):
        chunk = campaign.state.tasks[chunks[number % len(chunks)]]
        trajectory = chunk.name.rsplit(".c", 1)[0]
        yield {
            "key": make_task("label", "", "", {"number": number} | level["content"]).key,
            "name": f"{chunk.name}.s{number:06d}",
            "source": {"task": chunk.key, "frame": number % 50},
            "given": False,
            "level": level["name"],
            "trajectory": trajectory,
            "role": campaign.state.trajectories[trajectory],
            "stratum": " ".join(trajectory.split(".")[:3:2]),
            "step": number,
            "time_ps": number / 1000,
            "trust_class": "candidate",
            "max_force_deviation_eV_A": 0.25 + number % 100 / 100,
            "temperature_K": 300.0 + number % 3000,
            "events": ["overlap"] if number % 9 == 0 else [],
            "reason": "overlap" if number % 9 == 0 else "candidate",
        }


def settle(campaign: Campaign, maker: Maker, picks: list[dict[str, Any]], number: int, *, closed: bool) -> None:
    """Finish labels; a few are quarantined, and of the last ones some wait and some were interrupted."""
    label = json.dumps({"energy_eV": -1.0, "forces_eV_A": [[0.1, 0.2, 0.3]] * 63, "level": campaign.level["content"]})
    for place, pick in enumerate(picks):
        key = pick["key"]
        if closed and (number + place) % 2500 != 7:
            finish(campaign, maker, key, {"label.json": label}, number + place)
        elif closed:
            for _ in range(3):
                maker.failed(key, "unconverged")
            problem = {"class": "unconverged", "message": "vasp: unconverged", "detail": ""}
            campaign.failures(key)
            campaign.decide("quarantine", key=key, name=pick["name"], **problem)
        elif place % 4 == 0:
            maker.begin(campaign.state.tasks[key], waited_s=3.0)
            campaign.state.begin(key)


def close(campaign: Campaign, maker: Maker, iteration: int, made: list[dict[str, Any]], *, last: bool) -> None:
    """Close an iteration's exploration and judge it, unless its labels are still being made."""
    if last:
        return
    classes = {"accurate": 90_000, "candidate": 9_000, "failed": 1_000}
    strata = {pick["stratum"]: classes | {"lost": 0, "labels": 1} for pick in made}
    counts = {"lost_chunks": 0, "failed_chunks": 0, "withdrawn_chunks": 0, "trust_levels_eV_A": [0.25, 1.0]}
    events = {"overlap": {"seen": 100, "labelled": 5}}
    record = {"classes": classes, "strata": strata, "events": events, "reasons": {"candidate": len(made)}} | counts
    campaign.decide("select", iteration=iteration, level=campaign.level, picks=[], **record)
    held_out = sorted(campaign.state.labels("held_out"))
    models = campaign.state.models(iteration)
    common = {"models": models, "labels": held_out}
    task = make_task("evaluate", f"iter.{iteration:06d}/evaluate", "ensemble", common | {"of": iteration})
    inputs, entries = models + held_out, task_entries([task], common)
    campaign.decide("evaluate", iteration=iteration, inputs=inputs, common=common, tasks=entries)
    finish(campaign, maker, task.key, {"summary.json": "{}"})
    error = {"labels": 10, "force_rmse_eV_A": 0.3, "force_components": 1890, "energy_rmse_eV_atom": 0.01}
    errors = dict.fromkeys(("new", "audit", "held_out_bootstrap", "held_out_explore"), error)
    reason = "force RMSE on new labels 0.30 > 0.20 eV/A"
    campaign.decide("verdict", iteration=iteration, converged=False, reason=reason, errors=errors)


# ---------------------------------------------------------------------------------------- measuring


def timed(act: Callable[[], Any], times: int = 5) -> dict[str, float]:
    """Return the median and the largest wall time of some calls, in seconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return {"median_s": round(statistics.median(took), 3), "max_s": round(max(took), 3)}


def status(folder: Path) -> dict[str, Any]:
    """Return what `alloop status --json`, a process of its own, prints."""
    command = [sys.executable, "-m", "alloop", "status", "-C", str(folder), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def load_apart(folder: Path) -> float:
    """Return the seconds `Campaign.load` takes in a process of its own, imports not counted."""
    code = (
        "import sys, time; from pathlib import Path; from alloop.campaign import Campaign; "
        "c = Campaign(Path(sys.argv[1])); b = time.perf_counter(); c.load(); print(time.perf_counter() - b)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(folder: Path) -> dict[str, Any]:
    """Return all figures; the campaign is left as it was found, with its index and snapshot written anew."""
    campaign = Campaign(folder)
    beat = campaign.run_folder / "driver.json"
    beat.unlink(missing_ok=True)
    count = len(campaign.files.read())
    campaign.epoch = 1
    found: dict[str, Any] = {"decision_files_before": len(list(campaign.decisions_folder.iterdir()))}
    found["merge_s"] = timed(lambda: campaign.files.merge(count), 1)["median_s"]
    found["decision_files"] = len(list(campaign.decisions_folder.iterdir()))
    campaign.index.file.unlink(missing_ok=True)
    found["load_without_index_s"] = round(load_apart(folder), 3)
    campaign.load()
    campaign.index.flush()
    found["load_with_index_s"] = round(load_apart(folder), 3)
    found["index_MB"] = round(campaign.index.file.stat().st_size / 1e6, 1)
    found["write_snapshot"] = timed(lambda: write_snapshot(campaign))
    found["snapshot_MB"] = round((campaign.store.iterations / "state.json").stat().st_size / 1e6, 2)
    found["status_without_driver"] = timed(lambda: status(folder))
    store.write_json(beat, this_process().to_json() | {"epoch": 1, "counter": 1, "time": _now()})
    found["status_with_driver"] = timed(lambda: status(folder))
    alive = status(folder)
    beat.unlink()
    dead = status(folder)
    (campaign.store.iterations / "state.json").rename(folder / "aside.json")
    found["status_without_snapshot"] = timed(lambda: status(folder), 3)
    anew = status(folder)
    (folder / "aside.json").rename(campaign.store.iterations / "state.json")
    found["labels"], found["decisions"] = anew["labels"], anew["decisions"]
    found["snapshot_tells_the_same"] = _told(dead) == _told(anew)
    found["driver"] = alive["driver"]
    return found


def _told(status: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key != "time"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--per-decision", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "make":
        began = time.perf_counter()
        make(arguments.folder, arguments.labels, arguments.iterations, arguments.per_decision)
        print(f"made in {time.perf_counter() - began:.0f} s")
        return
    text = json.dumps(measure(arguments.folder), indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
