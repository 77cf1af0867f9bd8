from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from campaign_kit import bootstrap_content
from policy_world import CONTENT, RULES, World, now

from alloop.errors import DONE, NEEDS_PERSON, NOT_CONVERGED
from alloop.policy import Limits, Now, Plan, policy
from alloop.pools import Slot
from alloop.state import Durations, State

BATCH = {"label": 4, "explore": 12, "quench": 1000}


def world(seed: int, max_iterations: int | None = None, *, barrier: bool = True, **options: object) -> World:
    rng = random.Random(seed)
    iterations = rng.randint(0, 3) if max_iterations is None else max_iterations
    batch = {kind: rng.randint(1, most) for kind, most in BATCH.items()} if rng.random() < 0.5 else BATCH
    limits = Limits(
        iterations,
        rng.randint(1, 5),
        batch,
        barrier=barrier,
        probes=bool(options.get("aids")),
        relaxes=bool(options.get("aids")),
    )
    return World(rng, limits, **options)  # type: ignore[arg-type]


def expected_order(iterations: int) -> list[tuple[str, int]]:
    order: list[tuple[str, int]] = [("bootstrap", -1), ("seed_labels", -1)]
    for i in range(iterations):
        order += [(kind, i) for kind in ("train", "explore", "select", "evaluate", "verdict")]
    return order


def test_every_world_keeps_the_rules_and_ends_as_its_verdict_says() -> None:
    """Tasks fail, die with their batch and are given up at random; the rules are checked at every step."""
    codes = {DONE: 0, NOT_CONVERGED: 0, NEEDS_PERSON: 0}
    for seed in range(120):
        hopeless = {"label": 0.2, "explore": 0.2} if seed % 2 else {"train": 0.05, "quench": 0.05, "label": 0.3}
        found = world(seed, hopeless=hopeless)
        ending = found.run()
        codes[ending.code] += 1
        last = found.state.decisions.get(("verdict", found.state.iteration))
        converged = bool(last and last["converged"])
        if found.paused() or ending.reason == "no label to train on":
            assert ending.code == NEEDS_PERSON
        else:
            assert ending.code == (DONE if converged else NOT_CONVERGED)
            verdicts = sum(kind == "verdict" for kind, _ in found.order)
            order = expected_order(verdicts)
            if not converged:
                assert verdicts == found.limits.max_iterations
                order.append(("train", verdicts))
            final = verdicts if not converged else verdicts - 1
            assert found.order == [*order, ("quench", final), ("assess", final)]
            assert found.state.done | found.state.quarantined.keys() == found.state.tasks.keys()
        assert all(decision["number"] == n for n, decision in enumerate(found.decisions))
    assert min(codes.values()) > 5, f"the worlds must differ: {codes}"


@pytest.mark.parametrize("barrier", [True, False])
def test_what_helps_to_choose_and_to_judge_may_fail_and_holds_nothing_up(barrier: bool) -> None:
    """Environments are described, probes made and relaxed for every ensemble; a third of these tasks are lost."""
    seen: Counter[str] = Counter()
    for seed in range(40):
        found = world(
            seed, 3, barrier=barrier, aids=True, quench=False, fail=0.0, hopeless={"quench": 0.3, "relax": 0.3}
        )
        ending = found.run()
        if ending.reason == "no label to train on":
            continue
        assert ending.code in (DONE, NOT_CONVERGED), ending
        order = {
            kind: [i for own, i in found.order if own == kind] for kind in ("describe", "probe", "relax", "verdict")
        }
        assert set(order["probe"]) >= set(order["verdict"])
        for iteration in order["verdict"]:
            places = [found.order.index((kind, iteration)) for kind in ("probe", "relax", "verdict")]
            assert places == sorted(places)
        if barrier:
            assert order["describe"] == order["verdict"]
        seen.update(kind for kind, numbers in order.items() if numbers)
        seen["lost"] += bool(found.state.quarantined)
    assert min(seen.values()) > 10, seen


