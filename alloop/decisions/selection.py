"""Selecting what to label of what explorations found, all at once or frame by frame as slots come free."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.config import Param, parse
from alloop.decisions.calibration import levels_at, newest_trust
from alloop.decisions.exploration import Trajectory, trajectories
from alloop.decisions.found import Collected, frames_of
from alloop.seeds import derived_seed
from alloop.select_params import SelectParam
from alloop.selection.audit import audit_sample
from alloop.selection.bands import band_names, band_of
from alloop.selection.diversity import Environments, Known
from alloop.selection.picks import AUDIT, BEFORE_LOSS, LARGEST, Candidate, Made, Rules, pick
from alloop.state import task_entries
from alloop.store import make_task
from alloop.tasks.describe import read_environments, read_known


def decide_pick(campaign: Campaign, param: Param, iteration: int, count: int) -> dict[str, Any]:
    """Ask for the labels of the best `count` frames of an iteration that wait in the backlog."""
    best = campaign.state.backlog.take(iteration, count)
    return {"level": campaign.level, "picks": [record | {"reason": reason} for reason, record in best]}


def decide_rank(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the deviation of this iteration's ensemble on every frame that older ones left in the backlog."""
    frames: dict[str, list[int]] = {}
    for _, (_, record) in campaign.state.backlog.of(range(iteration)):
        frames.setdefault(record["source"]["task"], []).append(record["source"]["frame"])
    models, describer = campaign.state.models(iteration), campaign.state.describer
    spec = {
        "models": models,
        "type_map": param.elements,
        "frames": {key: sorted(frames[key]) for key in sorted(frames)},
        "describer": describer,
    }
    group = f"iter.{iteration:06d}/rank"
    inputs = (*models, *([describer] if describer else []), *sorted(frames))
    task = make_task("evaluate", group, f"backlog.{iteration:02d}", spec, inputs)
    return {"tasks": task_entries([task], {})}


