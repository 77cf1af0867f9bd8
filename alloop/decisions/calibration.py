"""What the audit says of an ensemble: its error where it explored, and the trust levels that a deviation deserves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.select_params import SelectParam
from alloop.selection.audit_error import AuditError, AuditLabel, audit_error, audit_errors
from alloop.selection.bands import band_names, band_of
from alloop.selection.calibration import AuditPair, CalibrationMap, fit_map
from alloop.selection.classes import CLASSES
from alloop.selection.coverage import Coverage, Widening, coverage, prequential, widened, widening
from alloop.selection.record import plain
from alloop.selection.trust import TrustLevels, TrustMove, TrustRule, next_levels

REMEMBERED = 50
"""Audits of so many iterations calibrate: errors of much older ensembles say little of the present one's."""

LEAST_AUDIT_LABELS, LEAST_AUDIT_TRAJECTORIES = 5, 2
"""With so many labels, of so many trajectories, the audit's error of one glass and temperature band is judged."""

Group = tuple[str, str]
"""A glass and a temperature band, as in `bands.band_names`."""


@dataclass(frozen=True)
class Audited:
    """One label of an iteration's audit, measured with that iteration's ensemble before anything trained on it."""

    pair: AuditPair
    label: AuditLabel
    trust_class: str


@dataclass(frozen=True)
class Calibration:
    """The map of all audit pairs so far, widened if its promise was broken lately, and how its promises were kept."""

    map: CalibrationMap
    widening: Widening
    coverage: tuple[Coverage, ...]
    pairs: int

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        record = {"map": self.map.to_record(), "coverage": _told(self.coverage), "pairs": self.pairs}
        return record | {"widened": self.widening.reason}


def audited(campaign: Campaign, iteration: int) -> list[Audited]:
    """Return what is known of an iteration's audit: every label that was drawn and measured by its ensemble.

    One that had been asked for before it was drawn belongs to the sample like any other. Labels that failed, or were
    not there yet when the ensemble was measured, are missing, and those of another level of theory than the present
    one: how wrong an ensemble was beside a foundation says little of the campaign's own labels.
    """
    state = campaign.state
    select, evaluate = (state.decisions.get((kind, iteration)) for kind in ("select", "evaluate"))
    if select is None or evaluate is None or evaluate["tasks"][0]["key"] not in state.done:
        return []
    drawn = {key: state.picks[key] for key in select.get("audit", ()) if key in state.picks}
    picks = {
        key: pick for key, pick in drawn.items() if pick["iteration"] == iteration and pick.get("level") == state.level
    }
    with np.load(campaign.result(evaluate["tasks"][0]["key"]) / "errors.npz") as stored:
        errors = {name: stored[name] for name in stored.files}
    known = np.isfinite(errors["max_deviation_eV_A"]) & np.isin(errors["label"], np.array(list(picks), dtype=str))
    return [
        _audited(errors, row, picks[str(errors["label"][row])], iteration) for row in np.flatnonzero(known).tolist()
    ]


def _audited(errors: dict[str, np.ndarray], row: int, pick: dict[str, Any], iteration: int) -> Audited:
    glass, key = pick["stratum"].rpartition(" ")[0], str(errors["label"][row])
    deviation, error = (float(errors[name][row]) for name in ("max_deviation_eV_A", "force_max"))
    squared, atoms = float(errors["mean_force_se"][row]), int(errors["n_atoms"][row])
    return Audited(
        AuditPair(key, glass, pick["band"], iteration, deviation, error, "audit"),
        AuditLabel(pick["trajectory"], glass, pick["band"], squared, 3 * atoms),
        pick["trust_class"],
    )


def audit_record(campaign: Campaign, iteration: int, seed: int) -> dict[str, Any]:
    """Return the errors of an iteration's audit as plain JSON: by glass and temperature, and by trust class.

    Force errors are those of the ensemble's mean. ``by_class`` "accurate" is that of the region nobody asks about.
    """
    found = audited(campaign, iteration)
    by_class = {name: [one.label for one in found if one.trust_class == name] for name in CLASSES}
    return {
        "errors": _told(audit_errors([one.label for one in found], seed=seed)),
        "by_class": {name: _told(audit_errors(own, seed=seed)[:1])[0] for name, own in by_class.items() if own},
    }


