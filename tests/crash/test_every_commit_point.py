"""A sample of the deaths that `benchmarks/failpoints.py` tries one by one: at commit points, in writes, in chains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alloop.decisions import DECIDERS

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "failpoints.py"
CRASHES = 80
"""About 40 of them are the points of one decision's cycle, 14 are around decisions that few campaigns take."""
PERSONS = ("retry", "exclude", "relabel")


@pytest.mark.ci
@pytest.mark.slow
def test_campaign_comes_to_the_right_end_wherever_it_was_killed(in_memory_folder: Path) -> None:
    seed = "20"
    command = [sys.executable, str(SCRIPT), "--sample", seed, "--most", str(CRASHES), "--place", str(in_memory_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == 0
    assert found["runs"] == CRASHES
    assert found["drives"] > found["runs"]
    passed = {name for course in found["undisturbed"].values() for name in course["points_by_name"]}
    kinds = {*DECIDERS, *PERSONS, "pick", "quarantine"}
    assert {f"decide:{kind}:after" for kind in kinds} <= passed, "no decision is left out"