def test_policy_changes_nothing_and_repeats_itself() -> None:
    found = world(1, 2, fail=0.0, die=0.0)
    found.run()
    for count in range(1, len(found.decisions)):
        state = State()
        for decision in found.decisions[:count]:
            state.apply(decision)
        before = copy.deepcopy(state)
        assert policy(state, found.limits, now(3)) == policy(state, found.limits, now(3))
        assert state == before


def test_undisturbed_campaign_runs_every_task_once() -> None:
    for seed in range(20):
        found = world(seed, fail=0.0, die=0.0)
        assert found.run().code in (DONE, NOT_CONVERGED)
        assert set(found.launches.values()) == {1}
        assert found.launches.keys() == found.state.tasks.keys()


@pytest.mark.parametrize("kind", ["label", "explore"])
def test_lost_labels_and_chunks_never_end_the_campaign(kind: str) -> None:
    for seed in range(30):
        found = world(seed, 2, hopeless={kind: 0.4}, fail=0.0)
        ending = found.run()
        if ending.reason != "no label to train on":
            assert ending.code in (DONE, NOT_CONVERGED)


@pytest.mark.parametrize("kind", ["bootstrap", "train", "evaluate", "quench"])
def test_work_the_campaign_cannot_do_without_needs_a_person(kind: str) -> None:
    found = world(3, 2, hopeless={kind: 1.0})
    ending = found.run()
    assert ending.code == NEEDS_PERSON
    assert kind in ending.reason and "three failures" in ending.reason


def promoted_worlds(make: Callable[..., World], seeds: int) -> Iterator[tuple[int, World]]:
    """Run worlds that begin with cheap labels, and return those that went over to labels of their own level."""
    for seed in range(seeds):
        found = make(seed, foundation=True, hopeless={"label": 0.1}, restless=0.1)
        found.limits = replace(found.limits, foundation_iterations=seed % 3)
        ending = found.run()
        if found.paused() or ending.reason == "no label to train on":
            continue
        kinds = [kind for kind, _ in found.order]
        assert kinds.count("promote") == kinds.count("pretrain") <= 1
        if "promote" in kinds:
            assert found.state.level == found.state.target_level == "vasp"
            yield seed, found
        else:  # the iterations were used up, or it converged... which the foundation cannot
            assert ending.code == NOT_CONVERGED and found.state.foundation_level == "cheap"


def test_worlds_with_a_foundation_end_on_labels_of_their_own_level() -> None:
    """Cheap labels first, then a promotion, a pre-training, and from then on labels of the campaign's level only."""
    promoted = 0
    for seed, found in promoted_worlds(world, 120):
        promoted += 1
        place = found.order.index(("promote", i := min(seed % 3, found.limits.max_iterations) - 1))
        assert found.order[place : place + 3] == [("promote", i), ("pretrain", i + 1), ("train", i + 1)]
        for decision in found.decisions:
            if decision["kind"] == "select" and decision["iteration"] > i:
                assert decision["level"]["name"] == "vasp"
    assert promoted > 60


def test_relabelling_at_any_moment_trains_the_next_ensemble_on_the_new_level_only() -> None:
    for seed in range(60):
        found = world(seed, 2, fail=0.05, die=0.05, restless=0.1)
        found.run()
        if found.paused() or not found.state.picks:
            continue
        before = found.state.iteration
        found.relabel("vasp-2")
        assert all(
            found.state.picks[key]["level"] == "vasp-2" for key in found.state.waiting if key in found.state.picks
        )
        found.limits = replace(found.limits, max_iterations=before + 3)
        if found.run().reason == "no label to train on":
            continue
        assert found.state.iteration > before and found.state.level == "vasp-2"
        train = next(d for d in found.decisions if d["kind"] == "train" and d["iteration"] == before + 1)
        assert {found.state.picks[key]["level"] for key in train["inputs"]} <= {"vasp-2"}


