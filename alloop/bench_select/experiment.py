"""Active learning replayed on a labelled pool, for every method and seed; every round is kept and never repeated.

A round is known by a hash of all that decides it: the pool, the labels trained on, the network and its training, the
seeds, and the round it goes on from. What exists is not made again, whatever the command asks for besides; what was
interrupted leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alloop.bench_select.errors import measured_errors
from alloop.bench_select.pool import Pool, write_pool
from alloop.bench_select.processes import Command, run_all
from alloop.bench_select.round_task import DESCRIPTORS, EVALUATION, RECORD
from alloop.bench_select.strategies import choose
from alloop.bench_select.view import PoolView
from alloop.decisions.training import apply_network
from alloop.errors import InputError
from alloop.potential.environment import md_environment
from alloop.potential.neighbours import adequate_sel
from alloop.resources import find_template
from alloop.seeds import derived_seed
from alloop.store import read_json, write_json
from alloop.structure import content_key, to_record

START = "start"
"""Name of the rounds on the random labels that all methods of a seed begin with."""
ROUND = (sys.executable, "-m", "alloop.bench_select.round_task")
"""What makes one round; its arguments are the round's folder, the pool's and that of the round before."""
_COUNTED_FRAMES = 200


@dataclass(frozen=True)
class Profile:
    """How large the comparison is: labels per round (cumulated), network and training of the models."""

    sizes: tuple[int, ...]
    steps: int
    warm_steps: int
    cutoff_A: float = 5.0
    neuron: tuple[int, ...] = (10, 20)
    axis_neuron: int = 8
    fitting_neuron: tuple[int, ...] = (64, 64)
    models: int = 2
    learning_rate: float = 4e-3
    warm_learning_rate: float = 2e-3
    final_learning_rate: float = 1e-4
    descriptor_size: int = 32
    trust_quantiles: tuple[float, float] = (0.4, 0.98)


PROFILES = {
    "quick": Profile(sizes=(20, 40, 80), steps=400, warm_steps=300, cutoff_A=4.5, fitting_neuron=(32, 32)),
    "full": Profile(sizes=(40, 80, 160, 320), steps=5000, warm_steps=2500),
}


@dataclass(frozen=True)
class Round:
    """One trained and evaluated ensemble: method, seed and size (labels) that asked for it, and its labels.

    own: how many of its newest labels the method chose itself; folder: where it is kept; spec: all that decides it.
    """

    method: str
    seed: int
    size: int
    labels: tuple[int, ...]
    own: int
    folder: Path
    spec: dict[str, Any]

    @property
    def done(self) -> bool:
        """Tell whether it is kept already."""
        return (self.folder / RECORD).is_file()

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Return what `alloop.bench_select.round_task` measured; InputError if it cannot be read."""
        try:
            with np.load(self.folder / EVALUATION) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self.folder} is damaged ({error})\n  delete it, and it is made anew") from None


