"""`alloop check --live` tries every batch pool with a tiny label in a real job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slurm_campaign import PARAM, POOL
from slurm_daemons import Slurm

pytestmark = [pytest.mark.ci, pytest.mark.slow]


def check(folder: Path, pools: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    folder.mkdir()
    (folder / "param.json").write_text(json.dumps(PARAM | {"pools": pools}))
    command = [sys.executable, "-m", "alloop", "check", "--live", "--json", "-C", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    return found.returncode, json.loads(found.stdout)


def test_every_pool_labels_a_tiny_cell(slurm: Slurm, tmp_path: Path) -> None:
    pool = {key: value for key, value in POOL.items() if key != "python"}
    pools = {
        "labels": pool | {"tasks": ["label"], "queue": "cpu"},
        "trainers": pool | {"tasks": ["train"], "queue": "gpu"},
    }
    code, found = check(tmp_path / "campaign", pools)
    assert code == 0, found
    assert [(trial["pool"], trial["labelled"]) for trial in found["live"]] == [("labels", True), ("trainers", True)]
    assert not (tmp_path / "campaign" / "iterations").exists(), "nothing is left behind"


def test_queue_that_does_not_exist_is_told_before_anything_is_tried(slurm: Slurm, tmp_path: Path) -> None:
    code, found = check(tmp_path / "campaign", {"labels": POOL | {"tasks": ["label"], "queue": "cpuu"}})
    assert code == 2 and not found["live"]
    (problem,) = found["problems"]
    assert problem["where"] == "param.json: pools.labels.queue" and "cpu, gpu" in problem["remedy"]
