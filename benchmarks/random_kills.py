"""Kill -9 of driver, scheduler or worker at random moments, on a real Slurm, half of them with other pools after.

    python benchmarks/random_kills.py [--kills 50] [--per-run 10] [--seed 1] [--json FILE]

Sets up a Slurm of its own (root; Debian's slurm-wlm and munge), runs campaigns whose tasks are doubles that sleep for
seconds, and kills one of the processes every few seconds. Every other victim is the driver, which is started again with
the partitions of both pools exchanged or with other slot counts, never as before; those between are drawn, and a driver
among them is started again with the pools it had. When a campaign has had its kills it runs to its end.
Counted: attempts that were repeated against those in flight at a kill, tasks begun again after their result was there,
labels asked for and neither done nor quarantined.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "slurm"))
import slurm_daemons
from checkout import commit
from slurm_campaign import SlurmCampaign

VICTIMS = ("driver", "scheduler", "worker")
PLACES: dict[str, tuple[Any, ...]] = {"queue": ("cpu", "gpu"), "jobs": (1, 2), "local": (1, 2, 3)}
"""The label pool's partition and its jobs of two slots each, and the slots beside the driver."""
FIRST = {"queue": "cpu", "jobs": 2, "local": 2}


def other_places(places: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Pools that differ from those of now in at least one queue or number of slots."""
    while (found := {name: rng.choice(values) for name, values in PLACES.items()}) == places:
        pass
    return found


def one_run(folder: Path, slurm: slurm_daemons.Slurm, kills: int, seed: int) -> dict[str, Any]:
    """One campaign with so many kills; returns its account."""
    rng = random.Random(seed)
    campaign = SlurmCampaign(folder, slurm)
    places = FIRST
    record: list[dict[str, Any]] = []
    try:
        campaign.start(**places)
        while len(record) < kills and not campaign.ended():
            campaign.wait_for_attempts(60)
            time.sleep(rng.uniform(0.0, 5.0))
            changed = len(record) % 2 == 0
            victim = "driver" if changed else rng.choice(VICTIMS)
            if campaign.ended() or not campaign.kill(victim, rng):
                continue
            if changed:
                places = other_places(places, rng)
            if victim == "driver":
                campaign.start(**places)
            record.append({"victim": victim, "changed": changed, "places": places})
            print(f"{folder.name}: kill {len(record)}: {victim}{' and ' + str(places) if changed else ''}", flush=True)
        assert campaign.process is not None
        code = campaign.process.wait(timeout=900)
        return {"seed": seed, "first_places": FIRST, "kills": record, "exit_code": code} | campaign.account()
    finally:
        campaign.end_everything()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if (problem := slurm_daemons.missing()) is not None:
        raise SystemExit(problem)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "slurm").mkdir()
        slurm = slurm_daemons.Slurm(Path(name) / "slurm")
        os.environ["SLURM_CONF"] = slurm.environment["SLURM_CONF"]
        slurm.start()
        try:
            while sum(len(run["kills"]) for run in runs) < arguments.kills:
                left = arguments.kills - sum(len(run["kills"]) for run in runs)
                number = len(runs)
                folder, seed = Path(name) / f"run{number}", arguments.seed + number
                runs.append(one_run(folder, slurm, min(left, arguments.per_run), seed))
                print(json.dumps({key: value for key, value in runs[-1].items() if key != "kills"}), flush=True)
        finally:
            slurm.stop()
    kills = [kill for run in runs for kill in run["kills"]]
    total = {
        "commit": commit(),
        "kills": len(kills),
        "of": {victim: sum(kill["victim"] == victim for kill in kills) for victim in VICTIMS},
        "resumed_with_other_pools": sum(kill["changed"] for kill in kills),
        "runs": len(runs),
    }
    for what in ("tasks", "labels", "attempts", "repeated", "in_flight_at_kills"):
        total[what] = sum(run[what] for run in runs)
    for what in ("unexplained", "begun_after_the_end", "labels_lost"):
        total[what] = sum(len(run[what]) for run in runs)
    print(json.dumps(total, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(total | {"record": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
