"""The labelled pool of a comparison: frames to choose from, and a test set of trajectories of its own.

A pool is a folder of extended xyz files, or the labels of a campaign. In a folder `test.extxyz` and `held_out.extxyz`
are tested on and every other ``*.extxyz`` is chosen from; a frame has energy, forces, stress, and in its comment line
`trajectory`; `glass`, `temperature_K` and `time_ps` as far as they are known.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from alloop.bench_select.events import events_of
from alloop.bench_select.ruleset import DEFAULT, Ruleset, ruleset_of
from alloop.errors import InputError
from alloop.frames import read_all_structures, read_columns, write_frames
from alloop.selection.events import Watch
from alloop.selection.picks import BEFORE_LOSS
from alloop.structure import LabeledFrame, from_record

if TYPE_CHECKING:
    from alloop.campaign import Campaign

TEST_FILES = ("test.extxyz", "held_out.extxyz")
BAND_K = 500.0  # width of a stratum of frames that name none


@dataclass(frozen=True)
class PoolFrame:
    """One labelled frame; temperature_K and time_ps (along its trajectory) are NaN where they are not known.

    Of a campaign's frames also: target_temperature_K, of the thermostat; stratum, over which the campaign's selection
    is spread; before_loss, one of the last good frames of a run that was lost.
    """

    label: LabeledFrame
    trajectory: str
    glass: str
    temperature_K: float
    time_ps: float
    target_temperature_K: float = math.nan
    stratum: str = ""
    before_loss: bool = False

    @property
    def aim_K(self) -> float:
        """Return the temperature that puts the frame into a band: the target where it is known."""
        return self.temperature_K if math.isnan(self.target_temperature_K) else self.target_temperature_K

    @property
    def place(self) -> str:
        """Return its stratum: glass and temperature, to `BAND_K` if the frame does not say."""
        return self.stratum or f"{self.glass} {self.aim_K // BAND_K:g}"


@dataclass(frozen=True)
class Pool:
    """Frames to choose from and frames to test on; type_map: the elements of both, in the models' order.

    ruleset: the events that are told apart, and how the full selector chooses; past_gate: how many frames are not
    chosen from because a pair of atoms is closer than a hard gate.
    """

    frames: tuple[PoolFrame, ...]
    test: tuple[PoolFrame, ...]
    type_map: tuple[str, ...]
    ruleset: Ruleset = DEFAULT
    past_gate: int = 0

    @cached_property
    def key(self) -> str:
        """Return 16 hex digits that depend on every structure and label, on their order, and on nothing else."""
        digest = hashlib.sha256(" ".join(self.type_map).encode())
        for part in (self.frames, self.test):
            digest.update(f"|{len(part)}".encode())
            for frame in part:
                label = frame.label
                digest.update(" ".join(label.atoms.get_chemical_symbols()).encode())
                arrays = (label.atoms.cell.array, label.atoms.positions, label.forces_eV_A, label.virial_eV)
                for array in (*arrays, np.array(label.energy_eV)):
                    digest.update(np.ascontiguousarray(array, dtype=float).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def events(self) -> tuple[dict[str, np.ndarray], ...]:
        """Return for each frame to choose from the atoms (sorted indices) of each event it shows."""
        return self._events_of(self.frames)

    @cached_property
    def test_events(self) -> tuple[dict[str, np.ndarray], ...]:
        """Return the same for each test frame."""
        return self._events_of(self.test)

    def _events_of(self, frames: Sequence[PoolFrame]) -> tuple[dict[str, np.ndarray], ...]:
        watch = Watch(self.ruleset.events)
        return tuple(events_of(own.label.atoms, watch, own.temperature_K, own.target_temperature_K) for own in frames)


def make_pool(frames: Sequence[PoolFrame], test: Sequence[PoolFrame], source: str, ruleset: Ruleset = DEFAULT) -> Pool:
    """Return the pool of these frames, without those to choose from that are past a hard gate.

    No campaign asks for such. InputError if nothing can be compared on it, or the test set is not apart.
    """
    inside = _inside_gates(frames, ruleset)
    past_gate = len(frames) - len(inside)
    for part, what in ((inside, "frames to choose from"), (test, "test frames")):
        if not part:
            left_out = f" ({past_gate} are past a hard gate)" if part is inside and past_gate else ""
            raise InputError(
                f"{source} holds no {what}{left_out}\n"
                f"  a folder needs {' or '.join(TEST_FILES)} and at least one other .extxyz file; "
                "a campaign needs labels of both roles, training and held_out"
            )
    shared = sorted({frame.trajectory for frame in inside} & {frame.trajectory for frame in test})
    if shared:
        raise InputError(
            f"{source}: trajectory {shared[0]} is both chosen from and tested on ({len(shared)} such); frames of one "
            "trajectory resemble each other\n  move all frames of a trajectory to one side"
        )
    type_map = sorted({symbol for frame in (*inside, *test) for symbol in set(frame.label.atoms.symbols)})
    return Pool(tuple(inside), tuple(test), tuple(type_map), ruleset, past_gate)


def _inside_gates(frames: Sequence[PoolFrame], ruleset: Ruleset) -> list[PoolFrame]:
    watch = Watch({name: settings for name, settings in ruleset.events.items() if settings.get("gate_A")})
    return [frame for frame in frames if watch.look(frame.label.atoms).lost_reason is None]


# ---------------------------------------------------------------------------------------- from a folder


def read_folder(folder: Path) -> Pool:
    """Return the pool of a folder; InputError names what is missing and where."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected one with labelled frames as extended xyz")
    files = sorted(folder.glob("*.extxyz"))
    if not files:
        raise InputError(
            f"{folder} holds no .extxyz file; expected {' or '.join(TEST_FILES)} and at least one other\n"
            "  benchmarks/labelled_pool.py makes such a folder"
        )
    frames = [frame for file in files if file.name not in TEST_FILES for frame in _read_file(file)]
    test = [frame for file in files if file.name in TEST_FILES for frame in _read_file(file)]
    return make_pool(frames, test, str(folder))


