"""Exploring with an ensemble, and selecting what to label of what it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign, label_task
from alloop.config import ExploreParam, GlassParam, Param, SelectParam, parse, steps
from alloop.decisions.seeding import draw_roles
from alloop.errors import NeedsPersonError
from alloop.event_params import definitions
from alloop.frames import read_all_structures, read_columns
from alloop.glass.composition import stoichiometric_counts
from alloop.seeds import derived_seed
from alloop.selection.bands import band_names, band_of
from alloop.selection.picks import Candidate, Rules, pick
from alloop.state import task_entries
from alloop.store import Task, make_task


@dataclass(frozen=True)
class Trajectory:
    """One trajectory of the exploration, which goes on over chunks and iterations under the same name."""

    name: str
    glass: str
    n_atoms: int
    ensemble: str
    from_K: float
    to_K: float

    @property
    def is_ramp(self) -> bool:
        """Tell whether the temperature changes along it; a ramp begins anew in every iteration."""
        return self.from_K != self.to_K

    @property
    def stratum(self) -> str:
        """Return glass and temperature, over which selection is spread and statistics are kept."""
        return f"{self.glass} {_temperatures(self.from_K, self.to_K)}"


def _temperatures(from_K: float, to_K: float) -> str:
    return f"{from_K:g}K" if from_K == to_K else f"{from_K:g}-{to_K:g}K"


def trajectories(param: Param) -> list[Trajectory]:
    """Return all trajectories one iteration runs: glass, cell size, ensemble, temperature or ramp, copy."""
    own = param.explore
    ladders = [(t, t) for t in own.temperatures_K] + [(ramp.from_K, ramp.to_K) for ramp in own.ramps]
    found = []
    for entry in param.glasses:
        for wanted in entry.n_atoms:
            size = sum(stoichiometric_counts(entry.glass(), wanted).values())
            for ensemble in own.ensembles:
                for from_K, to_K in ladders:
                    for copy in range(own.trajectories):
                        suffix = "" if ensemble == "nvt" else f".{ensemble}"
                        name = f"{entry.name}.n{size}.{_temperatures(from_K, to_K)}{suffix}.t{copy:02d}"
                        found.append(Trajectory(name, entry.name, size, ensemble, from_K, to_K))
    return found


def decide_explore(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the chunks of every trajectory with this iteration's ensemble; draw the role of new trajectories."""
    state, own = campaign.state, param.explore
    planned = trajectories(param)
    roles: dict[str, str] = {}
    for glass in {trajectory.glass: None for trajectory in planned}:
        names = [t.name for t in planned if t.glass == glass and t.name not in state.trajectories]
        seed = derived_seed(param.seed, "held-out", iteration, glass)
        roles |= draw_roles(names, param.select.held_out_fraction, seed)
    starts = Starts(campaign)
    common = {
        "models": state.models(iteration),
        "type_map": param.elements,
        "engine": own.engine,
        "deviation_every": own.deviation_every,
        "trust_low_eV_A": param.select.trust_low_eV_A,
        "trust_high_eV_A": param.select.trust_high_eV_A,
        "lost_eV_A": own.lost_eV_A,
        "frames_per_chunk": own.frames_per_chunk,
        "events": definitions(param.select.events),
    }
    last = _last_good_chunks(campaign, iteration)
    tasks: list[Task] = []
    for trajectory in planned:
        role = roles.get(trajectory.name) or state.trajectories[trajectory.name]
        start = starts.next(
            trajectory,
            role,
            last.get(trajectory.name),
            derived_seed(param.seed, "start", iteration, trajectory.name),
        )
        for chunk in range(own.chunks):
            task = _chunk(param, common, trajectory, start, iteration, chunk)
            tasks.append(task)
            start = {"task": task.key, "state": "end"}
    return {
        "inputs": common["models"],
        "common": common,
        "tasks": task_entries(tasks, common),
        "trajectories": roles,
        "withdrawn": _outdated_chunks(campaign, iteration - own.max_lag),
    }


def _last_good_chunks(campaign: Campaign, iteration: int) -> dict[str, str]:
    """Return, per trajectory, the last finished chunk of earlier iterations that left a state to go on from."""
    state = campaign.state
    chunks: dict[str, list[str]] = {}
    for number in range(iteration):
        for entry in state.decisions.get(("explore", number), {"tasks": ()})["tasks"]:
            if entry["key"] in state.done:
                chunks.setdefault(entry["name"].rsplit(".c", 1)[0], []).append(entry["key"])
    found = {
        name: next((key for key in reversed(keys) if campaign.summary(key)["has_good_state"]), None)
        for name, keys in chunks.items()
    }
    return {name: key for name, key in found.items() if key is not None}