def test_relabelling_while_labels_wait_drops_them_but_keeps_what_runs() -> None:
    found = world(2, 1, fail=0.0, die=0.0)
    found.decide("bootstrap", iteration=-1, **bootstrap_content())
    for key in list(found.state.waiting):
        found.state.settle_done(key)
    found.decide("seed_labels", iteration=-1, **CONTENT["seed_labels"](found, -1))
    first, second, *_ = found.state.waiting
    found.state.begin(first)
    found.state.begin(second)
    found.state.settle_done(second)
    found.relabel("vasp-2")
    assert found.state.running == {first} and found.state.done >= {second}
    found.state.put_back(first)
    assert first not in found.state.waiting and found.state.status_of(first) == "superseded"
    found.driver_dies()
    assert found.run().code in (DONE, NOT_CONVERGED)


def test_retried_work_is_wanted_again_and_waited_for() -> None:
    found = world(9, 1, fail=0.0, die=0.0)
    found.decide("bootstrap", iteration=-1, **bootstrap_content())
    key, *others = list(found.state.waiting)
    for other in others:
        found.state.settle_done(other)
    found.decide("quarantine", key=key, message="three failures")
    assert policy(found.state, found.limits, now(1)).ending is not None
    found.decide("retry", keys=[key, "unknown"], time="2026")
    assert policy(found.state, found.limits, now(1)).launch[0].keys == (key,) and found.state.retried == {key: "2026"}
    assert found.state.open("bootstrap")


def test_retried_labels_are_made_although_the_iterations_are_used_up() -> None:
    found = world(5, 2, converge=0.0, fail=0.0, die=0.0)
    assert found.run().code == NOT_CONVERGED
    keys = [pick["key"] for pick in found.state.decisions["select", 0]["picks"]][:2]
    for key in keys:
        found.state.done.discard(key)
        found.state.quarantined[key] = {"class": "crash", "message": "m"}
    assert policy(found.state, found.limits, now(1)).ending is not None
    found.decide("retry", keys=keys, time="2026")
    assert found.run().code == NOT_CONVERGED
    assert found.state.done >= set(keys) and not found.state.waiting


def test_no_iteration_at_all_trains_and_quenches_but_is_not_converged() -> None:
    found = world(4, 0, converge=1.0, fail=0.0)
    ending = found.run()
    assert (ending.code, "no iteration has explored" in ending.reason) == (NOT_CONVERGED, True)
    assert found.order == [*expected_order(0), ("train", 0), ("quench", 0), ("assess", 0)]


def test_last_reason_is_told_when_the_iterations_are_used_up() -> None:
    found = world(5, 2, converge=0.0, fail=0.0)
    assert "not in iteration 1" in found.run().reason


def test_quench_of_an_ensemble_that_was_judged_not_converged() -> None:
    """A run stopped right after its verdict, then `alloop quench`: the verdict still decides the exit code."""
    found = world(5, 2, converge=0.0, fail=0.0, die=0.0)
    found.run()
    number = next(n for n, decision in enumerate(found.decisions) if decision["kind"] == "verdict")
    done, found.state, found.decisions = found.state.done, State(), found.decisions[: number + 1]
    for decision in found.decisions:
        found.state.apply(decision)
    for key in done & found.state.tasks.keys():
        found.state.settle_done(key)
    found.limits = replace(found.limits, quench_only=True)
    assert found.run().code == NOT_CONVERGED
    assert found.order[-2:] == [("quench", 0), ("assess", 0)]


def test_convergence_ends_the_iterations() -> None:
    found = world(6, 3, converge=1.0, fail=0.0)
    ending = found.run()
    assert (ending.code, found.state.iteration) == (DONE, 0)
    assert found.run() == ending, "a second run finds nothing to do"


def test_more_iterations_go_on_where_the_limit_had_stopped() -> None:
    found = world(7, 1, converge=0.0, fail=0.0)
    assert found.run().code == NOT_CONVERGED
    before = list(found.order)
    found.limits = replace(found.limits, max_iterations=2)
    assert found.run().code == NOT_CONVERGED
    assert found.order[: len(before)] == before
    assert found.order[len(before) :] == [
        *((kind, 1) for kind in ("explore", "select", "evaluate", "verdict")),
        ("train", 2),
        ("quench", 2),
        ("assess", 2),
    ]