def _read_file(file: Path) -> list[PoolFrame]:
    try:
        found = ase.io.read(file, index=":", format="extxyz")
    except Exception as error:  # the reader has exceptions of every kind
        raise InputError(f"{file} cannot be read as extended xyz: {type(error).__name__}: {error}") from None
    return [_frame(atoms, f"{file}, frame {number}") for number, atoms in enumerate(found)]


def _frame(atoms: Atoms, where: str) -> PoolFrame:
    """Return one frame of a file; InputError if it is not a whole label of a periodic cell."""
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InputError(f"{where}: no periodic cell; the models are trained on periodic structures")
    try:
        energy_eV = float(atoms.get_potential_energy())
        forces_eV_A = np.array(atoms.get_forces(), dtype=float)
        virial_eV = -np.array(atoms.get_stress(voigt=False), dtype=float) * atoms.get_volume()
    except (RuntimeError, PropertyNotImplementedError):
        raise InputError(f"{where}: no whole label; expected energy, forces and stress") from None
    if not all(np.isfinite(values).all() for values in (atoms.positions, energy_eV, forces_eV_A, virial_eV)):
        raise InputError(f"{where}: a number is not finite; remove the frame")
    if "trajectory" not in atoms.info:
        raise InputError(
            f"{where}: the comment line does not say `trajectory`, so the test set cannot be kept apart\n"
            "  write trajectory=NAME there, equal for frames of one run"
        )
    told = atoms.info
    plain = Atoms(atoms.get_chemical_symbols(), positions=atoms.get_positions(wrap=True), cell=atoms.cell, pbc=True)
    return PoolFrame(
        LabeledFrame(plain, energy_eV, forces_eV_A, virial_eV),
        str(told["trajectory"]),
        str(told.get("glass", atoms.get_chemical_formula("metal", empirical=True))),
        float(told.get("temperature_K", np.nan)),
        float(told.get("time_ps", np.nan)),
    )


# ---------------------------------------------------------------------------------------- from a campaign


def read_campaign(campaign: Campaign) -> Pool:
    """Return the labels of a loaded campaign's own level as a pool: training ones to choose from, held-out ones to
    test on, to be chosen from by the rules its last start recorded. InputError if it has none.
    """
    from alloop.config import parse
    from alloop.export import parse_request, wanted_labels

    sides: dict[str, list[PoolFrame]] = {"training": [], "held_out": []}
    for label in wanted_labels(campaign, parse_request(campaign, "npy", None, "all")):
        sides[label.group].append(_picked(label.frame, campaign.state.picks[label.key]))
    ruleset = ruleset_of(parse(campaign.state.starts[-1]["config"], "the recorded configuration"))
    return make_pool(sides["training"], sides["held_out"], str(campaign.root), ruleset)


def _picked(frame: LabeledFrame, pick: dict[str, Any]) -> PoolFrame:
    """Return a label with what the campaign's record tells of its frame.

    Frames of the bootstrap tell no time; by their numbers, a picosecond each, none counts as near another.
    """
    trajectory = str(pick["trajectory"])
    known = {name: pick.get(name) for name in ("temperature_K", "target_temperature_K")}
    numbers = {name: math.nan if value is None else float(value) for name, value in known.items()}
    return PoolFrame(
        frame,
        trajectory,
        trajectory.split(".")[0],
        time_ps=float(pick["time_ps"] if "time_ps" in pick else pick["source"]["frame"]),
        stratum=pick.get("stratum", ""),
        before_loss=pick["reason"] == BEFORE_LOSS,
        **numbers,
    )


# ---------------------------------------------------------------------------------------- for the rounds


def write_pool(pool: Pool, path: Path) -> None:
    """Write all labels of a pool, test frames last, as one ``.npz`` that a round's process reads quickly."""
    frames = (*pool.frames, *pool.test)
    width = max(len(frame.label.atoms) for frame in frames)
    forces = np.zeros((len(frames), width, 3))
    for row, frame in zip(forces, frames, strict=True):
        row[: len(frame.label.forces_eV_A)] = frame.label.forces_eV_A
    columns: dict[str, Any] = {
        "energy_eV": [frame.label.energy_eV for frame in frames],
        "forces_eV_A": forces,
        "virial_eV": [frame.label.virial_eV for frame in frames],
        "is_test": np.arange(len(frames)) >= len(pool.frames),
    }
    write_frames(path, [frame.label.atoms for frame in frames], **columns)


def read_labels(folder: Path) -> tuple[list[LabeledFrame], list[LabeledFrame]]:
    """Return the frames to choose from and the test frames of a folder whose ``frames.npz`` `write_pool` wrote."""
    columns = read_columns(folder)
    labels = [
        LabeledFrame(from_record(record), float(energy_eV), forces_eV_A[: len(record["symbols"])], virial_eV)
        for record, energy_eV, forces_eV_A, virial_eV in zip(
            read_all_structures(folder),
            columns["energy_eV"],
            columns["forces_eV_A"],
            columns["virial_eV"],
            strict=True,
        )
    ]
    count = int((~columns["is_test"]).sum())
    return labels[:count], labels[count:]
