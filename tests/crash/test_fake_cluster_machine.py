"""Drivers on a cluster where anything may happen at any time, found by hypothesis; see `fake_cluster`.

A run of continuous integration looks at more of them (profile "ci").
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from fake_cluster import LABEL_POOL, Batch, Cluster, FakeCampaign, in_memory, new_driver, turn
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from policy_world import World

from alloop.errors import DONE, NEEDS_PERSON, NOT_CONVERGED, CampaignHeldError
from alloop.loop import STOPPED, Driver
from alloop.policy import NEEDED, Ending, Limits
from alloop.store import NO_SPACE

ANY = st.integers(min_value=0, max_value=10_000)
OWN_FAULTS = ("numeric", "bug", "crash", "infra")
"""Classes of failures in which the process of an attempt goes on to its next task; infra as an OSError would be."""
DEATHS = {"killed": (-9, ""), "oom": (1, ""), "lost": (None, "infra"), "walltime": (-15, "walltime")}


def has_driver(machine: ClusterMachine) -> bool:
    return machine.driver is not None


def has_batches(machine: ClusterMachine) -> bool:
    return bool(machine.cluster.batches)


class ClusterMachine(RuleBasedStateMachine):
    """One campaign from its first decision to whatever end hypothesis leads it to, and from there to a proper one."""

    driver: Driver | None = None
    ghost: Driver | None = None
    ending: Ending | None = None

    @initialize(
        seed=ANY,
        barrier=st.booleans(),
        iterations=st.sampled_from([3, 2, 4, 1, 0]),
        most_labels=st.sampled_from([1000, 1000, 40]),
        together=st.integers(1, 4),
        converge=st.sampled_from([0.0, 0.5]),
    )
    def begin(
        self, seed: int, barrier: bool, iterations: int, most_labels: int, together: int, converge: float
    ) -> None:
        rng = random.Random(seed)
        self.cluster = Cluster(rng, {"local": 2, LABEL_POOL: 3})
        self.patches = in_memory(self.cluster)
        self.patches.__enter__()
        batch = {"label": together, "explore": 4, "evaluate": 2, "quench": 10}
        pools = {"label": LABEL_POOL}
        self.limits = Limits(
            iterations, 5, batch, barrier=barrier, pools=pools, train_after=2, max_backlog=8, accurate_fraction=0.9
        )
        self.world = World(rng, self.limits, converge=converge)
        self.most_labels = most_labels
        self._start_driver()

    # -------------------------------------------------------------------------------- drivers

    def _start_driver(self) -> None:
        self.driver = new_driver(self.cluster, self.world, self.limits, self.most_labels)
        self.ending = None

    @precondition(has_driver)
    @rule(times=st.integers(1, 5))
    def driver_turns(self, times: int) -> None:
        for _ in range(times):
            if self.driver is not None:
                self._turn()

    @precondition(has_driver)
    @rule(times=st.integers(1, 40), number=ANY)
    def all_goes_well_for_a_while(self, times: int, number: int) -> None:
        for _ in range(times):
            if self.driver is not None:
                self._turn()
            if self.cluster.batches:
                self.cluster.now += 5.0
                self._publish(self._any_batch(number))

    @rule(times=st.integers(10, 60), seed=ANY)
    def much_goes_wrong_for_a_while(self, times: int, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(times):
            if self.ending is not None:
                return
            if self.driver is None:
                self.cluster.full = False
                self._start_driver()
            self._turn()
            if self.cluster.batches:
                self.cluster.now += rng.choice((1.0, 10.0, 30.0))
                self._mishap(rng)

    def _mishap(self, rng: random.Random) -> None:
        number, chance = rng.randrange(10_000), rng.random()
        if chance < 0.7:
            self._publish(self._any_batch(number), whole=rng.random() < 0.95)
        elif chance < 0.8:
            self.task_fails(number, rng.choice(OWN_FAULTS), rng.random() < 0.1)
        elif chance < 0.9:
            self.process_dies(number, rng.choice(sorted(DEATHS)))
        elif chance < 0.93:
            self.node_is_out_of_sight(number)
        elif chance < 0.96:
            self.cluster.full = not self.cluster.full
        elif chance < 0.98 and self.driver is not None and not self.cluster.full:
            self.scheduler_restarts()
        else:
            self.driver = None

    go_on = all_goes_well_for_a_while
    go_wrong = much_goes_wrong_for_a_while

    def _turn(self) -> None:
        assert self.driver is not None
        ending = turn(self.driver)
        if ending is not None:
            self._check_ending(ending)
            self.ending, self.driver = ending, None

    @precondition(has_driver)
    @rule()
    def driver_is_killed(self) -> None:
        self.driver = None

    @precondition(lambda self: self.driver is None and not self.cluster.full)
    @rule()
    def driver_starts(self) -> None:
        self._start_driver()

    @precondition(lambda self: self.driver is not None and not self.cluster.full)
    @rule()
    def driver_is_stopped_and_another_takes_over(self) -> None:
        self.ghost = self.driver
        self._start_driver()

    @precondition(lambda self: self.ghost is not None)
    @rule()
    def stopped_driver_wakes_up(self) -> None:
        assert self.ghost is not None
        before = self._fingerprint()
        with pytest.raises(CampaignHeldError):
            if turn(self.ghost) is not None:
                self.ghost._finish(STOPPED)
        assert self._fingerprint() == before, "a driver that has lost the campaign changed something"
        self.ghost = None

    def _fingerprint(self) -> Any:
        attempts = {key: len(found) for key, found in self.cluster.attempts.items()}
        failed = sum(attempt.failure is not None for found in self.cluster.attempts.values() for attempt in found)
        return len(self.cluster.decisions), dict(self.cluster.results), attempts, failed, sorted(self.cluster.batches)

    # -------------------------------------------------------------------------------- work

    def _any_batch(self, number: int) -> Batch:
        batches = sorted(self.cluster.batches)
        return self.cluster.batches[batches[number % len(batches)]]

    def _hear(self, batch: Batch, code: int | None, cause: str = "") -> None:
        """The driver hears of the end of a batch, if it watches it."""
        if self.driver is not None and batch.number in self.driver.pool.watched:
            self.driver.pool.hear(batch, code, cause)

    @precondition(has_batches)
    @rule(number=ANY, seconds=st.floats(0.1, 50.0), whole=st.sampled_from([True, True, True, False]))
    def task_is_done(self, number: int, seconds: float, whole: bool) -> None:
        self.cluster.now += seconds
        self._publish(self._any_batch(number), whole=whole)

    def _publish(self, batch: Batch, *, whole: bool = True) -> None:
        if self.cluster.full:
            return  # it waits for space
        self.cluster.publish(batch, whole=whole)
        if batch.number not in self.cluster.batches and batch.seen:
            self._hear(batch, 0)

    @precondition(has_batches)
    @rule(number=ANY, kind=st.sampled_from(OWN_FAULTS), final=st.booleans())
    def task_fails(self, number: int, kind: str, final: bool) -> None:
        batch = self._any_batch(number)
        if self.cluster.full:
            self.cluster.leave(batch)
            if batch.seen:
                self._hear(batch, NO_SPACE)
            return
        attempt = self.cluster.current(batch)
        self.cluster.fail(attempt, kind, final=final and kind == "numeric")
        batch.failed.add(attempt.key)
        self.cluster.go_on(batch)
        if batch.number not in self.cluster.batches and batch.seen:
            self._hear(batch, 1)

    @precondition(has_batches)
    @rule(number=ANY, how=st.sampled_from(sorted(DEATHS)))
    def process_dies(self, number: int, how: str) -> None:
        batch = self._any_batch(number)
        self.cluster.leave(batch)
        if how in ("lost", "walltime"):
            self.cluster.job_ends.pop(batch.slot.name, None)
        if batch.seen:
            self._hear(batch, *DEATHS[how])

    @precondition(has_batches)
    @rule(number=ANY)
    def node_is_out_of_sight(self, number: int) -> None:
        batch = self._any_batch(number)
        if batch.seen:
            batch.seen = False
            self._hear(batch, None, "infra")

    @precondition(lambda self: self.driver is not None and self.driver.pool.watched and not self.cluster.full)
    @rule()
    def scheduler_restarts(self) -> None:
        """While the driver waits, dask loses all that it had started: no code is told, and the processes go on."""
        assert self.driver is not None
        pool = self.driver.pool
        for number in [number for number, (_, child) in pool.watched.items() if child]:
            pool.hear(self.cluster.batches[number], None, "")
        self.driver._patiently(lambda: self.driver._settle(0.0))

    @precondition(lambda self: self.driver is None and self.cluster.results)
    @rule(number=ANY)
    def result_is_corrupted(self, number: int) -> None:
        """While no driver runs: the next one finds it."""
        keys = [key for key in sorted(self.cluster.results) if key in self.world.state.picks]
        if keys:
            self.cluster.results[keys[number % len(keys)]] = False

    # -------------------------------------------------------------------------------- surroundings

    @rule(seconds=st.sampled_from([1.0, 20.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.now += seconds
        for batch in list(self.cluster.batches.values()):
            if batch.slot.pool == LABEL_POOL and self.cluster.job_ends.get(batch.slot.name, 1e9) <= self.cluster.now:
                self.cluster.leave(batch)
                if batch.seen:
                    self._hear(batch, -15, "walltime")

    @rule(full=st.booleans())
    def disk_fills_or_is_freed(self, full: bool) -> None:
        self.cluster.full = full

    @rule(number=ANY)
    def person_retries(self, number: int) -> None:
        keys = sorted(self._known().quarantined)
        if keys:
            self._ask("retry", keys=[keys[number % len(keys)]])

    @rule(number=ANY, undo=st.booleans())
    def person_excludes(self, number: int, undo: bool) -> None:
        keys = sorted(key for key in self._known().picks if key in self.cluster.results)
        if keys:
            self._ask("exclude", keys=[keys[number % len(keys)]], reason="looks odd", undo=undo)

    def _known(self) -> Any:
        return self.world.state

    def _ask(self, kind: str, **content: Any) -> None:
        if self.cluster.full:
            return
        if self.driver is not None:
            self.cluster.requests[f"{len(self.cluster.requests)}.{self.cluster.now}"] = kind, content
            return
        campaign = FakeCampaign(self.cluster, self.world)
        campaign.load()
        campaign.decide(kind, **content)

    # -------------------------------------------------------------------------------- promises

    @invariant()
    def counts_add_up(self) -> None:
        if self.driver is not None:
            self.world.check_counts()

    @invariant()
    def nothing_is_lost(self) -> None:
        if self.driver is not None:
            state = self.driver.campaign.state
            asked = {pick["key"] for made in self.cluster.decisions for pick in made.get("picks", ())}
            assert asked == state.picks.keys()
            for key in asked:
                known = state.status_of(key)
                assert known in ("done", "running", "waiting", "quarantined", "superseded")
                assert known != "done" or key in self.cluster.results

    @invariant()
    def a_new_driver_would_know_the_same(self) -> None:
        if self.driver is None:
            return
        known, other = self.driver.campaign.state, FakeCampaign(self.cluster, World(random.Random(0), self.limits))
        other.load()
        assert known.next_number == other.state.next_number
        for name in ("quarantined", "excluded", "picks", "tasks", "iteration", "level", "requests", "retried"):
            assert name == "quarantined" or getattr(known, name) == getattr(other.state, name), name
        assert known.quarantined.keys() == other.state.quarantined.keys() - known.done

    def _check_ending(self, ending: Ending) -> None:
        assert self.driver is not None
        state = self.driver.campaign.state
        needed = [key for key in state.quarantined if state.tasks[key].kind in NEEDED]
        needed = [key for key in needed if any(kind != "rank" for kind, _ in state.asked_in[key])]
        assert (ending.code == NEEDS_PERSON) == bool(needed or ending.event == "paused")
        assert ending.event != "paused" or needed or any(len(keys) >= 3 for keys in state.bugs.values())
        judged = [made for made in self.cluster.decisions if made["kind"] == "verdict" and made["converged"]]
        assert (ending.code == DONE) <= bool(judged and judged[-1]["iteration"] == state.iteration)
        assert ending.code in (DONE, NOT_CONVERGED, NEEDS_PERSON)
        if ending.event in ("converged", "limit"):
            left = [state.tasks[key].name for key in state.picks if state.status_of(key) in ("waiting", "running")]
            assert not left, "the run ended before its labels"

    def teardown(self) -> None:
        """Whatever has happened: once nothing more goes wrong, the campaign comes to an end."""
        if not hasattr(self, "patches"):
            return
        try:
            self._come_to_an_end()
        finally:
            self.patches.__exit__(None, None, None)

    def _come_to_an_end(self) -> None:
        self.cluster.full = False
        if self.driver is None and self.ending is None:
            self._start_driver()
        for _ in range(3000):
            if self.driver is None:
                return
            before = self._fingerprint()
            self._turn()
            if self._fingerprint() == before:
                self.cluster.now += 60.0
                self.cluster.job_ends = dict.fromkeys(self.cluster.job_ends, 1000000000000.0)
                for batch in list(self.cluster.batches.values()):
                    self._publish(batch)
            self.counts_add_up()
        raise AssertionError(f"no end in sight; {self.driver and self.driver.campaign.state.waiting_of}")


SMALL = settings(max_examples=30, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))


def test_promises_hold_whatever_happens() -> None:
    run_state_machine_as_test(ClusterMachine, settings=SMALL)


@pytest.mark.ci
@pytest.mark.slow
def test_promises_hold_whatever_happens_for_long() -> None:
    run_state_machine_as_test(ClusterMachine, settings=settings(SMALL, max_examples=300, stateful_step_count=100))
