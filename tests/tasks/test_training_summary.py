"""What a training tells of itself, with a stand-in for DeePMD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alloop.attempt import Context
from alloop.potential.descriptor import DESCRIBER
from alloop.potential.training import TrainResult
from alloop.store import read_json
from alloop.tasks import train

SPEC: dict[str, Any] = {
    "resume": "scratch",
    "training": ["label"],
    "held_out": [],
    "type_map": ["O"],
    "template": {},
    "steps": 10,
    "start_lr": 1e-3,
    "stop_lr": 1e-5,
    "seed": 1,
    "init": None,
    "save_every": 5,
    "compress": False,
    "backend": "tensorflow",
}


def trained(request: Any, directory: Path) -> TrainResult:
    names = ("model.pb", "model.ckpt-10", "lcurve.out", "train.log", "input.json")
    model, checkpoint, lcurve, log, _ = files = [directory / name for name in names]
    for file in files:
        file.write_text(file.name)
    return TrainResult(model, None, checkpoint, (checkpoint,), lcurve, log, "scratch", request.n_steps)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("broken", [True, False])
def test_why_no_describing_model_could_be_written_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool, broken: bool
) -> None:
    def write_describer(model: Path, checkpoint: Path, out: Path, backend: str) -> None:
        out.write_text("half of it")
        if broken:
            raise ValueError("an unknown descriptor\nand more")

    monkeypatch.setattr(train, "train", trained)
    monkeypatch.setattr(train, "write_systems", lambda *_: ())
    monkeypatch.setattr(train, "read_label", lambda _: None)
    monkeypatch.setattr(train, "shifted", lambda label, _: label)
    monkeypatch.setattr(train, "write_describer", write_describer)
    (tmp_path / "out").mkdir()
    spec = SPEC | ({"describe": True} if asked else {})
    train.run(Context(spec, "model.00", tmp_path, tmp_path / "out", [], {"label": tmp_path}, {}))
    summary = read_json(tmp_path / "out" / "summary.json")
    lacks = asked and broken
    assert (tmp_path / "out" / DESCRIBER).exists() == (asked and not broken)
    assert summary.get("no_describer") == ("ValueError: an unknown descriptor\nand more" if lacks else None)