def test_full_slots_launch_nothing() -> None:
    found = world(8, 1)
    found.decide("bootstrap", iteration=-1, **bootstrap_content())
    assert policy(found.state, found.limits, now(0)).launch == ()
    assert policy(found.state, found.limits, now(-1)).launch == ()


def test_cheap_tasks_are_spread_over_the_free_slots() -> None:
    """Eight labels on four slots are four batches of two, not one of eight."""
    found = world(9, 1, fail=0.0, die=0.0)
    found.limits = Limits(1, 4, {"label": 32}, barrier=True)
    picks = [
        {"key": f"{n:016x}", "name": f"s{n}", "role": "training", "source": {"task": "b", "frame": n}} for n in range(8)
    ]
    found.decide("bootstrap", iteration=-1, **bootstrap_content(1))
    found.state.settle_done(next(iter(found.state.tasks)))
    for pick in picks:
        pick["source"] = {"task": next(iter(found.state.tasks)), "frame": 0}
    found.decide("seed_labels", iteration=-1, picks=picks)
    launch = policy(found.state, found.limits, now(4)).launch
    assert [len(batch.keys) for batch in launch] == [2, 2, 2, 2]
    assert [key for batch in launch for key in batch.keys] == [pick["key"] for pick in picks]


def test_ensemble_that_converges_after_the_limit_was_raised_is_the_one_quenched_as_converged() -> None:
    found = world(7, 1, converge=0.0, fail=0.0)
    found.run()
    found.limits, found.converge = replace(found.limits, max_iterations=2), 1.0
    assert found.run().code == DONE
    assert found.state.decisions["quench", found.state.iteration]["converged"]


def test_where_glasses_melt_is_found_before_a_quench_that_rests_on_it() -> None:
    for seed in range(20):
        found = world(seed, 1, converge=0.5, fail=0.0)
        found.limits = replace(found.limits, melts=True, quench="a")
        ending = found.run()
        if ending.reason == "no label to train on":
            continue
        i = found.state.iteration
        expected = ["melting", "quench", "assess", "guard"] if ending.code == DONE else ["quench", "assess"]
        closing = found.order[-len(expected) :]
        assert closing == [(kind, i) for kind in expected], "an ensemble that is not quenched needs no melt"
        if ending.code == DONE:
            melting, quench = (found.state.decisions[kind, i] for kind in ("melting", "quench"))
            assert melting["number"] < quench["number"]
            between = found.decisions[melting["number"] + 1 : quench["number"]]
            assert {decision["kind"] for decision in between} <= {"pick"}


def test_a_quench_of_another_kind_is_planned_anew_and_an_unchanged_one_is_not() -> None:
    found = world(7, 1, converge=1.0, fail=0.0, die=0.0)
    found.limits = replace(found.limits, quench="a")
    found.run()
    before = len(found.order)
    found.run()
    assert len(found.order) == before
    found.limits = replace(found.limits, quench="b", melts=True)
    assert found.run().code == DONE
    i = found.state.iteration
    assert found.order[before:] == [("melting", i), ("quench", i), ("guard", i)]
    assert found.state.decisions["quench", i]["section"] == "b"
    found.limits = replace(found.limits, quench="")
    found.run()
    assert len(found.order) == before + 3, "without a section there is nothing to ask for, and what was made stays"


def test_a_protocol_that_changes_half_way_is_followed_from_then_on() -> None:
    found = world(7, 1, converge=1.0, fail=0.0, die=0.0)
    found.limits = replace(found.limits, quench="a", slots=1, batch={"quench": 1})
    while found.state.stage_counts("quench", found.state.iteration)[0] < 1:
        found.step()
    first = found.state.decisions["quench", found.state.iteration]
    found.limits = replace(found.limits, quench="b")
    assert found.run().code == DONE
    statuses = {found.state.status_of(entry["key"]) for entry in first["tasks"]}
    assert statuses <= {"done", "superseded"} and "superseded" in statuses


