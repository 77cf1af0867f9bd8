"""Batches in jobs: slots, and how their end is heard, seen or concluded when dask has lost sight of them."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pools_kit import QUICK, World

from alloop import store
from alloop.pools import Ended, running
from alloop.pools.batch import BatchPool
from alloop.pools.starting import log_problem
from alloop.process import ProcessIdentity, boot_id

FAR = {"host": "far-away", "boot": "b", "start_ticks": 1, "pool": "vasp"}


def far(pid: int) -> ProcessIdentity:
    return ProcessIdentity("far-away", "b", pid, 1)


@pytest.fixture
def process() -> Iterator[ProcessIdentity]:
    """A process on this host."""
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield ProcessIdentity.of(child.pid)
    child.kill()
    child.wait()


def task(world: World, name: str = "task") -> Path:
    folder = world.run_folder.parent / name
    (folder / "attempts").mkdir(parents=True)
    return folder


def attempt(folder: Path, owner: dict[str, Any], job: str, name: str = "a") -> Path:
    place = folder / "attempts" / name
    (place / "out").mkdir(parents=True)
    store.write_json(place / "attempt.json", owner | {"pool": "vasp", "job": job, "started": "now"})
    return place


def connected_job(world: World, **changes: Any) -> tuple[BatchPool, str]:
    """A pool with one running job whose worker is connected."""
    pool = world.drive(**changes)
    world.until(lambda: world.queue.jobs() and world.record(world.names()[-1])["id"], batches=1)
    (job,) = world.queue.jobs()
    world.queue.run(job["id"])
    world.link.connect(job["name"])
    world.until(pool.free_slots, batches=1)
    return pool, job["name"]


def test_slots_of_a_job_and_the_time_it_has_left(world: World) -> None:
    pool, name = connected_job(world, slots_per_job=3)
    slots = pool.free_slots()
    assert [slot.name for slot in slots] == [f"{name}/{number}" for number in range(3)]
    assert all(3500 < slot.remaining_s < 3600 - QUICK.margin + 0.1 for slot in slots)
    pool.start(slots[1], ("k",), [task(world)])
    assert [slot.name for slot in pool.free_slots()] == [f"{name}/0", f"{name}/2"]
    world.link.futures[0].end(0)
    assert world.ends() == [Ended(("k",), 0, "")]
    assert len(pool.free_slots()) == 3


def test_last_minute_of_a_job_is_given_no_work(world: World) -> None:
    pool, name = connected_job(world)
    world.link.connect(name, remaining_s=QUICK.margin - 1)
    assert pool.free_slots() == []


def test_slot_that_has_gone_meanwhile(world: World) -> None:
    pool, name = connected_job(world)
    (slot,) = pool.free_slots()
    world.link.disconnect(name)
    pool.start(slot, ("k",), [task(world)])
    assert world.ends() == [Ended(("k",), None, "infra")] and not world.link.futures


def test_failure_of_a_task_is_its_own(world: World) -> None:
    pool, name = connected_job(world)
    folder = task(world)
    pool.start(pool.free_slots()[0], ("k",), [folder])
    place = attempt(folder, far(1).to_json(), name)
    store.fail(place, "unconverged", "")
    world.link.futures[0].end(1)
    assert world.ends() == [Ended(("k",), 1, "")]


def test_process_that_fails_before_it_begins_blames_the_node(world: World) -> None:
    pool, name = connected_job(world)
    for _ in range(3):
        pool.start(pool.free_slots()[0], ("k",), [task(world, f"t{time.monotonic_ns()}")])
        world.link.futures[-1].end(127)
    assert world.ends() == [Ended(("k",), 127, "infra")] * 3
    assert pool.free_slots() == [] and "n1" in pool.troubles()[0]
    world.until(lambda: world.record(name)["told"])
    world.until(lambda: len(world.queue.jobs()) == 1 and world.queue.jobs()[0]["name"] != name, batches=1)
    number = world.queue.jobs()[0]["id"]
    assert "#SBATCH --exclude=n1" in (world.queue.folder / "scripts" / number).read_text()


def test_success_forgives_a_node(world: World) -> None:
    pool, _ = connected_job(world)
    for code in (127, 127, 0, 127, 127):
        pool.start(pool.free_slots()[0], ("k",), [task(world, f"t{time.monotonic_ns()}")])
        world.link.futures[-1].end(code)
    assert len(pool.free_slots()) == 1 and pool.troubles() == []


def test_lost_worker_leaves_the_attempt_to_be_watched(world: World, process: ProcessIdentity) -> None:
    """The process is on this host, so its end is seen; a worker that comes back gives no slot that is taken."""
    pool, name = connected_job(world)
    folder = task(world)
    pool.start(pool.free_slots()[0], ("k",), [folder])
    place = attempt(folder, process.to_json(), name)
    world.link.disconnect(name)
    world.settle(seconds=0.2)
    world.link.connect(name, attempts=(process,))
    world.settle(seconds=0.3)
    assert world.ends() == [] and pool.free_slots() == []
    (place / "out").rename(folder / "result")
    world.until(pool.free_slots)
    assert world.ends() == [Ended(("k",), None, "")]


def test_lost_future_is_no_end(world: World, process: ProcessIdentity) -> None:
    pool, name = connected_job(world)
    folder = task(world)
    pool.start(pool.free_slots()[0], ("k",), [folder])
    attempt(folder, process.to_json(), name)
    world.link.futures[0].end(None)
    world.settle(seconds=0.3)
    assert world.ends() == [] and pool.free_slots() == []


def test_far_process_is_seen_by_its_jobs_worker(world: World) -> None:
    pool, name = connected_job(world)
    folder = task(world)
    pool.start(pool.free_slots()[0], ("k",), [folder])
    attempt(folder, far(5).to_json(), name)
    world.link.disconnect(name)
    world.settle(seconds=0.2)
    world.link.connect(name, attempts=(far(5),))
    world.settle(seconds=0.3)
    assert world.ends() == []
    world.link.connect(name)
    world.until(pool.free_slots)
    assert world.ends() == [Ended(("k",), None, "")]


def test_far_process_that_died_without_a_word_is_not_taken_for_alive(world: World) -> None:
    pool, name = connected_job(world)
    folder = task(world)
    pool.start(pool.free_slots()[0], ("k",), [folder])
    record = far(5).to_json() | {"job": name}
    attempt(folder, record, name)
    assert pool.alive(record)
    world.link.futures[0].end(-11)
    assert world.ends() == [Ended(("k",), -11, "")]
    assert not pool.alive(record) and pool.alive(far(6).to_json() | {"job": name})


def test_process_that_cannot_be_started_is_told_and_blames_the_node(world: World) -> None:
    pool, _ = connected_job(world)
    for _ in range(3):
        pool.start(pool.free_slots()[0], ("k",), [task(world, f"task-{time.monotonic_ns()}")])
        world.link.futures[-1].raises(FileNotFoundError(2, "No such file", "/nowhere/python"))
        assert world.ends() == [Ended(("k",), 127, "infra")]
    assert any("/nowhere/python" in trouble for trouble in pool.troubles())
    assert "/nowhere/python" in (world.run_folder / "attempts.log").read_text()
    assert pool.free_slots() == [], "three in a row, and the node is left alone"


def test_adopted_attempt_keeps_its_slot(world: World) -> None:
    pool, name = connected_job(world, slots_per_job=3)
    for number, (slot, pid) in enumerate(((2, 5), (2, 6), (9, 7))):
        pool.adopt(
            far(pid).to_json() | {"job": name, "pool": "vasp", "slot": slot},
            (f"k{number}",),
            [task(world, f"t{number}")],
        )
        free = [int(slot.name.rpartition("/")[2]) for slot in pool.free_slots()]
        assert free == [[0, 1], [1], []][number], "its own slot, or the lowest free one"


def test_far_process_without_worker_ends_with_its_job(world: World) -> None:
    pool, name = connected_job(world)
    folder = task(world)
    pool.start(pool.free_slots()[0], ("k",), [folder])
    attempt(folder, far(5).to_json(), name)
    world.link.disconnect(name)
    world.settle(seconds=0.3)
    assert world.ends() == []
    world.queue.lose(world.queue.jobs()[0]["id"])
    world.until(lambda: not world.events.empty())
    assert world.ends() == [Ended(("k",), None, "infra")]
    assert world.record(name)["cause"] == "infra"
    assert not pool.alive(FAR | {"pid": 5, "job": name}) and pool.alive(FAR | {"pid": 6, "job": "other"})


def test_connected_worker_outweighs_a_queue_that_lost_its_job(world: World) -> None:
    pool, name = connected_job(world)
    world.queue.misbehave("query", "stale")
    world.settle(seconds=1.0)
    assert world.record(name)["gone"] is None and len(pool.free_slots()) == 1


def test_job_that_vanishes_at_its_walltime(world: World) -> None:
    pool, name = connected_job(world)
    pool.start(pool.free_slots()[0], ("k",), [task(world)])
    file = world.run_folder / "jobs" / f"{name}.json"
    assert world.record(name)["ends"] > time.time() + 3000
    world.link.connect(name, remaining_s=QUICK.margin - 1)
    world.until(lambda: world.record(name)["ends"] < time.time() + QUICK.margin)
    world.link.disconnect(name)
    world.queue.lose(world.queue.jobs()[0]["id"])
    world.until(lambda: not world.events.empty())
    assert world.ends() == [Ended(("k",), None, "walltime")]
    assert store.read_json(file)["cause"] == "walltime"


@pytest.mark.parametrize("job_lives", [True, False])
def test_killed_process_is_judged_by_the_fate_of_its_job(world: World, job_lives: bool) -> None:
    pool, name = connected_job(world)
    pool.start(pool.free_slots()[0], ("k",), [task(world)])
    if not job_lives:
        world.queue.lose(world.queue.jobs()[0]["id"])
        world.link.disconnect(name)
    world.link.futures[0].end(-15)
    assert world.ends() == [], "too early to tell"
    world.until(lambda: not world.events.empty())
    assert world.ends() == [Ended(("k",), -15, "" if job_lives else "infra")]


def test_batch_of_which_there_is_no_sign_never_began(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "START_SECONDS", 0.2)
    pool, name = connected_job(world, slots_per_job=2)
    first, second = pool.free_slots()
    folder = task(world, "busy")
    pool.start(first, ("busy",), [folder])
    attempt(folder, far(6).to_json(), name)
    pool.start(second, ("k",), [task(world)])
    world.link.disconnect(name)
    world.settle(seconds=0.5)
    world.link.connect(name, attempts=(far(6), far(7)))
    world.settle(seconds=0.3)
    assert world.ends() == [], "the unknown one may be it"
    world.link.connect(name, attempts=(far(6),))
    world.until(lambda: not world.events.empty())
    assert world.ends() == [Ended(("k",), None, "infra")]


def test_attempts_of_earlier_batches_are_not_taken_for_this_one(world: World, process: ProcessIdentity) -> None:
    pool, name = connected_job(world)
    folder = task(world)
    store.fail(attempt(folder, process.to_json(), name, "old"), "unconverged", "")
    pool.start(pool.free_slots()[0], ("k",), [folder])
    world.link.disconnect(name)
    world.settle(seconds=0.3)
    assert world.ends() == []


def test_adopted_attempts_take_slots_until_they_end(world: World) -> None:
    first, name = connected_job(world, slots_per_job=2)
    first.close(cancel_jobs=False)
    pool = world.drive(slots_per_job=2)
    folders = [task(world, f"t{number}") for number in range(3)]
    places = [attempt(folder, far(8 + (number == 2)).to_json(), name) for number, folder in enumerate(folders)]
    for number, folder in enumerate(folders):
        owner = store.read_json(places[number] / "attempt.json")
        assert pool.alive(owner)
        pool.adopt(owner, (f"k{number}",), [folder])
    world.link.connect(name, attempts=(far(8), far(9)))
    pool.demand(5, None)
    assert pool.free_slots() == [], "two processes, of which one runs two tasks"
    (places[0] / "out").rename(folders[0] / "result")
    store.fail(places[1], "unconverged", "")
    world.until(pool.free_slots)
    assert world.ends() == [Ended(("k0", "k1"), None, "")]
    world.link.connect(name)
    world.until(lambda: len(pool.free_slots()) == 2)
    assert world.ends() == [Ended(("k2",), None, "")]


def test_attempt_of_a_job_without_record(world: World) -> None:
    """As when somebody has deleted the run folder: the queue knows the job by its name, or it is gone."""
    pool, name = connected_job(world)
    (world.run_folder / "jobs" / f"{name}.json").unlink()
    pool = world.drive()
    pool.adopt(FAR | {"pid": 5, "job": name}, ("k",), [task(world)])
    pool.adopt(FAR | {"pid": 6, "job": "al-c0ffee-vasp-zzzzz"}, ("gone",), [task(world, "other")])
    world.until(lambda: not world.events.empty())
    assert world.ends() == [Ended(("gone",), None, "infra")]
    world.queue.lose(world.queue.jobs()[0]["id"])
    world.until(lambda: not world.events.empty())
    assert world.ends() == [Ended(("k",), None, "infra")]


def test_local_process_outlives_its_job(world: World, process: ProcessIdentity) -> None:
    """Some sites do not end all processes of a job; one that can be seen here is watched to its end."""
    pool, name = connected_job(world)
    folder = task(world)
    pool.start(pool.free_slots()[0], ("k",), [folder])
    place = attempt(folder, process.to_json(), name)
    world.link.disconnect(name)
    world.queue.lose(world.queue.jobs()[0]["id"])
    world.until(lambda: world.record(name)["gone"])
    world.settle(seconds=0.3)
    assert world.ends() == []
    (place / "out").rename(folder / "result")
    world.until(lambda: not world.events.empty())
    assert world.ends() == [Ended(("k",), None, "")]


def test_who_is_alive(world: World, process: ProcessIdentity) -> None:
    pool = world.drive()
    assert pool.alive(process.to_json() | {"job": "x"})
    dead = ProcessIdentity(platform.node(), boot_id(), process.pid, process.start_ticks - 1)
    assert not pool.alive(dead.to_json() | {"job": "x"})


def test_ending_attempts_here_there_and_with_their_job(world: World, process: ProcessIdentity) -> None:
    pool, name = connected_job(world)
    here, there = process.to_json() | {"job": name}, FAR | {"pid": 5, "job": name}
    pool.end([here, there])
    deadline = time.monotonic() + 5
    while process.alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [owners for _, owners in world.link.ended] == [[there]]
    world.link.disconnect(name)
    pool.end([there])
    world.until(lambda: not world.queue.jobs())


def test_end_that_was_asked_for_needs_no_verdict(world: World, process: ProcessIdentity) -> None:
    from dataclasses import replace

    pool, name = connected_job(world, timing=replace(QUICK, verdict=600.0))
    folder = task(world)
    pool.start(pool.free_slots()[0], ("k",), [folder])
    attempt(folder, process.to_json(), name)
    pool.end([process.to_json() | {"job": name}])
    world.link.futures[0].end(-15)
    assert world.ends() == [Ended(("k",), -15, "")]


def test_busy_job_is_not_ended_however_long_it_works(world: World) -> None:
    pool, name = connected_job(world, idle_minutes=0.005)
    pool.start(pool.free_slots()[0], ("k",), [task(world)])
    world.settle(seconds=1.0)
    assert world.record(name)["told"] is None
    world.link.futures[0].end(0)
    world.until(lambda: world.record(name)["told"])
    assert pool.free_slots() == []


def test_a_full_disk_does_not_keep_the_end_of_a_process_from_being_heard(tmp_path: Path) -> None:
    """What is written there is a help; it is written where dask would swallow the error and the end with it."""
    log_problem(tmp_path / "full" / "attempts.log", "OSError: no such program")
