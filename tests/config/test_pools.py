from __future__ import annotations

from typing import Any

import pytest

from alloop import config
from alloop.errors import InputError
from alloop.pool_params import LOCAL, pool_of, pool_slots
from alloop.report.schema import schema_rows

MINIMAL = {"name": "x", "glasses": ["LBS-20-60-20"]}
SLURM = {"type": "slurm", "tasks": ["label"], "walltime_minutes": 60}


def parsed(pools: Any) -> config.Param:
    return config.parse(MINIMAL | {"pools": pools})


def test_local_is_there_without_being_named_and_runs_what_no_other_pool_does() -> None:
    param = parsed({"vasp": SLURM | {"jobs": 3, "slots_per_job": 4}})
    assert set(param.pools) == {LOCAL, "vasp"}
    assert (pool_of(param.pools, "label"), pool_of(param.pools, "train")) == ("vasp", LOCAL)
    assert pool_slots(param.pools["vasp"]) == 12
    assert config.slots(param) == 12 + pool_slots(param.pools[LOCAL])


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ({"gpu": {"type": "slurm", "task": ["train"], "walltime_minutes": 3}}, "pools.gpu.task: unknown key; did you"),
        ({"gpu": {"type": "slurm", "tasks": ["trai"], "walltime_minutes": 3}}, r"pools.gpu.tasks\[0\]: found \"trai\""),
        ({"gpu": {"type": "moab"}}, "pools.gpu.type: found \"moab\", must be 'slurm', 'pbs', 'lsf' or 'sge'"),
        ({"gpu": {"type": "slurm", "tasks": ["train"]}}, "pools.gpu.walltime_minutes: is missing"),
        ({"local": {"slot": 3}}, "pools.local.slot: unknown key; did you mean 'slots'"),
        ({"a": {"tasks": ["train"]}, "b": {"tasks": ["train"]}}, "train is in the tasks of both pools.a and pools.b"),
        ({"a": {}}, "pools.a names no tasks"),
        ({"local": SLURM}, "pools.local must be of type local"),
        ({"a b": {"tasks": ["train"]}}, "must begin with a letter or digit"),
        ([], "pools: found a list, must be an object"),
    ],
)
def test_what_is_wrong_with_a_pool_is_told_by_its_key(pools: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parsed(pools)


def test_schema_tells_the_keys_of_both_kinds_of_pool() -> None:
    sections = schema_rows()
    local = {row.key.rpartition(".")[2] for row in sections["pools.NAME (local)"][1]}
    batch = {row.key.rpartition(".")[2] for row in sections["pools.NAME (slurm | pbs | lsf | sge)"][1]}
    assert {"slots", "threads", "python"} <= local and {"walltime_minutes", "queue", "options"} <= batch
