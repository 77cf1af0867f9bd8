"""Classical force fields as tasks know them: by name, or as a person's own tables by their content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alloop.config import Param
from alloop.glass.seed_force_fields import SEED_FORCE_FIELDS
from alloop.glass.user_table import table_hash, table_name


@dataclass(frozen=True)
class ForceField:
    """A force field's part of a spec, ``force_field``, and the task's files: those of a person's own tables."""

    spec: dict[str, str]
    files: dict[str, str]


def force_field(root: Path, name: str) -> ForceField:
    """Return a force field of `param.json`: a built-in one, or the file of tables in the campaign folder.

    Of tables their content and their own name count, wherever they are. ValueError or OSError if they cannot be read.
    """
    if name in SEED_FORCE_FIELDS:
        return ForceField({"name": name}, {})
    settings = root / name
    return ForceField({"name": table_name(settings), "sha256": table_hash(settings)}, {"force_field": name})


def quench_force_field(param: Param) -> str:
    """Return what drives the classical stages of the quench, packs atoms and tells where a glass melts.

    As `param.json` names it: `quench.force_field`, else the first of the bootstrap's.
    """
    given = param.quench.force_field if param.quench else None
    return given or param.bootstrap.force_fields[0]
