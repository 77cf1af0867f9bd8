"""Simulate campaigns in virtual time with alloop's own policy: classical order against streaming.

What is simulated is told in `simulated_campaign.py`; `simulated_record.py` takes it from a real campaign's record.

    python benchmarks/simulate.py                                  a laptop-sized campaign, both orders
    python benchmarks/simulate.py --labels 100000 --slots 1000     the scale of a large machine
    python benchmarks/simulate.py --replay CAMPAIGN                durations and sizes of a real campaign's record
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from simulated_campaign import ALL_MADE, HOUR, Duration, SimPool, Simulation, World, fails_everywhere
from simulated_record import replayed


def scaled(arguments: argparse.Namespace) -> World:
    slots, world = arguments.slots, World()
    per_iteration = arguments.per_iteration or max(20, arguments.labels // 10)
    walltime_s = arguments.walltime_h * HOUR if arguments.walltime_h else math.inf
    wait = Duration(arguments.queue_wait_h * HOUR, 1.0) if arguments.queue_wait_h else None
    md = max(4, slots // 2)
    return replace(
        world,
        labels=arguments.labels,
        labels_per_iteration=per_iteration,
        train_after=max(1, per_iteration // 3),
        chunks=max(8, 2 * md),
        seed_labels=max(20, per_iteration // 2),
        durations=world.durations | {"label": Duration(HOUR, 0.6, arguments.tail)},
        pools={
            "gpu": SimPool(4, 1, wait, walltime_s),
            "md": SimPool(md, 1, wait, walltime_s),
            "cpu": SimPool(slots, 1, wait, walltime_s),
        },
        fails=fails_everywhere(arguments.fails),
        target=arguments.target,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=1000, help="labels beside the first ones")
    parser.add_argument("--slots", type=int, default=20, help="label slots; half as many for dynamics, 4 for training")
    parser.add_argument("--per-iteration", type=int, help="labels per ensemble; a tenth of all if not given")
    parser.add_argument("--tail", choices=("lognormal", "pareto"), default="lognormal", help="of label durations")
    parser.add_argument("--queue-wait-h", type=float, default=0.0, help="mean wait of a job in the queue")
    parser.add_argument("--walltime-h", type=float, default=0.0, help="of every job; none if not given")
    parser.add_argument("--fails", type=float, default=0.03, help="share of attempts a node loses")
    parser.add_argument("--target", type=float, default=0.35, help="error that counts as quality")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--order", choices=("both", "streaming", "barrier"), default="both")
    parser.add_argument("--replay", type=Path, help="folder of a real campaign")
    parser.add_argument("--json", type=Path, help="write the record there")
    arguments = parser.parse_args()
    world, real = replayed(arguments.replay) if arguments.replay else (scaled(arguments), None)
    found: dict[str, list[dict[str, Any]]] = {}
    for order in ("barrier", "streaming"):
        if arguments.order not in ("both", order):
            continue
        for seed in range(arguments.seeds):
            began = time.perf_counter()
            simulation = Simulation(world, barrier=order == "barrier", seed=seed)
            simulation.run()
            record = simulation.result() | {"simulated_in_s": time.perf_counter() - began}
            found.setdefault(order, []).append(record)
    peak_MB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report(found, real, peak_MB)
    if arguments.json:
        settings = {name: value for name, value in vars(arguments).items() if not isinstance(value, Path)}
        record = {"settings": settings, "runs": found, "peak_MB": round(peak_MB), "real": real, "world": asdict(world)}
        record["world"].pop("durations") if arguments.replay else None
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def report(found: dict[str, list[dict[str, Any]]], real: dict[str, Any] | None, peak_MB: float) -> None:
    def median(order: str, name: str) -> float:
        values = [record[name] for record in found[order] if record[name] is not None]
        return statistics.median(values) if values else math.nan

    for order, records in found.items():
        use = ", ".join(
            f"{pool} {100 * statistics.median(r['utilisation'][pool] for r in records):.0f} %"
            for pool in records[0]["utilisation"]
        )
        print(
            f"{order:>9}: makespan {median(order, 'makespan_h'):.2f} h, time to quality "
            f"{median(order, 'time_to_quality_h'):.2f} h, in use: {use}; {median(order, 'ensembles'):.0f} ensembles, "
            f"{median(order, 'labels'):.0f} labels, {median(order, 'attempts'):.0f} attempts, "
            f"policy {median(order, 'policy_ms_per_task'):.3f} ms of CPU per task, "
            f"simulated in {median(order, 'simulated_in_s'):.1f} s"
        )
        for reason in sorted({record["ended"] for record in records} - {ALL_MADE}):
            print(f"{'':>11}ended before all labels were made: {reason}")
    if len(found) == 2:
        for name in ("makespan_h", "time_to_quality_h"):
            print(f"streaming / barrier, {name}: {median('streaming', name) / median('barrier', name):.2f}")
    if real is not None:
        print(f"the real campaign: {real}")
    print(f"peak memory {peak_MB:.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
