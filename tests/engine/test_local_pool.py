from __future__ import annotations

import os
import queue
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client
from engine_kit import level, prepared_label, wait_for

from alloop import store
from alloop.pool_params import LocalPoolParam
from alloop.pools import Ended
from alloop.pools.fleet import Fleet
from alloop.pools.local import LocalHost, LocalPool
from alloop.process import ProcessIdentity
from alloop.store import Store

HERE = Path(__file__).parent


def children() -> set[int]:
    """Processes below this one, but for the standard library's own helper."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if not any("resource_tracker" in part for part in child.cmdline())}


def local_fleet(slots: int, run_folder: Path) -> Fleet:
    """One local pool, as a campaign has it."""
    events: queue.SimpleQueue[Ended] = queue.SimpleQueue()
    host = LocalHost(slots)
    pool = LocalPool("local", LocalPoolParam(slots=slots), host, events, run_folder, epoch=1)
    return Fleet({"local": pool}, events, host)


def free(pool: Fleet) -> int:
    return len(pool.free_slots())


def start(pool: Fleet, keys: tuple[str, ...], folders: list[Path]) -> None:
    pool.start(pool.free_slots()[0], keys, folders)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    before = children()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        started = local_fleet(2, tmp_path_factory.mktemp("run"))
    yield started
    started.close()
    wait_for(lambda: not {pid for pid in children() - before if psutil.pid_exists(pid)}, 15)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    file = tmp_path / "gate"
    file.touch()
    return file


def ended_within(pool: Fleet, count: int, seconds: float = 30.0) -> list[Ended]:
    """The next batches that end."""
    found: list[Ended] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += pool.wait(0.5)
    assert len(found) == count
    return found


def test_batches_end_with_their_results(pool: Fleet, tmp_path: Path) -> None:
    tasks = [prepared_label(tmp_path, number) for number in range(4)]
    bad, bad_folder = prepared_label(tmp_path, 9, level("engine_labelers:Raises"))
    assert free(pool) == 2
    first = tuple(task.key for task, _ in tasks[:2])
    second = (*(task.key for task, _ in tasks[2:]), bad.key)
    start(pool, first, [folder for _, folder in tasks[:2]])
    start(pool, second, [*(folder for _, folder in tasks[2:]), bad_folder])
    assert free(pool) == 0
    found = {batch.keys: batch.return_code for batch in ended_within(pool, 2)}
    assert found == {first: 0, second: 1}
    assert free(pool) == 2
    assert all(Store(tmp_path).check_result(task) for task, _ in tasks)
    assert not Store(tmp_path).is_done(bad)
    assert pool.wait(0.0) == []


def test_end_kills_the_session_and_the_batch_is_reported(pool: Fleet, tmp_path: Path, gate: Path) -> None:
    task, folder = prepared_label(tmp_path, 0, level("engine_labelers:Gated", gate=str(gate)))
    start(pool, (task.key,), [folder])
    owner = wait_for(lambda: store.live_attempt(folder))
    assert os.getsid(owner.pid) == owner.pid
    pool.end([(owner).to_json()])
    assert ended_within(pool, 1) == [Ended((task.key,), -15)]
    assert not owner.alive() and not Store(tmp_path).is_done(task)


def test_end_spares_a_recycled_pid(pool: Fleet) -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        identity = ProcessIdentity.of(process.pid)
        pool.end([(ProcessIdentity(identity.host, identity.boot, identity.pid, identity.start_ticks - 1)).to_json()])
        time.sleep(0.1)
        assert process.poll() is None
        pool.end([(identity).to_json()])
        assert process.wait(5) == -15
    finally:
        process.kill()
        process.wait()


def test_end_reaches_the_children_of_an_attempt(pool: Fleet) -> None:
    """As of a labeler that runs its code under mpirun."""
    process = subprocess.Popen(["sh", "-c", "sleep 61 & echo $!; wait"], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = ProcessIdentity.of(int(process.stdout.readline()))
    pool.end([(ProcessIdentity.of(process.pid)).to_json()])
    process.wait(5)
    process.stdout.close()
    wait_for(lambda: not child.alive(), 5)


def test_adopted_process_takes_a_slot_and_its_end_is_reported(pool: Fleet) -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        identity = ProcessIdentity.of(process.pid)
        pool.adopt(identity.to_json(), ("a",), [])
        pool.adopt(identity.to_json(), ("a",), [])
        assert free(pool) == 1
        assert pool.wait(0.2) == []
        process.kill()
        process.wait()
        assert ended_within(pool, 1, 5) == [Ended(("a",), None)]
        assert free(pool) == 2 and pool.wait(0.1) == []
    finally:
        process.kill()
        process.wait()


def test_adopted_process_keeps_its_slot(pool: Fleet) -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        pool.adopt(ProcessIdentity.of(process.pid).to_json() | {"slot": 0}, ("a",), [])
        assert [slot.name for slot in pool.free_slots()] == ["1"]
    finally:
        process.kill()
        process.wait()
    ended_within(pool, 1, 5)


def test_nobody_else_can_use_the_workers(pool: Fleet) -> None:
    (host,) = pool._hosts
    assert host.client.scheduler.address.startswith("tls://127.0.0.1")  # type: ignore[attr-defined]
    address = host.client.scheduler.address.replace("tls://", "tcp://")  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"Timed out|[Cc]onnect"):
        Client(address, timeout=1)


def test_process_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    events: queue.SimpleQueue[Ended] = queue.SimpleQueue()
    host = LocalHost(1)
    missing = LocalPool("local", LocalPoolParam(slots=1, python="/nowhere/python"), host, events, tmp_path, epoch=1)
    fleet = Fleet({"local": missing}, events, host)
    try:
        start(fleet, ("k",), [tmp_path])
        assert ended_within(fleet, 1) == [Ended(("k",), 127)]
        assert "/nowhere/python" in (tmp_path / "attempts.log").read_text() and free(fleet) == 1
    finally:
        fleet.close()


def test_process_that_is_gone_when_adopted_is_reported_at_once(pool: Fleet) -> None:
    process = subprocess.Popen(["sleep", "60"])
    identity = ProcessIdentity.of(process.pid)
    process.kill()
    process.wait()
    pool.adopt(identity.to_json(), ("a",), [])
    assert ended_within(pool, 1, 5) == [Ended(("a",), None)]
    recycled = ProcessIdentity.of(os.getpid())
    gone = ProcessIdentity(recycled.host, recycled.boot, recycled.pid, recycled.start_ticks - 1)
    pool.adopt(gone.to_json(), ("b",), [])
    assert ended_within(pool, 1, 5) == [Ended(("b",), None)]


def test_closing_leaves_no_workers_but_the_attempts_that_run(
    tmp_path: Path, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    pool = local_fleet(1, tmp_path)
    task, folder = prepared_label(tmp_path, 0, level("engine_labelers:Gated", gate=str(gate)))
    start(pool, (task.key,), [folder])
    owner = wait_for(lambda: store.live_attempt(folder))
    assert len(children() - before) >= 2, "worker and attempt"
    try:
        pool.close()
        wait_for(lambda: children() <= before | {owner.pid}, 15)
        assert owner.alive(), "paid work goes on without driver and worker"
        gate.unlink()
        wait_for(lambda: Store(tmp_path).is_done(task))
        wait_for(lambda: not owner.alive(), 10)
    finally:
        if owner.alive():
            os.kill(owner.pid, 9)
