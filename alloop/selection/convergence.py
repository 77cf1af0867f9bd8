"""Is it converged, and if not, what is missing and what would it cost: criteria, the verdict, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alloop.cost import price_text
from alloop.selection.curves import FACTOR, CurveStability
from alloop.selection.learning_curve import Interval, LearningCurve
from alloop.selection.rates import RateComparison
from alloop.selection.stability import Drift, Stability

LABELS_OUT_OF_REACH = 1e7
"""More labels than this are as good as infinitely many."""

State = Literal["met", "unmet", "unknown"]


@dataclass(frozen=True)
class Criterion:
    """One condition of convergence: what was found, what is wanted (both in `unit`, None if unknown), a sentence."""

    name: str
    state: State
    found: float | None
    wanted: float | None
    unit: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """All criteria together: converged only if there are some and every one is met; unknown ones count against it."""

    converged: bool
    criteria: tuple[Criterion, ...]
    reason: str


@dataclass(frozen=True)
class Outlook:
    """What still has to be labelled to meet the criteria and its cost; None: cannot be told, `sentence` says why."""

    labels: Interval | None
    core_hours: Interval | None
    sentence: str


def at_most(
    name: str,
    found: float | None,
    wanted: float,
    unit: str = "eV/A",
    *,
    interval: tuple[float | None, float | None] | None = None,
) -> Criterion:
    """Return the criterion that a value is at most `wanted`; None, NaN or infinity is not.

    With an interval it is met if all of it is, unmet if the value itself is too large, unknown in between: the value
    would do, but is not known well enough. An interval without ends (None) is not known well enough either.
    """
    if found is None or math.isnan(found):
        return Criterion(name, "unknown", None, wanted, unit, f"{name} has not been measured")
    state: State = "met" if found <= wanted else "unmet"
    shown = f"{found:.3g}"
    if interval is not None:
        low, high = interval
        sure = high is not None and high <= wanted
        state = "unknown" if state == "met" and not sure else state
        known = low is not None and high is not None
        shown += f" ({low:.3g} to {high:.3g})" if known else " (no interval)"
    relation = {"met": "as wanted, at most", "unmet": "above the wanted", "unknown": "not surely below the wanted"}[
        state
    ]
    return Criterion(name, state, found, wanted, unit, f"{name} is {shown} {unit}, {relation} {wanted:g}")


def at_least(name: str, found: float | None, wanted: float, unit: str = "") -> Criterion:
    """Return the criterion that a value is at least `wanted`, such as the accurate fraction; None or NaN is unknown."""
    if found is None or math.isnan(found):
        return Criterion(name, "unknown", None, wanted, unit, f"{name} has not been measured")
    state: State = "met" if found >= wanted else "unmet"
    relation = "as wanted, at least" if state == "met" else "below the wanted"
    own = f" {unit}" if unit else ""
    return Criterion(name, state, found, wanted, unit, f"{name} is {found:.3g}{own}, {relation} {wanted:g}")


def rate_criterion(found: RateComparison) -> Criterion:
    """Return the criterion that an event is as frequent as with the labeler; unknown with too few replicas."""
    states: dict[str, State] = {"agrees": "met", "differs": "unmet"}
    state = states.get(found.verdict, "unknown")
    rate, wanted = (None if math.isnan(own) else own for own in (found.ensemble, found.labeler))
    return Criterion(f"rate of {found.event}", state, rate, wanted, found.unit, found.sentence)


def stability_criterion(found: Stability) -> Criterion:
    """Return the criterion that an observable is the same everywhere; unknown where errors do not allow to tell."""
    states: dict[str, State] = {"stable": "met", "differs": "unmet"}
    state = states.get(found.verdict, "unknown")
    value, wanted = (found.standardised, found.critical) if found.pair else (None, None)
    return Criterion(f"stability of {found.observable}", state, value, wanted, "standard errors", found.sentence)


def curve_criterion(found: CurveStability) -> Criterion:
    """Return the criterion that curves are the same everywhere within the spread between replicas."""
    states: dict[str, State] = {"stable": "met", "differs": "unmet"}
    state = states.get(found.verdict, "unknown")
    value, wanted = (found.distance, FACTOR * found.by_chance) if found.pair else (None, None)
    return Criterion(f"stability of {found.what}", state, value, wanted, found.unit, found.sentence)


def drift_criterion(found: Drift) -> Criterion:
    """Return the criterion that an observable no longer drifts."""
    states: dict[str, State] = {"no drift": "met", "drifts": "unmet"}
    state = states.get(found.verdict, "unknown")
    slope = None if math.isnan(found.slope) else found.slope
    return Criterion(f"drift of {found.observable}", state, slope, 0.0, f"{found.unit} per step", found.sentence)


def improvement_criterion(curve: LearningCurve, labels: float, least_share: float) -> Criterion:
    """Return the criterion that the last so many labels no longer helped much: they lowered the error by less.

    Met also where noise hides any trend, if even the upper end of the interval is below `least_share`; unknown if
    that cannot be excluded, or without a curve.
    """
    name = f"improvement by the last {labels:g} labels"
    found = curve.last_improvement(labels)
    if math.isnan(found.value):
        return Criterion(name, "unknown", None, least_share, "", curve.sentence)
    state: State = "met" if found.high < least_share else "unmet" if found.low >= least_share else "unknown"
    if state == "unknown" and curve.usable and found.value >= least_share:
        state = "unmet"
    shown = f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"
    return Criterion(name, state, found.value, least_share, "", f"{name} is {shown}, wanted below {least_share:.1%}")


def verdict(criteria: Sequence[Criterion]) -> Verdict:
    """Return the verdict on all criteria; without any nothing was asked for, and nothing is converged."""
    open_ = [own.sentence for own in criteria if own.state != "met"]
    reason = "; ".join(open_) or ("all criteria met" if criteria else "no criterion has been judged")
    return Verdict(bool(criteria) and not open_, tuple(criteria), reason)


def outlook(curve: LearningCurve, target_eV_A: float, core_hours_per_label: float | None) -> Outlook:
    """Return how many further labels bring the curve's error to the target, and their cost at the measured price.

    `core_hours_per_label` None: not measured yet. Nothing is foretold by a curve that may as well be flat.
    """
    if not curve.usable:
        why = {
            "too few points": "too few ensembles have been judged to tell how many labels that takes",
            "rising": "the error has been rising with the labels: more of the same will not help",
        }.get(curve.verdict, "how many labels that takes cannot be told: the errors scatter more than they fall")
        return Outlook(None, None, why)
    labels = curve.labels_to_reach(target_eV_A)
    if labels.value == 0:
        return Outlook(labels, None, "the learning curve as a whole is there: what is left is in the places named")
    if labels.value > LABELS_OUT_OF_REACH:
        floor = curve.floor_eV_A
        levels_off = f"levels off at {floor.value:.3f} eV/A ({floor.low:.3f} to {floor.high:.3f})"
        why = levels_off if floor.value else "falls too slowly"
        if labels.low <= LABELS_OUT_OF_REACH:
            why += f"; at best about {_count(labels.low)} more would do"
        return Outlook(labels, None, f"no affordable number of labels reaches {target_eV_A:g} eV/A: the curve {why}")
    text = f"about {_count(labels.value)} more labels ({_count(labels.low)} to {_count(labels.high)})"
    if core_hours_per_label is None or not math.isfinite(core_hours_per_label):
        return Outlook(labels, None, f"{text}; the cost of a label has not been measured")
    cost = Interval(*(own * core_hours_per_label for own in (labels.value, labels.low, labels.high)))
    price = f"about {_count(cost.value)} core-hours at {price_text(core_hours_per_label)} per label"
    return Outlook(labels, cost, f"{text}, {price}")


def _count(number: float) -> str:
    """A number to two digits, for people."""
    if number > 100 * LABELS_OUT_OF_REACH:
        return "beyond reach"
    if number < 100:
        return f"{math.ceil(number)}" if number > 1 else f"{number:.2g}"
    scale = 10 ** (math.floor(math.log10(number)) - 1)
    return f"{round(number / scale) * scale:.0f}"


def missing_sentence(
    criteria: Sequence[Criterion],
    curve: LearningCurve | None = None,
    core_hours_per_label: float | None = None,
    core_hours_per_iteration: float | None = None,
) -> str:
    """Return one sentence: what is still missing, and what it will cost by the learning curve.

    Unmet criteria come first, then those not known. Where force errors are open the curve tells what the lowest that is
    wanted of them will cost. Of all else nothing can be foretold but what an iteration has cost so far.
    """
    unmet = [own.sentence for own in criteria if own.state == "unmet"]
    unknown = [own.sentence for own in criteria if own.state == "unknown"]
    if not unmet and not unknown:
        return f"Nothing is missing: all {len(criteria)} criteria are met." if criteria else "Nothing was judged yet."
    parts = (["missing: " + "; ".join(unmet)] if unmet else []) + (
        ["not known: " + "; ".join(unknown)] if unknown else []
    )
    text = "; ".join([*parts, *_costs(criteria, curve, core_hours_per_label, core_hours_per_iteration)])
    return text[0].upper() + text[1:] + "."


def _costs(
    criteria: Sequence[Criterion],
    curve: LearningCurve | None,
    core_hours_per_label: float | None,
    core_hours_per_iteration: float | None,
) -> list[str]:
    open_ = [own for own in criteria if own.state != "met"]
    targets = [own.wanted for own in open_ if own.unit == "eV/A" and own.wanted is not None]
    foretold = outlook(curve, min(targets), core_hours_per_label) if targets and curve is not None else None
    told = [foretold.sentence] if foretold else []
    if foretold is None or any(own.unit != "eV/A" for own in open_):
        told.append("the cost of " + ("the rest" if foretold else "that") + " cannot be foretold")
    elif foretold.core_hours is not None:
        return told
    if core_hours_per_iteration is not None:
        told.append(f"an iteration has cost about {_count(core_hours_per_iteration)} core-hours so far")
    return told
