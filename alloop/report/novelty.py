"""How new an explored frame was: what its offending atoms show beside what was known when labels were chosen.

As in a selection, which ranks candidates by this times their deviation, a frame is as new as the newest of its
offending atoms for a reason, and known are the training data of the ensemble that saw it and the frames that were
asked about before it in its iteration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.decisions.exploration import trajectories
from alloop.decisions.selection import campaign_param
from alloop.frames import read_some_columns
from alloop.selection.diversity import Environments, Known
from alloop.selection.picks import BEFORE_LOSS, LARGEST
from alloop.store import Task
from alloop.tasks.describe import read_environments, read_known

Place = tuple[str, int]
"""The key of a chunk, and the number of a frame it brought home."""
_MOST_CHUNKS = 100
"""Chunks whose frames one is compared with: more would make a person wait."""
_WORDS = {
    LARGEST: ("its most uncertain atom", "candidates"),
    BEFORE_LOSS: ("as a last good frame", "last good frames before a loss"),
}


def build_novelty(
    campaign: Campaign, task: Task, iteration: int, frame: int | None, kept_for: str | None
) -> dict[str, Any]:
    """Return how new a frame of a chunk was for each reason it gives, and how new others of its stratum were.

    In units of `diversity.Scale`. A last good frame before a loss has that as a second reason by the atom of largest
    deviation. ``value`` is beside the training data of ``ensemble``, ``beside_picks`` also beside
    ``picks_before``, frames asked about earlier; null stands for an element of which nothing is known. ``unknown``
    says why nothing is known of a frame; then that is all there is.
    """
    if frame is None:
        return {"unknown": "a chunk describes only what it brings home"}
    own = next(_described(campaign, [(task.key, frame)]), {})
    if kept_for == BEFORE_LOSS and LARGEST in own:
        own[BEFORE_LOSS] = own[LARGEST]
    if not own:
        return {"unknown": "no model that describes environments was there when its chunk ran"}
    found = _training(campaign, iteration)
    if found is None:
        return {"unknown": f"the training data of ensemble {iteration} were not described"}
    ensemble, known = found
    stratum, chunks = _stratum(campaign, iteration, task)
    asked = {_place(pick): str(pick["reason"]) for pick in campaign.state.picks_in.get(iteration, ())}
    others = _others(campaign, chunks, set(own), (task.key, frame))
    reasons = {
        reason: {"value": _newest(known, [atoms])[0]} | _compared(known, others[reason], asked, reason, atoms)
        for reason, atoms in own.items()
    }
    before = _before(list(asked), (task.key, frame))
    for of_frame in _described(campaign, before):
        for atoms in of_frame.values():
            known.add(atoms)
    for reason, atoms in own.items():
        reasons[reason]["beside_picks"] = _newest(known, [atoms])[0]
    least = campaign_param(campaign, campaign.state.decisions["explore", iteration]).select.novelty
    about = {"ensemble": ensemble, "stratum": stratum, "picks_before": len(before), "event_least": least}
    return about | {"reasons": {reason: _plain(told) for reason, told in reasons.items()}}


def _place(pick: dict[str, Any]) -> Place:
    return pick["source"]["task"], pick["source"]["frame"]


def _described(campaign: Campaign, places: Sequence[Place]) -> Iterator[dict[str, Environments]]:
    """Yield, frame by frame and by reason, the offending atoms that are described by numbers."""
    by_chunk: dict[str, list[int]] = {}
    for key, frame in places:
        by_chunk.setdefault(key, []).append(frame)
    for key, frames in by_chunk.items():
        found = read_environments(campaign.result(key))
        for of_frame in (found[frame] for frame in frames if frame < len(found)):
            finite = {reason: atoms.finite() for reason, atoms in of_frame.items()}
            yield {reason: atoms for reason, atoms in finite.items() if len(atoms)}


def _training(campaign: Campaign, iteration: int) -> tuple[int, Known] | None:
    """Return the ensemble whose training data were known as a frame was ranked, the newest described, and these."""
    state = campaign.state
    tasks = {number: own["tasks"][0]["key"] for (kind, number), own in state.decisions.items() if kind == "describe"}
    done = [number for number, key in tasks.items() if number <= iteration and key in state.done]
    known = read_known(campaign.result(tasks[max(done)])) if done else None
    return None if known is None else (max(done), known)


def _stratum(campaign: Campaign, iteration: int, task: Task) -> tuple[str, list[str]]:
    """Return the stratum of a chunk, and the finished chunks of its iteration there, `_MOST_CHUNKS` at most."""
    decision = campaign.state.decisions["explore", iteration]
    strata = {own.name: own.stratum for own in trajectories(campaign_param(campaign, decision))}

    def of(name: str) -> str:
        return strata[name.rsplit(".c", 1)[0]]

    chunks = [
        entry["key"]
        for entry in decision["tasks"]
        if entry["key"] in campaign.state.done and of(entry["name"]) == of(task.name)
    ]
    return of(task.name), chunks[:: -(-len(chunks) // _MOST_CHUNKS)]


def _others(
    campaign: Campaign, chunks: Sequence[str], reasons: set[str], but: Place
) -> dict[str, dict[Place, Environments]]:
    """Return the offending atoms of other frames that could be asked about for the same reasons."""
    found: dict[str, dict[Place, Environments]] = {reason: {} for reason in reasons}
    for key in chunks:
        told = read_some_columns(campaign.result(key), ("trust_class", "kept_for"))
        for frame, of_frame in enumerate(read_environments(campaign.result(key))):
            largest = of_frame.pop(LARGEST, None)
            if largest is not None and told["trust_class"][frame] == "candidate":
                of_frame[LARGEST] = largest
            if largest is not None and told["kept_for"][frame] == BEFORE_LOSS:
                of_frame[BEFORE_LOSS] = largest
            for reason in reasons & of_frame.keys() if (key, frame) != but else ():
                found[reason][key, frame] = of_frame[reason]
    return found


def _compared(
    known: Known, others: dict[Place, Environments], asked: dict[Place, str], reason: str, atoms: Environments
) -> dict[str, Any]:
    """Return how many others there are and are less new, their median, and that of those asked about for the reason."""
    value, *values = _newest(known, [atoms, *others.values()])
    picked = [own for place, own in zip(others, values, strict=True) if asked.get(place) == reason]
    return {
        "others": len(values),
        "less_new": sum(own < value for own in values),
        "median": float(np.median(values)) if values else None,
        "picked": len(picked),
        "median_picked": float(np.median(picked)) if picked else None,
    }


def _newest(known: Known, frames: Sequence[Environments]) -> list[float]:
    """Return how new frames of at least one atom each are; an atom that is not described counts as known."""
    distances = np.nan_to_num(known.novelty(Environments.together(frames)), nan=0.0, posinf=math.inf)
    first = np.cumsum([0, *(len(own) for own in frames[:-1])])
    return [float(value) for value in np.maximum.reduceat(distances, first)]


def _before(asked: list[Place], own: Place) -> list[Place]:
    """Return which frames were asked about before one, all if it never was."""
    return asked[: asked.index(own)] if own in asked else asked


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """Return the same with null for what is infinite."""
    infinite = [name for name, value in told.items() if isinstance(value, float) and not math.isfinite(value)]
    return told | dict.fromkeys(infinite)


def novelty_lines(found: dict[str, Any]) -> list[str]:
    """Return what a person reads, a line per reason."""
    if "unknown" in found:
        return [f"not known: {found['unknown']}"]
    lines, count = [], found["picks_before"]
    before = "the label" if count == 1 else f"the {count} labels"
    for reason, own in found["reasons"].items():
        what, alike = _WORDS.get(reason, (f"its {reason}", "frames that show it"))
        text = f"{what}: {_number(own['value'])} from the training data of ensemble {found['ensemble']}"
        text += f", {_number(own['beside_picks'])} with {before} asked for before it" if count else ""
        if reason not in _WORDS and own["beside_picks"] is not None and own["beside_picks"] < found["event_least"]:
            text += f" (nothing new below {found['event_least']:g})"
        text += f"; newer than {own['less_new']} of {own['others']} other {alike} of {found['stratum']}"
        medians = [f"median {_number(own['median'])}"] if own["others"] else []
        medians += [f"of {own['picked']} asked for {_number(own['median_picked'])}"] if own["picked"] else []
        text += f" ({', '.join(medians)})" if medians else ""
        lines.append(text + ("; its rank is this times its deviation" if reason == LARGEST else ""))
    return lines


def _number(value: float | None) -> str:
    return "beyond all (a new element)" if value is None else f"{value:.3g}"
