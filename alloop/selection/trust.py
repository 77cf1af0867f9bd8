"""Trust levels on the deviation from levels on the true error, which move with the calibration, slowly."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alloop.selection.calibration import CalibrationMap, Kind

LEAST_RATIO = 1.5
"""Least ratio of calibrated levels, high / low."""


@dataclass(frozen=True)
class TrustLevels:
    """Levels on the largest force deviation: accurate below low, failed from high on, eV/Å. ValueError if crossed."""

    low_eV_A: float
    high_eV_A: float

    def __post_init__(self) -> None:
        if not 0 < self.low_eV_A < self.high_eV_A < math.inf:
            raise ValueError(f"expected 0 < low < high, found {self.low_eV_A} and {self.high_eV_A} eV/A")


@dataclass(frozen=True)
class TrustRule:
    """Errors at which a frame is no longer accurate, and beyond use; how far the levels on the deviation may move.

    kind: whether those errors are met by the expected error or by the bound; max_factor: between two iterations no
    level is multiplied or divided by more; range_eV_A: where levels may lie; min_ratio: least high / low, so that
    there always is room for candidates; explored_share: of what was explored, high aims at no deviation below which
    less lies, so that candidates are not closed out where the error is largest. ValueError for numbers that contradict
    each other.
    """

    low_error_eV_A: float
    high_error_eV_A: float
    kind: Kind = "expected"
    max_factor: float = 1.25
    range_eV_A: tuple[float, float] = (0.02, 5.0)
    min_ratio: float = LEAST_RATIO
    explored_share: float = 0.9

    def __post_init__(self) -> None:
        low, high = self.range_eV_A
        if not 0 < self.low_error_eV_A < self.high_error_eV_A < math.inf:
            raise ValueError(f"expected 0 < low_error < high_error, found {self}")
        if not (self.max_factor >= 1 and self.min_ratio > 1 and low > 0 and low * self.min_ratio <= high < math.inf):
            raise ValueError(f"expected max_factor >= 1, min_ratio > 1 and a range wider than that, found {self}")
        if not 0 < self.explored_share < 1:
            raise ValueError(f"expected 0 < explored_share < 1, found {self}")


@dataclass(frozen=True)
class TrustMove:
    """New levels, what the map alone would have made of them (NaN: it could not tell), and the reason, a sentence."""

    levels: TrustLevels
    wanted_low_eV_A: float
    wanted_high_eV_A: float
    calibrated: bool
    source: str
    reason: str


def limited_move(current_eV_A: float, wanted_eV_A: float, max_factor: float, range_eV_A: tuple[float, float]) -> float:
    """Return `wanted_eV_A` held within the range and within a factor of `current_eV_A`; never falls as wanted rises.

    NaN wants nothing: the level stays. A current level outside the range comes back to it step by step.
    """
    if math.isnan(wanted_eV_A):
        return current_eV_A
    inside = min(max(wanted_eV_A, range_eV_A[0]), range_eV_A[1])
    return min(max(inside, current_eV_A / max_factor), current_eV_A * max_factor)


def next_levels(
    calibration: CalibrationMap,
    glass: str,
    band: str,
    current: TrustLevels,
    rule: TrustRule,
    explored_eV_A: float = math.nan,
) -> TrustMove:
    """Return the levels of a group for the next iteration.

    explored_eV_A: the deviation that `rule.explored_share` of what the group explored lies below, NaN if nothing was;
    high never moves below it: frames beyond high are not asked for, so nothing would be learnt where errors are large.
    Levels stay as they are without a calibration; where errors were not found to rise with the deviation, as the map
    then cannot tell one deviation from another; and where it has no deviation for the errors.
    """
    group, known = calibration.group(glass, band), calibration.calibrated(glass, band)
    errors = (rule.low_error_eV_A, rule.high_error_eV_A)
    low, high = (calibration.deviation_at(error, glass, band, rule.kind) for error in errors)
    why = ""
    if not known:
        why = f"not calibrated: {group.scores} labels are too few"
    elif not group.informative:
        why = f"among {group.pairs} labels of {group.name} the error does not rise with the deviation"
    elif not high > 0:
        why = (
            f"by {group.scores} labels of {group.name} no deviation is small enough for an error of {errors[1]:g} eV/A"
        )
    if why:
        return TrustMove(current, math.nan, math.nan, known, group.name, f"{why}; the trust levels stay")
    what = "expected error" if rule.kind == "expected" else f"{calibration.settings.level:.0%} bound of the error"
    reason = (
        f"by {group.scores} labels of {group.name} the {what} reaches {errors[0]:g} and {errors[1]:g} eV/A at "
        f"deviations of {low:.3f} and {high:.3f} eV/A"
    )
    aimed = high
    if explored_eV_A > high:
        aimed = explored_eV_A
        reason += f"; {rule.explored_share:.0%} of what was explored is below {aimed:.3f} eV/A, high goes no lower"
    levels = _moved(current, low, aimed, rule)
    found = (levels.low_eV_A, levels.high_eV_A)
    if not all(math.isclose(now, then) for now, then in zip(found, (low, aimed), strict=True)):
        reason += f"; within what a step and the range allow: {found[0]:.3f} and {found[1]:.3f}"
    if high > group.largest_deviation_eV_A:
        reason += f"; beyond {group.largest_deviation_eV_A:.3f} eV/A nothing was measured, the line is carried on"
    return TrustMove(levels, low, high, known, group.name, reason)


def _moved(current: TrustLevels, low_eV_A: float, high_eV_A: float, rule: TrustRule) -> TrustLevels:
    """Return levels one step nearer to those wanted, each within the range and, as far as a step allows, apart.

    Levels that begin `rule.min_ratio` apart stay so. Others come to it step by step: a step is never exceeded.
    """
    least, most = rule.range_eV_A
    high = limited_move(current.high_eV_A, high_eV_A, rule.max_factor, (least * rule.min_ratio, most))
    low = limited_move(current.low_eV_A, low_eV_A, rule.max_factor, (least, most / rule.min_ratio))
    return TrustLevels(max(min(low, high / rule.min_ratio), current.low_eV_A / rule.max_factor), high)
