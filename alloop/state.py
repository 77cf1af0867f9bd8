"""What has been decided and what has come of it: decisions folded one by one into the state the policy reads."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from alloop.selection.backlog import Backlog
from alloop.store import Task

Stage = tuple[str, int]
"""Kind of decision and iteration (-1 for the bootstrap): the unit at whose end the next decision falls due."""

# which tasks a decision of each kind asks for, and in which folder they live
_TASKS_OF = {
    "bootstrap": ("bootstrap", "bootstrap/seed"),
    "seed_labels": ("label", "bootstrap/label"),
    "train": ("train", "iter.{iteration:06d}/train"),
    "explore": ("explore", "iter.{iteration:06d}/explore"),
    "pick": ("label", "iter.{iteration:06d}/label"),
    "select": ("label", "iter.{iteration:06d}/label"),
    "describe": ("evaluate", "iter.{iteration:06d}/describe"),
    "rank": ("evaluate", "iter.{iteration:06d}/rank"),
    "evaluate": ("evaluate", "iter.{iteration:06d}/evaluate"),
    "probe": ("quench", "iter.{iteration:06d}/probe"),
    "assess": ("assess", "production/assess"),
    "relax": ("relax", "iter.{iteration:06d}/relax"),
    "melting": ("quench", "production/melting"),
    "quench": ("quench", "production"),
    "promote": ("label", "promoted/label"),
    "pretrain": ("train", "iter.{iteration:06d}/pretrain"),
    "relabel": ("label", "relabelled/label"),
    "final_train": ("train", "iter.{iteration:06d}/final"),
    "final_check": ("evaluate", "iter.{iteration:06d}/final-check"),
    "guard": ("label", "production/label"),
    "relax_glass": ("relax", "production/relax"),
}


def decision_tasks(decision: dict[str, Any]) -> list[Task]:
    """Return the tasks a decision asks for; a label's spec is still empty, see `Campaign.materialise`."""
    if decision["kind"] not in _TASKS_OF:
        return []
    kind, group = _TASKS_OF[decision["kind"]]
    group = group.format(iteration=max(decision.get("iteration", 0), 0))
    if kind == "assess":
        kind = "evaluate"
    if kind == "label":
        return [
            Task(pick["key"], kind, group, pick["name"], {}, (pick["source"]["task"],)) for pick in decision["picks"]
        ]
    common, inputs = decision.get("common", {}), tuple(decision.get("inputs", ()))
    return [
        Task(
            entry["key"],
            kind,
            group,
            entry["name"],
            entry["spec"] if entry.get("apart") else common | entry["spec"],
            tuple(entry["inputs"]) if entry.get("apart") else inputs + tuple(entry["inputs"]),
            entry.get("files", {}),
        )
        for entry in asked_entries(decision)
    ]


