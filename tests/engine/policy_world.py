"""A campaign in virtual time: decisions with plausible content, and tasks that end in every way, without a file.

The world keeps the driver's rules (a task is put back when an attempt ends without a result, given up after three)
and checks, at every step, what the policy must never do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from campaign_kit import bootstrap_content, content

from alloop.errors import NEEDS_PERSON
from alloop.policy import NEEDED, Ending, Limits, Now, Plan, has_ended, looks_converged, outdated_chunks, policy
from alloop.pools import Slot
from alloop.report.status import label_counts
from alloop.selection.picks import Candidate, Rules
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
    shrink: float = 0.0
    state: State = field(default_factory=State)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    order: list[tuple[str, int]] = field(default_factory=list)
    running: list[list[str]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    launches: dict[str, int] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)
    accurate: float = 0.5
    aids: bool = False
    strays: float = 0.0
    max_lag: int = 0

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
            plan = self.plan()
            self.check_plan(plan)
            if plan.ending:
                return plan.ending
            self.launch(plan)
            if plan.due:
                if plan.due[0] in ("train", "promote") and not self.state.labels("training"):
                    return Ending(NEEDS_PERSON, "no label to train on", "paused")
                self.decide_due(plan)
                continue
            assert self.running, f"nothing runs and nothing is due; waiting: {list(self.state.waiting)}"
            self.something_happens()
            if self.rng.random() < self.restless:
                self.a_person_asks()
            self.check_counts()
            if self.rng.random() < 0.02:
                self.driver_dies()
        raise AssertionError("the campaign does not come to an end")

    def step(self) -> None:
        """One turn of an undisturbed campaign: what is due is decided, or what may begin begins and some task ends."""
        plan = self.plan()
        if plan.due:
            self.decide_due(plan)
            return
        self.launch(plan)
        self.something_happens()

    def launch(self, plan: Plan) -> None:
        for launch in plan.launch:
            self.running.append(list(launch.keys))
            for key in launch.keys:
                self.launches[key] = self.launches.get(key, 0) + 1
                self.state.begin(key)

    def plan(self) -> Plan:
        return policy(self.state, self.limits, now(self.limits.slots - len(self.running)))

    def decide_due(self, plan: Plan) -> None:
        assert plan.due is not None
        kind, iteration = plan.due
        if kind == "pick":
            best = self.state.backlog.take(iteration, plan.picks)
            assert 0 < len(best) <= plan.picks
            picks = [record | {"reason": reason} for reason, record in best]
            level = {"name": self.state.level, "content": {"labeler": self.state.level}}
            self.decide("pick", iteration=iteration, level=level, picks=picks)
            return
        self.order.append(plan.due)
        self.decide(kind, iteration=iteration, **CONTENT[kind](self, iteration))
        if kind == "explore" and not self.limits.barrier:
            self.state.backlog.open_round(iteration, RULES, iteration, STRATA)

    def done(self, key: str) -> None:
        """A task has its result; a chunk brings home frames, a ranking drops what a newer ensemble knows."""
        self.state.settle_done(key)
        for kind, iteration in self.state.asked_in[key]:
            if kind == "explore" and iteration in self.state.backlog.iterations():
                self.state.note_chunk(key, {"accurate": 8, "candidate": 2} if key in self.good() else {"failed": 9})
                self.state.backlog.add(iteration, _frames(self, key, 3))
            if kind == "rank":
                found = self.state.backlog.of(range(iteration))
                deviations = {c.identity: self.rng.choice([0.1, 0.5, 5.0]) for _, (c, _) in found}
                self.state.backlog.rerank(deviations, lambda _: (0.25, 1.0))

    def good(self) -> set[str]:
        return {key for key in self.state.tasks if int(key[:2], 16) < 256 * self.accurate}

    def decide(self, kind: str, **more: Any) -> None:
        decision = {"number": self.state.next_number, "kind": kind} | more
        self.decisions.append(decision)
        self.state.apply(decision)
        for task in self.state.tasks:
            if task not in self.launches and self.rng.random() < self.hopeless.get(self.state.tasks[task].kind, 0.0):
                self.doomed.add(task)

    def outdated(self, wanted: set[str]) -> list[str]:
        """Chunks of earlier quenches that nobody wants any more."""
        kept = wanted | self.state.done | self.state.superseded
        found = [d["tasks"] for (kind, _), d in self.state.decisions.items() if kind == "quench"]
        return [entry["key"] for entries in found for entry in entries if entry["key"] not in kept]

    def something_happens(self) -> None:
        """The next task of some batch ends: well, badly, or with its whole process."""
        batch = self.rng.choice(self.running)
        key = batch[0]
        chance = self.rng.random()
        dead = chance < self.die
        inputs = self.state.tasks[key].inputs
        failed = key in self.doomed or chance < self.die + self.fail
        if not all(has_ended(self.state, name) for name in inputs):
            self.state.put_back(batch.pop(0))  # it followed a task of its batch that failed
        elif not dead and not failed:
            self.done(batch.pop(0))
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
        assert (fresh.unjudged, fresh.picks_in, fresh.totals) == (
            self.state.unjudged,
            self.state.picks_in,
            self.state.totals,
        )
        fresh.recount()
        assert fresh.fresh == self.state.fresh or self.state.excluded or self.state.retried
        old = self.state
        self.recover_backlog(fresh)
        for state in (old, fresh) if not self.limits.barrier else ():
            assert looks_converged(state, self.limits, state.iteration) == looks_converged(
                old, self.limits, old.iteration
            )
        self.state = fresh
        if self.rng.random() < self.shrink:
            self.limits = replace(self.limits, max_iterations=self.rng.randint(0, self.limits.max_iterations))

    def recover_backlog(self, fresh: State) -> None:
        old, self.state = self.state, fresh
        for iteration in sorted(old.backlog.iterations()):
            fresh.backlog.open_round(iteration, RULES, iteration, STRATA)
            for pick in fresh.picks_in.get(iteration, ()):
                where = pick["trajectory"], pick["stratum"], pick["time_ps"]
                fresh.backlog.note_pick(iteration, pick["key"], pick["reason"], *where)
            for entry in fresh.decisions["explore", iteration]["tasks"]:
                if entry["key"] in fresh.done:
                    self.done(entry["key"])

    # -------------------------------------------------------------------------------- invariants

    def check_plan(self, plan: Plan) -> None:
        state = self.state
        assert len(plan.launch) <= max(0, self.limits.slots - len(self.running)), "more batches than free slots"
        keys = [key for launch in plan.launch for key in launch.keys]
        assert len(keys) == len(set(keys))
        assert len({launch.slot for launch in plan.launch}) == len(plan.launch), "one batch per slot"
        for batch in (launch.keys for launch in plan.launch):
            assert batch
            assert len({state.tasks[key].kind for key in batch}) == 1
            assert len(batch) <= self.limits.batch.get(state.tasks[batch[0]].kind, 1)
            for place, key in enumerate(batch):
                assert key in state.waiting
                assert key not in state.done and key not in state.running and key not in state.quarantined
                for name in state.tasks[key].inputs:
                    assert has_ended(state, name) or name in batch[:place], "launched before its input"
        free = self.limits.slots - len(self.running) - len(plan.launch)
        idle = free > 0 and not plan.due and not plan.ending and state.backlog.newest() is not None
        over = self.limits.barrier or self.limits.quench_only or state.decisions.get(("verdict", state.iteration), {})
        assert not idle or over, "a slot is free and a frame waits for a label"

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
        assert state.waiting.keys() == {key for keys in state.waiting_of.values() for key in keys}
        for (kind, iteration), keys in state.unfinished.items():
            assert keys <= going, (kind, iteration)

    def paused(self) -> bool:
        return any(self.state.tasks[key].kind in NEEDED for key in self.state.quarantined)


RULES = Rules(6, 4, 0.0, 1, {"overlap": 1})
STRATA = 3


def now(free_slots: int, **more: Any) -> Now:
    """The moment, with so many free slots of one pool."""
    return Now(tuple(Slot("local", str(number)) for number in range(free_slots)), **more)


# ---------------------------------------------------------------------------------------- content of decisions


def _frames(world: World, source: str, count: int) -> list[tuple[Candidate, dict[str, Any]]]:
    picks = _picks(world, [source], count, "iter/label")["picks"]
    events = frozenset({"overlap"} if int(source, 16) % 5 == 0 else ())
    return [
        (
            Candidate(pick["key"], source, n, f"stratum {int(source, 16) % 3}", "candidate", "candidate", 0.5, events),
            {key: pick[key] for key in pick if key != "reason"},
        )
        for n, pick in enumerate(picks)
    ]


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
                    "trajectory": source,
                    "stratum": f"stratum {int(source, 16) % 3}",
                    "time_ps": float(frame),
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
    return content([make_task("train", "g", "model.00", spec)], {"training": labels}, labels)


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
        spec |= {"describe": True} if world.aids and number == 0 and world.state.describer is None else {}
        tasks.append(make_task("train", f"iter.{iteration:06d}/train", f"model.{number:02d}", spec, init))
    return content(tasks, {"training": world.state.labels("training")}, labels)


def _explore(world: World, iteration: int) -> dict[str, Any]:
    models = world.state.models(iteration)
    tasks: list[Task] = []
    for trajectory in range(world.rng.randint(1, 5)):
        start = _done(world, "bootstrap", -1)[0]
        for chunk in range(world.rng.randint(1, 4)):
            spec = {"trajectory": trajectory, "chunk": chunk, "models": models, "start": start, "i": iteration}
            tasks.append(make_task("explore", "g", f"t{trajectory}.c{chunk:02d}", spec, (start,)))
            start = tasks[-1].key
    withdrawn = outdated_chunks(world.state, iteration, world.max_lag)
    return content(tasks, inputs=models) | {"withdrawn": withdrawn, "trajectories": {}}


def _describe(world: World, iteration: int) -> dict[str, Any]:
    assert not any(world.state.open("describe", before) for before in range(iteration)), "one goes on from another"
    labels = world.state.decisions["train", iteration]["common"]["training"]
    spec = {"describer": world.state.describer, "labels": labels, "i": iteration}
    return content([make_task("evaluate", "g", "environments", spec, (world.state.describer,))]) | {"labels": labels}


def _probe(world: World, iteration: int) -> dict[str, Any]:
    tasks: list[Task] = []
    for stage in range(2):
        inputs = (tasks[-1].key,) if tasks else ()
        spec = {"stage": stage, "start": inputs, "probe": iteration}
        tasks.append(make_task("quench", "probe", f"s{stage:02d}", spec, inputs))
    return content(tasks, inputs=world.state.models(iteration))


def _relax(world: World, iteration: int) -> dict[str, Any]:
    ends = [key for key in _done(world, "probe", iteration) if world.state.tasks[key].name == "s01"]
    return content([make_task("relax", "relax", f"r{key}", {"start": key}, (key,)) for key in ends])


def _rank(world: World, iteration: int) -> dict[str, Any]:
    spec = {"models": world.state.models(iteration), "frames": {}}
    return content([make_task("evaluate", "g", "backlog", spec, tuple(spec["models"]))])


def _select(world: World, iteration: int) -> dict[str, Any]:
    found = _picks(world, _done(world, "explore", iteration), world.rng.randint(0, 3), "iter/label")
    known = world.state.picks.keys()
    fresh = [pick for pick in found["picks"] if pick["key"] not in known]
    found["classes"] = dict(world.state.explored.get(iteration, {}))
    return found | {"picks": fresh if world.limits.barrier else fresh[:1]}


def _evaluate(world: World, iteration: int) -> dict[str, Any]:
    labels = sorted(world.state.labels("held_out"))
    spec = {"models": world.state.models(iteration), "labels": labels}
    return content([make_task("evaluate", "g", "ensemble", spec, (*spec["models"], *labels))])


def _verdict(world: World, iteration: int) -> dict[str, Any]:
    converged = world.rng.random() < world.converge and world.state.foundation_level is None
    converged = converged and not world.state.decided("train", iteration + 1)
    return {
        "converged": converged,
        "reason": "all criteria met" if converged else f"not in iteration {iteration}",
    }


def _assess(world: World, iteration: int) -> dict[str, Any]:
    return _evaluate(world, iteration)


def _quench(world: World, iteration: int) -> dict[str, Any]:
    verdict = world.state.judgement(iteration)
    tasks: list[Task] = []
    for stage in range(3 if world.quench else 0):
        inputs = (tasks[-1].key,) if tasks else ()
        spec = {"stage": stage, "start": inputs, "iteration": iteration, "section": world.limits.quench}
        tasks.append(make_task("quench", "production", f"s{stage:02d}", spec, inputs))
    converged = bool(verdict and verdict["converged"])
    section = world.limits.quench if world.quench and (converged or world.limits.quench_always) else ""
    more = {"converged": converged, "section": section, "withdrawn": world.outdated({task.key for task in tasks})}
    return content(tasks, inputs=world.state.models(iteration)) | more


def _melting(world: World, iteration: int) -> dict[str, Any]:
    """Where a glass melts does not depend on an ensemble."""
    return content([make_task("quench", "production/melting", "glass.melting", {})]) | {"section": world.limits.quench}


def _final_train(world: World, iteration: int) -> dict[str, Any]:
    labels = world.state.labels("training")
    tasks = [make_task("train", "g", "final", {"final": iteration, "labels": labels})]
    return content(tasks, {"training": labels}, labels) | {"section": world.limits.quench}


def _final_check(world: World, iteration: int) -> dict[str, Any]:
    assert not world.state.open("final_train", iteration)
    models = _done(world, "final_train", iteration)
    tasks = [make_task("evaluate", "g", "final", {"models": models, "check": True}, tuple(models))] if models else []
    return content(tasks) | {"section": world.limits.quench}


def _guard(world: World, iteration: int) -> dict[str, Any]:
    """Some quenches leave what the ensemble can be trusted in, and bring home frames of it."""
    assert not world.state.open("quench", iteration)
    chunks = _done(world, "quench", iteration) if world.rng.random() < world.strays else []
    found = _picks(world, chunks[:1], 2, "production/label")
    picks = [pick | {"role": "training", "reason": "production"} for pick in found["picks"]]
    picks = [pick for pick in picks if pick["key"] not in world.state.picks]
    reason = f"{len(picks)} of its frames are learnt" if picks else "nothing left it"
    return {"level": found["level"], "picks": picks, "stopped": chunks[:1], "converged": not picks, "reason": reason}


def _relax_glass(world: World, iteration: int) -> dict[str, Any]:
    ends = [key for key in _done(world, "quench", iteration) if world.state.tasks[key].name == "s02"]
    tasks = [make_task("relax", "production/relax", f"r{key}", {"start": key}, (key,)) for key in ends]
    return content(tasks) | {"section": world.limits.relaxation}


CONTENT = {
    "bootstrap": _bootstrap,
    "seed_labels": _seed_labels,
    "promote": _promote,
    "pretrain": _pretrain,
    "train": _train,
    "explore": _explore,
    "describe": _describe,
    "rank": _rank,
    "select": _select,
    "evaluate": _evaluate,
    "probe": _probe,
    "relax": _relax,
    "verdict": _verdict,
    "assess": _assess,
    "melting": _melting,
    "quench": _quench,
    "final_train": _final_train,
    "final_check": _final_check,
    "guard": _guard,
    "relax_glass": _relax_glass,
}
