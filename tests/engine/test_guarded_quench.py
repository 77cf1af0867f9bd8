"""The guard of production: when a run stops, which frames go back to be learnt, and which models drive it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from campaign_kit import param
from hypothesis import given
from hypothesis import strategies as st

from alloop.decisions.final_training import models_to_quench
from alloop.decisions.guarding import decide_guard
from alloop.frames import write_frames
from alloop.state import State
from alloop.store import write_json
from alloop.tasks.quench import Guard, beyond_before


@given(st.lists(st.sampled_from([0.1, 0.999, 1.0, 3.0, float("nan")]), max_size=40), st.integers(0, 4))
def test_a_run_stops_at_the_first_record_that_ends_so_many_in_a_row_beyond_trust(values: list[float], n: int) -> None:
    guard, stopped = Guard(n, 1.0), None
    for index, value in enumerate(values):
        if guard.look(SimpleNamespace(max_deviation=value)) is not None:  # type: ignore[arg-type]
            stopped = index
            break
    beyond = [not value < 1.0 for value in values]
    ends = [i for i in range(len(values)) if n and i + 1 >= n and all(beyond[i + 1 - n : i + 1])]
    assert stopped == (ends[0] if ends else None)


def test_a_streak_goes_on_over_the_border_of_chunks(tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", {"status": "finished", "records_beyond": 2})
    context: Any = SimpleNamespace(spec={"start": {"task": "before", "state": "end"}}, result_of=lambda key: tmp_path)
    guard = Guard(3, 1.0, beyond_before(context))
    assert guard.look(SimpleNamespace(max_deviation=1.5)) is not None, "the third in a row"  # type: ignore[arg-type]
    context.spec = {"start": {"task": "label", "frame": 0}}
    assert beyond_before(context) == 0, "a first chunk begins anew"
    write_json(tmp_path / "summary.json", {"status": "finished"})
    context.spec = {"start": {"task": "minimum", "state": "end"}}
    assert beyond_before(context) == 0, "a minimisation has no records"


class Produced:
    """A campaign whose first ensemble has quenched: per run the status of its chunks, and the frames it kept."""

    level = {"name": "vasp", "content": {"labeler": "vasp"}}  # noqa: RUF012

    def __init__(self, root: Path, runs: dict[str, list[str]], frames: int = 4) -> None:
        self.root, self.state = root, State()
        self.summaries: dict[str, dict[str, Any]] = {}
        tasks, records = [], []
        for run, statuses in runs.items():
            keys = [f"{run}.{number}" for number in range(len(statuses))]
            records.append({"name": run, "glass": "LBS-20-60-20", "tasks": keys})
            for key, status in zip(keys, statuses, strict=True):
                condition = {"n_steps": 1000, "timestep_fs": 2.0}
                tasks.append({"key": key, "name": f"{key}-cool", "spec": {"condition": condition}, "inputs": []})
                self.summaries[key] = {"status": status, "stage": "cool", "reason": f"{status} there"}
                self._keep(key, frames if status in ("stopped", "lost") else 0)
                self.state.done.add(key)
        common: dict[str, Any] = {"models": ["a", "b"], "events": {}}
        self.state.decisions["quench", 0] = {"converged": True, "common": common, "runs": records, "tasks": tasks}

    def _keep(self, key: str, count: int) -> None:
        (self.root / key).mkdir(parents=True)
        write_frames(
            self.root / key / "frames.npz",
            [Atoms("Li", cell=[9, 9, 9])] * (count + 1),
            content=np.array([f"{key}:{n}" for n in range(count + 1)]),
            step=np.arange(count + 1) * 10,
            max_force_deviation_eV_A=np.ones(count + 1),
            temperature_K=np.full(count + 1, 290.0),
            target_temperature_K=np.full(count + 1, 300.0),
            kept_for=np.array(["", *["candidate"] * (count - 1), *["beyond_trust"] * (count > 0)]),
            trust_class=np.array(["failed"] * (count + 1)),
        )

    def summary(self, key: str) -> dict[str, Any]:
        return self.summaries[key]

    def result(self, key: str) -> Path:
        return self.root / key


def guarded(campaign: Any, **select: Any) -> dict[str, Any]:
    return decide_guard(campaign, param(select=select), 0)


def test_runs_that_were_stopped_or_lost_ask_in_turn_and_for_so_many_labels(tmp_path: Path) -> None:
    runs = {"a": ["finished", "stopped", "void"], "b": ["lost", "void"], "c": ["finished", "finished"]}
    campaign = Produced(tmp_path, runs)
    found = guarded(campaign, max_labels=10, max_per_trajectory=3)
    assert [own["run"] for own in found["stopped"]] == ["a", "b"] and not found["converged"]
    assert found["reason"].startswith("2 of 3 production runs were stopped or lost")
    assert [pick["trajectory"] for pick in found["picks"]] == ["a", "b"] * 3
    assert [pick["step"] for pick in found["picks"] if pick["trajectory"] == "a"] == [40, 10, 30], (
        "where it was stopped first, the others evenly spaced"
    )
    assert found["picks"][0]["time_ps"] == 2.08, "along the run, not the chunk"
    assert {(pick["role"], pick["reason"], pick["level"]) for pick in found["picks"]} == {
        ("training", "production", "vasp")
    }
    assert len(guarded(campaign, max_labels=3, max_per_trajectory=3)["picks"]) == 3
    campaign.state.picks = {pick["key"]: pick for pick in found["picks"]}
    assert [pick["step"] for pick in guarded(campaign, max_labels=2, max_per_trajectory=1)["picks"]] == [20, 20]
    left = guarded(campaign, max_labels=10, max_per_trajectory=3)["picks"]
    assert [pick["step"] for pick in left] == [20, 20], "what has a label is not asked for again"


def test_calm_production_asks_for_nothing_and_what_left_no_frame_is_told(tmp_path: Path) -> None:
    calm = guarded(Produced(tmp_path / "calm", {"a": ["finished", "finished"]}))
    assert calm["converged"] and not calm["picks"] and not calm["stopped"]
    lost = guarded(Produced(tmp_path / "lost", {"a": ["lost", "void"]}, frames=0))
    assert lost["converged"] and not lost["picks"] and len(lost["stopped"]) == 1
    assert "1 of 1 production runs" in lost["reason"], "nothing to learn from, and yet a person is told"
    minimised = Produced(tmp_path / "minimised", {"a": ["finished", "lost"]})
    write_frames(tmp_path / "minimised" / "a.1" / "frames.npz", [], step=np.zeros(0, dtype=int))
    assert not guarded(minimised)["picks"], "a lost minimisation has no frame, and no reason for one"


@pytest.mark.parametrize(
    ("before", "after", "used", "told"),
    [
        ((0.2, 0.3), (0.2, 0.25), True, "is used"),
        ((0.2, 0.3), (0.1, 0.31), False, "worse in forces of held_out_explore (forces of held_out_bootstrap 0.2 ->"),
        ((0.2, 0.3), (float("nan"), 0.1), False, "worse in forces of held_out_bootstrap ("),
        ((0.2, 0.3), None, False, "could not be measured"),
        (None, None, False, "it failed"),
    ],
)
def test_models_trained_longer_are_used_if_they_are_no_worse(before: Any, after: Any, used: bool, told: str) -> None:
    names = ("held_out_bootstrap", "held_out_explore")
    state = State()
    state.decisions["train", 0] = {"tasks": [{"key": "e"}]}
    state.decisions["final_train", 0] = {"tasks": [{"key": "f"}]}
    state.decisions["final_check", 0] = {"tasks": [{"key": "after"}, {"key": "before"}]}
    state.done = {"e", *(["f"] if before else []), *(["after", "before"] if after else [])}
    errors = {"before": before, "after": after}

    def summary(key: str) -> dict[str, Any]:
        return {
            name: {"force_rmse_eV_A": value, "energy_rmse_eV_atom": 0.004}
            for name, value in zip(names, errors[key], strict=True)
        }

    campaign: Any = SimpleNamespace(state=state, summary=summary)
    models, record = models_to_quench(campaign, param(quench={"final_training": {"steps": 9}}), 0)
    assert models == (["f"] if used else ["e"]) and record is not None
    assert record["used"] == used and told in record["reason"]
    assert models_to_quench(campaign, param(quench={}), 0) == (["e"], None)


def test_models_trained_longer_must_be_no_worse_in_energies_too() -> None:
    state = State()
    state.decisions["train", 0] = {"tasks": [{"key": "e"}]}
    state.decisions["final_train", 0] = {"tasks": [{"key": "f"}]}
    state.decisions["final_check", 0] = {"tasks": [{"key": "after"}, {"key": "before"}]}
    state.done = {"e", "f", "after", "before"}
    energies = {"before": 0.004, "after": 0.005}

    def summary(key: str) -> dict[str, Any]:
        return {"held_out": {"force_rmse_eV_A": 0.2, "energy_rmse_eV_atom": energies[key]}}

    campaign: Any = SimpleNamespace(state=state, summary=summary)
    own = param(quench={"final_training": {"steps": 9}})
    models, record = models_to_quench(campaign, own, 0)
    assert models == ["e"] and record is not None and not record["used"]
    assert (
        "worse in energies of held_out (forces of held_out 0.2 -> 0.2 eV/A; energies of held_out 4 -> 5 meV/atom)"
        in (record["reason"])
    )
    assert record["energy_rmse_eV_atom"] == {"held_out": [0.004, 0.005]}
    energies["after"] = 0.004
    assert models_to_quench(campaign, own, 0)[0] == ["f"]
