from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alloop.pool_params import BatchPoolParam, LocalPoolParam
from alloop.pools.troubles import pool_troubles


def batch(**changes: Any) -> BatchPoolParam:
    return BatchPoolParam.model_validate({"type": "slurm", "tasks": ["label"], "walltime_minutes": 60} | changes)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only these are on PATH: doubles of sbatch and of a sinfo that lists two partitions."""
    for name, text in (("sbatch", "exit 1"), ("sinfo", "echo cpu; echo gpu")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return tmp_path


def test_sound_pools_have_no_trouble(commands: Path) -> None:
    assert list(pool_troubles("local", LocalPoolParam())) == []
    assert list(pool_troubles("vasp", batch(queue="cpu", options={"account": "abc"}))) == []


@pytest.mark.parametrize(
    ("changes", "key", "found", "remedy"),
    [
        ({"queue": "cpuu"}, "queue", "there is no 'cpuu'", "choose one of: cpu, gpu"),
        ({"queue": "<partition>"}, "queue", "is still '<partition>'", "fill it in"),
        ({"options": {"account": "<yours>"}}, "options.account", "is still '<yours>'", "fill it in"),
        ({"options": {"acount": "abc"}}, "options.acount", "knows no such option", "it accepts: "),
        ({"python": "/nowhere/python"}, "python", "is no program here", "name the Python"),
        ({"type": "lsf"}, "type", "bsub is not found", "where jobs can be submitted"),
        ({"cores": 2, "slots_per_job": 4}, "cores", "2 cores for 4 slots", "ask for 4"),
    ],
)
def test_each_trouble_is_told_with_key_and_remedy(
    commands: Path, changes: dict[str, Any], key: str, found: str, remedy: str
) -> None:
    troubles = list(pool_troubles("vasp", batch(**changes)))
    assert [where for where, _, _ in troubles] == [key]
    assert found in troubles[0][1] and remedy in troubles[0][2]


def test_batch_system_that_does_not_answer_is_told(commands: Path) -> None:
    (commands / "sinfo").write_text("#!/bin/sh\necho controller is down >&2; exit 1\n")
    ((key, found, _),) = pool_troubles("vasp", batch(queue="cpu"))
    assert key == "type" and "controller is down" in found
