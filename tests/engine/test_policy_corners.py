"""Corners of the policy in which a campaign could stand still, end too early, or spend what nobody asked for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from campaign_kit import bootstrap_content
from policy_world import CONTENT, RULES, World, now
from test_policy import explored_until, many_chunks, streaming, world

from alloop.errors import NEEDS_PERSON, NOT_CONVERGED
from alloop.policy import Limits, _stopped, is_needed, policy
from alloop.selection.picks import Candidate
from alloop.state import State, task_entries
from alloop.store import Task, make_task


def one_that_waits(**about: Any) -> World:
    """A streaming campaign in the midst of its first exploration, with frames in its backlog."""
    return next(w for w in map(many_chunks, range(99)) if explored_until(w, accurate=0.0, labels=0).waiting)


@pytest.mark.parametrize("make", [world, streaming])
def test_limit_that_was_lowered_between_two_drivers_ends_the_run(make: Any) -> None:
    shrunk = 0
    for seed in range(60):
        found = make(seed, 3, shrink=1.0, converge=0.1)
        found.run()
        shrunk += found.limits.max_iterations < 3
    assert shrunk > 5


def test_trouble_of_what_only_helps_to_choose_stops_nothing_else() -> None:
    asked = {"a": [("describe", 0)], "b": [("rank", 1), ("evaluate", 1)], "c": [("probe", 2)]}
    state: Any = SimpleNamespace(asked_in=asked)
    needed = {key: is_needed(state, Task(key, "evaluate", "g", "n", {}, ())) for key in asked}
    assert needed == {"a": False, "b": True, "c": False}


@pytest.mark.parametrize("kind", ["quench", "melting"])
def test_a_quench_that_is_planned_anew_does_without_what_was_given_up(kind: str) -> None:
    """What the old plan asked for stops the campaign until another is due, and no more once it is withdrawn."""
    task = Task("q", "quench", "production", "old chunk", {}, ())
    state = State(iteration=1, tasks={"q": task}, asked_in={"q": [(kind, 1)]})
    state.quarantined["q"] = {"message": "three failures"}
    state.decisions["quench", 1] = {"number": 1, "section": "old"}

    def stopped(due: tuple[str, int] | None, section: str = "") -> bool:
        limits = Limits(1, 1, quench=section, quench_always=True)
        return _stopped(state, limits, now(1), due) is not None

    assert stopped(("assess", 1)) and stopped(None) and stopped(None, "old") and stopped(("final_train", 1), "old")
    assert not stopped(("quench", 1)) and not stopped(("melting", 1))
    assert not stopped(("final_train", 1), "new") and not stopped(None, "new"), "a longer training comes first"
    state.asked_in["q"].append(("probe", 0))
    assert stopped(("quench", 1)), "the probe's own quarantine is not the plan's"
    state.superseded.add("q")
    assert not stopped(None)


def test_iteration_that_explores_beyond_a_lowered_limit_is_judged() -> None:
    found = one_that_waits()
    found.limits = replace(found.limits, max_iterations=0)
    found.run()
    assert found.state.decided("verdict", 0) and not found.state.decided("explore", 1)


def test_what_an_iteration_explored_is_known_to_the_next_driver_after_its_selection_too() -> None:
    found = one_that_waits()
    found.state.explored[0].clear()
    found.state.note_chunk(found.state.decisions["explore", 0]["tasks"][0]["key"], {"accurate": 95, "candidate": 5})
    for key in list(found.state.waiting):
        found.state.settle_done(key)
    found.decide("select", iteration=0, **CONTENT["select"](found, 0))
    found.limits = replace(found.limits, train_after=0)
    before = policy(found.state, found.limits, now(0)).due
    assert before != ("train", 1)
    found.driver_dies()
    assert policy(found.state, found.limits, now(0)).due == before


def test_no_pick_is_due_for_labels_that_are_kept_for_other_strata_until_exploration_ends() -> None:
    """Nor are chunks held back by frames that wait for them, be the backlog ever so shallow."""
    found = one_that_waits()
    found.limits = replace(found.limits, max_backlog=1)
    state = found.state
    state.backlog.close_round(0)
    state.backlog.open_round(0, RULES, 0, strata=5)
    of_one = [(Candidate(f"c{n}", f"t{n}", 0.0, "2000K", "candidate", "candidate", 0.5), {}) for n in range(50)]
    state.backlog.add(0, of_one)  # type: ignore[arg-type]
    plan = policy(state, found.limits, now(50))
    assert (plan.due, state.backlog.size(), len(state.backlog.take(0, 9))) == (("pick", 0), 1, 1)
    state.backlog.note_pick(0, "c0", "candidate", "t0", "2000K", 0.0)
    plan = policy(state, found.limits, now(50))
    assert plan.due is None and state.backlog.size() == 0
    assert {state.tasks[key].kind for launch in plan.launch for key in launch.keys} == {"explore"}
    for key in list(state.waiting_of["explore"]):
        state.settle_done(key)
    assert not state.open("explore", 0) and policy(state, found.limits, now(50)).due == ("pick", 0)
    assert len(state.backlog.take(0, 9)) == RULES.max_labels - RULES.audit - 1


def test_frames_that_no_quota_speaks_for_do_not_keep_chunks_back() -> None:
    found = one_that_waits()
    while (plan := policy(found.state, found.limits, now(50))).due == ("pick", 0):
        found.decide_due(plan)
    of_event = [
        (Candidate(f"e{n}", f"t{n}", 0.0, "2000K", "accurate", "overlap", 0.1, frozenset({"overlap"})), {})
        for n in range(50)
    ]
    found.state.backlog.close_round(0)
    found.state.backlog.open_round(0, replace(RULES, max_labels=99, event_quota={"overlap": 0}), 0)
    found.state.backlog.add(0, of_event)  # type: ignore[arg-type]
    plan = policy(found.state, replace(found.limits, max_backlog=10), now(1))
    assert found.state.backlog.newest() is None and found.state.backlog.size() == 0
    assert plan.launch, "chunks go on"
    assert plan.demand.get("local", (0, None))[0] <= len(found.state.waiting)


def test_no_job_is_asked_for_on_behalf_of_work_that_may_not_begin() -> None:
    found = one_that_waits()
    found.limits = replace(found.limits, pools={"label": "vasp", "explore": "gpu"})
    assert found.state.backlog.size() and policy(found.state, found.limits, now(0)).demand.keys() == {"vasp", "gpu"}
    only_quench = policy(found.state, replace(found.limits, quench_only=True), now(0))
    assert only_quench.demand.keys() <= {"local"}
    found.decide("verdict", iteration=0, converged=True, reason="")
    assert policy(found.state, found.limits, now(0)).demand.keys() <= {"local"}


def test_frames_that_wait_for_labels_which_all_meet_one_bug_end_the_run() -> None:
    found = one_that_waits()
    for key in list(found.state.waiting):
        found.state.settle_done(key)
    found.state.bugs["label", "KeyError at line 3"] = {"a", "b", "c"}
    assert found.state.backlog.newest() == 0 and not found.state.waiting_of.get("label")
    ending = policy(found.state, found.limits, now(1)).ending
    assert ending is not None and ending.code == NEEDS_PERSON and "KeyError at line 3" in ending.reason


def test_bootstrap_label_that_is_tried_again_holds_nothing_up() -> None:
    found = one_that_waits()
    key = next(key for key, pick in found.state.picks.items() if pick["iteration"] == -1)
    found.state.done.discard(key)
    found.state.settle_quarantine(key, {"message": "three failures"})
    found.limits = replace(found.limits, train_after=0)
    due = policy(found.state, found.limits, now(1)).due
    found.decide("retry", keys=[key], time="9")
    assert found.state.open("seed_labels") and policy(found.state, found.limits, now(1)).due == due == ("train", 1)


def test_last_ensemble_trains_once_all_labels_are_there_while_the_one_before_is_measured() -> None:
    found = one_that_waits()
    found.limits = replace(found.limits, max_iterations=1, train_after=99)
    while not found.state.decided("select", 0):
        plan = policy(found.state, found.limits, now(2))
        assert plan.due != ("train", 1), "not all labels are there"
        if plan.due:
            found.decide_due(plan)
        for key in list(found.state.waiting):
            found.done(key)
    assert policy(found.state, found.limits, now(2)).due == ("train", 1)
    found.decide_due(policy(found.state, found.limits, now(2)))
    found.decide_due(policy(found.state, found.limits, now(2)))
    assert {found.state.tasks[key].kind for key in found.state.waiting} == {"train", "evaluate"}
    assert found.run().code == NOT_CONVERGED
    assert found.state.decided("verdict", 0) and set(found.state.labels("training")) == set(
        found.state.decisions["train", 1]["common"]["training"]
    )


def test_batch_leaves_its_part_to_a_slot_that_is_about_to_be_free() -> None:
    found = with_seed_labels(0, 8)
    one = policy(found.state, found.limits, now(1)).launch
    assert [len(item.keys) for item in one] == [8]
    two = policy(found.state, found.limits, now(1, leaving={"local": 1})).launch
    assert [len(item.keys) for item in two] == [4]


def test_chunks_leave_their_part_to_a_slot_that_measures_for_a_moment() -> None:
    """Else a description that takes a second makes one process run all chunks, while the other slot lies idle."""
    found = with_seed_labels(0, 8)
    found.decide("evaluate", iteration=0, tasks=task_entries([make_task("evaluate", "e", "e", {"n": 0})], {}))
    launch = policy(found.state, found.limits, now(2)).launch
    assert [(found.state.tasks[item.keys[0]].kind, len(item.keys)) for item in launch] == [
        ("evaluate", 1),
        ("label", 4),
    ]
    apart = replace(found.limits, pools={"evaluate": "gpu"})
    assert [len(item.keys) for item in policy(found.state, apart, now(1)).launch] == [8]


def with_seed_labels(given: int, paid: int) -> World:
    found = world(9, 1, fail=0.0, die=0.0)
    found.limits = Limits(1, 4, {"label": 8}, barrier=True)
    found.decide("bootstrap", iteration=-1, **bootstrap_content(1))
    (source,) = found.state.tasks
    found.state.settle_done(source)
    picks = [
        {
            "key": f"{n:016x}",
            "name": f"s{n}",
            "role": "training",
            "given": n < given,
            "source": {"task": source, "frame": n},
        }
        for n in range(given + paid)
    ]
    found.decide("seed_labels", iteration=-1, picks=picks)
    return found


@pytest.mark.parametrize(
    ("given", "paid", "left", "begun"), [(0, 20, 5, 5), (6, 20, 3, 9), (30, 4, 0, 30), (2, 3, 9, 5)]
)
def test_budget_lets_no_more_labels_begin_than_it_pays_for(given: int, paid: int, left: int, begun: int) -> None:
    found = with_seed_labels(given, paid)
    keys = [k for item in policy(found.state, found.limits, now(4, labels_left=left)).launch for k in item.keys]
    assert len(keys) == begun == len(set(keys))
    assert sum(not found.state.picks[key]["given"] for key in keys) <= left


def test_budget_lets_no_more_frames_be_picked_than_it_pays_for() -> None:
    found = one_that_waits()
    assert policy(found.state, found.limits, now(9, labels_left=1)).picks == 1
    assert policy(found.state, found.limits, now(9, labels_left=0)).picks == 0
    assert policy(found.state, found.limits, now(9)).picks > 1


@pytest.mark.parametrize("max_lag", [0, 1, 2])
def test_chunks_that_have_not_begun_wait_for_so_many_newer_ensembles_and_no_more(max_lag: int) -> None:
    found = one_that_waits()
    found.max_lag = max_lag
    old = list(found.state.waiting_of["explore"])
    for iteration in (1, 2, 3):
        found.decide("train", iteration=iteration, **CONTENT["train"](found, iteration))
        for key in list(found.state.waiting_of["train"]):
            found.done(key)
        found.decide("explore", iteration=iteration, **CONTENT["explore"](found, iteration))
        assert {found.state.status_of(key) for key in old} == {"superseded" if iteration > max_lag else "waiting"}


def test_chunk_is_tried_again_only_until_its_iteration_has_chosen_its_frames() -> None:
    found = one_that_waits()
    lost, *others = list(found.state.waiting_of["explore"])
    found.decide("quarantine", key=lost, message="three failures")
    found.decide("retry", keys=[lost], time="1")
    assert lost in found.state.waiting and found.state.open("explore", 0)
    found.decide("quarantine", key=lost, message="three failures")
    for key in others:
        found.done(key)
    found.decide("select", iteration=0, **CONTENT["select"](found, 0))
    found.decide("retry", keys=[lost], time="2")
    assert lost in found.state.quarantined and not found.state.open("explore", 0)
    assert found.run().code == NOT_CONVERGED
    assert lost not in found.launches
