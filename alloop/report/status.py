"""The morning view: where the campaign stands, as JSON; works while the driver is dead. As text: `status_text`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alloop.campaign import Campaign, flat
from alloop.report.cost import budget_record, budget_warnings, cost_record, eta_hours
from alloop.report.outlook import EDITED, audit_lines, error_lines, learning_line, missing, newest_verdict
from alloop.state import State, quench_runs
from alloop.store import read_json, write_json


def build_status(campaign: Campaign, driver: str) -> dict[str, Any]:
    """Return the status record of a loaded campaign; counts add up by construction."""
    state = campaign.state
    iterations = [_iteration(campaign, number) for number in range(state.iteration + 1)]
    verdict = state.verdict
    config = state.starts[-1]["config"] if state.starts else None
    budget = budget_record(config, campaign.costs)
    codes = campaign.codes.get(str(state.target_level), Counter())
    cost = cost_record(campaign.costs, state.level)
    return {
        "campaign": state.identity.get("name"),
        "driver": driver,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "decisions": state.next_number,
        "iteration": max(state.iteration, 0),
        "converged": bool(verdict and verdict["converged"]),
        "reason": _reason(state),
        "missing": missing(campaign, cost["core_hours_per_label"]),
        "errors": error_lines(newest_verdict(state)),
        "learning": learning_line(newest_verdict(state)),
        "audit": audit_lines(newest_verdict(state)),
        "level": state.target_level,
        "level_now": state.level,
        "labels": label_counts(state),
        "codes": dict(codes),
        "flagged": flagged(campaign),
        "warnings": code_warnings(state.target_level, codes) + lasting_warnings(campaign) + budget_warnings(budget),
        "tasks": state.task_counts(),
        "running": [
            {"kind": state.tasks[key].kind, "task": state.tasks[key].name, "done": done}
            for key, done in campaign.progress().items()
        ],
        "iterations": iterations,
        "final_held_out": final_errors(campaign),
        "models": [model_path(campaign, campaign.result(key)) for key in _final_models(state)],
        "glasses": glass_table(campaign),
        "production": production_lines(state),
        "cost": cost,
        "budget": budget,
        "eta_hours": eta_hours(campaign.costs, config, open_kinds(state), state.level),
        "quarantined": [
            {
                "key": key,
                "task": campaign.state.tasks[key].name,
                "kind": campaign.state.tasks[key].kind,
                "class": entry.get("class"),
                "message": entry["message"],
            }
            for key, entry in state.quarantined.items()
            if state.status_of(key) == "quarantined"
        ],
        "config_changes": config_changes(state),
    }


def label_counts(state: State) -> dict[str, int]:
    """Return how many of all labels ever asked for are where; each is counted once.

    done is the sum of training, held_out and excluded: finished labels of the campaign's level of theory. Finished
    labels of other levels are pretraining if they are the foundation's. The rest of them is superseded, as are labels
    no longer wanted before they were done. in_flight, waiting and quarantined are of any level.
    """
    done, running, superseded, quarantined = state.done, state.running, state.superseded, state.quarantined
    target, first, excluded = state.target_level, foundation_name(state), state.excluded
    counts: Counter[str] = Counter()
    for key, pick in state.picks.items():
        if key in done:
            counts[label_class(pick, target, first, excluded=key in excluded)] += 1
        elif key in running:
            counts["in_flight"] += 1
        elif key in superseded:
            counts["superseded"] += 1
        else:
            counts["quarantined" if key in quarantined else "waiting"] += 1
    counts["done"] = counts["training"] + counts["held_out"] + counts["excluded"]
    return {what: counts[what] for what in LABEL_COUNTS}


def label_class(pick: dict[str, Any], target: str | None, foundation: str | None, *, excluded: bool) -> str:
    """Return as what a finished label counts; target, foundation: names of those levels of theory."""
    level = pick.get("level")
    if level == target:
        return "excluded" if excluded else str(pick["role"])
    return "pretraining" if foundation and level == foundation else "superseded"


def foundation_name(state: State) -> str | None:
    """Return the level of the foundation that the last start names, if any."""
    foundation = (state.starts[-1].get("levels") or {}).get("foundation") if state.starts else None
    return foundation["name"] if foundation else None


LABEL_COUNTS = (
    *("done", "in_flight", "waiting", "quarantined"),
    *("training", "held_out", "excluded", "pretraining", "superseded"),
)


def flagged(campaign: Campaign) -> list[dict[str, Any]]:
    """Return, per flag, how many labels in use at the campaign's level bear it, and the name of the last of them.

    A person who has excluded a flagged label has looked at it: it no longer counts.
    """
    state = campaign.state
    found: dict[str, list[str]] = {}
    for key, flags in campaign.flagged.items():
        if state.picks.get(key, {}).get("level") == state.target_level and key not in state.excluded:
            for flag in flags:
                found.setdefault(flag, []).append(key)
    return [
        {"flag": flag, "count": len(keys), "example": f"{state.picks[keys[-1]]['name']}-{keys[-1]}"}
        for flag, keys in sorted(found.items())
    ]


def code_warnings(level: str | None, codes: Mapping[str, int]) -> list[str]:
    """Return what a person should know of the codes that made the labels: several versions of one."""
    if len(codes) < 2:
        return []
    by_count = sorted(codes.items(), key=lambda item: (-item[1], item[0]))
    parts = ", ".join(f"{count} by {code}" for code, count in by_count)
    return [f"labels of {level} come from {len(codes)} versions of the code: {parts}"]


def import_warnings(state: State) -> list[str]:
    """Return what a person should know of imported labels: those of a level that nothing is trained on."""
    levels = state.starts[-1].get("levels") if state.starts else None
    named = {level["name"] for level in (levels or {}).values() if level} | {state.target_level}
    foreign = Counter(
        pick["level"] for pick in state.picks.values() if pick.get("given") and pick.get("level") not in named
    )
    return [
        f"{count} imported label(s) of {level} are not trained on: the campaign's level is {state.target_level}"
        for level, count in foreign.items()
    ]


def lasting_warnings(campaign: Campaign) -> list[str]:
    """Return what a person should know that no further result changes: of imported labels, of the first training."""
    state = campaign.state
    warnings, describer = import_warnings(state), state.describer
    if describer is None or describer not in state.done:
        return warnings
    summary = campaign.summary(describer)
    if summary.get("init_passed_over"):
        warnings.append(
            f"{state.tasks[describer].name} could not start from the checkpoint of train.init_models, which is damaged "
            "or of another network, type map or sel, and was trained from scratch; its train.log tells"
        )
    if lacking := summary.get("no_describer"):
        warnings.append(
            f"{state.tasks[describer].name} could not be written as the model that describes environments, so frames "
            f"are chosen without regard to how new theirs are: {first_line(lacking)}"
        )
    return warnings


def _iteration(campaign: Campaign, number: int) -> dict[str, Any]:
    state = campaign.state
    record: dict[str, Any] = {"iteration": number}
    train = state.decisions.get(("train", number))
    record["training_labels"] = len(train["common"]["training"]) if train else 0
    if number in state.picks_in:
        record["labels"] = sum(pick["key"] in state.done for pick in state.picks_in[number])
    select = state.decisions.get(("select", number))
    if select:
        record |= select["classes"] | {"events": select["events"], "lost_chunks": select["lost_chunks"]}
    verdict = state.decisions.get(("verdict", number))
    if verdict:
        from alloop.decisions.convergence import (
            judged_part,
            pooled_rmse,
        )  # brings NumPy, which a campaign without verdicts can spare

        errors = {name: judged_part(part) for name, part in verdict["errors"].items()}
        record |= {
            "new_label_force_rmse_eV_A": errors["new"]["force_rmse_eV_A"],
            "near_collapse_force_rmse_eV_A": verdict["errors"]["new"].get("near_collapse", {}).get("force_rmse_eV_A"),
            "audit_force_rmse_eV_A": errors["audit"]["force_rmse_eV_A"],
            "held_out_bootstrap_force_rmse_eV_A": errors["held_out_bootstrap"]["force_rmse_eV_A"],
            "held_out_explore_force_rmse_eV_A": errors["held_out_explore"]["force_rmse_eV_A"],
            "test_force_rmse_eV_A": pooled_rmse([errors["held_out_bootstrap"], errors["held_out_explore"]]),
            "verdict": verdict["reason"],
        }
    return record


def _reason(state: State) -> str:
    if not state.identity:
        return "no campaign has begun here; start it with: alloop run"
    if state.verdict:
        return str(state.verdict["reason"])
    last = state.judgement(state.iteration - 1)
    if last:
        return f"iteration {state.iteration - 1}: {last['reason']}"
    return "no verdict yet: the first iteration is not finished"


def _final_models(state: State) -> list[str]:
    return next((models for i in range(state.iteration, -1, -1) if (models := state.models_of_glass(i))), [])


def model_path(campaign: Campaign, result: Path) -> str:
    """Return the model of a training's result, from the campaign folder."""
    return str((result / read_json(result / "summary.json")["model"]).relative_to(campaign.root))