def test_quench_on_request_after_a_run_that_did_not_quench() -> None:
    found = world(7, 1, converge=0.0, fail=0.0, quench=False)
    found.run()
    before, launched = len(found.order), set(found.launches)
    found.quench, found.limits = True, replace(found.limits, quench_only=True, quench="a", quench_always=True)
    assert found.run().code == NOT_CONVERGED
    assert found.order[before:] == [("quench", 1)]
    assert {found.state.tasks[key].kind for key in found.launches.keys() - launched} == {"quench"}
    assert found.run().code == NOT_CONVERGED
    assert len(found.order) == before + 1, "a quench that ran is not asked for again"


def test_counts_add_up_when_a_label_that_was_given_up_comes_after_all() -> None:
    found = world(7, 1, fail=0.0, hopeless={"label": 0.3})
    found.run()
    found.state.settle_done(next(key for key in found.state.quarantined if key in found.state.picks))
    found.check_counts()


def test_cheap_labels_share_a_process_while_the_foundation_labels() -> None:
    found = world(2, 1, foundation=True, fail=0.0, die=0.0)
    found.limits = replace(found.limits, slots=1, batch={"label": 1}, foundation_batch=4)
    found.decide("bootstrap", iteration=-1, **bootstrap_content())
    for key in list(found.state.waiting):
        found.state.settle_done(key)
    found.decide("seed_labels", iteration=-1, **CONTENT["seed_labels"](found, -1))
    assert [len(batch.keys) for batch in policy(found.state, found.limits, now(1)).launch] == [4]
    for key in list(found.state.waiting):
        found.state.settle_done(key)
    found.decide("promote", iteration=-1, **CONTENT["promote"](found, -1))
    assert [len(batch.keys) for batch in policy(found.state, found.limits, now(1)).launch] == [1]


# ---------------------------------------------------------------------------------------- the streaming order


def streaming(seed: int, max_iterations: int | None = None, **options: object) -> World:
    found = world(seed, max_iterations, barrier=False, **options)
    found.limits = replace(found.limits, train_after=1 + seed % 5, accurate_fraction=0.9)
    return found


def test_streaming_worlds_keep_the_rules_and_end_as_their_verdicts_say() -> None:
    codes = {DONE: 0, NOT_CONVERGED: 0, NEEDS_PERSON: 0}
    early = 0
    for seed in range(120):
        hopeless = {"label": 0.2, "explore": 0.2} if seed % 2 else {"train": 0.05, "quench": 0.05, "label": 0.3}
        found = streaming(seed, hopeless=hopeless, restless=0.02)
        ending = found.run()
        codes[ending.code] += 1
        last = found.state.decisions.get(("verdict", found.state.iteration))
        if found.paused() or ending.reason == "no label to train on":
            assert ending.code == NEEDS_PERSON
            continue
        assert ending.code == (DONE if last and last["converged"] else NOT_CONVERGED)
        assert {found.state.tasks[key].kind for key in found.state.waiting} <= {"explore"}
        left = found.state.waiting.keys() | found.state.running
        assert ending.code == DONE or left <= found.state.retried.keys(), "of closed iterations, as a person asked"
        assert {found.state.tasks[key].kind for key in found.state.running} <= {"explore", "evaluate"}
        trained = [i for kind, i in found.order if kind == "train"]
        assert trained == list(range(len(trained))), "ensembles train one after the other"
        verdicts = {i for kind, i in found.order if kind == "verdict"}
        if ending.code == NOT_CONVERGED:
            assert verdicts == set(range(found.limits.max_iterations)), "every ensemble that explored was judged"
            assert trained[-1] == found.limits.max_iterations
        for i in trained[1:]:
            early += ("verdict", i - 1) not in found.order[: found.order.index(("train", i))]
    assert min(codes.values()) > 5, f"the worlds must differ: {codes}"
    assert early > 20, "training must overlap with labelling"


