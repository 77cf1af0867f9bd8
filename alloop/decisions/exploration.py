"""Exploring with an ensemble: trajectories, their chunks, and where they begin."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.config import ExploreParam, GlassParam, Param, steps
from alloop.decisions.calibration import Group, levels_at, measured_audits, trust_entries, trust_moves
from alloop.decisions.seeding import draw_roles
from alloop.errors import NeedsPersonError
from alloop.event_params import definitions
from alloop.frames import read_all_structures, read_columns
from alloop.glass.composition import stoichiometric_counts
from alloop.policy import outdated_chunks
from alloop.seeds import derived_seed
from alloop.selection.audit import frames_for_audit
from alloop.selection.bands import band_of
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
    models = state.models(iteration)
    common = {
        "models": models,
        "type_map": param.elements,
        "engine": own.engine,
        "deviation_every": own.deviation_every,
        "lost_eV_A": own.lost_eV_A,
        "frames_per_chunk": own.frames_per_chunk,
        "audit_frames": frames_for_audit(param.select.audit_labels, len(planned) * own.chunks),
        "events": definitions(param.select.events),
        "describer": state.describer,
    }
    last = _last_good_chunks(campaign, iteration)
    moves = trust_moves(campaign, param, explored_groups(param))
    trust = {group: move.levels for group, move in moves.items()}
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
            levels = levels_at(trust, trajectory.glass, _chunk_K(trajectory, own, chunk), param.select)
            task = _chunk(param, common, trajectory, start, iteration, chunk, levels)
            tasks.append(task)
            start = {"task": task.key, "state": "end"}
    return {
        "inputs": list(dict.fromkeys([*models, *([state.describer] if state.describer else [])])),
        "common": common,
        "tasks": task_entries(tasks, common),
        "trajectories": roles,
        "trust": trust_entries(moves),
        "audits": measured_audits(campaign),
        "withdrawn": outdated_chunks(state, iteration, own.max_lag),
    }


def explored_groups(param: Param) -> set[Group]:
    """Return the glasses and temperature bands that an iteration explores, by the middle of each chunk."""
    own, planned = param.explore, trajectories(param)
    bands = {
        band_of(_chunk_K(t, own, chunk), param.select.temperature_bands_K)
        for t in planned
        for chunk in range(own.chunks)
    }
    return {(t.glass, band) for t in planned for band in bands}


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


def _chunk_K(trajectory: Trajectory, own: ExploreParam, chunk: int) -> float:
    """Return the target temperature half way through a chunk, whose band decides its trust levels."""
    return trajectory.from_K + (trajectory.to_K - trajectory.from_K) * (chunk + 0.5) / own.chunks


def _chunk(
    param: Param,
    common: dict[str, Any],
    trajectory: Trajectory,
    start: dict[str, Any],
    iteration: int,
    chunk: int,
    trust_eV_A: tuple[float, float],
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
    spec |= {"trust_low_eV_A": trust_eV_A[0], "trust_high_eV_A": trust_eV_A[1]}
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
        chosen = self._near(glass, n_atoms, temperature_K, role, 1)
        task, frame, *_ = chosen[int(np.random.default_rng(seed).choice(len(chosen)))]
        return {"task": task, "frame": frame}

    def apart(
        self, glass: str, n_atoms: int, temperature_K: float, role: str, seed: int, count: int
    ) -> list[dict[str, Any]]:
        """Return so many frames as `fresh` would, drawn together so that no two are the same.

        Each is of another source while there are any. Only if there are fewer frames than asked for is one given
        twice: what begins at it must then have velocities of its own.
        """
        near = self._near(glass, n_atoms, temperature_K, role, count)
        shuffled = [near[number] for number in np.random.default_rng(seed).permutation(len(near))]
        before: Counter[str] = Counter()  # frames of the same source that were drawn earlier
        turns = []
        for *_, source in shuffled:
            turns.append(before[source])
            before[source] += 1
        drawn = [shuffled[number] for number in np.argsort(turns, kind="stable")]
        return [{"task": task, "frame": frame} for task, frame, *_ in islice(cycle(drawn), count)]

    def _near(
        self, glass: str, n_atoms: int, temperature_K: float, role: str, count: int
    ) -> list[tuple[str, int, str, float, str, str]]:
        """Return the frames of the glass that are nearest to a temperature: a quarter of them, and at least `count`."""
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
        near = np.argsort(distance, kind="stable")[: max(3, count, len(pool) // 4)]
        return [pool[number] for number in near]


def _composition(counts: Counter[str]) -> str:
    divisor = int(np.gcd.reduce(list(counts.values())))
    return "".join(f"{symbol}{counts[symbol] // divisor}" for symbol in sorted(counts))
