"""The force field of a quench's spec is the one that packs, drives and looks for where a glass melts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ase import Atoms

from alloop.attempt import TaskError
from alloop.decisions.force_fields import force_field
from alloop.decisions.quenching import packed_by, packed_start
from alloop.glass.composition import TABLE_1, Glass
from alloop.glass.melt_quench import Snapshot
from alloop.tasks import classical, dynamics

GLASS = TABLE_1["LBS-20-60-20"]
RICH = Glass("LBS-90-8-2", {"SiO2": 0.90, "B2O3": 0.08, "Li2O": 0.02}, 2.2)
"""K = 11.25, beyond what Teter's B-O term is fitted for."""


def tables(folder: Path) -> None:
    from alloop.glass.force_field import teter_parameters
    from alloop.glass.pair_potential import write_lammps_table

    write_lammps_table(folder / "my.table", teter_parameters(GLASS), ("B", "Li", "O", "Si"))
    (folder / "my.toml").write_text('name = "Mine"\ntables = "my.table"\ncutoff_A = 8.0\ncoulomb = "in tables"\n')


def a_context(root: Path, name: str, glass: Glass = GLASS) -> Any:
    field = force_field(root, name)
    spec = {"start": packed_by(packed_start(glass, 300), field), "force_field": field.spec, "seed": 3}
    spec |= {"condition": {"temperature_start_K": 2000.0}, "melt_K": 3500.0, "melt_ps": 1.0, "temperatures_K": []}
    files = {what: root / file for what, file in field.files.items()}
    return SimpleNamespace(spec=spec | {"stage": "melting"}, files=files, work=root, out=root)


@pytest.mark.parametrize(
    ("name", "glass", "expected"),
    [("my.toml", GLASS, "Mine"), ("bmp-shrm", GLASS, "BMP-shrm"), ("shik", RICH, "SHIK")],
)
def test_packing_driving_and_melting_use_the_force_field_of_the_spec(
    name: str, glass: Glass, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []

    def fake(*_: Any, potential: Any, **__: Any) -> list[Snapshot]:
        used.append(potential)
        return [Snapshot(Atoms("BO"), 2000.0, 0)]

    monkeypatch.setattr(classical, "melt_quench", fake)
    tables(tmp_path)
    context = a_context(tmp_path, name, glass)
    dynamics.starting_state(context)
    classical.run_melting(context)
    engine, driver = dynamics._driver(context, Atoms("Si2B2LiO8", positions=[(i, 0, 0) for i in range(13)]))
    assert [potential.name for potential in [*used, driver]] == [expected] * 3 and engine == "lammps"


def test_tables_that_changed_since_are_not_used(tmp_path: Path) -> None:
    tables(tmp_path)
    context = a_context(tmp_path, "my.toml")
    (tmp_path / "my.table").write_text((tmp_path / "my.table").read_text() + "# another\n")
    with pytest.raises(TaskError, match="put them back"):
        dynamics.starting_state(context)
