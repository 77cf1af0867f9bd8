"""The fate of one recorded frame: what was seen in it, whether it came home and was labelled, what the label said."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from alloop.campaign import Campaign
from alloop.decisions.calibration import levels_at, newest_trust
from alloop.decisions.selection import campaign_param, selection_rules
from alloop.errors import InputError
from alloop.frames import read_columns
from alloop.report.novelty import build_novelty, novelty_lines
from alloop.report.provenance import find_label
from alloop.select_params import SelectParam
from alloop.selection.bands import band_of
from alloop.selection.diversity import TOLERANCE
from alloop.selection.picks import AUDIT, BEFORE_LOSS, LARGEST, Rules
from alloop.store import Task

Line = tuple[str, str]
_FRAME = re.compile(r"(?P<chunk>.+\.c\d+)\.s(?P<step>\d+)")


def find_frame(campaign: Campaign, text: str) -> tuple[Task, int]:
    """Return the chunk and the step a person means: CHUNK.sSTEP as in the names of labels, or a label.

    InputError if there is no such chunk, it has no result, or no record at that step; it names what there is.
    """
    state, named = campaign.state, _FRAME.fullmatch(text.strip().rstrip("/").rpartition("/")[2])
    chunks = {task.name: task for task in state.tasks.values() if task.kind == "explore"}
    if named is None or named["chunk"] not in chunks:
        near = difflib.get_close_matches(named["chunk"], chunks, n=4) if named else []
        if near:
            raise InputError(f"no chunk {named['chunk']!r}; near ones: {', '.join(near)}" if named else "")
        pick = state.picks[find_label(campaign, text)]
        task = state.tasks.get(pick["source"]["task"])
        if task is not None and task.kind == "quench":
            why = campaign.summary(task.key)["reason"]
            raise InputError(
                f"{pick['name']} was met in production, which it ended: {why}; see alloop show {pick['key']}"
            )
        if task is None or task.kind != "explore":
            raise InputError(f"{pick['name']} was not explored: it is of the bootstrap; see alloop show {pick['name']}")
        return task, int(pick["step"])
    task, step = chunks[named["chunk"]], int(named["step"])
    if task.key not in state.done:
        raise InputError(f"the chunk {task.name} is {state.status_of(task.key)}: nothing is recorded of it yet")
    steps = _table(campaign, task)["step"].tolist()
    if step not in steps:
        nearest = min(steps, key=lambda own: abs(own - step)) if steps else None
        recorded = f"{len(steps)} records, nearest step {nearest}" if steps else "none: it was lost before the first"
        raise InputError(f"{task.name} has no record at step {step} ({recorded})")
    return task, step


def _table(campaign: Campaign, task: Task) -> dict[str, np.ndarray]:
    with np.load(campaign.result(task.key) / "table.npz") as table:
        return {name: table[name] for name in table.files}


def build_fate(campaign: Campaign, task: Task, step: int) -> dict[str, Any]:
    """Return everything that happened to one record of a chunk; what did not is None."""
    state = campaign.state
    iteration = next(number for kind, number in state.asked_in[task.key] if kind == "explore")
    decision = state.decisions["explore", iteration]
    entry = next(own for own in decision["tasks"] if own["key"] == task.key)
    spec = decision["common"] | entry["spec"]
    table = _table(campaign, task)
    row = int(np.flatnonzero(table["step"] == step)[0])
    deviation = float(table["max_force_deviation_eV_A"][row])
    low, high = spec["trust_low_eV_A"], spec["trust_high_eV_A"]
    frames = read_columns(campaign.result(task.key))
    kept = np.flatnonzero(frames["step"] == step)
    frame = int(kept[0]) if len(kept) else None
    kept_for = str(frames["kept_for"][frame]) if frame is not None else None
    pick = next(
        (own for own in state.picks_in.get(iteration, ()) if own["source"] == {"task": task.key, "frame": frame}), None
    )
    select = state.decisions.get(("select", iteration))
    summary = campaign.summary(task.key)
    last = row == len(table["step"]) - 1
    found = {
        "frame": f"{task.name}.s{step:04d}",
        "iteration": iteration,
        "target_temperature_K": float(table["target_temperature_K"][row]),
        "max_force_deviation_eV_A": deviation,
        "trust_levels_eV_A": [low, high],
        "trust_class": _class_of(deviation, low, high),
        "trust_reason": _trust_reason(campaign, decision, task, spec["condition"]),
        "events": [name.removeprefix("event:") for name in table if name.startswith("event:") and table[name][row]],
        "lost": summary["reason"] if last and summary["status"] == "lost" else None,
        "kept_for": kept_for,
        "audit_of": int(frames["audit_of"][frame]) if frame is not None else 0,
        "novelty": build_novelty(campaign, task, iteration, frame, kept_for),
        "judged_again": _judged_again(campaign, task, frame, float(table["target_temperature_K"][row])),
        "exploration_closed": select is not None,
        "label": _label(campaign, pick, select) if pick else None,
    }
    return found | {"not_asked": None if pick else _not_asked(campaign, found, iteration, task)}


def _trust_reason(campaign: Campaign, decision: dict[str, Any], task: Task, condition: dict[str, Any]) -> str:
    """Return why the trust levels of a chunk are what they are; empty for fixed ones."""
    edges_K = campaign_param(campaign, decision).select.temperature_bands_K
    band = band_of((condition["temperature_start_K"] + condition["temperature_end_K"]) / 2, edges_K)
    own = [
        entry["reason"]
        for entry in decision.get("trust", ())
        if task.name.startswith(f"{entry['glass']}.") and entry["band"] == band
    ]
    return str(own[0]) if own else ""


def _class_of(deviation_eV_A: float, low_eV_A: float, high_eV_A: float) -> str:
    from alloop.selection.classes import classify

    return str(classify(np.array([deviation_eV_A]), low_eV_A, high_eV_A)[0])


def _judged_again(campaign: Campaign, task: Task, frame: int | None, target_K: float) -> list[dict[str, Any]]:
    """Return what newer ensembles said of a frame that waited for a label, with the trust levels they had."""
    found = []
    for (kind, number), decision in sorted(campaign.state.decisions.items()):
        rank = decision["tasks"][0]["key"] if kind == "rank" else None
        if frame is None or rank not in campaign.state.done:
            continue
        with np.load(campaign.result(rank) / "ranks.npz") as ranks:
            rows = np.flatnonzero((ranks["task"] == task.key) & (ranks["frame"] == frame))
            deviations = ranks["max_deviation_eV_A"][rows].tolist()
        if deviations:
            own = campaign_param(campaign, decision).select
            glass = next((name for name in campaign.glasses if task.name.startswith(f"{name}.")), "")
            levels = levels_at(newest_trust(campaign, number), glass, target_K, own)
            found.append({"iteration": number, "max_force_deviation_eV_A": deviations[0], "trust_levels_eV_A": levels})
    return found


def _label(campaign: Campaign, pick: dict[str, Any], select: dict[str, Any] | None) -> dict[str, Any]:
    """Return why a label was asked for, what became of it, and the error it showed."""
    state, key = campaign.state, pick["key"]
    return {
        "key": key,
        "reason": pick["reason"],
        "drawn_for_audit": bool(select and key in select.get("audit", ())),
        "role": pick["role"],
        "status": state.status_of(key),
        "measured": _measured(campaign, key, state.picks[key]["iteration"]),
        "trained_in": sorted(
            number
            for (kind, number), decision in state.decisions.items()
            if kind == "train" and key in decision["common"]["training"]
        ),
    }


def _measured(campaign: Campaign, key: str, iteration: int) -> dict[str, float] | None:
    """Return deviation and true error of a label by the ensemble that had asked for it, None if not measured yet."""
    evaluate = campaign.state.decisions.get(("evaluate", iteration))
    if evaluate is None or evaluate["tasks"][0]["key"] not in campaign.state.done:
        return None
    with np.load(campaign.result(evaluate["tasks"][0]["key"]) / "errors.npz") as errors:
        rows = np.flatnonzero(errors["label"] == key)
        names = {"max_force_error_eV_A": "force_max", "max_force_deviation_eV_A": "max_deviation_eV_A"}
        return {name: float(errors[column][rows[0]]) for name, column in names.items()} if len(rows) else None


def _not_asked(campaign: Campaign, found: dict[str, Any], iteration: int, task: Task) -> str:
    """Return why no label was asked for, as far as the record tells; the first reason that applies."""
    state = campaign.state
    if found["lost"]:
        return f"its trajectory was lost here, and no label of such a frame is asked for ({found['lost']})"
    if found["kept_for"] is None:
        if found["trust_class"] == "accurate" and not found["events"]:
            return "the ensemble agrees on it and it shows no event; the audit's draw did not fall on it"
        if found["trust_class"] == "failed" and not found["events"]:
            return "it is beyond trust, and not among the last good frames before a loss"
        return "its chunk showed more frames like it than it brings home, evenly spaced in time"
    param = campaign_param(campaign, state.decisions["explore", iteration])
    own, rules = param.select, selection_rules(param)
    if found["trust_class"] != "candidate" and not found["events"] and found["kept_for"] == AUDIT:
        return "it came home for the audit, whose draw over all chunks did not fall on it"
    stays = found["events"] or found["kept_for"] == BEFORE_LOSS
    again = found["judged_again"][-1] if found["judged_again"] and not stays else None
    if again and not again["trust_levels_eV_A"][0] <= again["max_force_deviation_eV_A"] < again["trust_levels_eV_A"][1]:
        what = "knew it" if again["max_force_deviation_eV_A"] < again["trust_levels_eV_A"][0] else "was lost on it"
        return f"ensemble {again['iteration']} {what} before its turn came"
    trajectory = task.name.rsplit(".c", 1)[0]
    every = state.picks_in.get(iteration, ())
    picks = [pick for pick in every if pick["trajectory"] == trajectory]
    given = sum(pick["reason"] != AUDIT for pick in picks)
    if given >= rules.max_per_trajectory:
        return f"its trajectory had given {given} labels (select.max_per_trajectory)"
    condition = task.spec["condition"]
    chunk, step = int(task.name.rsplit(".c", 1)[1]), int(found["frame"].rsplit(".s", 1)[1])
    time_ps = (chunk * condition["n_steps"] + step) * condition["timestep_fs"] / 1000
    near = [pick for pick in picks if abs(pick["time_ps"] - time_ps) < own.min_separation_ps]
    if near:
        apart_ps = abs(near[0]["time_ps"] - time_ps)
        return f"{near[0]['name']}, {apart_ps:g} ps away, was asked for (select.min_separation_ps)"
    if not found["exploration_closed"]:
        return "it waits in the backlog, unless its environments are known already"
    if why := _out_of_reasons(found, own, rules, every):
        return why
    meant, most = sum(pick["reason"] != AUDIT for pick in every), rules.max_labels - rules.audit
    if meant >= most or len(every) >= rules.max_labels:
        return f"others came first: {meant} labels beside the audit, by quotas, shares and rank (select.max_labels)"
    return "nothing on record tells why; labels in flight of other ensembles may have shown the same"


def _out_of_reasons(found: dict[str, Any], own: SelectParam, rules: Rules, picks: Sequence[dict[str, Any]]) -> str:
    """Return why none of the reasons a frame gives was good for a label any more; empty if one was."""
    reasons = [LARGEST] if found["trust_class"] == "candidate" else []
    reasons += [BEFORE_LOSS] if found["kept_for"] == BEFORE_LOSS else []
    reasons += [event for event in found["events"] if rules.event_quota.get(event)]
    if not reasons:
        return "its events have a quota of 0"
    band = band_of(found["target_temperature_K"], own.temperature_bands_K)
    told = [_full_quota(reason, band, rules, picks) or _known(reason, found, rules) for reason in reasons]
    return "; ".join(dict.fromkeys(told)) if all(told) else ""


def _full_quota(reason: str, band: str, rules: Rules, picks: Sequence[dict[str, Any]]) -> str:
    """Return which quota or share of a reason was used up; empty if there is none, or it was not."""
    if reason == LARGEST:
        return ""
    reasons = Counter(pick["reason"] for pick in picks)
    if reason == BEFORE_LOSS:
        full = reasons[reason] >= rules.before_loss
        return f"{reasons[reason]} last good frames were asked for (select.before_loss)" if full else ""
    of_events = sum(reasons[event] for event in rules.event_quota)
    if of_events >= rules.most_events:
        return f"events had taken their share, {of_events} of {rules.max_labels} labels (select.event_share)"
    taken, quota = sum(p["reason"] == reason and p.get("band") == band for p in picks), rules.event_quota[reason]
    return f"the quota of {reason} at {band} was full: {taken} of {quota} labels" if taken >= quota else ""


def _known(reason: str, found: dict[str, Any], rules: Rules) -> str:
    """Return that what a frame shows for a reason was known, if its recorded distance says so; empty if not."""
    distance = found["novelty"].get("reasons", {}).get(reason, {}).get("beside_picks")
    if distance is None:
        return ""
    if distance < TOLERANCE:
        return f"it shows as {reason} just what training data or another pick do"
    if reason not in (LARGEST, BEFORE_LOSS) and distance < rules.novelty:
        return (
            f"its {reason} was known: {distance:.2g} from training data or another pick, "
            f"nearer than {rules.novelty:g} (select.novelty)"
        )
    return ""


def print_fate(found: dict[str, Any], console: Console) -> None:
    """Print what `build_fate` returns."""
    console.print(found["frame"], style="bold", markup=False, highlight=False, soft_wrap=True)
    for head, text in fate_lines(found):
        console.print(f" {head:<11} {text}", markup=False, highlight=False, soft_wrap=True)


def fate_lines(found: dict[str, Any]) -> list[Line]:
    """Return heading and text of every line."""
    low, high = found["trust_levels_eV_A"]
    lines = [
        ("seen", f"by ensemble {found['iteration']}, at a target of {found['target_temperature_K']:.0f} K"),
        (
            "deviation",
            f"{found['max_force_deviation_eV_A']:.3f} eV/A: {found['trust_class']} "
            f"(accurate below {low:.3g}, failed from {high:.3g})",
        ),
        *([("", found["trust_reason"])] if found["trust_reason"] else []),
        ("events", ", ".join(found["events"]) or "none"),
    ]
    home = "not brought home by its chunk" if found["kept_for"] is None else f"brought home for: {found['kept_for']}"
    home += f"; drawn at random from {found['audit_of']} records" if found["audit_of"] else ""
    lines.append(("kept", home))
    lines += [("" if number else "new", text) for number, text in enumerate(novelty_lines(found["novelty"]))]
    lines += [
        ("again", f"by ensemble {own['iteration']}: {own['max_force_deviation_eV_A']:.3f} eV/A")
        for own in found["judged_again"]
    ]
    label = found["label"]
    if label is None:
        return [*lines, ("label", f"not asked for: {found['not_asked']}")]
    drawn = ", in the draw of the audit" if label["drawn_for_audit"] and label["reason"] != AUDIT else ""
    lines.append(("label", f"asked for because of {label['reason']}{drawn}; {label['status']}, {label['role']}"))
    if label["measured"]:
        text = f"largest force error {label['measured']['max_force_error_eV_A']:.3f} eV/A"
        lines.append(("error", f"{text} at a deviation of {label['measured']['max_force_deviation_eV_A']:.3f} eV/A"))
    if label["trained_in"]:
        lines.append(("trained in", ", ".join(map(str, label["trained_in"]))))
    return [*lines, ("more", f"alloop show {label['key']}")]