def test_streaming_without_trouble_loses_and_repeats_nothing() -> None:
    for seed in range(60):
        found = streaming(seed, fail=0.0, die=0.0)
        ending = found.run()
        assert set(found.launches.values()) == {1}
        withdrawn = found.state.superseded
        assert found.launches.keys() == found.state.tasks.keys() - withdrawn
        assert {found.state.tasks[key].kind for key in withdrawn} <= {"explore"}
        if ending.code == NOT_CONVERGED:
            last = found.state.decisions["train", found.state.iteration]
            assert set(last["common"]["training"]) == set(found.state.labels("training")), "stragglers join the last"


def test_streaming_worlds_with_a_foundation_end_on_labels_of_their_own_level() -> None:
    assert sum(1 for _ in promoted_worlds(streaming, 80)) > 30


def explored_until(found: World, *, accurate: float, labels: int) -> State:
    """An ensemble has explored a part of its chunks, and so many of its labels have landed."""
    found.accurate = accurate
    found.decide("bootstrap", iteration=-1, **bootstrap_content())
    for kind, i in (("seed_labels", -1), ("train", 0), ("explore", 0)):
        for key in list(found.state.waiting):
            found.done(key)
        found.decide(kind, iteration=i, **CONTENT[kind](found, i))
    found.state.backlog.open_round(0, RULES, 0)
    found.done(next(key for key in found.state.waiting_of["explore"] if int(key, 16) % 4))  # not a held-out one
    while labels > 0:
        plan = policy(found.state, found.limits, now(50))
        assert plan.due == ("pick", 0)
        found.decide_due(plan)
        for key in list(found.state.waiting_of["label"]):
            found.done(key)
            labels -= found.state.picks[key]["role"] == "training"
    return found.state


def many_chunks(seed: int) -> World:
    found = streaming(seed, 3, fail=0.0, die=0.0)
    found.limits = Limits(3, 2, {}, train_after=2, accurate_fraction=0.9)
    return found


def test_enough_new_labels_start_the_next_training_while_chunks_go_on() -> None:
    found = next(w for w in map(many_chunks, range(99)) if explored_until(w, accurate=0.0, labels=2).waiting)
    assert found.state.open("explore", 0)
    assert policy(found.state, found.limits, now(1)).due == ("train", 1)
    more = replace(found.limits, train_after=found.state.fresh + 1)
    assert policy(found.state, more, now(1)).due != ("train", 1), "too few labels yet"
    barrier = replace(found.limits, barrier=True)
    assert policy(found.state, barrier, now(1)).due is None


def test_what_looks_converged_is_judged_before_anything_new_trains() -> None:
    found = next(w for w in map(many_chunks, range(99)) if explored_until(w, accurate=0.0, labels=2).waiting)
    found.state.explored[0].clear()
    found.state.note_chunk(found.state.decisions["explore", 0]["tasks"][0]["key"], {"accurate": 95, "candidate": 5})
    plan = policy(found.state, found.limits, now(1))
    assert plan.due != ("train", 1) and {found.state.tasks[key].kind for key in plan.launch[0].keys} == {"explore"}


def test_no_chunk_begins_while_the_backlog_is_deep() -> None:
    found = next(w for w in map(many_chunks, range(99)) if explored_until(w, accurate=0.0, labels=0).waiting)
    assert found.state.backlog.size() == 3
    shallow = policy(found.state, replace(found.limits, max_backlog=4), now(1))
    deep = policy(found.state, replace(found.limits, max_backlog=3), now(1))
    assert [found.state.tasks[launch.keys[0]].kind for launch in shallow.launch] == ["explore"]
    assert not deep.launch and deep.due == ("pick", 0), "labels first"


