"""What the evaluations of ensembles found label by label, and the learning curve's points on one set of labels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.event_params import PairDistanceParam
from alloop.selection.picks import BEFORE_LOSS

HELD_OUT = ("held_out_bootstrap", "held_out_explore")
SOUGHT = ("new", "held_out_explore")
"""Sets that hold what was asked for because it is near collapse."""
LEAST_COMMON_LABELS = 5
"""Errors on fewer labels say too little for a learning curve."""


@dataclass(frozen=True)
class Measured:
    """Force errors of one ensemble: labels (L,), squared_eV2_A2 (L,) summed, mean over models, components (L,).

    sets: the labels of each set that was asked for.
    """

    labels: NDArray[np.str_]
    squared_eV2_A2: NDArray[np.float64]
    components: NDArray[np.int64]
    sets: dict[str, list[str]]

    @property
    def held_out(self) -> set[str]:
        """The labels of both held-out sets."""
        return {key for name in HELD_OUT for key in self.sets[name]}

    def on(self, keys: Collection[str]) -> dict[str, Any]:
        """Return labels, force components and force RMSE (None without labels) of those of the keys that there are."""
        chosen = np.isin(self.labels, np.array(list(keys), dtype=str))
        components = int(self.components[chosen].sum())
        rmse = float(np.sqrt(self.squared_eV2_A2[chosen].sum() / components)) if components else None
        return {"labels": int(chosen.sum()), "force_components": components, "force_rmse_eV_A": rmse}


def measured(campaign: Campaign, iteration: int) -> Measured | None:
    """Return what an iteration's ensemble was measured to be, None if it was not."""
    evaluate = campaign.state.decisions.get(("evaluate", iteration))
    if evaluate is None or evaluate["tasks"][0]["key"] not in campaign.state.done:
        return None
    task = evaluate["tasks"][0]
    with np.load(campaign.result(task["key"]) / "errors.npz") as errors:
        squared = errors["force_se"].mean(axis=1) if len(errors["label"]) else np.zeros(0)
        return Measured(errors["label"].astype(str), squared, 3 * errors["n_atoms"].astype(int), task["spec"]["sets"])


def collapsing(param: Param) -> set[str]:
    """Return the reasons for a label that are near collapse: before a loss, and a pair closer than a threshold.

    Forces are tens of eV/A there, and so are their errors: no ensemble meets there what is wanted elsewhere.
    """
    events = param.select.events.items()
    return {BEFORE_LOSS} | {name for name, own in events if isinstance(own, PairDistanceParam) and own.below_A}


def by_reason(campaign: Campaign, param: Param, iteration: int) -> dict[str, dict[str, Any]]:
    """Return, of each set that was sought for what it is, the error by reason, near collapse, and of all else.

    Each as `Measured.on` has it: ``by_reason``, ``near_collapse``, and ``judged``, the rest.
    """
    own, apart = measured(campaign, iteration), collapsing(param)
    if own is None:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name in SOUGHT:
        groups: dict[str, list[str]] = {}
        for key in own.sets[name]:
            groups.setdefault(campaign.state.picks[key]["reason"], []).append(key)
        near = [key for reason in groups.keys() & apart for key in groups[reason]]
        rest = [key for reason in groups.keys() - apart for key in groups[reason]]
        found[name] = {
            "judged": own.on(rest),
            "near_collapse": own.on(near) | {"reasons": sorted(groups.keys() & apart)},
        }
        found[name]["by_reason"] = {reason: own.on(groups[reason]) for reason in sorted(groups)}
    return found


def learning_points(campaign: Campaign, param: Param, iteration: int) -> list[list[float]]:
    """Return [training labels, force RMSE in eV/A] of the ensembles judged so far, all on the same held-out labels.

    The held-out set of the exploration grows, hotter and stranger with every iteration: errors on it as it was each
    time are no learning curve. So all are taken on the labels that were held out for every one of them, but for those
    near collapse. If these are fewer than `LEAST_COMMON_LABELS`, those ensembles count that were measured on the
    newest's held-out bootstrap labels; if these are as few, there are no points. Ensembles trained from other labels
    (before a change of the level of theory) are left out.
    """
    state, picks = campaign.state, campaign.state.picks
    found: list[tuple[float, Measured]] = []
    for number in range(iteration + 1):
        if state.decided("relabel", number - 1) or state.decided("promote", number - 1):
            found = []
        train, own = state.decisions.get(("train", number)), measured(campaign, number)
        if train is not None and own is not None:
            found.append((float(len(train["common"]["training"])), own))
    if not found:
        return []
    apart = collapsing(param)
    common = {key for key in set.intersection(*(own.held_out for _, own in found)) if picks[key]["reason"] not in apart}
    if len(common) < LEAST_COMMON_LABELS:
        common = set(found[-1][1].sets["held_out_bootstrap"])
        found = [(labels, own) for labels, own in found if common <= own.held_out]
    if len(common) < LEAST_COMMON_LABELS:
        return []
    return [[labels, own.on(common)["force_rmse_eV_A"]] for labels, own in found]
