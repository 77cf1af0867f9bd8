"""What the state machine has found, one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from fake_cluster import LABEL_POOL, Batch, Cluster, in_memory, new_driver, turn
from policy_world import World

from alloop import loop
from alloop.errors import NeedsPersonError
from alloop.loop import Driver
from alloop.policy import Ending, Limits
from alloop.pools import Ended
from alloop.store import NO_SPACE

LIMITS = Limits(1, 5, {"label": 4, "explore": 4}, barrier=True, pools={"label": LABEL_POOL})


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster(random.Random(3), {"local": 2, LABEL_POOL: 3})
    with in_memory(found):
        yield found


def started(cluster: Cluster) -> Driver:
    return new_driver(cluster, World(cluster.rng, LIMITS, converge=0.0), LIMITS, 1000)


def until_labels(cluster: Cluster, driver: Driver) -> Batch:
    """All goes well until a batch of labels runs that an ensemble has asked for."""
    for _ in range(200):
        assert turn(driver) is None
        for batch in list(cluster.batches.values()):
            pick = driver.campaign.state.picks.get(batch.keys[0])
            if pick is not None and pick["iteration"] >= 0 and len(batch.keys) > 1:
                return batch
            finish(cluster, driver, batch)
    raise AssertionError("no labels run")


def finish(cluster: Cluster, driver: Driver, batch: Batch) -> None:
    while batch.number in cluster.batches:
        cluster.publish(batch)
    driver.pool.hear(batch, 0, "")


def to_the_end(cluster: Cluster, driver: Driver) -> Ending:
    for _ in range(300):
        ending = turn(driver)
        if ending is not None:
            return ending
        for batch in list(cluster.batches.values()):
            finish(cluster, driver, batch)
    raise AssertionError("no end")


def retried_at_the_end(cluster: Cluster) -> tuple[Driver, str]:
    """A campaign at its limit, with a new driver, and a label that a person has just asked for again."""
    driver = started(cluster)
    batch = until_labels(cluster, driver)
    lost = batch.keys[0]
    cluster.fail(cluster.current(batch), "numeric", final=True)
    batch.failed.add(lost)
    cluster.go_on(batch)
    finish(cluster, driver, batch)
    assert to_the_end(cluster, driver).event == "limit"
    assert lost in driver.campaign.state.quarantined
    cluster.requests["1"] = "retry", {"keys": [lost]}
    cluster.now += 10
    return started(cluster), lost


def test_label_asked_for_at_the_end_is_not_begun_on_a_full_disk_and_not_left_either(cluster: Cluster) -> None:
    driver, lost = retried_at_the_end(cluster)
    cluster.full = True
    for _ in range(3):
        assert turn(driver) is None, "the run ends though a label is asked for"
    assert not cluster.batches
    cluster.full = False
    assert to_the_end(cluster, driver).event == "limit"
    assert lost in driver.campaign.state.done


def test_run_waits_for_slots_for_a_label_asked_for_at_the_end(cluster: Cluster) -> None:
    driver, lost = retried_at_the_end(cluster)
    cluster.slots[LABEL_POOL] = 0  # no job has begun yet
    for _ in range(3):
        assert turn(driver) is None, "the run ends though a label is asked for"
    cluster.slots[LABEL_POOL] = 1
    assert to_the_end(cluster, driver).event == "limit"
    assert lost in driver.campaign.state.done


def test_task_with_a_corrupt_result_is_begun_again_once_its_batch_has_ended(cluster: Cluster) -> None:
    driver = started(cluster)
    batch = until_labels(cluster, driver)
    first = batch.keys[0]
    cluster.slots[LABEL_POOL] = 99
    cluster.publish(batch, whole=False)
    for _ in range(6):
        turn(driver)
    assert cluster.quarantine == [first]
    assert len(cluster.attempts[first]) == 1, "begun again while its batch goes on"
    finish(cluster, driver, batch)
    to_the_end(cluster, driver)
    assert first in driver.campaign.state.done
    assert len(cluster.attempts[first]) == 2


def test_label_that_cannot_be_given_up_on_a_full_disk_is_not_tried_again(cluster: Cluster) -> None:
    driver = started(cluster)
    batch = until_labels(cluster, driver)
    lost = batch.keys[0]
    cluster.fail(cluster.current(batch), "numeric", final=True)
    batch.failed.add(lost)
    cluster.go_on(batch)
    while batch.number in cluster.batches:
        cluster.publish(batch)
    cluster.full = True
    driver.pool.hear(batch, 1, "")
    for _ in range(3):
        turn(driver)
    cluster.full = False
    assert to_the_end(cluster, driver).event == "limit"
    assert len(cluster.attempts[lost]) == 1
    assert lost in driver.campaign.state.quarantined


def test_processes_killed_before_they_begin_are_started_again_some_times(cluster: Cluster) -> None:
    driver = started(cluster)
    batch = until_labels(cluster, driver)
    key = batch.keys[0]
    del cluster.attempts[key]
    for _ in range(loop._STILLBORN):
        driver.pool.events.append(Ended((key,), -9))
        turn(driver)
    driver.pool.events.append(Ended((key,), -9))
    with pytest.raises(NeedsPersonError, match="before it began"):
        turn(driver)


def test_processes_that_find_a_full_disk_are_nobodys_fault(cluster: Cluster) -> None:
    driver = started(cluster)
    batch = until_labels(cluster, driver)
    key = batch.keys[0]
    del cluster.attempts[key]
    for _ in range(10):
        driver.pool.events.append(Ended((key,), NO_SPACE))
        turn(driver)


def test_batch_that_goes_on_unwatched_as_the_scheduler_dies_is_watched_again_as_a_whole(cluster: Cluster) -> None:
    """Else the tasks it has not reached begin elsewhere, too, and failures it meets at them are not counted."""
    driver = started(cluster)
    batch = until_labels(cluster, driver)
    lost, *rest = batch.keys
    driver.pool.hear(batch, None, "")
    driver._settle(0.0)
    for _ in range(3):
        assert turn(driver) is None
    assert driver.pool.watched[batch.number][0] == batch.keys
    assert all(not cluster.attempts.get(key) for key in rest), "begun elsewhere, too"
    cluster.fail(cluster.current(batch), "numeric", final=True)
    batch.failed.add(lost)
    cluster.go_on(batch)
    finish(cluster, driver, batch)
    assert to_the_end(cluster, driver).event == "limit"
    assert [len(cluster.attempts[key]) for key in batch.keys] == [1] * len(batch.keys)
    assert lost in driver.campaign.state.quarantined