def test_chunk_of_an_older_ensemble_that_has_not_begun_is_withdrawn_and_one_that_runs_is_not() -> None:
    found = next(w for w in map(many_chunks, range(99)) if len(explored_until(w, accurate=0.0, labels=2).waiting) > 1)
    runs, *rest = list(found.state.waiting_of["explore"])
    found.state.begin(runs)
    found.decide("train", iteration=1, **CONTENT["train"](found, 1))
    for key in list(found.state.waiting_of["train"]):
        found.done(key)
    found.decide("explore", iteration=1, **CONTENT["explore"](found, 1))
    found.state.backlog.open_round(1, RULES, 1)
    assert {found.state.status_of(key) for key in rest} == {"superseded"}
    assert found.state.open("explore", 0), "the one that runs brings its frames home first"
    found.done(runs)
    assert not found.state.open("explore", 0)


def test_batch_goes_where_it_fits_the_time_that_is_left() -> None:
    found = many_chunks(1)
    found.decide("bootstrap", iteration=-1, **bootstrap_content(3))
    found.state.durations["bootstrap"] = durations = Durations()
    durations.add(100.0)
    slots = (Slot("local", "short", 60.0), Slot("local", "fits", 130.0), Slot("local", "long", 5000.0))
    launch = policy(found.state, found.limits, Now(slots)).launch
    assert {item.slot.name for item in launch} == {"fits", "long"}
    key = launch[0].keys[0]
    found.state.needs_s[key] = 1000.0
    launch = policy(found.state, found.limits, Now(slots)).launch
    assert {item.slot.name: key in item.keys for item in launch} == {"long": True, "fits": False}
    found.state.needs_s = dict.fromkeys(found.state.tasks, 9000.0)
    plan = policy(found.state, found.limits, Now(slots))
    assert not plan.launch and plan.demand == {"local": (3, 9000.0)}


def test_no_task_asks_for_more_than_a_fresh_job_gives() -> None:
    """One that ran into its walltime would ask for twice the time, which no job has: it gets a fresh one."""
    found = many_chunks(1)
    found.limits = replace(found.limits, longest_s={"local": 500.0})
    found.decide("bootstrap", iteration=-1, **bootstrap_content(1))
    (key,) = found.state.tasks
    found.state.needs_s[key] = 1000.0
    worn, fresh = Now((Slot("local", "worn", 400.0),)), Now((Slot("local", "fresh", 520.0),))
    assert not policy(found.state, found.limits, worn).launch
    assert policy(found.state, found.limits, worn).demand == {"local": (1, 500.0)}
    assert policy(found.state, found.limits, fresh).launch


def test_task_waits_as_long_as_its_failures_demand() -> None:
    found = many_chunks(1)
    found.decide("bootstrap", iteration=-1, **bootstrap_content(1))
    (key,) = found.state.tasks
    found.state.not_before[key] = 100.0
    assert not policy(found.state, found.limits, now(1, time_s=99.0)).launch
    assert policy(found.state, found.limits, now(1, time_s=101.0)).launch


def test_full_disk_begins_nothing_and_a_used_up_budget_ends_the_run() -> None:
    found = many_chunks(1)
    assert policy(found.state, found.limits, now(1, disk_full=True)) == Plan()
    found.decide("bootstrap", iteration=-1, **bootstrap_content(1))
    assert policy(found.state, found.limits, now(1, disk_full=True)).launch == ()
    ending = policy(found.state, found.limits, now(1, budget_used_up="300 of 300 core-hours used")).ending
    assert ending is not None and (ending.code, ending.reason) == (NOT_CONVERGED, "300 of 300 core-hours used")


def test_kind_whose_tasks_meet_the_same_bug_waits_for_a_person() -> None:
    found = many_chunks(1)
    found.decide("bootstrap", iteration=-1, **bootstrap_content(4))
    keys = list(found.state.tasks)
    found.state.bugs["bootstrap", "KeyError at line 3"] = set(keys[:2])
    assert policy(found.state, found.limits, now(1)).launch
    found.state.bugs["bootstrap", "KeyError at line 3"].add(keys[2])
    ending = policy(found.state, found.limits, now(1)).ending
    assert ending is not None and ending.code == NEEDS_PERSON and "KeyError at line 3" in ending.reason
