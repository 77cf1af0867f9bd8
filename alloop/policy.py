"""The policy: one pure function that says what should be in flight now and which decision is due.

The same function drives real pools and the simulator. It reads queues and counts only, never history.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alloop.errors import DONE, NEEDS_PERSON, NOT_CONVERGED
from alloop.notify import Event
from alloop.pools import Slot
from alloop.state import State
from alloop.store import Task

NEEDED = ("bootstrap", "train", "evaluate", "quench")
"""Kinds of task the campaign cannot go on without; a lost label or chunk costs itself only."""
AIDS = ("describe", "rank", "probe", "relax", "final_train", "final_check", "relax_glass")
"""Decisions whose tasks only help to choose, to judge or to do better: without them the campaign goes on."""
REPLANNED = ("melting", "quench")
"""Decisions that are taken again when `quench` in the configuration changes."""
ORDER = ("evaluate", "train", "quench", "bootstrap", "explore", "relax", "label")
"""Which kind of task a free slot of a common pool takes first."""
BRIEF = ("evaluate",)
"""Kinds of task that take seconds: a slot that runs one is as good as free to those who share out longer work."""
SAME_BUG = 3
"""A kind of task in which so many different ones met the same bug is paused: the rest would meet it too."""


@dataclass(frozen=True)
class Limits:
    """What bounds a run: iterations to explore (and of them the foundation's), pools, and the watermarks.

    slots: tasks at once, over all pools; pools: kind of task -> pool (`local` if it is not named); batch: kind -> tasks
    that may share a process; barrier: the classical order, stage by stage. Watermarks: train_after, training labels of
    an ensemble that start the next one; max_backlog, frames waiting for a label with which no chunk begins.
    longest_s: per pool, the time that a fresh job of it gives to a batch; more is never asked for. probes: a short
    quench comes before each verdict; relaxes: relaxing what it made with the labeler comes last. quench: hash of what
    is to be quenched and how, empty for nothing; another one makes the quench due again. quench_always: also with an
    ensemble that is not converged; melts: where glasses melt is to be found before; final_training: an ensemble is
    trained longer for it; relaxation: hash of how what it made is relaxed with the labeler, empty if it is not.
    """

    max_iterations: int
    slots: int
    batch: dict[str, int] = field(default_factory=dict)
    quench_only: bool = False
    foundation_iterations: int = 0
    foundation_batch: int = 1
    barrier: bool = False
    pools: dict[str, str] = field(default_factory=dict)
    train_after: int = 1
    max_backlog: int = 1_000_000
    accurate_fraction: float = 1.0
    longest_s: dict[str, float] = field(default_factory=dict)
    probes: bool = False
    relaxes: bool = False
    quench: str = ""
    quench_always: bool = False
    melts: bool = False
    final_training: bool = False
    relaxation: str = ""

    def pool(self, kind: str) -> str:
        """Return the pool that runs a kind of task."""
        return self.pools.get(kind, "local")


@dataclass(frozen=True)
class Now:
    """What the policy must know of the moment: free slots, the driver's clock, and what forbids new work.

    labels_left: how many more paid labels the budget lets begin; leaving: per pool, processes that are about to free
    their slots, as they have published all their results or have only brief tasks left.
    """

    slots: tuple[Slot, ...]
    time_s: float = 0.0
    budget_used_up: str | None = None
    disk_full: bool = False
    labels_left: float = math.inf
    leaving: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    """Why a run ends, with which exit code, and what a person is told has come to pass."""

    code: int
    reason: str
    event: Event


@dataclass(frozen=True)
class Launch:
    """A batch of tasks of one kind, and the slot on which it starts now."""

    slot: Slot
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What to do now: batches to launch, the decision that is due (kind, iteration), or the end.

    picks: how many frames a due pick may ask for; demand: per pool, batches that wait for it and the longest's time.
    """

    launch: tuple[Launch, ...] = ()
    due: tuple[str, int] | None = None
    ending: Ending | None = None
    picks: int = 0
    demand: dict[str, tuple[int, float | None]] = field(default_factory=dict)


def policy(state: State, limits: Limits, now: Now) -> Plan:
    """Return which tasks should be in flight now and which decision is due: the whole strategy of alloop.

    An iteration is an ensemble and what is explored with it: train, explore, pick while chunks land and label slots
    are free, select (which closes it), evaluate, verdict; before the first come bootstrap and its labels, after the
    last the assessment of all ensembles and the quench, whose guard may send it back to train on what it met. With
    `barrier` each begins when the one before has ended; else the next ensemble trains as soon as enough new labels have
    landed. A cheap foundation may label first; promote and pretrain lead from its labels to the campaign's own.
    """
    due = next_decision(state, limits)
    stop = _stopped(state, limits, now, due)
    if stop is not None:
        return Plan(ending=stop)
    ends = isinstance(due, Ending)
    if isinstance(due, Ending) and (limits.quench_only or not _labelling(state, limits)):
        return Plan(ending=due)
    if due is not None and not isinstance(due, Ending) and not now.disk_full:
        return Plan(due=due)
    kinds = ("label",) if ends else tuple(kind for kind in ORDER if kind != "explore" or not converged(state))
    picking = not (ends or limits.barrier or limits.quench_only or converged(state))
    launch = () if now.disk_full else launches(state, limits, now, kinds)
    picks = _room_for_labels(state, limits, now, launch) if picking and not now.disk_full else 0
    newest = state.backlog.newest() if picks else None
    if newest is not None:
        return Plan(launch, ("pick", newest), picks=picks)
    if not launch and not state.running and (stuck := _stuck(state)) is not None:
        return Plan(ending=stuck)
    return Plan(launch, demand=_demand(state, limits, kinds, picking=picking))


def _stopped(state: State, limits: Limits, now: Now, due: tuple[str, int] | Ending | None) -> Ending | None:
    """Return why nothing may go on: work the campaign cannot do without is quarantined, or the budget is used up.

    A quench that is to be planned anew does without what the one before asked for.
    """
    section, quench = _section(state, limits), state.decisions.get(("quench", state.iteration))
    replans = bool(section and quench and quench.get("section") != section)
    anew = REPLANNED if replans or (isinstance(due, tuple) and due[0] in REPLANNED) else ()
    for key, record in state.quarantined.items():
        task = state.tasks[key]
        if key in state.superseded or all(kind in anew for kind, _ in state.asked_in[key]):
            continue
        if task.kind in NEEDED and is_needed(state, task):
            return Ending(NEEDS_PERSON, f"{task.kind} {task.name} failed for good: {record['message']}", "paused")
    return Ending(NOT_CONVERGED, now.budget_used_up, "budget") if now.budget_used_up else None


def is_needed(state: State, task: Task) -> bool:
    """Tell whether a task serves more than to choose or to judge well; the bugs of one that does not stop no other."""
    return any(kind not in AIDS for kind, _ in state.asked_in[task.key])


def _labelling(state: State, limits: Limits) -> bool:
    """Tell whether labels are being made, or will be once a slot, the disk or the end of a back-off lets them."""
    waits = bool(state.waiting_of.get("label")) and not _held_back(state, limits, "label")
    return waits or any(state.tasks[key].kind == "label" for key in state.running)


def _stuck(state: State) -> Ending | None:
    """Return the ending of a campaign in which all that waits is of kinds that met the same bug again and again."""
    for (kind, bug), keys in state.bugs.items():
        waits = state.waiting_of.get(kind) or (kind == "label" and state.backlog.newest() is not None)
        if len(keys) >= SAME_BUG and waits:
            return Ending(NEEDS_PERSON, f"{len(keys)} {kind} tasks met the same bug, so the rest wait: {bug}", "paused")
    return None


# ---------------------------------------------------------------------------------------- decisions


def next_decision(state: State, limits: Limits) -> tuple[str, int] | Ending | None:
    """Return the decision that is due, None while work it rests on is unfinished, or the end of the run."""
    for kind in ("bootstrap", "seed_labels"):
        if not state.decided(kind):
            return kind, -1
        if state.open(kind) and (limits.barrier or state.iteration < 0):  # later it is work given another chance
            return None
    i = state.iteration
    if i < 0 or state.decided("relabel", i):
        return _next_ensemble(state, limits, i + 1)
    if limits.quench_only:
        return None if state.open("train", i) else _closing(state, limits, i)
    if converged(state):
        return _closing(state, limits, i)
    for j in sorted(state.unjudged - {i}):
        if (due := _judging(state, limits, j)) is not None:
            return due
    if state.open("train", i):
        return None
    if (i < limits.max_iterations or i in state.unjudged) and not state.decided("verdict", i):
        return _exploring(state, limits, i)
    if state.unjudged:
        return None
    return _next_ensemble(state, limits, i + 1) if i < limits.max_iterations else _closing(state, limits, i)


def converged(state: State) -> bool:
    """Tell whether the newest ensemble was judged and found good, and its quench has not sent it back since."""
    return bool(state.verdict and state.verdict["converged"])


def _exploring(state: State, limits: Limits, i: int) -> tuple[str, int] | None:
    """Return what is due while the newest ensemble explores."""
    if not state.decided("explore", i):
        return "explore", i
    if state.describer in state.done and not state.decided("describe", i) and not _describing(state, i):
        return "describe", i
    if not limits.barrier and not state.decided("rank", i) and state.backlog.of(range(i)):
        return "rank", i
    return _early_ensemble(state, limits, i) or _judging(state, limits, i)


def _describing(state: State, i: int) -> bool:
    """Tell whether labels of an earlier ensemble are being described: each such task goes on from the one before."""
    return any(state.open("describe", j) for j in range(i))


def _judging(state: State, limits: Limits, j: int) -> tuple[str, int] | None:
    """Return the next decision towards the verdict on ensemble j, None while work it rests on goes on."""
    if state.open("explore", j) or state.open("describe", j):
        return None
    if not state.decided("select", j) and state.backlog.open(j):
        return None
    aids = [kind for kind, wanted in (("probe", limits.probes), ("relax", limits.relaxes)) if wanted]
    for kind in ("select", "evaluate", *aids, "verdict"):
        if not state.decided(kind, j):
            return kind, j
        if state.open(kind, j):
            return None
    return None


def outdated_chunks(state: State, iteration: int, max_lag: int) -> list[str]:
    """Return the chunks to withdraw as ensemble `iteration` explores: not begun, and asked for by older ones only.

    max_lag: so many ensembles between theirs and this one they may wait for.
    """
    return [
        key
        for key in state.waiting_of.get("explore", ())
        if all(kind == "explore" and number < iteration - max_lag for kind, number in state.asked_in[key])
    ]


def _early_ensemble(state: State, limits: Limits, i: int) -> tuple[str, int] | None:
    """Return the training of the next ensemble if it need not wait for the verdict on this one.

    Enough labels that it asked for have landed (for the last ensemble: all labels), and what it has explored does not
    look converged: else its verdict comes first. A change of the level of theory waits for the verdict, too.
    """
    leaves_foundation = state.foundation_level is not None and i + 1 >= limits.foundation_iterations
    if limits.barrier or leaves_foundation or looks_converged(state, limits, i):
        return None
    if i + 1 < limits.max_iterations:
        enough = state.fresh >= limits.train_after
    else:
        enough = state.unjudged == {i} and state.decided("select", i) and not state.open("select", i)
    return _next_ensemble(state, limits, i + 1) if enough else None


def looks_converged(state: State, limits: Limits, iteration: int) -> bool:
    """Tell whether the chunks an ensemble has finished pass the accurate fraction."""
    classes = state.explored.get(iteration, Counter())
    return classes.total() > 0 and classes["accurate"] >= limits.accurate_fraction * classes.total()


def _next_ensemble(state: State, limits: Limits, i: int) -> tuple[str, int] | None:
    """Return what is due before ensemble i can train, or its training.

    Labels that are being made anew, and those a quench asked for, are waited for. Once the foundation has had its
    iterations, some structures get labels of the campaign's own level, and an ensemble pre-trains on the foundation's
    before the first on those.
    """
    if state.open("relabel", i - 1) or state.open("guard", i - 1):
        return None
    if state.foundation_level is not None and i >= limits.foundation_iterations:
        return "promote", i - 1
    if state.decided("promote", i - 1):
        if state.open("promote", i - 1):
            return None
        if not state.decided("pretrain", i):
            return "pretrain", i
        if state.open("pretrain", i):
            return None
    return "train", i


def _closing(state: State, limits: Limits, i: int) -> tuple[str, int] | Ending | None:
    """Return what is due at the end of a run: the longer training, where glasses melt, the quench and what follows."""
    section, longer = _section(state, limits), limits.final_training
    first = [("final_train", longer, "verdict"), ("final_check", longer, "final_train")]
    first += [("melting", limits.melts, "verdict")]
    for kind, after in ((kind, after) for kind, wanted, after in first if wanted and section):
        if not _holds(state, kind, i, section, after):
            return kind, i
        if state.open(kind, i):
            return None
    for kind, own in (("quench", section), ("assess", "")):
        if not _holds(state, kind, i, own):
            return kind, i
    if state.open("assess", i) or state.open("quench", i):
        return None
    quench = state.decisions["quench", i]
    relaxes = bool(limits.relaxation) and not _sent_back(state, i)
    last = [("guard", "", quench.get("converged")), ("relax_glass", limits.relaxation, relaxes)]
    for kind, own in ((kind, own) for kind, own, wanted in last if wanted and quench.get("section")):
        if not _holds(state, kind, i, own, after="quench"):
            return kind, i
        if state.open(kind, i):
            return None
    return _ending(state, i, quench_only=limits.quench_only)


def _section(state: State, limits: Limits) -> str:
    """Return the hash of what is to be quenched with the newest ensemble, empty for nothing."""
    return limits.quench if limits.quench_always or converged(state) else ""


def _holds(state: State, kind: str, iteration: int, section: str, after: str = "verdict") -> bool:
    """Tell whether a closing decision was taken since the one it rests on, and for this section, if one applies."""
    decision, before = state.decisions.get((kind, iteration)), state.decisions.get((after, iteration))
    if decision is None or (section and decision.get("section") != section):
        return False
    return before is None or bool(decision["number"] > before["number"])


def _sent_back(state: State, iteration: int) -> bool:
    """Tell whether the quench of an ensemble left what it can be trusted in, and asked for labels there."""
    found = state.judgement(iteration)
    return found is not None and found["kind"] == "guard"


def _ending(state: State, iteration: int, *, quench_only: bool) -> Ending:
    found = state.judgement(iteration)
    if found and found["converged"]:
        guard = state.decisions.get(("guard", iteration), {})
        more = f"; {guard['reason']}" if guard.get("stopped") else ""
        return Ending(DONE, f"converged in iteration {iteration}: {found['reason']}{more}", "converged")
    if quench_only:
        reason = "quenched with an ensemble that is not converged"
        reason = found["reason"] if found and _sent_back(state, iteration) else reason
        return Ending(NOT_CONVERGED, f"{reason}; explore further with: alloop run", "limit")
    last = found if found and _sent_back(state, iteration) else state.judgement(iteration - 1)
    reason = last["reason"] if last else "no iteration has explored"
    return Ending(NOT_CONVERGED, f"not converged, the iteration limit is used up: {reason}", "limit")


# ---------------------------------------------------------------------------------------- launches


def launches(state: State, limits: Limits, now: Now, kinds: Iterable[str] = ORDER) -> tuple[Launch, ...]:
    """Return waiting tasks as batches for the free slots; cheap tasks share a process.

    A task that reads another's result waits for it, or follows it in the same batch. A batch goes to the slot with
    the least time left that still holds it.
    """
    found: list[Launch] = []
    free: dict[str, list[Slot]] = {}
    leaving = Counter(now.leaving)
    for kind in kinds:
        pool = limits.pool(kind)
        if not state.waiting_of.get(kind) or _held_back(state, limits, kind):
            continue
        if pool not in free:
            of_pool = [slot for slot in now.slots if slot.pool == pool]
            free[pool] = sorted(of_pool, key=lambda slot: slot.remaining_s)
        if free[pool]:
            begun = _launches_of(state, limits, now, kind, free[pool], leaving[pool])
            leaving[pool] += len(begun) if kind in BRIEF else 0
            found += begun
    return tuple(found)


def _held_back(state: State, limits: Limits, kind: str) -> bool:
    """Tell whether no task of a kind may begin now: a bug that all share, or more frames than labels can be made of."""
    if any(bug[0] == kind and len(keys) >= SAME_BUG for bug, keys in state.bugs.items()):
        return True
    return kind == "explore" and not limits.barrier and state.backlog.size() >= limits.max_backlog


def _launches_of(state: State, limits: Limits, now: Now, kind: str, slots: list[Slot], leaving: int) -> list[Launch]:
    """Return the batches of one kind, and take the slots they start on from `slots`; so many more are soon free."""
    most = at_most_together(state, limits, kind)
    chains = _ready_chains(state, limits, now, kind, len(slots) * most)
    if kind == "label":
        chains = _affordable(state, chains, now.labels_left)
    found = []
    while chains and slots:
        share = -(-len(chains) // (len(slots) + leaving))
        together = [key for chain in chains[:share] for key in chain][:most]
        most_s = limits.longest_s.get(limits.pool(kind), math.inf)
        place = next((slot for slot in slots if needs_s(state, together, most_s) <= slot.remaining_s), None)
        while place is None and len(together) > 1:
            together = together[: len(together) // 2]
            place = next((slot for slot in slots if needs_s(state, together, most_s) <= slot.remaining_s), None)
        if place is None:
            chains = chains[1:]
            continue
        slots.remove(place)
        found.append(Launch(place, tuple(together)))
        taken = set(together)
        chains = [rest for chain in chains if (rest := [key for key in chain if key not in taken]) == chain]
    return found


MARGIN = 1.2
"""A batch must fit into what is left of a job's walltime with this factor over what nine of ten such tasks need."""


def needs_s(state: State, keys: list[str], most_s: float) -> float:
    """Return the time a batch may need one task after the other; 0 for kinds that have not been measured.

    A single task gets what a fresh job gives, `most_s`, at most: where that is too little its failures will tell.
    """
    total = 0.0
    for key in keys:
        durations = state.durations.get(state.tasks[key].kind)
        total += max(state.needs_s.get(key, 0.0), durations.long_s * MARGIN if durations else 0.0)
    return min(total, most_s) if len(keys) == 1 else total


def at_most_together(state: State, limits: Limits, kind: str) -> int:
    """Return how many tasks of a kind may share a process."""
    cheap = kind == "label" and state.foundation_level is not None
    return limits.foundation_batch if cheap else limits.batch.get(kind, 1)


def _ready_chains(state: State, limits: Limits, now: Now, kind: str, enough: int) -> list[list[str]]:
    """Return ready tasks of a kind in order of request, each with those that may follow it directly."""
    chains: list[list[str]] = []
    place: dict[str, list[str]] = {}
    for key in state.waiting_of[kind]:
        if state.not_before.get(key, -math.inf) > now.time_s or (limits.quench_only and _explores(state, key)):
            continue
        missing = [name for name in state.tasks[key].inputs if not has_ended(state, name)]
        if not missing:
            if len(chains) >= enough:
                break
            chains.append([key])
            place[key] = chains[-1]
        elif len(missing) == 1 and missing[0] in place:
            place[missing[0]].append(key)
            place[key] = place[missing[0]]
    return chains


def _affordable(state: State, chains: list[list[str]], labels_left: float) -> list[list[str]]:
    """Return the labels that the budget lets begin: all imported ones, of the others so many."""
    if labels_left == math.inf:
        return chains
    paid = [not state.picks[chain[0]].get("given") for chain in chains]
    begun = itertools.accumulate(paid)
    return [chain for chain, pays, count in zip(chains, paid, begun, strict=True) if not pays or count <= labels_left]


def has_ended(state: State, key: str) -> bool:
    """Tell whether nothing more will come of a task: it is done, given up, or no longer wanted and not running."""
    return key in state.done or key in state.quarantined or (key in state.superseded and key not in state.running)


def _explores(state: State, key: str) -> bool:
    """Tell whether a task serves the exploration of an ensemble that is not judged yet."""
    stages = ("explore", "select", "evaluate", *AIDS)
    return any(kind in stages and iteration in state.unjudged for kind, iteration in state.asked_in[key])


def _room_for_labels(state: State, limits: Limits, now: Now, launch: tuple[Launch, ...]) -> int:
    """Return for how many more labels there are free slots, once what waits has been launched."""
    if _held_back(state, limits, "label"):
        return 0
    pool = limits.pool("label")
    free = sum(slot.pool == pool for slot in now.slots) - sum(item.slot.pool == pool for item in launch)
    launched = sum(state.tasks[key].kind == "label" for item in launch for key in item.keys)
    waiting = len(state.waiting_of.get("label", ())) - launched
    room = free * at_most_together(state, limits, "label")
    return int(max(0, min(room, now.labels_left - launched) - waiting))


def _demand(
    state: State, limits: Limits, kinds: Iterable[str], *, picking: bool
) -> dict[str, tuple[int, float | None]]:
    """Return, per pool, how many batches wait for it and the time the longest task of them may need."""
    wanted: dict[str, tuple[int, float | None]] = {}
    for kind in kinds:
        keys = state.waiting_of.get(kind, {})
        if limits.quench_only:
            keys = {key: None for key in keys if not _explores(state, key)}
        count = len(keys) + (state.backlog.size() if kind == "label" and picking else 0)
        if count == 0 or _held_back(state, limits, kind):
            continue
        before, longest = wanted.get(limits.pool(kind), (0, None))
        durations = state.durations.get(kind)
        known = [durations.long_s * MARGIN] if durations else []
        known += [state.needs_s[key] for key in state.needs_s.keys() & keys.keys()]
        known += [longest] if longest is not None else []
        batches = -(-count // at_most_together(state, limits, kind))
        most_s = limits.longest_s.get(limits.pool(kind), math.inf)
        wanted[limits.pool(kind)] = (before + batches, min(max(known), most_s) if known else None)
    return wanted
