"""What a translation starts from besides the two files, and what it ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alloop.dpgen.glasses import GlassSystem

BACKENDS = {"tensorflow": "tensorflow", "tf": "tensorflow", "pytorch": "pytorch", "pt": "pytorch", "jax": "jax"}
"""DP-GEN's ``train_backend`` -> alloop's."""


@dataclass(frozen=True)
class Known:
    """What the folder adds to the configuration.

    root: the DP-GEN folder; glasses: those of `param.json`; systems: which DP-GEN system is which of them; iterations:
    how many are labelled; structures: start structures per system; labeler: alloop's, if a person has named it.
    """

    root: Path
    glasses: Sequence[dict[str, Any]]
    systems: Sequence[GlassSystem]
    iterations: int
    structures: Mapping[int, int]
    labeler: str | None = None


@dataclass
class Translation:
    """An alloop configuration made of DP-GEN's.

    param: content of `param.json` without bootstrap and starting models; templates: text of files in ``templates/``;
    left_out: (key, why) of what was not translated; to_fill_in: what a person must add; label_is_known: whether the
    `label` section tells what labelled the data.
    """

    param: dict[str, Any] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    to_fill_in: list[str] = field(default_factory=list)
    label_is_known: bool = True

    def leave_out(self, key: str, why: str) -> None:
        """Note a key that was not translated, once."""
        if (key, why) not in self.left_out:
            self.left_out.append((key, why))


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, None as an empty one, anything else as a list of one."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