def asked_entries(decision: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of a decision's tasks: ``tasks``, and ``points``, which only ask for an energy."""
    return [*decision.get("tasks", ()), *decision.get("points", ())]


def task_entries(tasks: list[Task], common: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the decision's record of tasks, without the part of their specs that is common to them.

    A task that does not have that part stands apart: neither it nor the decision's inputs are the task's.
    """
    entries = []
    for task in tasks:
        apart = any(key not in task.spec or task.spec[key] != value for key, value in common.items())
        spec = task.spec if apart else {key: value for key, value in task.spec.items() if key not in common}
        entry = {"key": task.key, "name": task.name, "inputs": list(task.inputs), "spec": spec}
        entries.append(entry | ({"apart": True} if apart else {}) | ({"files": task.files} if task.files else {}))
    return entries


def quench_runs(decision: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the runs of a quench or a probe, each with its records of tasks in order as ``chunks``.

    ``analysed`` are those of them whose frames, the last ones at least, are analysed; minimisations are in neither
    place but among the chunks. Runs of one sample share the chunks they begin with.
    """
    entries = {entry["key"]: entry for entry in decision["tasks"]} if decision else {}
    found = []
    for run in decision.get("runs", ()) if decision else ():
        own = [entries[key] for key in run["tasks"]]
        analysed = [entry for entry in own if entry["spec"].get("analyse_from_step") is not None]
        found.append(run | {"chunks": own, "analysed": analysed})
    return found


class Durations:
    """How long finished tasks of one kind took, the last few hundred of them."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=200)
        self._long_s: float | None = None

    def add(self, seconds: float) -> None:
        """Take in one more."""
        self._seconds.append(seconds)
        self._long_s = None

    @property
    def long_s(self) -> float:
        """The time nine of ten need at most."""
        if self._long_s is None:
            self._long_s = sorted(self._seconds)[int(0.9 * (len(self._seconds) - 1) + 0.5)]
        return self._long_s


@dataclass
class State:
    """What has been decided and what has come of it, kept up to date event by event.

    level: name of the level of theory that labels are asked for at now; target_level: of the one the campaign is to end
    at; foundation: of the cheap one it begins with, if any; levels: content of every level by name;
    retried: when quarantined work was given another chance; excluded: labels a person took out of training;
    verdict: on the newest ensemble, or what the guard of its quench said since; superseded: what is no longer wanted:
    labels, as the level of theory changed before they were done, and chunks that a newer ensemble or another protocol
    made pointless before they began; requests: of persons, that have been decided; describer: the model by whose
    descriptor environments are compared, the first of the first ensemble for the whole campaign.

    For the streaming order: picks_in: of each iteration; explored: how the records of each iteration's finished chunks
    are classified; unjudged: iterations that explore and have no verdict; fresh: finished training labels that the
    newest ensemble has asked for; backlog: frames that wait for a free label slot. The last three and what a
    task's failures demand of its next attempt (not_before: on the driver's clock; needs_s: time) are known to the
    process that drives only.
    """

    next_number: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    decisions: dict[Stage, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    asked_in: dict[str, list[Stage]] = field(default_factory=dict)
    unfinished: dict[Stage, set[str]] = field(default_factory=dict)
    waiting: dict[str, None] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    quarantined: dict[str, dict[str, Any]] = field(default_factory=dict)
    retried: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, dict[str, Any]] = field(default_factory=dict)
    picks: dict[str, dict[str, Any]] = field(default_factory=dict)
    trajectories: dict[str, str] = field(default_factory=dict)
    iteration: int = -1
    verdict: dict[str, Any] | None = None
    starts: list[dict[str, Any]] = field(default_factory=list)
    level: str | None = None
    target_level: str | None = None
    foundation: str | None = None
    levels: dict[str, dict[str, Any]] = field(default_factory=dict)
    superseded: set[str] = field(default_factory=set)
    requests: set[str] = field(default_factory=set)
    totals: Counter[Stage] = field(default_factory=Counter)
    waiting_of: dict[str, dict[str, None]] = field(default_factory=dict)
    picks_in: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    explored: dict[int, Counter[str]] = field(default_factory=dict)
    unjudged: set[int] = field(default_factory=set)
    fresh: int = 0
    backlog: Backlog = field(default_factory=Backlog, compare=False)
    not_before: dict[str, float] = field(default_factory=dict)
    needs_s: dict[str, float] = field(default_factory=dict)
    durations: dict[str, Durations] = field(default_factory=dict, compare=False)
    bugs: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    describer: str | None = None

    def apply(self, decision: dict[str, Any]) -> None:
        """Fold the next decision in."""
        kind, iteration = decision["kind"], decision.get("iteration", -1)
        self.next_number = decision["number"] + 1
        if kind in _OF_PERSONS:
            _OF_PERSONS[kind](self, decision)
            self.requests.add(decision.get("request", ""))
            return
        if kind == "campaign":
            self.identity = decision
        elif kind == "start":
            self._start(decision)
        elif kind == "quarantine":
            self.settle_quarantine(decision["key"], decision)
        elif kind != "pick":
            self.decisions[kind, iteration] = decision
        if kind == "train":
            self.iteration, self.verdict, self.fresh = iteration, None, 0
            own = (task["key"] for task in decision["tasks"] if task["spec"].get("describe"))
            self.describer = self.describer or next(own, None)
        if kind == "explore":
            self.unjudged.add(iteration)
        self._withdraw(decision.get("withdrawn", ()))
        if kind == "verdict":
            self.unjudged.discard(iteration)
        if iteration == self.iteration >= 0 and kind in ("verdict", "guard"):
            self.verdict = self.judgement(iteration)
        if "level" in decision:
            self.levels[decision["level"]["name"]] = decision["level"]["content"]
        if kind in ("promote", "relabel"):
            if self.foundation_level is None:
                self.target_level = decision["level"]["name"]
            elif decision.get("foundation"):
                self.foundation = decision["level"]["name"]
            self._change_level(decision["level"]["name"])
            self.unjudged.clear()
            self.backlog = Backlog()
        self.trajectories |= decision.get("trajectories", {})
        for pick in decision.get("picks", []):
            self.picks.setdefault(pick["key"], {"iteration": iteration} | pick)
        if kind in ("pick", "select"):
            self._count_picks(decision, iteration)
        self._ask_for(decision, ("select" if kind == "pick" else kind, iteration))
        if kind in ("promote", "relabel"):
            self.recount()

    def _count_picks(self, decision: dict[str, Any], iteration: int) -> None:
        picks = decision["picks"]
        self.picks_in.setdefault(iteration, []).extend(picks)
        for pick in picks if decision["kind"] == "pick" else ():
            where = pick["trajectory"], pick["stratum"], pick["time_ps"], pick.get("target_temperature_K", math.nan)
            self.backlog.note_pick(iteration, pick["key"], pick["reason"], *where)
        if decision["kind"] == "select":
            self.backlog.close_round(iteration)
            missed = {"missed": decision.get("missed_records", 0)}
            self.explored[iteration] = Counter(decision.get("classes", {}) | missed)

    def _withdraw(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.superseded.add(key)
            self.quarantined.pop(key, None)
            self._unwait(key)
            self._leave_stages(key)

    def _ask_for(self, decision: dict[str, Any], stage: Stage) -> None:
        for task in decision_tasks(decision):
            self.unfinished.setdefault(stage, set())
            if task.key not in self.tasks:
                self.tasks[task.key] = task
                self._wait(task.key)
            if task.key in self.superseded:
                self._want_again(task.key, decision.get("time", ""))
            stages = self.asked_in.setdefault(task.key, [])
            if stage not in stages:
                stages.append(stage)
                self.totals[stage] += 1
            if task.key in self.waiting or task.key in self.running:
                self.unfinished[stage].add(task.key)
        self._note_exploring(stage)

    def _note_exploring(self, stage: Stage) -> None:
        """Have the backlog know whether chunks of an iteration are still to end."""
        kind, iteration = stage
        if kind == "explore" and self.unfinished.get(stage):
            self.backlog.exploring.add(iteration)
        elif kind == "explore":
            self.backlog.exploring.discard(iteration)

    def _want_again(self, key: str, time: str) -> None:
        """Ask anew for a label that a change of level had left behind; earlier failures no longer count."""
        self.superseded.discard(key)
        if self.quarantined.pop(key, None) is not None:
            self.retried[key] = time
        if key not in self.running:
            self._wait(key)

    def _wait(self, key: str) -> None:
        self.waiting[key] = None
        self.waiting_of.setdefault(self.tasks[key].kind, {})[key] = None

    def _unwait(self, key: str) -> None:
        self.waiting.pop(key, None)
        self.waiting_of.get(self.tasks[key].kind, {}).pop(key, None)

    def _start(self, decision: dict[str, Any]) -> None:
        self.starts.append(decision)
        levels = decision.get("levels")
        self.target_level = levels["target"]["name"] if levels else None
        self.foundation = levels["foundation"]["name"] if levels and levels["foundation"] else None
        asked_for = any(pick["level"] == self.level and not pick["given"] for pick in self.picks.values())
        if levels and not asked_for:
            self.level = (levels["foundation"] or levels["target"])["name"]

    def _change_level(self, name: str) -> None:
        """Ask for labels at another level from now on; what waits to be labelled at the old one is no longer wanted."""
        self.level = name
        old = [key for key, pick in self.picks.items() if pick.get("level") != name and not pick.get("given")]
        self.superseded |= {key for key in old if key not in self.done}
        for key in old:
            self._unwait(key)
            self._leave_stages(key)

    @property
    def foundation_level(self) -> str | None:
        """Name of the level that models learn from first, None once the campaign has left it or never had one."""
        return self.foundation if self.foundation == self.level and self.foundation != self.target_level else None

    def decided(self, kind: str, iteration: int = -1) -> bool:
        """Tell whether this decision has been taken."""
        return (kind, iteration) in self.decisions

    def judgement(self, iteration: int) -> dict[str, Any] | None:
        """Return what was last said of an ensemble: its verdict, or a later guard that sent it back to learn more."""
        verdict, guard = (self.decisions.get((kind, iteration)) for kind in ("verdict", "guard"))
        sent_back = guard is not None and guard["picks"] and (not verdict or guard["number"] > verdict["number"])
        return guard if sent_back else verdict

    def open(self, kind: str, iteration: int = -1) -> bool:
        """Tell whether work of this decision is unfinished."""
        return bool(self.unfinished.get((kind, iteration)))

    def settle_done(self, key: str) -> None:
        """Note that a task has its result."""
        pick = self.picks.get(key)
        if pick and key not in self.done and self._is_fresh(pick):
            self.fresh += 1
        self.done.add(key)
        self.superseded.discard(key)
        self.quarantined.pop(key, None)  # a late result is as good as one in time
        self._settle(key)

    def settle_quarantine(self, key: str, record: dict[str, Any]) -> None:
        """Note that a task was given up, with the reason."""
        if key not in self.done:
            self.quarantined[key] = record
        self._settle(key)

    def _settle(self, key: str) -> None:
        self._unwait(key)
        self.running.discard(key)
        self._leave_stages(key)

    def _leave_stages(self, key: str) -> None:
        for stage in self.asked_in.get(key, ()):
            self.unfinished[stage].discard(key)
            self._note_exploring(stage)

    def retry(self, decision: dict[str, Any]) -> None:
        """Give quarantined tasks another chance, but for labels and chunks that nothing would come of any more."""
        for key in decision["keys"]:
            if key in self.quarantined and key not in self.superseded and not self.is_too_late(key):
                del self.quarantined[key]
                self._wait(key)
                self.retried[key] = decision["time"]
                for stage in self.asked_in[key]:
                    self.unfinished[stage].add(key)
                    self._note_exploring(stage)

    def is_too_late(self, key: str) -> bool:
        """Tell whether a task is a chunk of iterations that have chosen their frames: nobody would look at its own."""
        return all(kind == "explore" and self.decided("select", number) for kind, number in self.asked_in[key])

    def exclude(self, decision: dict[str, Any]) -> None:
        """Take labels out of training and held-out sets, or bring them back."""
        for key in decision["keys"]:
            if decision["undo"]:
                self.excluded.pop(key, None)
            else:
                self.excluded[key] = {"reason": decision["reason"], "time": decision["time"]}
        self.recount()

    def begin(self, key: str) -> None:
        """Note that an attempt at a task is under way."""
        self._unwait(key)
        self.running.add(key)

    def put_back(self, key: str) -> None:
        """Note that an attempt ended without a result."""
        if key in self.running:
            self.running.discard(key)
            if key not in self.superseded:
                self._wait(key)

    def recount(self) -> None:
        """Count the fresh labels anew, once results that came before this process are known."""
        made = [self.picks[pick["key"]] for pick in self.picks_in.get(self.iteration, ())]
        self.fresh = sum(
            pick["key"] in self.done and pick["key"] not in self.excluded and self._is_fresh(pick) for pick in made
        )

    def _is_fresh(self, pick: dict[str, Any]) -> bool:
        newest = pick.get("iteration", -1) == self.iteration >= 0
        asked = newest and pick.get("reason") != "production"  # which is learnt by the next ensemble in any case
        return asked and pick["role"] == "training" and pick.get("level") == self.level

    def note_chunk(self, key: str, classes: dict[str, int]) -> None:
        """Count the classes of a finished chunk's records, and those it missed as its trajectory was lost."""
        for kind, iteration in self.asked_in[key]:
            if kind == "explore":
                self.explored.setdefault(iteration, Counter()).update(classes)

    def labels(self, role: str, level: str | None = None) -> list[str]:
        """Return the finished labels with a role (training or held_out), in order of request.

        Of the present level of theory if none is named; labels of two levels are never returned together.
        """
        wanted = level or self.level
        return [
            key
            for key, pick in self.picks.items()
            if pick["role"] == role and key in self.done and pick.get("level") == wanted and key not in self.excluded
        ]

    def models(self, iteration: int) -> list[str]:
        """Return the keys of the trained models of an iteration's ensemble, in order."""
        decision = self.decisions.get(("train", iteration))
        return [task["key"] for task in decision["tasks"] if task["key"] in self.done] if decision else []

    def newest_quench(self) -> dict[str, Any]:
        """Return the last decision that asked for a melt-quench, empty if there is none.

        What its guard has sent back since was not made by a converged ensemble.
        """
        found = [own for (kind, _), own in self.decisions.items() if kind == "quench" and own["tasks"]]
        newest = max(found, key=lambda own: int(own["number"]), default={})
        judged = self.judgement(newest["iteration"]) if newest else None
        return newest | {"converged": bool(judged and judged["converged"])} if newest else {}

    def models_of_glass(self, iteration: int) -> list[str]:
        """Return the models that drive an ensemble's quench, which a longer training may have made; else its own."""
        quench = self.decisions.get(("quench", iteration), {})
        return list(quench.get("common", {}).get("models", ())) or self.models(iteration)

    def explored_through(self) -> int:
        """Return how many iterations are behind the campaign: the one that goes on, or is to begin, is not."""
        over = self.decided("verdict", self.iteration) or self.decided("relabel", self.iteration)
        return self.iteration + 1 if over else max(0, self.iteration)

    def stage_counts(self, kind: str, iteration: int) -> tuple[int, int]:
        """Return (finished, all) tasks of a decision."""
        total = self.totals[kind, iteration]
        return total - len(self.unfinished.get((kind, iteration), ())), total

    def task_counts(self) -> dict[str, dict[str, int]]:
        """Return, per kind of task, how many are done, running, waiting and quarantined."""
        counts: dict[str, Counter[str]] = {}
        for key, task in self.tasks.items():
            if task.kind not in counts:
                counts[task.kind] = Counter(done=0, running=0, waiting=0, quarantined=0)
            counts[task.kind]["done" if key in self.done else self.status_of(key)] += 1
        return {kind: dict(entry) for kind, entry in counts.items()}

    def status_of(self, key: str) -> str:
        """Return done, running, waiting, quarantined or superseded."""
        if key in self.done:
            return "done"
        if key in self.superseded and key not in self.running:
            return "superseded"
        if key in self.quarantined:
            return "quarantined"
        return "running" if key in self.running else "waiting"


_OF_PERSONS: dict[str, Callable[[State, dict[str, Any]], None]] = {"retry": State.retry, "exclude": State.exclude}
"""Decisions a person takes, which ask for nothing new."""