@dataclass(frozen=True)
class Experiment:
    """A comparison on one pool, kept in one folder; trust_levels_eV_A fixes what is taken from quantiles otherwise."""

    pool: Pool
    folder: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    profile: Profile
    trust_levels_eV_A: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        sizes, count = self.profile.sizes, len(self.pool.frames)
        if list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or len(sizes) < 2:
            raise InputError(f"sizes are {list(sizes)}; give two or more rising numbers of labels")
        if sizes[-1] > count:
            raise InputError(
                f"the largest size is {sizes[-1]} labels, the pool has {count} frames to choose from\n"
                "  give smaller --sizes, or a larger pool"
            )

    @cached_property
    def template(self) -> dict[str, Any]:
        """Return the DeePMD input: the shipped one with the profile's network and `sel` counted on the pool."""
        own = self.profile
        frames = self.pool.frames
        sample = np.unique(np.linspace(0, len(frames) - 1, _COUNTED_FRAMES).astype(int))
        atoms = [frames[index].label.atoms for index in sample]
        network = {
            "cutoff_A": own.cutoff_A,
            "smoothing_A": 0.5,
            "sel": adequate_sel(atoms, self.pool.type_map, own.cutoff_A),
            "neuron": list(own.neuron),
            "axis_neuron": own.axis_neuron,
            "fitting_neuron": list(own.fitting_neuron),
        }
        return apply_network(json.loads(find_template("deepmd/input.json").read_text()), network)

    @cached_property
    def columns(self) -> dict[str, Any]:
        """Return what a `PoolView` tells of the frames whatever ensemble looks at them."""
        frames = self.pool.frames
        sizes = [len(frame.label.atoms) for frame in frames]
        return {
            "identity": np.array([content_key(to_record(frame.label.atoms)) for frame in frames]),
            "trajectory": np.array([frame.trajectory for frame in frames]),
            "glass": np.array([frame.glass for frame in frames]),
            "stratum": np.array([frame.place for frame in frames]),
            "temperature_K": np.array([frame.aim_K for frame in frames]),
            "time_ps": np.array([frame.time_ps for frame in frames]),
            "before_loss": np.array([frame.before_loss for frame in frames]),
            "events": self.pool.events,
            "first_atom": np.concatenate([[0], np.cumsum(sizes)]),
            "elements": np.concatenate([frame.label.atoms.numbers for frame in frames]).astype(np.int16),
            "ruleset": self.pool.ruleset,
        }

    def first(self, seed: int) -> Round:
        """Return the round on random labels with which every method of a seed begins."""
        size = self.profile.sizes[0]
        rng = np.random.default_rng(derived_seed(seed, "initial"))
        labels = np.sort(rng.permutation(len(self.pool.frames))[:size]).tolist()
        return self._round(START, seed, 0, labels, 0, None)

    def next(self, method: str, start: Round, before: Round) -> Round:
        """Return the round after `before`, on its labels and those that the method adds."""
        stage = self.profile.sizes.index(before.size) + 1
        count = self.profile.sizes[stage] - before.size
        seed = derived_seed(before.seed, "choose", stage)
        chosen, own = choose(method, self.view(start, before), count, seed)
        return self._round(method, before.seed, stage, sorted([*before.labels, *chosen.tolist()]), own, before)

    def view(self, start: Round, newest: Round) -> PoolView:
        """Return the pool as the newest ensemble sees it, environments described by the first model of the start."""
        deviation, first_atom = newest.arrays["deviation_eV_A"].astype(float), self.columns["first_atom"]
        frames = [deviation[a:b] for a, b in itertools.pairwise(first_atom.tolist())]
        maxima = np.array([values.max() for values in frames])  # NaN if any is
        labelled = np.zeros(len(frames), dtype=bool)
        labelled[list(newest.labels)] = True
        return PoolView(
            labelled=labelled,
            max_deviation_eV_A=maxima,
            offending_atom=np.array([int(values.argmax()) for values in frames]),
            descriptors=np.load(start.folder / DESCRIPTORS),
            trust_levels_eV_A=self.trust_levels_eV_A or trust_levels(maxima[~labelled], self.profile.trust_quantiles),
            **self.columns,
        )

    def _round(
        self, method: str, seed: int, stage: int, labels: Sequence[int], own: int, before: Round | None
    ) -> Round:
        profile, size = self.profile, self.profile.sizes[stage]
        spec = {
            "pool": self.pool.key,
            "type_map": list(self.pool.type_map),
            "template": self.template,
            "labels": list(labels),
            "seeds": [derived_seed(seed, "model", stage, number) for number in range(profile.models)],
            "steps": profile.warm_steps if before else profile.steps,
            "start_lr": profile.warm_learning_rate if before else profile.learning_rate,
            "stop_lr": profile.final_learning_rate,
            "descriptor_size": 0 if before else profile.descriptor_size,
            "parent": content_key(before.spec) if before else None,
        }
        place = self.folder / "rounds" / f"{method}.s{seed}.n{size:04d}-{content_key(spec)}"
        return Round(method, seed, size, tuple(labels), own, place, spec)

    def run(self, slots: int, tell: Callable[[str], None]) -> list[Round]:
        """Make what is missing, `slots` rounds at a time and smaller sizes first; return all rounds of all methods.

        A start round is returned once per method, under the method's name.
        """
        with _held(self.folder):
            place = self._written_pool()
            starts = {seed: self.first(seed) for seed in self.seeds}
            progress = _Progress(tell, len(self.seeds) * (1 + len(self.methods) * (len(self.profile.sizes) - 1)))
            self._make(list(starts.values()), {}, place, slots, progress)
            newest = {(method, seed): starts[seed] for method in self.methods for seed in self.seeds}
            found = [_named(method, round_) for (method, _), round_ in newest.items()]
            for _ in self.profile.sizes[1:]:
                before = newest
                newest = {
                    (method, seed): self.next(method, starts[seed], round_) for (method, seed), round_ in before.items()
                }
                parents = {newest[key].folder: before[key].folder for key in newest}
                self._make(list(newest.values()), parents, place, slots, progress)
                found += newest.values()
        return found

    def _written_pool(self) -> Path:
        place = self.folder / "pools" / self.pool.key
        if not place.is_dir():
            with _aside(place) as aside:
                write_pool(self.pool, aside / "frames.npz")
        return place

    def _make(
        self, rounds: list[Round], parents: dict[Path, Path], pool: Path, slots: int, progress: _Progress
    ) -> None:
        missing = [round_ for round_ in rounds if not round_.done]
        progress.found(len(rounds) - len(missing))
        commands, places = [], {}
        for round_ in missing:
            aside = round_.folder.with_name(f".{round_.folder.name}.{uuid.uuid4().hex[:6]}")
            aside.mkdir(parents=True)
            write_json(aside / "spec.json", round_.spec)
            arguments = [*ROUND, str(aside), str(pool)]
            parent = parents.get(round_.folder)
            name = f"{round_.method}, seed {round_.seed}, {round_.size} labels"
            command = Command(name, arguments + ([str(parent)] if parent else []), aside / "log")
            commands.append(command)
            places[command.log] = aside, round_.folder

        def done(command: Command, seconds: float) -> None:
            aside, folder = places[command.log]
            aside.rename(folder)
            progress.made(command.name, seconds)

        run_all(commands, slots, os.environ | md_environment(1), done)

    def to_json(self, rounds: Sequence[Round]) -> list[dict[str, Any]]:
        """Return one record per round: what asked for it, what it was measured at, and how long it took."""
        return [
            {
                "method": round_.method,
                "seed": round_.seed,
                "labels": round_.size,
                "chosen_by_method": round_.own,
                "errors": measured_errors(
                    self.pool, round_.arrays["test_forces_eV_A"], round_.arrays["test_energies_eV"]
                ),
                "seconds": read_json(round_.folder / RECORD)["seconds"],
                "round": round_.folder.name,
            }
            for round_ in rounds
        ]

    def settings(self) -> dict[str, Any]:
        """Return what the comparison was, for its record."""
        return {
            "methods": list(self.methods),
            "seeds": list(self.seeds),
            "profile": asdict(self.profile),
            "trust_levels_eV_A": list(self.trust_levels_eV_A) if self.trust_levels_eV_A else None,
            "selection": self.pool.ruleset.to_json(),
        }


