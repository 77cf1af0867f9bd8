"""The classical force field of a task, from its spec and a person's own tables."""

from __future__ import annotations

from collections.abc import Mapping

from alloop.attempt import Context, TaskError
from alloop.glass.pair_potential import PairPotential
from alloop.glass.seed_force_fields import seed_potential
from alloop.glass.user_table import table_hash


def force_field(context: Context, told: Mapping[str, str], counts: Mapping[str, int]) -> PairPotential:
    """Return the potential that a spec's ``force_field`` stands for, for cells of these atoms (element -> number).

    A built-in one by name, or a person's tables, which must not have changed: TaskError if they have.
    """
    if "sha256" not in told:
        return seed_potential(told["name"], counts)
    path = context.files["force_field"]
    remedy = "put them back as they were (for a quench, param.json may name the changed ones under another file name)"
    try:
        if table_hash(path) == told["sha256"]:
            return seed_potential("", counts, path)
    except OSError as error:
        raise TaskError(f"{path}, a force field's tables: {error}; {remedy}", kind="bug") from None
    raise TaskError(f"{path} and its tables are not those this task was made from; {remedy}", kind="bug")
