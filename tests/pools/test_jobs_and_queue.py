"""What a batch pool does about its jobs when the queue fails, lies, hangs or forgets."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pools_kit import QUICK, World

from alloop.pools import batch, jobqueue
from alloop.pools.jobs import JobRecords, job_name
from alloop.pools.nodes import Nodes
from alloop.pools.submission import BackOff


@pytest.mark.parametrize("kind", ["slurm", "pbs", "lsf", "sge"])
def test_job_from_submission_to_its_end_in_every_batch_system(world: World, kind: str) -> None:
    pool = world.drive(type=kind, jobs=2, idle_minutes=0.01)
    world.until(lambda: len(world.queue.jobs()) == 2, batches=2)
    names = world.names()
    assert sorted(job["name"] for job in world.queue.jobs()) == names
    world.until(lambda: all(world.record(name)["id"] for name in names), batches=2)
    assert pool.free_slots() == []
    world.settle(batches=9)
    assert len(world.queue.jobs()) == 2, "no more than jobs"
    number = world.queue.jobs()[0]["id"]
    world.queue.run(number, "n7")
    first = world.queue.jobs()[0]["name"]
    world.until(lambda: world.record(first)["node"] == "n7", batches=9)
    for job in world.queue.jobs():
        world.link.connect(job["name"])
    assert len(world.until(pool.free_slots, batches=9)) == 2
    world.until(lambda: len(world.link.retired) >= 2)
    world.until(lambda: not world.queue.jobs())  # they did not end by themselves, so they are cancelled
    world.until(lambda: all(world.record(name)["gone"] for name in names))
    assert pool.troubles() == []


def test_job_names_are_unique_and_short_enough_for_old_pbs() -> None:
    names = {job_name("ab12cd34", "labels_on_pbs", "pbs") for _ in range(100)}
    assert len(names) == 100 and max(map(len, names)) == 15
    assert job_name("ab12cd34", "vasp", "slurm").startswith("al-ab12cd-vasp-")


def test_intent_is_on_disk_before_the_job_is_submitted(world: World) -> None:
    world.queue.misbehave("submit", "hang-lost")
    world.drive()
    world.until(lambda: world.queue.jobs(), batches=1)
    assert world.names() == [world.queue.jobs()[0]["name"]]
    assert world.record(world.names()[0])["id"] is None


def test_nothing_is_submitted_before_there_is_a_scheduler(world: World) -> None:
    world.drive()
    world.link.there = False
    world.settle(batches=1, seconds=0.4)
    assert world.names() == [] and world.queue.jobs() == []
    world.link.there = True
    world.until(lambda: world.queue.jobs(), batches=1)


@pytest.mark.parametrize("how", ["lost", "hang-lost"])
def test_job_whose_submission_seemed_to_fail_is_found_by_its_name(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobqueue, "SUBMIT_SECONDS", 1.0)
    world.queue.misbehave("submit", how)
    world.drive()
    world.until(lambda: world.queue.jobs(), batches=1)
    (job,) = world.queue.jobs()
    world.until(lambda: world.record(job["name"])["id"] == job["id"], batches=1)
    world.queue.misbehave("submit", "")
    world.settle(batches=1)
    assert len(world.queue.jobs()) == 1 and world.names() == [job["name"]]


def test_refused_submissions_back_off_and_say_why(world: World) -> None:
    world.queue.misbehave("submit", "fail")
    pool = world.drive(jobs=50)
    world.settle(batches=50, seconds=2.5)
    assert 2 <= len(world.names()) <= 6, "0.2, 0.4, 0.8, 1.0 s between"
    (trouble,) = pool.troubles()
    assert "time(s) in a row" in trouble and "Invalid account" in trouble
    world.queue.misbehave("submit", "")
    world.until(lambda: len(world.queue.jobs()) == 1, batches=1)
    world.until(lambda: pool.troubles() == [], batches=1)
    world.until(lambda: sum(not world.record(name)["gone"] for name in world.names()) == 1, batches=1)


def test_hanging_submission_holds_nobody_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobqueue, "SUBMIT_SECONDS", 1.0)
    world.queue.misbehave("submit", "hang")
    pool = world.drive()
    longest = 0.0
    deadline = time.monotonic() + 20
    while not pool.troubles():
        began = time.monotonic()
        pool.demand(1, None)
        pool.free_slots()
        longest = max(longest, time.monotonic() - began)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert longest < 0.5
    assert "no answer in 1 s" in pool.troubles()[0]
    world.queue.misbehave("submit", "")
    world.until(lambda: world.queue.jobs(), batches=1)


def test_rate_of_submissions(world: World) -> None:
    world.drive(jobs=50, submits_per_minute=120)
    world.settle(batches=50, seconds=2.2)
    assert 3 <= len(world.queue.jobs()) <= 5


def test_failing_queue_is_not_an_empty_one(world: World) -> None:
    pool = world.drive()
    world.until(lambda: world.queue.jobs(), batches=1)
    (job,) = world.queue.jobs()
    world.queue.misbehave("query", "fail")
    world.until(lambda: any("queue does not answer" in trouble for trouble in pool.troubles()), batches=1)
    world.settle(batches=1)
    assert world.queue.jobs() == [job] and world.record(job["name"])["gone"] is None
    world.queue.misbehave("query", "")
    world.until(lambda: not pool.troubles(), batches=1, seconds=30)


def test_one_look_that_misses_a_job_is_not_believed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = world.drive(timing=replace(QUICK, look=0.3))
    world.until(lambda: world.queue.jobs() and world.record(world.names()[0])["id"], batches=1)
    (name,) = world.names()
    world.settle(batches=1)
    watch = world.watches[-1]
    seen = watch.look.number
    world.queue.misbehave("query", "stale")
    world.until(lambda: watch.look.number == seen + 1 and not watch.look.jobs, batches=1)
    world.queue.misbehave("query", "")
    world.settle(batches=1, seconds=1.0)
    assert world.record(name)["gone"] is None and pool.troubles() == []
    world.queue.lose(world.queue.jobs()[0]["id"])
    world.until(lambda: world.record(name)["gone"], batches=1)


def test_new_driver_finds_the_job_of_an_intent_without_id(world: World) -> None:
    pool = world.drive()
    world.until(lambda: world.queue.jobs() and world.record(world.names()[0])["id"], batches=1)
    (name,) = world.names()
    pool.close(cancel_jobs=False)
    file = world.run_folder / "jobs" / f"{name}.json"
    file.write_text(file.read_text().replace('"id": "1"', '"id": null'))
    world.drive()
    world.until(lambda: world.record(name)["id"] == "1", batches=1)
    world.settle(batches=1)
    assert len(world.queue.jobs()) == 1


def test_intent_that_never_reached_the_queue_is_submitted_again_if_wanted(world: World) -> None:
    from pools_kit import CAMPAIGN, params

    from alloop.pools.jobs import settings_hash

    place = jobqueue.Place(world.run_folder, world.run_folder / "scheduler.address", world.run_folder / "tls")
    settings = settings_hash(jobqueue.job_script("vasp", params(), "NAME", place))
    intent = JobRecords(world.run_folder).create(CAMPAIGN, "vasp", params(), settings)
    world.drive()
    world.settle(batches=1, seconds=0.2)
    assert world.queue.jobs() == [], "it may still turn up"
    world.until(lambda: world.queue.jobs(), batches=1)
    assert world.record(intent.name)["gone"] and world.queue.jobs()[0]["name"] != intent.name


def test_given_up_job_that_turns_up_is_taken_back(world: World) -> None:
    world.queue.misbehave("submit", "lost")
    world.queue.misbehave("query", "stale")
    world.drive()
    world.until(lambda: world.names() and world.record(world.names()[0])["gone"], batches=1)
    lost = min(world.queue.jobs(), key=lambda job: int(job["id"]))["name"]
    world.queue.misbehave("submit", "")
    world.queue.misbehave("query", "")
    world.until(lambda: world.record(lost)["gone"] is None and world.record(lost)["id"], batches=1)


def test_given_up_job_that_turns_up_under_a_later_driver(world: World) -> None:
    world.queue.misbehave("submit", "lost")
    world.queue.misbehave("query", "stale")
    world.drive()
    world.until(lambda: world.names() and world.record(world.names()[0])["gone"], batches=1)
    lost = next(name for name in world.names() if world.record(name)["gone"])
    world.drive(idle_minutes=0.005)
    world.link.connect(lost)
    world.until(lambda: world.record(lost)["told"])
    assert world.link.retired


def test_jobs_of_a_copied_campaign_belong_to_the_original(world: World, tmp_path: Path) -> None:
    world.drive()
    world.until(lambda: world.queue.jobs() and world.record(world.names()[0])["id"], batches=1)
    copy = tmp_path / "copy" / "run"
    shutil.copytree(world.run_folder, copy)
    assert JobRecords(copy).load() == []
    world.run_folder.rename(tmp_path / "moved")
    assert [job.name for job in JobRecords(copy).load()] == [job["name"] for job in world.queue.jobs()]
    (tmp_path / "moved").rename(world.run_folder)


def test_many_jobs_one_query(world: World) -> None:
    world.drive(jobs=20, submits_per_minute=60000)
    world.until(lambda: len(world.queue.jobs()) == 20, batches=20)
    before, began = world.queue.queries(), time.monotonic()
    world.settle(batches=20, seconds=1.0)
    looks = (time.monotonic() - began) / QUICK.look
    assert 0 < world.queue.queries() - before <= looks + 1


def test_queue_is_left_alone_when_there_is_no_job(world: World) -> None:
    world.drive()
    world.settle(seconds=0.4)
    assert world.queue.queries() == 0 and world.names() == []


def test_jobs_that_end_before_their_worker_connects_slow_things_down(world: World) -> None:
    pool = world.drive(timing=replace(QUICK, backoff=60.0, longest_backoff=60.0))
    for deaths in (1, 2):
        world.until(lambda: world.queue.jobs() and world.record(world.queue.jobs()[0]["name"])["id"], batches=1)
        (job,) = world.queue.jobs()
        (world.run_folder / "jobs" / f"{job['name']}.log").write_text("module: command not found\n")
        world.queue.lose(job["id"])
        world.until(lambda name=job["name"]: world.record(name)["gone"], batches=1)
        assert len(world.names()) >= deaths
    world.settle(batches=1)
    assert len(world.names()) == 2, "the first may be an accident, the second is waited after"
    assert any("before its worker connected: module: command not found" in trouble for trouble in pool.troubles())


def test_unwanted_jobs_leave_the_queue(world: World) -> None:
    world.drive(jobs=2, idle_minutes=0.01)
    world.until(lambda: len(world.queue.jobs()) == 2, batches=2)
    world.until(lambda: not world.queue.jobs())


def test_smaller_pool_gives_its_last_job_no_more_work(world: World) -> None:
    world.drive(jobs=2)
    world.until(lambda: len(world.queue.jobs()) == 2 and all(world.record(n)["id"] for n in world.names()), batches=2)
    first, second = (job["name"] for job in world.queue.jobs())
    pool = world.drive(jobs=1)
    world.link.connect(first)
    world.link.connect(second)
    owner = {"host": "elsewhere", "boot": "b", "pid": 7, "start_ticks": 1, "pool": "vasp", "job": second}
    pool.adopt(owner, ("key",), [world.run_folder / "task"])
    assert pool.free_slots() == [], "the one at work counts"
    world.until(lambda: world.record(first)["told"], batches=2)
    assert world.record(second)["told"] is None


def test_job_of_other_settings_gets_no_work_and_ends(world: World) -> None:
    world.drive()
    world.until(lambda: world.queue.jobs() and world.record(world.names()[0])["id"], batches=1)
    (old,) = world.names()
    pool = world.drive(memory="9GB")
    world.link.connect(old)
    assert pool.free_slots() == []
    world.until(lambda: world.record(old)["told"], batches=1)
    world.until(lambda: any(job["name"] != old for job in world.queue.jobs()), batches=1)


def test_idle_job_too_short_for_what_waits_makes_room(world: World) -> None:
    world.drive()
    world.until(lambda: world.queue.jobs() and world.record(world.names()[0])["id"], batches=1)
    (old,) = world.names()
    world.link.connect(old, remaining_s=600)
    world.settle(batches=1, longest_s=60)
    assert world.record(old)["told"] is None
    world.until(lambda: world.record(old)["told"], batches=1, longest_s=1200)
    world.until(lambda: any(job["name"] != old for job in world.queue.jobs()), batches=1, longest_s=1200)


def test_nothing_is_submitted_in_vain_for_what_no_job_can_hold(world: World) -> None:
    pool = world.drive()
    world.until(lambda: world.queue.jobs() and world.record(world.names()[0])["id"], batches=1, longest_s=99999)
    world.link.connect(world.names()[0])
    world.settle(batches=1, longest_s=99999)
    assert world.record(world.names()[0])["told"] is None
    assert any("raise pools.vasp.walltime_minutes" in trouble for trouble in pool.troubles())


def test_closing_with_cancel_leaves_no_job(world: World) -> None:
    pool = world.drive(jobs=2)
    world.until(lambda: len(world.queue.jobs()) == 2 and all(world.record(n)["id"] for n in world.names()), batches=2)
    pool.close(cancel_jobs=True)
    assert world.queue.jobs() == []
    assert all((world.run_folder / "jobs" / f"{name}.end").exists() for name in world.names())


def test_long_gone_records_are_cleared_away(tmp_path: Path) -> None:
    from pools_kit import CAMPAIGN, params

    records = JobRecords(tmp_path)
    old, young = (records.create(CAMPAIGN, "vasp", params(), "s") for _ in range(2))
    old.gone, young.gone = time.time() - 90000, time.time()
    records.save(old)
    records.save(young)
    (tmp_path / "jobs" / f"{old.name}.log").touch()
    assert [job.name for job in records.load()] == [young.name]
    assert [file.name for file in (tmp_path / "jobs").iterdir()] == [f"{young.name}.json"]


def test_record_of_a_job_gone_for_a_day_is_cleared_away_by_a_running_driver(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drive()
    world.until(lambda: world.queue.jobs() and world.record(world.names()[0])["id"], batches=1)
    (name,) = world.names()
    world.queue.lose(world.queue.jobs()[0]["id"])
    world.until(lambda: world.record(name)["gone"])
    monkeypatch.setattr(batch, "KEPT_SECONDS", -1.0)
    world.until(lambda: world.names() == [])


def test_back_off_doubles_up_to_a_limit() -> None:
    back_off = BackOff(10.0, 600.0)
    assert [back_off.after(n) for n in (1, 2, 3, 7, 1000)] == [10, 20, 40, 600, 600]


def test_three_failures_in_a_row_and_a_node_is_avoided_for_a_time() -> None:
    nodes = Nodes(0.2)
    for _ in range(2):
        nodes.failed("n1")
    nodes.succeeded("n1")
    nodes.failed("n1")
    nodes.failed(None)
    assert nodes.avoided() == set()
    nodes.failed("n1")
    nodes.failed("n1")
    assert nodes.avoided() == {"n1"}
    time.sleep(0.25)
    assert nodes.avoided() == set()


def test_threads_end(world: World) -> None:
    world.drive()
    world.until(lambda: world.queue.jobs(), batches=1)
    world.close()
    deadline = time.monotonic() + 5
    while any(thread.name.startswith(("queue-", "submit-")) for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