def _outdated_chunks(campaign: Campaign, before: int) -> list[str]:
    """Return the chunks of ensembles older than `before` that have not begun: a newer one explores in their place."""
    state = campaign.state
    return [
        key
        for key in state.waiting_of.get("explore", ())
        if all(kind == "explore" and number < before for kind, number in state.asked_in[key])
    ]


def _chunk(
    param: Param, common: dict[str, Any], trajectory: Trajectory, start: dict[str, Any], iteration: int, chunk: int
) -> Task:
    own: ExploreParam = param.explore
    slope = (trajectory.to_K - trajectory.from_K) / own.chunks
    number = iteration * own.chunks + chunk
    condition = {
        "ensemble": trajectory.ensemble,
        "temperature_start_K": trajectory.from_K + slope * chunk,
        "temperature_end_K": trajectory.from_K + slope * (chunk + 1),
        "pressure_bar": own.pressure_bar,
        "timestep_fs": own.timestep_fs,
        "n_steps": steps(own.chunk_ps, own.timestep_fs, own.deviation_every),
    }
    seed = derived_seed(param.seed, "explore", iteration, trajectory.name, chunk)
    spec = common | {"start": start, "condition": condition, "seed": seed}
    group = f"iter.{iteration:06d}/explore"
    return make_task("explore", group, f"{trajectory.name}.c{number:02d}", spec, (start["task"],))


class Starts:
    """Where trajectories begin: bootstrap frames of the same composition, or where the last iteration left them."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.frames: list[tuple[str, int, str, float, str, str]] = []  # task, frame, composition, T/K, role, source
        state = campaign.state
        for entry in state.decisions["bootstrap", -1]["tasks"]:
            if entry["key"] not in state.done:
                continue
            result = campaign.result(entry["key"])
            columns = read_columns(result)
            strained = columns.get("strained", np.zeros(len(columns["n_atoms"]), dtype=bool))
            structures = read_all_structures(result)
            for frame in np.flatnonzero(~strained).tolist():
                composition = _composition(Counter(structures[frame]["symbols"]))
                temperature = float(columns["temperature_K"][frame])
                role = state.trajectories[entry["name"]]
                self.frames.append((entry["key"], frame, composition, temperature, role, entry["name"]))
        self.param_glasses = {glass["name"]: glass for glass in state.starts[-1]["config"]["glasses"]}

    def next(self, trajectory: Trajectory, role: str, last_chunk: str | None, seed: int) -> dict[str, Any]:
        """Return the start of the trajectory's next chunk.

        A hold goes on from its last good state, which rewinds a lost one; anything else begins at a bootstrap frame
        of its composition, of its role if there is one, near its temperature, drawn by the seed.
        """
        if last_chunk is not None and not trajectory.is_ramp:
            return {"task": last_chunk, "state": "good"}
        return self.fresh(trajectory.glass, trajectory.n_atoms, trajectory.from_K, role, seed)

    def fresh(self, glass: str, n_atoms: int, temperature_K: float, role: str, seed: int) -> dict[str, Any]:
        """Return a bootstrap frame of the glass near a temperature; NeedsPersonError if there is none."""
        wanted = GlassParam.model_validate(self.param_glasses[glass]).glass()
        composition = _composition(Counter(stoichiometric_counts(wanted, n_atoms)))
        fitting = [frame for frame in self.frames if frame[2] == composition]
        if not fitting:
            raise NeedsPersonError(
                f"no starting configuration of {glass} ({composition}): its bootstrap failed or was not asked for\n"
                "  set bootstrap.trajectories to 2 or more, or give bootstrap.structures of this composition"
            )
        same_size = [frame for frame in fitting if f".n{n_atoms}." in frame[5]] or fitting
        pool = [frame for frame in same_size if frame[4] == role] or same_size
        distance = np.array([abs(frame[3] - temperature_K) if np.isfinite(frame[3]) else 0.0 for frame in pool])
        near = np.argsort(distance, kind="stable")[: max(3, len(pool) // 4)]
        chosen = pool[int(np.random.default_rng(seed).choice(near))]
        return {"task": chosen[0], "frame": chosen[1]}


def _composition(counts: Counter[str]) -> str:
    divisor = int(np.gcd.reduce(list(counts.values())))
    return "".join(f"{symbol}{counts[symbol] // divisor}" for symbol in sorted(counts))


def decide_pick(campaign: Campaign, param: Param, iteration: int, count: int) -> dict[str, Any]:
    """Ask for the labels of the best `count` frames of an iteration that wait in the backlog."""
    best = campaign.state.backlog.take(iteration, count)
    return {"level": campaign.level, "picks": [record | {"reason": reason} for reason, record in best]}


def decide_rank(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the deviation of this iteration's ensemble on every frame that older ones left in the backlog."""
    frames: dict[str, list[int]] = {}
    for _, (_, record) in campaign.state.backlog.of(range(iteration)):
        frames.setdefault(record["source"]["task"], []).append(record["source"]["frame"])
    models = campaign.state.models(iteration)
    spec = {
        "models": models,
        "type_map": param.elements,
        "frames": {key: sorted(frames[key]) for key in sorted(frames)},
    }
    group = f"iter.{iteration:06d}/rank"
    task = make_task("evaluate", group, f"backlog.{iteration:02d}", spec, (*models, *sorted(frames)))
    return {"tasks": task_entries([task], {})}