def audit_groups(campaign: Campaign, iteration: int, explored: Iterable[Group], seed: int) -> list[dict[str, Any]]:
    """Return the audit's force error of each glass and temperature band, as plain JSON; of those without labels none.

    A random sample of a few labels has hardly enough of every group. So the audits of earlier iterations join, newest
    first, as far back as a group needs to be judged (``since``), each label measured with the ensemble of its own
    iteration before anything trained on it: older ensembles were worse, the error is rather too large.
    """
    labels: dict[Group, list[AuditLabel]] = {group: [] for group in explored}
    since: dict[Group, int] = {}
    for number in range(iteration, max(-1, iteration - REMEMBERED), -1):
        short = {group for group, own in labels.items() if lacking(own)}
        if not short:
            break
        for one in audited(campaign, number):
            group = one.label.glass, one.label.band
            if group in short:
                labels[group].append(one.label)
                since[group] = number
    errors = {group: audit_error(own, *group, seed=seed) for group, own in sorted(labels.items()) if own}
    return [told | {"since": since[group]} for group, told in zip(errors, _told(errors.values()), strict=True)]


def lacking(labels: Sequence[AuditLabel]) -> bool:
    """Tell whether labels are too few, or of too few trajectories, for the audit's error of a group to be judged."""
    return len(labels) < LEAST_AUDIT_LABELS or len({own.trajectory for own in labels}) < LEAST_AUDIT_TRAJECTORIES


def audit_pairs(campaign: Campaign) -> list[AuditPair]:
    """Return the pairs of the last `REMEMBERED` audits, oldest first."""
    return [one.pair for iteration in measured_audits(campaign) for one in audited(campaign, iteration)]


def measured_audits(campaign: Campaign) -> list[int]:
    """Return of which iterations the audits calibrate now: the last `REMEMBERED` that have been measured."""
    state = campaign.state
    measured = (
        number
        for (kind, number), decision in state.decisions.items()
        if kind == "evaluate" and decision["tasks"][0]["key"] in state.done and ("select", number) in state.decisions
    )
    return sorted(measured)[-REMEMBERED:]


def _told(found: Iterable[AuditError | Coverage]) -> list[dict[str, Any]]:
    """Return results as plain JSON, each with its sentence for people."""
    return [plain(one) | {"sentence": one.sentence} for one in found]


def calibrate(campaign: Campaign) -> Calibration:
    """Return the calibration by the audits so far: each pair is tested against the map its exploration began with.

    An ensemble may explore before the audit of the one before it is measured; its decision records which were.
    """
    pairs = audit_pairs(campaign)
    explored = {number: own for (kind, number), own in campaign.state.decisions.items() if kind == "explore"}
    had = {number: set(own["audits"]) for number, own in explored.items() if "audits" in own}
    tested = prequential(pairs, had=had)
    found = fit_map(pairs)
    broader = widening(tested, found.settings.level)
    return Calibration(widened(found, broader), broader, tuple(coverage(tested, found.settings.level)), len(pairs))


def trust_moves(campaign: Campaign, param: Param, groups: Iterable[Group]) -> dict[Group, TrustMove]:
    """Return the trust levels of each group for an ensemble that begins to explore, and why they are what they are.

    Fixed levels are those of `param.json`; calibrated ones begin there, and move from where the last exploration had
    them once the audit tells enough, never to where most of what was explored would be beyond trust.
    """
    own = param.select
    start = TrustLevels(own.trust_low_eV_A, own.trust_high_eV_A)
    if own.trust == "fixed":
        return {group: TrustMove(start, *own_levels(start), False, "", "fixed") for group in groups}
    last = newest_trust(campaign)
    calibration, rule, wanted = calibrate(campaign), trust_rule(own), set(groups)
    explored = explored_quantiles(campaign, wanted, own.temperature_bands_K, rule.explored_share)
    return {
        group: next_levels(calibration.map, *group, last.get(group, start), rule, explored.get(group, math.nan))
        for group in wanted
    }


