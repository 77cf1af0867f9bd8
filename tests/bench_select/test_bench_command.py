"""`alloop bench-select` as a person meets it."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alloop import cli

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench_select(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Run the command in this process, in a folder of its own; return code, output and messages."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        words = ["alloop", "bench-select", *map(str, arguments), "-C", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", words)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        return int(ended.value.code or 0), out.getvalue(), err.getvalue()

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "random,best"], "--methods 'random,best': best is no method; there are random, dpgen"),
        (["--methods", ","], "none is no method"),
        (["--sizes", "60;120"], "--sizes '60;120' is no list of whole numbers"),
        (["--sizes", "20,10"], "sizes are [20, 10]; give two or more rising numbers"),
        (["--sizes", "20,40"], "the largest size is 40 labels, the pool has 30 frames"),
        (["--profile", "huge"], "--profile 'huge' is none of quick, full"),
        (["--trust", "1.0", "0.3"], "--trust is 1 0.3; give two numbers, LOW below HIGH"),
        (["--target", "0"], "--target is 0; give a force RMSE above zero"),
        (["--target", "nan"], "--target is nan; give a force RMSE above zero"),
    ],
)
def test_options_that_cannot_be_meant(
    arguments: list[str], message: str, bench_select: Call, pool_folder: Path
) -> None:
    code, _, said = bench_select(pool_folder, *arguments)
    assert code == 2
    assert message in said


def test_no_pool_and_no_campaign(bench_select: Call, tmp_path: Path) -> None:
    code, _, said = bench_select()
    assert code == 2
    assert "no labelled pool is given, and no campaign has begun" in said
    code, _, said = bench_select(tmp_path / "nowhere")
    assert code == 2
    assert "nowhere is no folder" in said


def test_json_alone_on_stdout_with_plot_and_summary(
    bench_select: Call, pool_folder: Path, fake_rounds: Callable[[], list[str]], tmp_path: Path
) -> None:
    options = ("--sizes", "6,10,16", "--seeds", "2", "--profile", "quick", "--methods", "full", "--slots", "2")
    code, out, said = bench_select(pool_folder, *options, "--json", "--plot", "curves.png")
    assert code == 0, said
    found = json.loads(out)
    assert found == json.loads((tmp_path / "bench-select" / "summary.json").read_text())
    assert found["settings"]["methods"] == ["random", "full"]
    assert "events and rules of `full`: the defaults" in said and found["settings"]["selection"]["rules"] is None
    assert found["pool"]["choose"]["trajectories"] == 3
    entry = found["comparison"]["errors"]["worst_1_percent"]["methods"]["random"]
    assert entry["ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    begun = fake_rounds()
    code, out, said = bench_select(pool_folder, *options)
    assert (code, fake_rounds()) == (0, begun)
    assert "labels needed" in out
    assert "ratio to random" in out
    assert "1.00 [1.00, 1.00]" in out
    assert "for a force RMSE" not in out
    before = found["comparison"]["errors"]["forces"]
    code, out, _ = bench_select(
        pool_folder, *options, "--json", "--target", str(1.01 * before["methods"]["full"]["mean"][0])
    )
    entry = json.loads(out)["comparison"]["errors"]["forces"]
    assert entry["methods"]["full"].pop("labels_to_target")["value"] == 6, "all are there from the first size on"
    assert entry["methods"]["random"].pop("labels_to_target") is not None and entry.pop("target_eV_A") > 0
    assert (entry, fake_rounds()) == (before, begun), "all else is as without, and nothing is made for it"
    code, out, _ = bench_select(pool_folder, *options, "--target", "1e-9", "--plot", "curves.png")
    assert code == 0 and "labels needed for a force RMSE of 1e-09 eV/Å" in out and ">16 [>16, >16]" in out
    code, _, said = bench_select(pool_folder, *options, "--plot", "curves.nonsense")
    assert code == 2
    assert "cannot write the plot to" in said


def test_a_campaigns_own_rules_are_used_and_told(
    bench_select: Call,
    labelled_campaign: Callable[..., Any],
    fake_rounds: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = labelled_campaign(train=12, max_labels=40, novelty=0.2, events={"oxygen_tricluster": {"quota": 3}})
    begun = SimpleNamespace(exists=lambda: True, load=lambda: None, state=own.state, root=own.root)
    monkeypatch.setattr("alloop.campaign.Campaign", lambda folder: begun)
    options = ("--sizes", "6,10", "--seeds", "1", "--profile", "quick", "--methods", "random", "--slots", "2", "--json")
    code, out, said = bench_select(*options)
    assert code == 0, said
    told = "those of campaign small, its numbers for 40 labels in proportion: overlap 5, five_coordinated_Si 5, "
    assert told + "oxygen_tricluster 3 per temperature band (edges 600, 1250, 2250 K)" in said
    found = json.loads(out)
    assert found["settings"]["selection"]["rules"]["novelty"] == 0.2
    assert found["settings"]["selection"]["events"]["oxygen_tricluster"]["at_least"] == 3
    assert found["pool"]["choose"]["events"].keys() == {"overlap", "five_coordinated_Si", "oxygen_tricluster"}


@pytest.mark.slow
def test_a_tiny_comparison_for_real(bench_select: Call, pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from alloop.bench_select import experiment

    tiny = replace(experiment.PROFILES["quick"], steps=60, warm_steps=40, neuron=(4, 8), axis_neuron=2)
    monkeypatch.setitem(experiment.PROFILES, "quick", replace(tiny, fitting_neuron=(16,), descriptor_size=8))
    code, out, said = bench_select(
        pool_folder, *("--sizes", "6,12", "--seeds", "1", "--profile", "quick", "--methods", "random,full", "--json")
    )
    assert code == 0, said
    found = json.loads(out)
    errors = [record["errors"]["forces"] for record in found["rounds"]]
    assert len(errors) == 4
    assert all(0 < error < 100 for error in errors)
    assert found["rounds"][0]["errors"] == found["rounds"][1]["errors"]  # both begin from the same round