def decide_select(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Close an iteration's exploration: count what was seen, and pick of all its frames what was not picked before.

    Where frames were picked as they came (see `decide_pick`) that is the audit only, which must be drawn from all.
    """
    state, own = campaign.state, param.select
    decision = state.decisions["explore", iteration]
    by_name = {trajectory.name: trajectory for trajectory in trajectories(campaign_param(campaign, decision))}
    found: list[tuple[Candidate, dict[str, Any]]] = []
    quotas = {name: own.events[name].quota if name in own.events else 0 for name in _watched(decision)}
    statistics = Statistics(quotas, band_names(own.temperature_bands_K))
    for entry in decision["tasks"]:
        trajectory = by_name[entry["name"].rsplit(".c", 1)[0]]
        if entry["key"] in state.done:
            summary = campaign.summary(entry["key"])
            seen = _events_by_band(campaign.result(entry["key"]), entry["spec"]["condition"], summary, own)
            statistics.add(trajectory.stratum, summary, seen)
            found += _frames_of(campaign, entry, trajectory, own)
        elif entry["key"] in state.superseded:
            statistics.withdrawn += 1
        else:
            statistics.failed_chunks += 1
    streamed = iteration in state.backlog.iterations()
    before = state.picks_in.get(iteration, [])
    rules = selection_rules(param)
    if streamed:
        rules = replace(rules, event_quota={}, before_loss=0, max_labels=own.audit)
        found = [entry for entry in found if entry[0].audit_of]
    else:
        rules = replace(rules, max_labels=max(0, own.max_labels - len(before)))
    seed = derived_seed(param.seed, "select", iteration)
    chosen = pick([candidate for candidate, _ in found], set(state.picks), rules, seed)
    picks = [found[index][1] | {"reason": reason} for index, reason in chosen]
    trust_levels = [own.trust_low_eV_A, own.trust_high_eV_A]
    content = statistics.content(before + picks)
    return content | {"level": campaign.level, "picks": picks, "trust_levels_eV_A": trust_levels}


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
    """Return the rules of selection that `param.json` gives; an event with a quota of 0 is no reason for a label."""
    own = param.select
    quotas = {name: event.quota for name, event in own.events.items() if event.quota}
    bands_K = tuple(own.temperature_bands_K)
    return Rules(own.max_labels, own.max_per_trajectory, own.min_separation_ps, own.audit, quotas, bands_K)


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

    def begin(self, iteration: int, kind: str = "explore") -> None:
        """Collect the frames of an iteration from now on, and those there are."""
        state = self.campaign.state
        if kind == "explore":
            seed = derived_seed(self.param.seed, "backlog", iteration)
            state.backlog.open_round(iteration, selection_rules(self.param), seed)
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
                self._rerank(key)
            elif kind == "explore" and iteration in state.backlog.iterations():
                summary = self.campaign.summary(key)
                state.note_chunk(key, summary["classes"] | {"missed": summary.get("missed", 0)})
                state.backlog.add(iteration, self._frames(key, iteration))

    def _frames(self, key: str, iteration: int) -> Iterator[tuple[Candidate, dict[str, Any]]]:
        decision = self.campaign.state.decisions["explore", iteration]
        if iteration not in self._trajectories:
            found = trajectories(campaign_param(self.campaign, decision))
            self._trajectories[iteration] = {trajectory.name: trajectory for trajectory in found}
        task = self.campaign.state.tasks[key]
        trajectory = self._trajectories[iteration][task.name.rsplit(".c", 1)[0]]
        entry = {"key": key, "name": task.name, "spec": task.spec}
        return _frames_of(self.campaign, entry, trajectory, self.param.select)

    def _rerank(self, key: str) -> None:
        with np.load(self.campaign.result(key) / "ranks.npz") as ranks:
            rows = zip(
                ranks["task"].tolist(), ranks["frame"].tolist(), ranks["max_deviation_eV_A"].tolist(), strict=True
            )
            by_source = {(task, frame): deviation for task, frame, deviation in rows}
        backlog, own = self.campaign.state.backlog, self.param.select
        found = {}
        for _, (candidate, record) in backlog.of(backlog.iterations()):
            source = record["source"]["task"], record["source"]["frame"]
            if source in by_source:
                found[candidate.identity] = by_source[source]
        backlog.rerank(found, own.trust_low_eV_A, own.trust_high_eV_A)


def _frames_of(
    campaign: Campaign, entry: dict[str, Any], trajectory: Trajectory, own: SelectParam
) -> Iterator[tuple[Candidate, dict[str, Any]]]:
    """Yield what the selector needs of each frame a chunk brought home, with the record of a pick it would become.

    The band of a frame is that of its target temperature, which along a ramp changes.
    """
    condition, chunk = entry["spec"]["condition"], int(entry["name"].rsplit(".c", 1)[1])
    result = campaign.result(entry["key"])
    columns, level = read_columns(result), campaign.level
    watched = [name.removeprefix("event:") for name in columns if name.startswith("event:")]
    for frame, structure in enumerate(read_all_structures(result)):
        step = int(columns["step"][frame])
        key = label_task("", "", structure, level["content"], ()).key
        time_ps = (chunk * condition["n_steps"] + step) * condition["timestep_fs"] / 1000
        deviation = float(columns["max_force_deviation_eV_A"][frame])
        events = frozenset(event for event in watched if columns[f"event:{event}"][frame])
        kept_for, trust = str(columns["kept_for"][frame]), str(columns["trust_class"][frame])
        target_K = float(columns["target_temperature_K"][frame])
        yield (
            Candidate(
                key,
                trajectory.name,
                time_ps,
                trajectory.stratum,
                trust,
                kept_for,
                deviation,
                events,
                target_K,
                audit_of=int(columns["audit_of"][frame]),
                chunk=entry["name"],
            ),
            {
                "key": key,
                "name": f"{entry['name']}.s{step:04d}",
                "source": {"task": entry["key"], "frame": frame},
                "given": False,
                "level": level["name"],
                "trajectory": trajectory.name,
                "role": campaign.state.trajectories[trajectory.name],
                "stratum": trajectory.stratum,
                "target_temperature_K": target_K,
                "band": band_of(target_K, own.temperature_bands_K),
                "step": step,
                "time_ps": time_ps,
                "trust_class": trust,
                "max_force_deviation_eV_A": deviation,
                "temperature_K": float(columns["temperature_K"][frame]),
                "events": sorted(events),
            },
        )


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
        self.lost = self.missed = 0
        self.failed_chunks = 0
        self.withdrawn = 0

    def add(self, stratum: str, summary: dict[str, Any], events: dict[str, Counter[str]]) -> None:
        """Count one chunk's records; events: by event, how many show it in each temperature band."""
        entry = self.by_stratum.setdefault(stratum, Counter(accurate=0, candidate=0, failed=0, lost=0))
        entry.update(summary["classes"])
        entry["lost"] += summary["status"] == "lost"
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
                name: dict(entry) | {"labels": sum(item["stratum"] == name for item in picks)}
                for name, entry in sorted(self.by_stratum.items())
            },
            "events": {event: self._event(event, picks) for event in self.events},
            "reasons": dict(reasons),
            "lost_chunks": self.lost,
            "missed_records": self.missed,
            "failed_chunks": self.failed_chunks,
            "withdrawn_chunks": self.withdrawn,
        }

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
