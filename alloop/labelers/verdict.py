"""What a judge says of the outputs of one run of an electronic-structure code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alloop.structure import LabeledFrame

Fault = Literal[
    "empty",  # no output, or an empty one
    "truncated",  # ends before the code's normal end
    "unreadable",  # complete, but not what the code writes
    "unconverged",  # the electronic steps hit their limit
    "merged_columns",  # numbers too large for their columns, run together or shown as stars
    "not_finite",  # NaN or infinite energy, forces or stress
    "no_energy",
    "no_forces",
    "no_stress",
    "wrong_atoms",  # other elements, another number, order or place of atoms than asked for
    "wrong_cell",
    "disagreement",  # two outputs of one run tell different numbers
]
"""Why outputs make no label."""


@dataclass(frozen=True)
class Verdict:
    """The judgement of one run.

    code: such as vasp; version: as the code writes it; fault: why this is no label, None if it can be trusted;
    message: one line that says what was found; frame: the last ionic step, atoms in the order of the output, if it
    could be read at all (a frame beside a fault must not be trained on); ionic_steps: how many were judged;
    electronic_steps: of each of them; flags: what a person may want to look at in a label that is no fault, such as
    ``force_ceiling``; potentials: names of the pseudopotentials the code read (VASP: TITELs), in their order;
    first_energy_eV: of the first ionic step, whose structure was asked for, where the code can make several.
    """

    code: str
    fault: Fault | None
    message: str
    frame: LabeledFrame | None = None
    version: str | None = None
    ionic_steps: int = 0
    electronic_steps: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    potentials: tuple[str, ...] = ()
    first_energy_eV: float | None = None

    @property
    def trusted(self) -> bool:
        """Tell whether the frame is a label."""
        return self.fault is None and self.frame is not None
