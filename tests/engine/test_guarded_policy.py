"""What follows a quench: its guard, which may send the ensemble back, a longer training before, relaxing after."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from policy_world import World, now
from test_policy import streaming, world

from alloop.errors import DONE, NOT_CONVERGED
from alloop.policy import policy


def closing(found: World, iteration: int) -> list[str]:
    kinds = ("final_train", "final_check", "melting", "quench", "assess", "guard", "relax_glass")
    return [kind for kind, i in found.order if i == iteration and kind in kinds]


def complete(found: World) -> World:
    found.limits = replace(found.limits, quench="a", final_training=True, relaxation="r")
    return found


def test_all_that_follows_convergence_comes_in_order_and_once() -> None:
    found = complete(world(7, 1, converge=1.0, fail=0.0, die=0.0))
    assert found.run().code == DONE
    assert closing(found, 0) == ["final_train", "final_check", "quench", "assess", "guard", "relax_glass"]
    number = {kind: found.state.decisions[kind, 0]["number"] for kind in closing(found, 0)}
    assert list(number.values()) == sorted(number.values())
    before = len(found.order)
    assert found.run().code == DONE and len(found.order) == before
    found.limits = replace(found.limits, relaxation="s")
    assert found.run().code == DONE
    assert found.order[before:] == [("relax_glass", 0)], "relaxed otherwise, and nothing quenched anew"


def test_what_a_quench_met_beyond_trust_is_learnt_before_the_next_quench() -> None:
    """The ensemble that was sent back counts as not converged: the next one explores, is judged and quenched."""
    found = complete(world(7, 3, converge=1.0, fail=0.0, die=0.0, strays=1.0))
    while not found.state.decided("guard", 0):
        found.step()
    asked = [pick["key"] for pick in found.state.decisions["guard", 0]["picks"]]
    assert asked and policy(found.state, found.limits, now(1)).due is None, "its labels are waited for"
    found.strays = 0.0
    ending = found.run()
    assert ending.code == DONE and "iteration 1" in ending.reason
    assert set(asked) <= set(found.state.decisions["train", 1]["common"]["training"])
    assert ("relax_glass", 0) not in found.order and "relax_glass" in closing(found, 1)
    assert found.state.judgement(0)["kind"] == "guard" and found.state.judgement(1)["kind"] == "verdict"  # type: ignore[index]


@pytest.mark.parametrize("make", [world, streaming])
def test_quenches_that_leave_trust_again_and_again_end_at_the_limit_and_are_not_called_converged(make: Any) -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        found = complete(make(seed, 2, converge=0.7, fail=0.0, hopeless={"label": 0.1}, strays=0.8))
        ending = found.run()
        guards = [found.state.decisions["guard", i] for kind, i in found.order if kind == "guard"]
        seen["asked"] += any(guard["picks"] for guard in guards)
        judged = found.state.judgement(found.state.iteration)
        if ending.reason == "no label to train on":
            continue
        assert (ending.code == DONE) == bool(judged and judged["converged"])
        if guards and guards[-1]["picks"] and found.state.iteration == 2:
            seen["limit"] += 1
            assert ending.code == NOT_CONVERGED
            last = found.state.judgement(1)
            if last and last["kind"] == "guard":
                assert guards[-1]["reason"] in ending.reason
    assert min(seen["asked"], seen["limit"]) > 3, seen


def test_a_longer_training_or_a_relaxation_that_fails_holds_nothing_up() -> None:
    ended: Counter[str] = Counter()
    for seed in range(40):
        found = complete(world(seed, 1, converge=1.0, fail=0.0, die=0.0, hopeless={"relax": 0.5}))
        found.run()
        ended["relax lost"] += any(found.state.tasks[key].kind == "relax" for key in found.state.quarantined)
        lost = complete(world(seed, 1, converge=1.0, fail=0.0, die=0.0))
        while not lost.state.decided("final_train", 0) and lost.plan().ending is None:
            lost.step()
        for entry in lost.state.decisions.get(("final_train", 0), {"tasks": []})["tasks"]:
            lost.doomed.add(entry["key"])
        ending = lost.run()
        ended["training lost"] += any(lost.state.tasks[key].name == "final" for key in lost.state.quarantined)
        assert ending.code == DONE or ending.reason == "no label to train on", ending
    assert min(ended.values()) > 5, ended


def test_an_edited_quench_gets_past_a_chunk_that_was_given_up_also_while_it_trains_longer() -> None:
    found = complete(world(7, 1, converge=1.0, fail=0.0, die=0.0))
    while not found.state.open("quench", 0):
        found.step()
    lost = found.state.decisions["quench", 0]["tasks"][0]["key"]
    found.decide("quarantine", key=lost, message="three failures")
    found.running = [batch for batch in ([key for key in own if key != lost] for own in found.running) if batch]
    assert found.plan().ending is not None
    found.limits = replace(found.limits, quench="b")
    assert found.plan().due == ("final_train", 0)
    ending = found.run()
    assert ending.code == DONE, ending
    before = found.order.index(("quench", 0)) + 1
    assert [kind for kind, _ in found.order[before:] if kind != "assess"] == [
        *("final_train", "final_check", "quench", "guard", "relax_glass")
    ]


def test_only_quenching_ends_with_the_labels_it_asked_for() -> None:
    found = complete(world(7, 2, converge=1.0, fail=0.0, die=0.0, strays=1.0))
    while not found.state.decided("verdict", 0):
        found.step()
    found.limits = replace(found.limits, max_iterations=0, quench_only=True, quench_always=True)
    ending = found.run()
    assert ending.code == NOT_CONVERGED and "alloop run" in ending.reason
    asked = [pick["key"] for pick in found.state.decisions["guard", 0]["picks"]]
    assert asked and set(asked) <= found.state.done and ("train", 1) not in found.order
    found.limits, found.strays = replace(found.limits, max_iterations=2, quench_only=False, quench_always=False), 0.0
    assert found.run().code == DONE
    assert set(asked) <= set(found.state.decisions["train", 1]["common"]["training"])
