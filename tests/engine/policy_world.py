"""A campaign in virtual time: decisions with plausible content, and tasks that end in every way, without a file.

The world keeps the driver's rules (a task is put back when an attempt ends without a result, given up after three)
and checks, at every step, what the policy must never do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from campaign_kit import bootstrap_content, content

from alloop.errors import NEEDS_PERSON
from alloop.loop import NEEDED, Ending, Limits, policy
from alloop.report.status import label_counts
from alloop.state import State
from alloop.store import Task, make_task


@dataclass
class World:
    """One campaign; the probabilities say how its tasks fare."""

    rng: random.Random
    limits: Limits
    fail: float = 0.1
    die: float = 0.1
    hopeless: dict[str, float] = field(default_factory=dict)
    converge: float = 0.3
    quench: bool = True
    foundation: bool = False
    restless: float = 0.0
    state: State = field(default_factory=State)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    order: list[tuple[str, int]] = field(default_factory=list)
    running: list[list[str]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    launches: dict[str, int] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.decide("campaign", id="w", name="world", seed=1)
        self.start("vasp")

    def start(self, target: str) -> None:
        """A driver takes the campaign with a configuration at this level of theory."""
        foundation = {"name": "cheap", "content": {"labeler": "cheap"}} if self.foundation else None
        levels = {"target": {"name": target, "content": {"labeler": target}}, "foundation": foundation}
        self.decide("start", levels=levels)

    # -------------------------------------------------------------------------------- driving

    def run(self) -> Ending:
        """Go on until the policy says it is the end; a world in which nothing moves is an error."""
        for _ in range(20_000):
            plan = policy(self.state, self.limits, self.limits.slots - len(self.running))
            self.check_plan(plan.launch)
            if plan.ending:
                return plan.ending
            if plan.due:
                if plan.due[0] in ("train", "promote") and not self.state.labels("training"):
                    return Ending(NEEDS_PERSON, "no label to train on")
                self.order.append(plan.due)
                self.decide(plan.due[0], iteration=plan.due[1], **CONTENT[plan.due[0]](self, plan.due[1]))
                continue
            for batch in plan.launch:
                self.running.append(list(batch))
                for key in batch:
                    self.launches[key] = self.launches.get(key, 0) + 1
                    self.state.begin(key)
            assert self.running, f"nothing runs and nothing is due; waiting: {list(self.state.waiting)}"
            self.something_happens()
            if self.rng.random() < self.restless:
                self.a_person_asks()
            self.check_counts()
        raise AssertionError("the campaign does not come to an end")

    def decide(self, kind: str, **more: Any) -> None:
        decision = {"number": self.state.next_number, "kind": kind} | more
        self.decisions.append(decision)
        self.state.apply(decision)
        for task in self.state.tasks:
            if task not in self.launches and self.rng.random() < self.hopeless.get(self.state.tasks[task].kind, 0.0):
                self.doomed.add(task)

    def something_happens(self) -> None:
        """The next task of some batch ends: well, badly, or with its whole process."""
        batch = self.rng.choice(self.running)
        key = batch[0]
        chance = self.rng.random()
        dead = chance < self.die
        inputs = self.state.tasks[key].inputs
        failed = key in self.doomed or chance < self.die + self.fail
        if any(name not in self.state.done and name not in self.state.quarantined for name in inputs):
            self.state.put_back(batch.pop(0))  # it followed a task of its batch that failed
        elif not dead and not failed:
            self.state.settle_done(batch.pop(0))
        else:
            self.failures[key] = self.failures.get(key, 0) + (not dead)
            ended = batch[:] if dead else [batch.pop(0)]
            if dead:
                batch.clear()
            for name in ended:
                self.state.put_back(name)
            if self.failures[key] >= 3:
                self.decide("quarantine", key=key, message="three failures")
        self.running = [rest for rest in self.running if rest]

    def a_person_asks(self) -> None:
        """Quarantined work again, or a label out of training or back into it."""
        lost = [key for key in self.state.quarantined if self.state.tasks[key].kind not in NEEDED]
        labels = [key for key in self.state.picks if key in self.state.done]
        if lost and self.rng.random() < 0.5:
            self.decide("retry", keys=[key := self.rng.choice(lost)], time=f"{self.state.next_number:06d}")
            self.failures[key] = 0
        elif labels:
            undo = bool(self.state.excluded) and self.rng.random() < 0.4
            key = self.rng.choice(list(self.state.excluded) if undo else labels)
            self.decide("exclude", keys=[key], reason="looks odd", undo=undo, time="")

    def relabel(self, target: str) -> None:
        """A person has every label made anew at another level."""
        level = {"name": target, "content": {"labeler": target}}
        wanted = [pick for pick in self.state.picks.values() if pick["level"] == self.state.level]
        picks = [_anew(pick, level) for pick in wanted]
        self.decide("relabel", iteration=self.state.iteration, level=level, picks=picks)
        self.start(target)

    def driver_dies(self) -> None:
        """A new driver folds the decisions and looks around; what runs goes on. It must know what the old one knew."""
        fresh = State()
        for decision in self.decisions:
            fresh.apply(decision)
        for key in fresh.tasks:
            if key in self.state.done:
                fresh.settle_done(key)
            elif key in self.state.running:
                fresh.begin(key)
        assert fresh.done == self.state.done and fresh.running == self.state.running
        assert set(fresh.waiting) == set(self.state.waiting)
        assert fresh.quarantined.keys() == self.state.quarantined.keys()
        assert (fresh.level, fresh.target_level, fresh.excluded) == (
            self.state.level,
            self.state.target_level,
            self.state.excluded,
        )
        assert fresh.superseded == self.state.superseded
        assert {stage: keys for stage, keys in fresh.unfinished.items() if keys} == {
            stage: keys for stage, keys in self.state.unfinished.items() if keys
        }
        self.state = fresh

    # -------------------------------------------------------------------------------- invariants

    def check_plan(self, launch: tuple[tuple[str, ...], ...]) -> None:
        state = self.state
        assert len(launch) <= max(0, self.limits.slots - len(self.running)), "more batches than free slots"
        keys = [key for batch in launch for key in batch]
        assert len(keys) == len(set(keys))
        for batch in launch:
            assert batch
            assert len({state.tasks[key].kind for key in batch}) == 1
            assert len(batch) <= self.limits.batch.get(state.tasks[batch[0]].kind, 1)
            for place, key in enumerate(batch):
                assert key in state.waiting
                assert key not in state.done and key not in state.running and key not in state.quarantined
                for name in state.tasks[key].inputs:
                    ended = name in state.done or name in state.quarantined
                    assert ended or name in batch[:place], "launched before its input"

    def check_counts(self) -> None:
        state = self.state
        labels = label_counts(state)
        assert labels["done"] == labels["training"] + labels["held_out"] + labels["excluded"]
        parts = ("done", "in_flight", "waiting", "quarantined", "pretraining", "superseded")
        assert sum(labels[part] for part in parts) == len(state.picks)
        if state.level == state.target_level:
            assert labels["training"] == len(state.labels("training"))
            assert labels["held_out"] == len(state.labels("held_out"))
        for role in ("training", "held_out"):
            assert {state.picks[key]["level"] for key in state.labels(role)} <= {state.level}
            assert not state.excluded.keys() & set(state.labels(role))
        for kind, counts in state.task_counts().items():
            assert sum(counts.values()) == sum(task.kind == kind for task in state.tasks.values())
        ended = state.done | state.quarantined.keys() | (state.superseded - state.running)
        going = state.running | state.waiting.keys()
        assert ended | going == state.tasks.keys() and not ended & going
        assert not state.running & state.waiting.keys()
        if self.rng.random() < 0.02:
            self.driver_dies()

    def paused(self) -> bool:
        return any(self.state.tasks[key].kind in NEEDED for key in self.state.quarantined)


# ---------------------------------------------------------------------------------------- content of decisions


def _picks(world: World, sources: list[str], per_source: int, group: str) -> dict[str, Any]:
    picks = []
    level = {"name": world.state.level, "content": {"labeler": world.state.level}}
    for source in sources:
        role = "held_out" if int(source, 16) % 4 == 0 else "training"
        for frame in range(per_source):
            spec = {"source": source, "frame": frame} | level["content"]
            task = make_task("label", group, f"s{frame}", spec)
            picks.append(
                {
                    "key": task.key,
                    "name": task.name,
                    "role": role,
                    "reason": "audit" if frame == 0 else "candidate",
                    "source": {"task": source, "frame": frame},
                    "given": False,
                    "level": level["name"],
                }
            )
    return {"level": level, "picks": picks}


def _anew(pick: dict[str, Any], level: dict[str, Any]) -> dict[str, Any]:
    task = make_task("label", "g", pick["name"], {"of": pick["key"]} | level["content"])
    return pick | {"key": task.key, "level": level["name"], "of": pick["key"]}


def _promote(world: World, iteration: int) -> dict[str, Any]:
    level = world.state.starts[-1]["levels"]["target"]
    labels = world.state.labels("training")[:3] + world.state.labels("held_out")[:1]
    return {"level": level, "picks": [_anew(world.state.picks[key], level) for key in labels]}


def _pretrain(world: World, iteration: int) -> dict[str, Any]:
    labels = world.state.labels("training", "cheap")
    spec = {"labels": labels, "iteration": iteration}
    return content([make_task("train", "g", "model.00", spec)], inputs=labels)


def _done(world: World, kind: str, iteration: int) -> list[str]:
    return [
        entry["key"] for entry in world.state.decisions[kind, iteration]["tasks"] if entry["key"] in world.state.done
    ]


def _bootstrap(world: World, iteration: int) -> dict[str, Any]:
    return bootstrap_content(world.rng.randint(2, 4))


def _seed_labels(world: World, iteration: int) -> dict[str, Any]:
    return _picks(world, _done(world, "bootstrap", -1), 3, "bootstrap/label")


def _train(world: World, iteration: int) -> dict[str, Any]:
    labels = world.state.labels("training") + world.state.labels("held_out")
    before = world.state.models(iteration - 1)
    tasks = []
    for number in range(2):
        init = (before[number],) if before else ()
        spec = {"model": number, "labels": labels, "init": init}
        tasks.append(make_task("train", f"iter.{iteration:06d}/train", f"model.{number:02d}", spec, init))
    return content(tasks, inputs=labels)


def _explore(world: World, iteration: int) -> dict[str, Any]:
    models = world.state.models(iteration)
    tasks: list[Task] = []
    for trajectory in range(world.rng.randint(1, 5)):
        start = _done(world, "bootstrap", -1)[0]
        for chunk in range(world.rng.randint(1, 4)):
            spec = {"trajectory": trajectory, "chunk": chunk, "models": models, "start": start}
            tasks.append(make_task("explore", "g", f"t{trajectory}.c{chunk:02d}", spec, (start,)))
            start = tasks[-1].key
    return content(tasks, inputs=models) | {"last_chunk": {}, "trajectories": {}}


def _select(world: World, iteration: int) -> dict[str, Any]:
    return _picks(world, _done(world, "explore", iteration), world.rng.randint(0, 3), "iter/label")


def _evaluate(world: World, iteration: int) -> dict[str, Any]:
    labels = sorted(world.state.labels("held_out"))
    spec = {"models": world.state.models(iteration), "labels": labels}
    return content([make_task("evaluate", "g", "ensemble", spec, (*spec["models"], *labels))])


def _verdict(world: World, iteration: int) -> dict[str, Any]:
    converged = world.rng.random() < world.converge and world.state.foundation_level is None
    return {
        "converged": converged,
        "reason": "all criteria met" if converged else f"not in iteration {iteration}",
    }


def _assess(world: World, iteration: int) -> dict[str, Any]:
    return _evaluate(world, iteration)


def _quench(world: World, iteration: int) -> dict[str, Any]:
    verdict = world.state.decisions.get(("verdict", iteration))
    tasks: list[Task] = []
    for stage in range(3 if world.quench else 0):
        inputs = (tasks[-1].key,) if tasks else ()
        spec = {"stage": stage, "start": inputs, "iteration": iteration}
        tasks.append(make_task("quench", "production", f"s{stage:02d}", spec, inputs))
    return content(tasks, inputs=world.state.models(iteration)) | {"converged": bool(verdict and verdict["converged"])}


CONTENT = {
    "bootstrap": _bootstrap,
    "seed_labels": _seed_labels,
    "promote": _promote,
    "pretrain": _pretrain,
    "train": _train,
    "explore": _explore,
    "select": _select,
    "evaluate": _evaluate,
    "verdict": _verdict,
    "assess": _assess,
    "quench": _quench,
}