def decide_describe(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the environments of the labels an ensemble was trained on, as far as they are not described yet."""
    state = campaign.state
    before = _described(campaign)
    old = {key for decision in before for key in decision["labels"]}
    labels = [key for key in state.decisions["train", iteration]["common"]["training"] if key not in old]
    last = before[-1]["tasks"][0]["key"] if before else None
    spec = {"describer": state.describer, "labels": labels, "before": last}
    group = f"iter.{iteration:06d}/describe"
    inputs = (str(state.describer), *labels, *([last] if last else []))
    task = make_task("evaluate", group, f"environments.{iteration:02d}", spec, inputs)
    return {"tasks": task_entries([task], {}), "labels": labels}


def _described(campaign: Campaign) -> list[dict[str, Any]]:
    """Return the decisions to describe labels whose work is done, oldest first."""
    state = campaign.state
    found = [decision for (kind, _), decision in sorted(state.decisions.items()) if kind == "describe"]
    return [decision for decision in found if decision["tasks"][0]["key"] in state.done]


def newest_known(campaign: Campaign) -> Known | None:
    """Return the environments of training data as last described, None if they never were."""
    before = _described(campaign)
    return read_known(campaign.result(before[-1]["tasks"][0]["key"])) if before else None


def known_environments(campaign: Campaign) -> Known | None:
    """Return what frames are compared with: training data as last described, and labels in flight; None without."""
    known = newest_known(campaign)
    if known is not None:
        for environments in in_flight(campaign):
            known.add(environments)
    return known


def in_flight(campaign: Campaign) -> Iterator[Environments]:
    """Yield the offending atoms of frames that were asked about and are not among the described training data.

    Left out are labels that came to nothing, and held-out ones that are done: nothing is trained on them.
    """
    state = campaign.state
    described = {key for decision in _described(campaign) for key in decision["labels"]}
    gone = described | state.excluded.keys() | state.quarantined.keys()
    by_chunk: dict[str, list[int]] = {}
    for iteration, picks in state.picks_in.items():
        for made in picks if iteration >= 0 else ():
            over = made["key"] in state.done and made["role"] == "held_out" and iteration not in state.unjudged
            if made["key"] not in gone and not over:
                by_chunk.setdefault(made["source"]["task"], []).append(made["source"]["frame"])
    for key in sorted(by_chunk.keys() & state.done):
        found = read_environments(campaign.result(key))
        for frame in by_chunk[key]:
            yield from found[frame].values() if frame < len(found) else ()


def decide_select(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Close an iteration's exploration: count what was seen, and pick of all its frames what was not picked before.

    Where frames were picked as they came (see `decide_pick`) that is the audit only, which must be drawn from all.
    ``audit`` are the labels of the whole draw, also those that had been asked for before.
    """
    state, own = campaign.state, param.select
    decision = state.decisions["explore", iteration]
    by_name = {trajectory.name: trajectory for trajectory in trajectories(campaign_param(campaign, decision))}
    streamed = iteration in state.backlog.iterations()
    found = Collected(campaign, own, [] if streamed else sorted(_watched(decision)), audit_only=streamed)
    quotas = {name: own.events[name].quota if name in own.events else 0 for name in _watched(decision)}
    statistics = Statistics(quotas, band_names(own.temperature_bands_K))
    for entry in decision["tasks"]:
        trajectory = by_name[entry["name"].rsplit(".c", 1)[0]]
        if entry["key"] in state.done:
            summary = campaign.summary(entry["key"])
            seen = _events_by_band(campaign.result(entry["key"]), entry["spec"]["condition"], summary, own)
            statistics.add(trajectory.stratum, summary, seen, decision["common"] | entry["spec"])
            found.add(entry, trajectory)
        elif entry["key"] in state.superseded:
            statistics.withdrawn += 1
        else:
            statistics.failed_chunks += 1
    before = state.picks_in.get(iteration, [])
    rules, seed = selection_rules(param), derived_seed(param.seed, "select", iteration)
    frames = found.frames()
    room = rules.audit if streamed else max(0, rules.max_labels - len(before))
    drawn = audit_sample(frames, min(rules.audit, room), seed).tolist()
    audit = {str(frames.identities[index]): index for index in drawn}
    if streamed:
        chosen = [(index, AUDIT) for key, index in audit.items() if key not in state.picks]
    else:
        chosen = pick(frames, set(state.picks), rules, seed, known_environments(campaign), [*map(_made, before)])
    picks = [found.record(index) | {"reason": reason} for index, reason in chosen]
    limits = {"all": rules.max_labels, AUDIT: rules.audit, BEFORE_LOSS: rules.before_loss}
    made = {"level": campaign.level, "picks": picks, "audit": list(audit), "limits": limits}
    return statistics.content(before + picks) | made


def _made(pick: dict[str, Any]) -> Made:
    where = pick["trajectory"], pick["stratum"], pick["time_ps"], pick["target_temperature_K"]
    return Made(pick["key"], pick["reason"], *where)


def _watched(decision: dict[str, Any]) -> list[str]:
    """Return the names of the events that an exploration was told to watch for."""
    return list(decision["common"]["events"])


def _events_by_band(
    result: Path, condition: dict[str, Any], summary: dict[str, Any], own: SelectParam
) -> dict[str, Counter[str]]:
    """Return, by event, how many of a chunk's records show it in each temperature band.

    The table of records is read only where the chunk's target crosses an edge and something was seen.
    """
    edges_K, seen = own.temperature_bands_K, {event: count for event, count in summary["events"].items() if count}
    first, last = (band_of(condition[f"temperature_{end}_K"], edges_K) for end in ("start", "end"))
    if first == last or not seen:
        return {event: Counter({first: count}) for event, count in seen.items()}
    with np.load(result / "table.npz") as table:
        bands = np.array([band_of(target_K, edges_K) for target_K in table["target_temperature_K"].tolist()])
        return {event: Counter(bands[table[f"event:{event}"]].tolist()) for event in seen}


def selection_rules(param: Param) -> Rules:
    """Return the rules of selection that `param.json` gives; an event with a quota of 0 is no reason for a label.

    Where several trajectories are explored none may fill more than half of the labels.
    """
    own = param.select
    most = max(1, own.max_labels // 2) if len(trajectories(param)) > 1 else own.max_labels
    quotas = {name: event.quota for name, event in own.events.items() if event.quota}
    return Rules(
        max_labels=own.max_labels,
        max_per_trajectory=min(own.max_per_trajectory, most),
        min_separation_ps=own.min_separation_ps,
        audit=own.audit_labels,
        event_quota=quotas,
        bands_K=tuple(own.temperature_bands_K),
        novelty=own.novelty,
        event_share=own.event_share,
        before_loss=own.before_loss,
    )


class Explored:
    """Takes what explorations find into the backlog, chunk by chunk, as the driver hears of it."""

    def __init__(self, campaign: Campaign, param: Param) -> None:
        self.campaign = campaign
        self.param = param
        self._trajectories: dict[int, dict[str, Trajectory]] = {}

    def recover(self) -> None:
        """Fill the backlog from what is on disk, as a driver starts."""
        state = self.campaign.state
        open_iterations = [i for i in sorted(state.unjudged) if not state.decided("select", i)]
        for iteration in open_iterations:
            self.begin(iteration)
        for kind, iteration in sorted(state.decisions):
            if kind == "rank" and iteration > min(open_iterations, default=iteration):
                self.begin(iteration, "rank")

    def _compare(self) -> None:
        """Have the backlog compare frames with what the training data and labels in flight know."""
        known = known_environments(self.campaign)
        if known is not None:
            self.campaign.state.backlog.compare_with(known)

    def begin(self, iteration: int, kind: str = "explore") -> None:
        """Collect the frames of an iteration from now on, and those there are."""
        state = self.campaign.state
        if kind == "explore":
            if not state.backlog.compares:  # a change of the level of theory begins a new one
                self._compare()
            seed = derived_seed(self.param.seed, "backlog", iteration)
            strata = {self._trajectory(iteration, e["name"]).stratum for e in state.decisions[kind, iteration]["tasks"]}
            state.backlog.open_round(iteration, selection_rules(self.param), seed, len(strata))
            for made in state.picks_in.get(iteration, ()):
                where = made["trajectory"], made["stratum"], made["time_ps"], made["target_temperature_K"]
                state.backlog.note_pick(iteration, made["key"], made["reason"], *where)
        for entry in state.decisions[kind, iteration]["tasks"]:
            if entry["key"] in state.done:
                self.landed(entry["key"])

    def landed(self, key: str) -> None:
        """Take in a finished task, if it is a chunk of an open iteration or a new ranking of the backlog."""
        state = self.campaign.state
        for kind, iteration in state.asked_in[key]:
            if kind == "rank":
                self._rerank(key, iteration)
            elif kind == "describe":
                self._compare()
            elif kind == "explore" and iteration in state.backlog.iterations():
                summary = self.campaign.summary(key)
                state.note_chunk(key, summary["classes"] | {"missed": summary.get("missed", 0)})
                state.backlog.add(iteration, self._frames(key, iteration))

    def _trajectory(self, iteration: int, chunk: str) -> Trajectory:
        if iteration not in self._trajectories:
            found = trajectories(campaign_param(self.campaign, self.campaign.state.decisions["explore", iteration]))
            self._trajectories[iteration] = {trajectory.name: trajectory for trajectory in found}
        return self._trajectories[iteration][chunk.rsplit(".c", 1)[0]]

    def _frames(self, key: str, iteration: int) -> Iterator[tuple[Candidate, dict[str, Any]]]:
        task = self.campaign.state.tasks[key]
        entry = {"key": key, "name": task.name, "spec": task.spec}
        return frames_of(self.campaign, entry, self._trajectory(iteration, task.name), self.param.select)

    def _rerank(self, key: str, iteration: int) -> None:
        with np.load(self.campaign.result(key) / "ranks.npz") as ranks:
            rows = zip(
                ranks["task"].tolist(), ranks["frame"].tolist(), ranks["max_deviation_eV_A"].tolist(), strict=True
            )
            by_source = {(task, frame): (deviation, row) for row, (task, frame, deviation) in enumerate(rows)}
        environments = read_environments(self.campaign.result(key))
        backlog, own = self.campaign.state.backlog, self.param.select
        trust = newest_trust(self.campaign, iteration)
        found, offending = {}, {}
        for _, (candidate, record) in backlog.of(backlog.iterations()):
            source = record["source"]["task"], record["source"]["frame"]
            if source in by_source:
                found[candidate.identity], row = by_source[source]
                if environments:
                    offending[candidate.identity] = environments[row][LARGEST]

        def levels(candidate: Candidate) -> tuple[float, float]:
            return levels_at(trust, candidate.stratum.rpartition(" ")[0], candidate.temperature_K, own)

        backlog.rerank(found, levels, offending)


def campaign_param(campaign: Campaign, decision: dict[str, Any]) -> Param:
    """Return the configuration that was in force when a decision was taken."""
    start = next(start for start in reversed(campaign.state.starts) if start["number"] <= decision["number"])
    return parse(start["config"], "the recorded configuration")


class Statistics:
    """What an iteration's exploration saw, summed over chunks.

    quotas: labels per temperature band, by event that was watched for; bands: their names, coldest first.
    """

    def __init__(self, quotas: dict[str, int], bands: list[str]) -> None:
        self.by_stratum: dict[str, Counter[str]] = {}
        self.quotas, self.bands = quotas, bands
        self.events: dict[str, Counter[str]] = {event: Counter() for event in quotas}
        self.trust_eV_A: dict[str, tuple[float, float]] = {}
        self.lost = self.missed = 0
        self.failed_chunks = 0
        self.withdrawn = 0

    def add(self, stratum: str, summary: dict[str, Any], events: dict[str, Counter[str]], spec: dict[str, Any]) -> None:
        """Count one chunk's records; events: by event, how many show it in each temperature band; spec: the chunk's."""
        low, high = self.trust_eV_A.get(stratum, (math.inf, 0.0))
        self.trust_eV_A[stratum] = min(low, spec["trust_low_eV_A"]), max(high, spec["trust_high_eV_A"])
        entry = self.by_stratum.setdefault(stratum, Counter(accurate=0, candidate=0, failed=0, lost=0))
        entry.update(summary["classes"])
        entry["lost"] += summary["status"] == "lost"
        entry["missed"] += summary.get("missed", 0)
        self.lost += summary["status"] == "lost"
        self.missed += summary.get("missed", 0)
        for event, by_band in events.items():
            self.events[event].update(by_band)

    def content(self, picks: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the record for the decision: classes, per stratum, per event seen and labelled, labels by reason."""
        classes = Counter(accurate=0, candidate=0, failed=0)
        for entry in self.by_stratum.values():
            classes.update({name: entry[name] for name in ("accurate", "candidate", "failed")})
        reasons = Counter(item["reason"] for item in picks)
        return {
            "classes": dict(classes),
            "strata": {
                name: dict(entry)
                | {"labels": sum(item["stratum"] == name for item in picks)}
                | {"trust_levels_eV_A": list(self.trust_eV_A[name])}
                for name, entry in sorted(self.by_stratum.items())
            },
            "events": {event: self._event(event, picks) for event in self.events},
            "reasons": dict(reasons),
            "trust_levels_eV_A": self._trust_levels(),
            "lost_chunks": self.lost,
            "missed_records": self.missed,
            "failed_chunks": self.failed_chunks,
            "withdrawn_chunks": self.withdrawn,
        }

    def _trust_levels(self) -> list[float]:
        """Return the lowest and the highest level of all strata, eV/Å; empty if nothing was explored."""
        low, high = zip(*self.trust_eV_A.values(), strict=True) if self.trust_eV_A else ((), ())
        return [min(low), max(high)] if low else []

    def _event(self, event: str, picks: list[dict[str, Any]]) -> dict[str, Any]:
        """Return how many frames showed an event, how many labels it was the reason of, the quota, and both by band."""
        seen, labelled = self.events[event], Counter(item["band"] for item in picks if item["reason"] == event)
        names = [name for name in dict.fromkeys([*self.bands, *seen, *labelled]) if seen[name] or labelled[name]]
        bands = {name: {"seen": seen[name], "labelled": labelled[name]} for name in names}
        return {
            "seen": seen.total(),
            "labelled": labelled.total(),
            "quota": self.quotas[event],
            "bands": bands,
        }