def final_errors(campaign: Campaign) -> list[dict[str, Any]]:
    """Return each ensemble's errors on the one final set of held-out labels, once it has been measured."""
    state = campaign.state
    decisions = [decision for (kind, _), decision in sorted(state.decisions.items()) if kind == "assess"]
    if not decisions:
        return []
    return [
        {"iteration": number} | campaign.summary(task["key"])["held_out"]
        for number, task in enumerate(decisions[-1]["tasks"])
        if task["key"] in state.done
    ]


def open_kinds(state: State) -> Counter[str]:
    """Return how many tasks of each kind have been decided and have not ended."""
    return Counter(state.tasks[key].kind for keys in (state.waiting, state.running) for key in keys)


def config_changes(state: State) -> list[str]:
    """Return what the last start's configuration changed against the campaign's first, as ``key: old -> new``."""
    if not state.starts:
        return []
    before, after = flat(state.identity["config"]), flat(state.starts[-1]["config"])
    moved_on = after.get("select.trust") == "calibrated" and any(kind == "explore" for kind, _ in state.decisions)
    notes = dict.fromkeys(("select.trust_low_eV_A", "select.trust_high_eV_A"), f" ({EDITED})") if moved_on else {}
    return [
        f"{key}: {json.dumps(before.get(key))} -> {json.dumps(after.get(key))}{notes.get(key, '')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def glass_table(campaign: Campaign) -> list[dict[str, Any]]:
    """Return, for each run of the newest quench, the means over its analysed frames, beside experiment."""
    state = campaign.state
    newest = state.newest_quench()
    if not newest:
        return []
    from alloop.config import parse  # slow to import, and of use at the end of a campaign only

    param = parse(state.starts[-1]["config"], "the recorded configuration")
    experiment = {entry.name: entry.glass().experimental_4B for entry in param.glasses}
    return [_glass_row(campaign, run, newest, experiment) for run in quench_runs(newest)]


def production_lines(state: State) -> list[str]:
    """Return what is to be said of the newest melt-quench: of a longer training before it, and of its guard."""
    quench = state.newest_quench()
    told = [(quench.get("final_training") or {}).get("reason")]
    guard = state.decisions.get(("guard", quench["iteration"])) if quench else None
    if guard and guard["number"] > quench["number"]:
        told.append(guard["reason"])
    return [line for line in told if line]


def _glass_row(
    campaign: Campaign, run: dict[str, Any], decision: dict[str, Any], experiment: dict[str, Any]
) -> dict[str, Any]:
    chunks = run["chunks"]
    done = [entry for entry in chunks if entry["key"] in campaign.state.done]
    summaries = {entry["key"]: campaign.summary(entry["key"]) for entry in done}
    frames = _frames_of(campaign, run["analysed"])
    minima = [entry for entry in chunks if entry["spec"]["stage_kind"] == "minimise"][-1:]
    unconverged = _unconverged(summaries.get(entry["key"]) for entry in minima)
    at_minimum = [] if unconverged else _frames_of(campaign, minima)
    lost = [summary for summary in summaries.values() if summary["status"] in ("lost", "stopped")]
    given_up = any(entry["key"] in campaign.state.quarantined for entry in chunks)
    running = lost[0]["status"] if lost else f"{'given up' if given_up else 'running'} {len(done)}/{len(chunks)}"
    by_ensemble = [summaries[entry["key"]] for entry in done if "force_field" not in entry["spec"]]
    records = sum(summary["records"] for summary in by_ensemble)
    trusted = sum(summary["classes"]["accurate"] + summary["classes"]["candidate"] for summary in by_ensemble)
    return {
        "run": run["name"],
        "glass": run["glass"],
        "atoms": run["atoms"],
        "replica": run["replica"],
        "status": "done" if len(done) == len(chunks) and not lost else running,
        "lost_reason": lost[0]["reason"] if lost else None,
        "converged_ensemble": decision["converged"],
        "cooling_rate_K_ps": run["cooling_rate_K_ps"],
        "melting": decision.get("melting", {}).get(run["glass"]),
        "frames": len(frames),
        "fraction_4B": _mean([frame["fraction_4B"] for frame in frames]),
        "fraction_4B_at_minimum": _mean([frame["fraction_4B"] for frame in at_minimum]),
        "unconverged_minimum": unconverged,
        "experimental_4B": experiment.get(run["glass"]),
        "fraction_5Si": _mean([frame["fraction_5Si"] for frame in frames]),
        "three_membered_rings_B": _mean([frame["rings"]["counts"].get("3", 0) for frame in frames]),
        "boroxol_rings": _mean([frame["boroxol"]["rings"] for frame in frames]),
        "max_force_deviation_eV_A": max((own["max_force_deviation_eV_A"] for own in by_ensemble), default=None),
        "records_above_trust_high": 1 - trusted / records if records else None,
        "events": {
            event: sum(summary["events"].get(event, 0) for summary in by_ensemble)
            for event in decision["common"]["events"]
        },
    }


def _unconverged(summaries: Iterable[dict[str, Any] | None]) -> str | None:
    """Return how far a minimisation came that reached no minimum within its steps; None if there is none such."""
    for own in summaries:
        if own and not own.get("converged", True):
            return f"largest force {own['max_force_eV_A']:.3g} eV/Å after {own['steps']} steps"
    return None


def _frames_of(campaign: Campaign, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the analyses of all frames of finished tasks."""
    return [
        frame
        for entry in entries
        if entry["key"] in campaign.state.done
        for frame in read_json(campaign.result(entry["key"]) / "analysis.json")
    ]


def _mean(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def write_iteration(campaign: Campaign, iteration: int) -> None:
    """Write what a person reads in an iteration's folder, both derived: ``dataset.json`` and ``summary.json``."""
    train = campaign.state.decisions.get(("train", iteration))
    if train is None:
        return
    folder = campaign.store.iterations / f"iter.{iteration:06d}"
    folder.mkdir(exist_ok=True)
    write_json(folder / "dataset.json", {role: train["common"][role] for role in ("training", "held_out")})
    write_json(folder / "summary.json", _iteration(campaign, iteration))


def first_line(text: str) -> str:
    """Return the first line of a text."""
    return text.partition("\n")[0]
