"""What surrounds atoms, by the descriptor of the campaign's one describing model: of kept frames and of labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from alloop.attempt import Context
from alloop.frames import write_arrays
from alloop.selection.diversity import Environments, Known, Scale
from alloop.selection.picks import LARGEST
from alloop.store import write_json
from alloop.tasks.label import read_label

if TYPE_CHECKING:
    from alloop.potential.descriptor import Describer

ENVIRONMENTS = "environments.npz"
KNOWN = "known.npz"
_MOST_ATOMS = 16
"""Atoms of one event that are described in a frame: where more show it, as `most_uncertain` has it."""
_LABELS_AT_ONCE = 32
_LABELS_FOR_SCALE = 256
"""So many of the first labels, evenly spaced, fix the scale of distances: memory is not that of all of them."""


class Descriptions:
    """The environments of frames taken in one after the other; nothing where the campaign has no describing model."""

    def __init__(self, context: Context, events: Iterable[str] = ()) -> None:
        self._describer = describer_of(context)
        self._reasons = [LARGEST, *events]
        self._rows: list[tuple[int, int]] = []
        self._found: list[Environments] = []
        self._frames = 0

    def add(self, atoms: Atoms, deviation_eV_A: np.ndarray, offending: Mapping[str, np.ndarray]) -> None:
        """Take in a frame by the force deviation of its atoms (N,) and, by event, the atoms that show it."""
        frame, self._frames = self._frames, self._frames + 1
        if self._describer is None:
            return
        wanted = [np.array([deviation_eV_A.argmax()])]
        wanted += [most_uncertain(offending[own], atoms.numbers, deviation_eV_A) for own in self._reasons[1:]]
        self._rows += [(frame, code) for code, own in enumerate(wanted) for _ in own]
        self._found += self._describer.describe([atoms], [np.concatenate(wanted)])

    def write(self, out: Path) -> None:
        """Write ``environments.npz``.

        Arrays over n environments: ``frame`` and ``elements`` (n,), ``reason`` (n,) index into ``reasons``,
        ``vectors`` (n, dimensions).
        """
        if self._describer is None:
            return
        width = self._describer.dimensions
        empty = Environments(np.zeros(0, dtype=np.int16), np.zeros((0, width), dtype=np.float32))
        together = Environments.together([empty, *self._found])
        table = np.array(self._rows, dtype=np.int64).reshape(-1, 2)
        arrays = {"frame": table[:, 0], "reason": table[:, 1], "reasons": np.array(self._reasons)}
        write_arrays(out / ENVIRONMENTS, arrays | {"elements": together.elements, "vectors": together.vectors})


def describe_kept(
    context: Context,
    structures: Sequence[Atoms],
    deviations_eV_A: Sequence[np.ndarray],
    offending: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Write ``environments.npz`` of the kept frames of a chunk; nothing where the campaign has no describing model.

    deviations_eV_A: of each frame the force deviation of its atoms (N,); offending: by event, the atoms of each frame.
    """
    found = Descriptions(context, offending)
    for frame, (atoms, deviation) in enumerate(zip(structures, deviations_eV_A, strict=True)):
        found.add(atoms, deviation, {event: own[frame] for event, own in offending.items()})
    found.write(context.out)


def most_uncertain(atoms: np.ndarray, numbers: np.ndarray, deviation_eV_A: np.ndarray) -> np.ndarray:
    """Return the sorted indices of `_MOST_ATOMS` of some atoms, or all if they are fewer, in whatever order atoms come.

    The elements take turns, each with its atoms of largest force deviation, so that an event of all atoms is told by
    every element. numbers, deviation_eV_A (N,): of all atoms. Atoms of one element that the models find equally
    uncertain to the last bit are copies of each other, of which either will do.
    """
    order = atoms[np.lexsort((numbers[atoms], -deviation_eV_A[atoms]))]
    turn = np.zeros(len(order), dtype=int)
    for element in np.unique(numbers[order]).tolist():
        own = numbers[order] == element
        turn[own] = np.arange(own.sum())
    return np.sort(order[np.argsort(turn, kind="stable")][:_MOST_ATOMS])


def describer_of(context: Context) -> Describer | None:
    """Return the campaign's describing model, None if there is none."""
    from alloop.potential.descriptor import DESCRIBER, Describer

    key = context.spec.get("describer")
    file = context.result_of(key) / DESCRIBER if key else None
    return Describer(file) if file is not None and file.exists() else None


def read_environment_table(result: Path) -> tuple[np.ndarray, np.ndarray, list[str], Environments] | None:
    """Return frames (n,), reasons (n,) as places in a list of names, that list, and n environments; None if none."""
    if not (result / ENVIRONMENTS).exists():
        return None
    with np.load(result / ENVIRONMENTS) as stored:
        table = Environments(stored["elements"], stored["vectors"])
        return stored["frame"], stored["reason"], stored["reasons"].tolist(), table


def read_environments(result: Path) -> list[dict[str, Environments]]:
    """Return, frame by frame, the environments of the atoms behind each reason; empty if none were described."""
    stored = read_environment_table(result)
    if stored is None:
        return []
    frames, codes, reasons, table = stored
    found: list[dict[str, Environments]] = [{} for _ in range(int(frames.max(initial=-1)) + 1)]
    for frame, code in dict.fromkeys(zip(frames.tolist(), codes.tolist(), strict=True)):
        found[frame][reasons[code]] = table[(frames == frame) & (codes == code)]
    return found


def describe_labels(context: Context) -> None:
    """Write ``known.npz``: what of the environments of training data stands for all of them (see `Known`).

    spec: labels, those to take in; before, the task that took in earlier ones, if any. The first ones fix the scale
    of distances for the whole campaign.
    """
    spec, describer = context.spec, describer_of(context)
    known = read_known(context.result_of(spec["before"])) if spec["before"] else None
    labels = spec["labels"] if describer is not None else []
    if known is None and labels:
        sample = labels[:: -(-len(labels) // _LABELS_FOR_SCALE)]
        known = Known(Scale.fit(Environments.together(_environments(context, describer, sample))))
    for done, environments in enumerate(_environments(context, describer, labels), start=1):
        assert known is not None
        known.cover(environments)
        context.progress(min(1.0, done * _LABELS_AT_ONCE / len(labels)), "environments")
    if known is not None:
        write_arrays(context.out / KNOWN, known.arrays())
    write_json(context.out / "summary.json", {"labels": len(labels)})


def _environments(context: Context, describer: Describer | None, labels: list[str]) -> Iterator[Environments]:
    """Yield the environments of all atoms of labels, some labels at a time."""
    for start in range(0, len(labels) if describer is not None else 0, _LABELS_AT_ONCE):
        structures = [read_label(context.result_of(key)).atoms for key in labels[start : start + _LABELS_AT_ONCE]]
        assert describer is not None
        yield Environments.together(describer.describe(structures))


def read_known(result: Path) -> Known | None:
    """Return what a result of `describe_labels` knows, None if there was nothing to describe with."""
    if not (result / KNOWN).exists():
        return None
    with np.load(result / KNOWN) as stored:
        return Known.from_arrays(dict(stored))
