"""`train.short_range` in `param.json`: what it does to a training task, and where it is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alloop.campaign import State
from alloop.config import ConfigError, parse
from alloop.decisions import training
from alloop.decisions.training import decide_train
from alloop.potential import short_range as walls
from alloop.potential.short_range import ShortRange, short_range

PARAM: dict[str, Any] = {
    "name": "walled",
    "glasses": ["LBS-20-60-20"],
    "label": {"labeler": "teter-rehearsal"},
}


def keys(monkeypatch: pytest.MonkeyPatch, root: Path, **train: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of the first ensemble's tasks and the network they have in common."""
    monkeypatch.setattr(training, "_sel", lambda *_: [20, 20, 40, 20])
    state = State()
    state.picks = {"label": {"role": "training", "iteration": -1}}
    state.done = {"label"}
    campaign: Any = SimpleNamespace(root=root, state=state)
    decision = decide_train(campaign, parse(PARAM | {"train": {"models": 2} | train}), 0)
    return [task["key"] for task in decision["tasks"]], decision["common"]["network"]


def test_without_it_a_task_is_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, network = keys(monkeypatch, tmp_path)
    assert "short_range" not in network
    assert keys(monkeypatch, tmp_path, short_range=None) == keys(monkeypatch, tmp_path)


def test_content_of_the_table_decides_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain, _ = keys(monkeypatch, tmp_path)
    walled, network = keys(monkeypatch, tmp_path, short_range="zbl")
    assert ShortRange(**network["short_range"]) == short_range("zbl", ["Li", "B", "O", "Si"])
    assert not set(plain) & set(walled)
    assert keys(monkeypatch, tmp_path / "elsewhere", short_range="zbl")[0] == walled
    monkeypatch.setattr(walls, "SCREENING_LENGTH_A", 0.4686)
    assert not set(keys(monkeypatch, tmp_path, short_range="zbl")[0]) & set(walled)


@pytest.mark.parametrize("backend", ["pytorch", "jax"])
def test_backends_that_may_lose_it_are_refused(backend: str) -> None:
    with pytest.raises(ConfigError, match=f"short_range is zbl, backend {backend}: only with tensorflow"):
        parse(PARAM | {"train": {"short_range": "zbl", "backend": backend}, "explore": {"engine": "ase"}})


def test_other_walls_are_refused() -> None:
    with pytest.raises(ConfigError, match="short_range"):
        parse(PARAM | {"train": {"short_range": "lj"}})
    assert parse(PARAM | {"train": {"short_range": "zbl"}}).train.short_range == "zbl"
    assert parse(PARAM).train.short_range is None
