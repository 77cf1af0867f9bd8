"""How long does the loop take? alloop against DP-GEN 0.14, stock and with its 30 s poll cut to 1 s; interleaved runs.

    python benchmarks/dpgen_loop.py [--workload sleep|real] [--repeats N] [--folder DIR] [--dpgen-python PATH] [--json]

Without --dpgen-python DP-GEN is installed into an environment of its own below DIR. Every finished run is added to
benchmarks/results/dpgen_loop_WORKLOAD.json at once, and runs that are there already are not repeated; DIR keeps the
folders of the runs. --json prints the record; its main figures are makespan_ratio_stock, makespan_ratio_fast
(alloop's time over DP-GEN's, medians) and bound_fraction (the shortest possible time over alloop's). On a machine that
others use, too, start the sleep workload with ``chrt -r 1``: it needs little of the CPU, but needs it at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from checkout import commit

from alloop.store import write_json

RESULTS = Path(__file__).resolve().parent / "results"
TOOLS = ("dpgen-stock", "dpgen-fast", "dpgen-scratch", "alloop")
DPGEN = "dpgen==0.14.0"


def dpgen_environment(folder: Path) -> Path:
    """Return the Python of an environment with DP-GEN, made below a folder if it is not there."""
    python = folder / "dpgen-environment" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", DPGEN], check=True)
    return python


def versions(dpgen_python: Path) -> dict[str, str]:
    found = {"alloop": version("alloop"), "python": platform.python_version()}
    for name in ("dpgen", "dpdispatcher", "dpdata"):
        command = [str(dpgen_python), "-c", f"from importlib.metadata import version as v; print(v('{name}'))"]
        found[name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return found


def figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """alloop's time over each other tool's, and the shortest possible over alloop's; left out if not known yet."""
    of = {tool: [run for run in runs if run["tool"] == tool] for tool in TOOLS}
    found: dict[str, Any] = {
        "makespan_s": {tool: [run["makespan_s"] for run in of[tool]] for tool in TOOLS if of[tool]}
    }
    for tool in TOOLS:
        if tool != "alloop" and of[tool] and of["alloop"]:
            found |= compared(of["alloop"], of[tool], tool.removeprefix("dpgen-"))
    bounds = [run["bound_s"] for run in of["alloop"] if "bound_s" in run]
    if bounds:
        found["bound_fraction"] = round(statistics.median(bounds) / median_of(of["alloop"], "makespan_s"), 3)
    return found


def compared(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Ratios of medians. Where errors were measured, the time is the one to the force error that every run reached."""
    if "force_rmse_eV_A" not in ours[0]:
        ratio = median_of(ours, "makespan_s") / median_of(theirs, "makespan_s")
        return {f"makespan_ratio_{name}": round(ratio, 3)}
    target = max(min(run["force_rmse_eV_A"]) for run in ours + theirs)
    times = [statistics.median(time_to(run, target) for run in group) for group in (ours, theirs)]
    cpu = [statistics.median(run["cpu_s"]["total"] for run in group) for group in (ours, theirs)]
    return {
        f"makespan_ratio_{name}": round(times[0] / times[1], 3),
        f"to_force_rmse_eV_A_{name}": {"target": target, "alloop_s": times[0], f"dpgen_{name}_s": times[1]},
        f"whole_run_ratio_{name}": round(median_of(ours, "makespan_s") / median_of(theirs, "makespan_s"), 3),
        f"cpu_ratio_{name}": round(cpu[0] / cpu[1], 3),
    }


def median_of(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def time_to(run: dict[str, Any], target_eV_A: float) -> float:
    """Seconds until the first ensemble of a run with such a force error was there."""
    ensembles = zip(run["ensembles_ready_s"], run["force_rmse_eV_A"], strict=True)
    return next(at for at, error in ensembles if error <= target_eV_A)


def read_runs(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text())["runs"] if file.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=("sleep", "real"), default="sleep")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each tool")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, help="only these")
    parser.add_argument("--folder", type=Path, default=Path("dpgen_loop"), help="where everything is run")
    parser.add_argument("--dpgen-python", type=Path, help="Python of an environment that holds DP-GEN 0.14")
    parser.add_argument("--scale", type=float, default=1.0, help="of all times of the sleep workload; 1 for a record")
    parser.add_argument("--record", type=Path, help="file of the runs; in benchmarks/results if not given")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    dpgen_python = (arguments.dpgen_python or dpgen_environment(folder)).absolute()
    record = arguments.record or RESULTS / f"dpgen_loop_{arguments.workload}.json"
    workload = importlib.import_module(f"dpgen_loop_{arguments.workload}")
    for repeat in range(arguments.repeats):
        for tool in [tool for tool in arguments.tools or TOOLS if tool in workload.TOOLS]:
            if any(
                (run["tool"], run["repeat"], run["scale"]) == (tool, repeat, arguments.scale)
                for run in read_runs(record)
            ):
                continue
            place = folder / f"{arguments.workload}.{tool}.{repeat}"
            shutil.rmtree(place, ignore_errors=True)
            told = {
                "repeat": repeat,
                "scale": arguments.scale,
                "commit": commit(),
                "load_before": round(os.getloadavg()[0], 2),
            }
            found = workload.run(tool, place, dpgen_python, arguments.scale)
            told["ended"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            runs = [*read_runs(record), found | told]  # read again: another may have ended meanwhile
            software = versions(dpgen_python)
            write_json(record, {"workload": arguments.workload, "software": software} | figures(runs) | {"runs": runs})
    found = json.loads(record.read_text())
    shown = {key: value for key, value in found.items() if key != "runs"}
    print(json.dumps(found if arguments.json else shown, indent=1))


if __name__ == "__main__":
    main()