def explored_quantiles(
    campaign: Campaign, groups: Iterable[Group], edges_K: Sequence[float], share: float
) -> dict[Group, float]:
    """Return the deviation that a share of each group's records lies below, eV/Å; groups never explored are left out.

    Of the newest exploration that has records of the group: all of its finished chunks inside the hard gates.
    """
    state, missing, found = campaign.state, set(groups), dict[Group, float]()
    for iteration in sorted((number for kind, number in state.decisions if kind == "explore"), reverse=True):
        decision = state.decisions["explore", iteration]
        here = missing & {(entry["glass"], entry["band"]) for entry in decision.get("trust", ())}
        records: dict[Group, list[np.ndarray]] = {group: [] for group in here}
        for entry in decision.get("tasks", ()) if here else ():
            glass = max((own for own, _ in here if entry["name"].startswith(f"{own}.n")), key=len, default=None)
            if glass is None or entry["key"] not in state.done:
                continue
            deviation, bands = _usable_records(campaign, entry["key"], edges_K)
            for band in set(bands.tolist()):
                if (glass, band) in records:
                    records[glass, band].append(deviation[bands == band])
        own = {group: np.concatenate(parts) for group, parts in records.items() if parts}
        found |= {group: float(np.quantile(values, share)) for group, values in own.items()}
        missing -= own.keys()
    return found


def _usable_records(campaign: Campaign, key: str, edges_K: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return deviation (eV/Å) and temperature band of a chunk's records, without the one it was lost at."""
    with np.load(campaign.result(key) / "table.npz") as table:
        deviation, target_K = table["max_force_deviation_eV_A"], table["target_temperature_K"]
    usable = np.isfinite(deviation)
    if campaign.summary(key)["status"] == "lost":
        usable[-1:] = False
    bands = np.array(band_names(edges_K))[np.searchsorted(np.array(edges_K), target_K, side="right")]
    return deviation[usable], bands[usable]


def own_levels(levels: TrustLevels) -> tuple[float, float]:
    """Return low and high, eV/Å."""
    return levels.low_eV_A, levels.high_eV_A


def trust_rule(own: SelectParam) -> TrustRule:
    """Return the errors that `param.json` gives, at which a frame is no longer accurate, and beyond use."""
    return TrustRule(own.error_low_eV_A, own.error_high_eV_A)


def trust_entries(moves: dict[Group, TrustMove]) -> list[dict[str, Any]]:
    """Return trust levels as a decision records them."""
    return [
        {"glass": glass, "band": band, "low_eV_A": move.levels.low_eV_A, "high_eV_A": move.levels.high_eV_A}
        | {"reason": move.reason}
        for (glass, band), move in sorted(moves.items())
    ]


def newest_trust(campaign: Campaign, iteration: int | None = None) -> dict[Group, TrustLevels]:
    """Return the trust levels of an exploration, of the newest if none is named; empty before the first."""
    state = campaign.state
    known = [i for kind, i in state.decisions if kind == "explore"]
    if iteration is None and not known:
        return {}
    decision = state.decisions["explore", max(known) if iteration is None else iteration]
    return {
        (entry["glass"], entry["band"]): TrustLevels(entry["low_eV_A"], entry["high_eV_A"])
        for entry in decision.get("trust", ())
    }


def levels_at(
    trust: dict[Group, TrustLevels], glass: str, temperature_K: float, own: SelectParam
) -> tuple[float, float]:
    """Return low and high of a glass at a temperature, those of `param.json` where the exploration had no others."""
    levels = trust.get((glass, band_of(temperature_K, own.temperature_bands_K)))
    return own_levels(levels) if levels else (own.trust_low_eV_A, own.trust_high_eV_A)