def trust_levels(max_deviation_eV_A: np.ndarray, quantiles: tuple[float, float]) -> tuple[float, float]:
    """Return low and high: these quantiles of the deviations that are numbers; (inf, inf), so none, without any."""
    finite = max_deviation_eV_A[np.isfinite(max_deviation_eV_A)]
    if not len(finite):
        return np.inf, np.inf
    low, high = np.quantile(finite, quantiles).tolist()
    return low, high


class _Progress:
    """Tells of every finished round, and how long the rest will take at the pace so far."""

    def __init__(self, tell: Callable[[str], None], total: int) -> None:
        self.tell, self.total = tell, total
        self.kept, self.new, self.began = 0, 0, time.monotonic()

    def found(self, count: int) -> None:
        """Count rounds that were there already."""
        self.kept += count

    def made(self, name: str, seconds: float) -> None:
        """Tell of a round that was made."""
        self.new += 1
        left = self.total - self.kept - self.new
        minutes = (time.monotonic() - self.began) / self.new * left / 60
        after = f", about {minutes:.0f} min left" if left else ""
        self.tell(f"{name}: {seconds:.0f} s ({self.kept + self.new} of {self.total} rounds{after})")


def _named(method: str, round_: Round) -> Round:
    return Round(method, round_.seed, round_.size, round_.labels, round_.own, round_.folder, round_.spec)


@contextlib.contextmanager
def _aside(place: Path) -> Iterator[Path]:
    """Yield a new folder beside `place`, which gets that name when the block has ended well."""
    aside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:6]}")
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder for this process and clear away what an earlier one left unfinished; InputError if it is held."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another bench-select works in {folder}\n  wait for it, or give another folder with --out"
            ) from None
        for leftover in (*folder.glob("rounds/.*"), *folder.glob("pools/.*")):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
