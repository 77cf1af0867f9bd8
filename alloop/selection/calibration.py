"""What a force deviation means in eV/Å: a conformal map from deviation to true error, by glass and temperature.

Each label that was drawn at random is a pair: the largest force deviation of its frame, and the largest true error of
the ensemble's mean force. For a new frame of the same kind the map gives the error that half of such frames stay
below, and the bound that 90 % stay below.

Method: split conformal prediction (V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, Springer
2005; J. Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018); tutorial: A. N. Angelopoulos, S. Bates, arXiv:2107.07511)
with the normalised score s = ln error - f(ln deviation). A bound is f + the ceil((n + 1) level)-th smallest of n
scores: if the new frame is exchangeable with those of the scores it holds with a probability of at least `level`, and
at most level + 1/(n + 1) without ties, whatever the distribution and however bad f is.

- f is a straight line, a power law: it is monotone, has an inverse and a meaning beyond the data. A staircase
  (isotonic regression) is flat in places and beyond its ends, where a trust level could not be read off. It is fitted
  by Theil and Sen's median of slopes, which a quarter of wild pairs does not move (P. K. Sen, J. Am. Stat. Assoc. 63,
  1379 (1968)). Beyond the largest deviation it was fitted to, its slope is at least one: the spread of a deviation
  flattens a regression line, and a flat line carried on would promise small errors where nothing was measured.
- One pair in four fits f, the others are scores: a line needs few pairs, the width of a quantile needs many. Which
  pair does what follows from a hash of its identity: not from its values, not from the order, and for good.
- With too few pairs for a line, f = ln deviation (error proportional to deviation) and all pairs are scores; nine make
  a 90 % bound. Jackknife+ and its kin (R. F. Barber et al., Ann. Stat. 49, 486 (2021)) would use all pairs for both,
  but promise 1 - 2 alpha only: 80 % for a 90 % bound.
- Each group has scores of its own (Mondrian conformal prediction, Vovk et al., chapter 4), so that the promise holds
  within it. A group with too few borrows from its glass at all temperatures, then its temperature over all glasses,
  then all; the promise then holds for the mixture only. Every answer says whose scores it rests on.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alloop.selection.record import plain

ONE_IN = 4
"""One pair in this many fits the line, the others are scores."""

LARGEST_FIT = 400
"""A line is fitted to so many pairs at most: Theil and Sen's method looks at every two of them."""

Kind = Literal["expected", "bound"]

Key = tuple[str | None, str | None]
"""Glass and temperature band of a group; None: all of them."""

ROOT: Key = (None, None)


@dataclass(frozen=True)
class AuditPair:
    """Deviation and true error of one label that was drawn at random.

    identity: key of the label; iteration: of the ensemble that both numbers belong to; error_eV_A: largest error of a
    mean force, one that is NaN counts as infinite; reason: why the label was asked for. ValueError unless that is
    "audit" - labels asked for because of their deviation or an event are no sample of what the dynamics meets - or
    for a deviation that is negative or not finite, or a negative error.
    """

    identity: str
    glass: str
    band: str
    iteration: int
    deviation_eV_A: float
    error_eV_A: float
    reason: Literal["audit"]

    def __post_init__(self) -> None:
        if self.reason != "audit":
            raise ValueError(
                f"label {self.identity} was asked for because of {self.reason!r}; expected 'audit': only labels drawn "
                "at random calibrate, leave this one out"
            )
        if not (math.isfinite(self.deviation_eV_A) and self.deviation_eV_A >= 0):
            raise ValueError(
                f"label {self.identity} has the deviation {self.deviation_eV_A} eV/A; expected a number from 0 on. "
                "A frame without a finite deviation is failed, and is not drawn"
            )
        if self.error_eV_A < 0:
            raise ValueError(f"label {self.identity} has the error {self.error_eV_A} eV/A; expected one from 0 on")


@dataclass(frozen=True)
class MapSettings:
    """How a map is made.

    level: share of frames whose error the bound shall hold; group_scores: a group with fewer scores borrows;
    fit_pairs: with fewer pairs to fit a line to, the line of the next larger group is taken; floor_eV_A: smaller
    deviations and errors count as this much (a force of a density-functional calculation is hardly better).
    ValueError for a level outside (0, 1) or numbers that are not positive.
    """

    level: float = 0.9
    group_scores: int = 20
    fit_pairs: int = 20
    floor_eV_A: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}; expected a share between 0 and 1, such as 0.9")
        if self.group_scores < 1 or self.fit_pairs < 2 or not 0 < self.floor_eV_A < math.inf:
            raise ValueError(f"expected group_scores >= 1, fit_pairs >= 2 and floor_eV_A > 0, found {self}")


DEFAULT_SETTINGS = MapSettings()


def needed_scores(level: float) -> int:
    """Return the least number of scores with a finite bound: ceil(1/alpha) - 1 with alpha = 1 - level; 9 for 0.9."""
    return math.ceil(round(level / (1 - level), 9))


def conformal_quantile(scores: ArrayLike, level: float) -> float:
    """Return the ceil((n + 1) level)-th smallest of n scores, infinite if there are fewer; a NaN counts as infinite.

    Angelopoulos and Bates, section 1; the (n+1)-th exchangeable score is not above it with probability >= level.
    """
    own = np.sort(np.nan_to_num(np.asarray(scores, dtype=float), nan=math.inf, posinf=math.inf, neginf=-math.inf))
    rank = math.ceil(round((len(own) + 1) * level, 9))
    return float(own[rank - 1]) if 1 <= rank <= len(own) else math.inf


@dataclass(frozen=True)
class Line:
    """ln error = intercept + slope ln deviation, in eV/Å; above the knee, a ln deviation, the slope is at least 1."""

    slope: float
    intercept: float
    knee: float

    def at(self, log_deviation: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ln error at ln deviations, any shape; never falls."""
        below, above = np.minimum(log_deviation, self.knee), np.maximum(log_deviation - self.knee, 0)
        return self.intercept + self.slope * below + max(self.slope, 1.0) * above

    def inverse(self, log_error: float) -> float:
        """Return the largest ln deviation whose ln error is at most this; -inf if there is none (a flat line)."""
        at_knee = self.intercept + self.slope * self.knee
        if log_error >= at_knee:
            return self.knee + (log_error - at_knee) / max(self.slope, 1.0)
        return (log_error - self.intercept) / self.slope if self.slope > 0 else -math.inf


PROPORTIONAL = Line(1.0, 0.0, 0.0)


@dataclass(frozen=True)
class GroupMap:
    """The map of one group; glass or band None means all of them.

    line_from: which group's pairs the line was fitted to, "proportional" if none; expected_offset and bound_offset:
    quantiles of the scores, added to the line; informative: False where the error did not rise with the deviation.
    """

    glass: str | None
    band: str | None
    pairs: int
    scores: int
    line: Line
    line_from: str
    expected_offset: float
    bound_offset: float
    largest_deviation_eV_A: float

    @property
    def name(self) -> str:
        """Who this is, for people."""
        return _name((self.glass, self.band))

    @property
    def informative(self) -> bool:
        """Tell whether errors were found to rise with the deviation."""
        return self.line.slope > 0

    def offset(self, kind: Kind) -> float:
        """Return what is added to the line, ln eV/Å."""
        return self.expected_offset if kind == "expected" else self.bound_offset


@dataclass(frozen=True)
class Prediction:
    """Errors that deviations stand for, arrays of the deviations' shape, eV/Å.

    expected_eV_A: half of such frames stay below; bound_eV_A: `level` of them do; calibrated: False if there are too
    few pairs for the level, bounds are infinite then; source: whose scores; borrowed: not the group's own;
    extrapolated: beyond the largest deviation among the source's pairs.
    """

    expected_eV_A: NDArray[np.float64]
    bound_eV_A: NDArray[np.float64]
    calibrated: bool
    source: str
    borrowed: bool
    extrapolated: NDArray[np.bool_]


@dataclass(frozen=True)
class CalibrationMap:
    """Maps of all groups with enough pairs, that of all pairs among them."""

    settings: MapSettings
    groups: tuple[GroupMap, ...]

    def group(self, glass: str, band: str) -> GroupMap:
        """Return the map that answers for a group: its own, its glass's, its temperature's, or that of all."""
        found = {(own.glass, own.band): own for own in self.groups}
        return next(found[key] for key in _family((glass, band)) if key in found)

    def calibrated(self, glass: str, band: str) -> bool:
        """Tell whether there are scores enough for the level."""
        return self.group(glass, band).scores >= needed_scores(self.settings.level)

    def predict(self, deviations_eV_A: ArrayLike, glass: str, band: str) -> Prediction:
        """Return what deviations of a group's frames stand for; NaN, infinite or negative ones for infinite errors."""
        deviation = np.asarray(deviations_eV_A, dtype=float)
        own, known = self.group(glass, band), np.isfinite(deviation) & (deviation >= 0)
        line = own.line.at(np.log(np.maximum(np.where(known, deviation, 1.0), self.settings.floor_eV_A)))
        expected, bound = (
            np.where(known, np.exp(np.minimum(line + own.offset(kind), 700.0)), np.inf)
            if math.isfinite(own.offset(kind))
            else np.full(deviation.shape, np.inf)
            for kind in ("expected", "bound")
        )
        borrowed = (own.glass, own.band) != (glass, band)
        beyond = ~known | (deviation > own.largest_deviation_eV_A)
        return Prediction(expected, bound, self.calibrated(glass, band), own.name, borrowed, beyond)

    def deviation_at(self, error_eV_A: float, glass: str, band: str, kind: Kind = "expected") -> float:
        """Return the largest deviation whose expected error (or bound) is at most `error_eV_A`, eV/Å.

        0 if not even the smallest deviation promises that, as without calibration; infinite for an infinite error.
        ValueError for an error that is not positive.
        """
        if not error_eV_A > 0:
            raise ValueError(f"the error is {error_eV_A} eV/A; expected a positive number")
        own, floor = self.group(glass, band), self.settings.floor_eV_A
        if not math.isfinite(own.offset(kind)):
            return 0.0
        if math.isinf(error_eV_A):
            return math.inf
        log_deviation = own.line.inverse(math.log(error_eV_A) - own.offset(kind))
        if log_deviation < math.log(floor) - 1e-9:
            return 0.0
        return math.exp(min(log_deviation, 700.0))

    def to_record(self) -> dict[str, Any]:
        """Return the map as plain JSON; `map_from_record` reads it back."""
        return {"settings": plain(self.settings), "groups": plain(self.groups)}


def map_from_record(record: Mapping[str, Any]) -> CalibrationMap:
    """Return the map that `CalibrationMap.to_record` wrote down. KeyError or TypeError for a record of another kind."""

    def group(own: Mapping[str, Any]) -> GroupMap:
        offsets = {name: math.inf if own[name] is None else own[name] for name in ("expected_offset", "bound_offset")}
        return GroupMap(**{**own, **offsets, "line": Line(**own["line"])})

    return CalibrationMap(MapSettings(**record["settings"]), tuple(group(own) for own in record["groups"]))


def fit_map(pairs: Sequence[AuditPair], settings: MapSettings = DEFAULT_SETTINGS) -> CalibrationMap:
    """Return the map of these pairs, in whatever order; with none, or too few, it is not calibrated.

    TypeError for anything but audit pairs, ValueError for a label that comes twice.
    """
    if not all(isinstance(pair, AuditPair) for pair in pairs):
        raise TypeError("a map is fitted to AuditPair only: other labels are no random sample")
    ordered = sorted(pairs, key=lambda pair: _draw(pair.identity))
    if twice := [name for name, count in Counter(pair.identity for pair in pairs).items() if count > 1]:
        raise ValueError(f"label {min(twice)} comes twice; give each label once")
    table = _Table.of(ordered, settings)
    keys: set[Key] = {ROOT}.union(*(_family((pair.glass, pair.band)) for pair in ordered))
    order = sorted(keys, key=lambda key: (key[0] is not None, key[0] or "", key[1] is not None, key[1] or ""))
    least = max(settings.group_scores, needed_scores(settings.level))
    kept = [key for key in order if key == ROOT or int((table.rows(key) & ~table.fits).sum()) >= least]
    lines: dict[Key, Line | None] = {}
    return CalibrationMap(settings, tuple(_group_map(table, key, settings, lines) for key in kept))


@dataclass(frozen=True)
class _Table:
    """The pairs as columns (n,), logarithms floored; `fits` marks those that fit lines, the others are scores."""

    glass: NDArray[Any]
    band: NDArray[Any]
    log_deviation: NDArray[np.float64]
    log_error: NDArray[np.float64]
    fits: NDArray[np.bool_]

    @staticmethod
    def of(pairs: Sequence[AuditPair], settings: MapSettings) -> _Table:
        def logs(values: list[float]) -> NDArray[np.float64]:
            known = np.nan_to_num(np.array(values, dtype=float), nan=math.inf, posinf=math.inf)
            return np.log(np.maximum(known, settings.floor_eV_A))

        fits = np.array([_draw(pair.identity)[0] % ONE_IN == 0 for pair in pairs], dtype=bool)
        fits &= bool(fits.sum() >= settings.fit_pairs)
        return _Table(
            np.array([pair.glass for pair in pairs], dtype=object),
            np.array([pair.band for pair in pairs], dtype=object),
            logs([pair.deviation_eV_A for pair in pairs]),
            logs([pair.error_eV_A for pair in pairs]),
            fits,
        )

    def rows(self, key: Key) -> NDArray[np.bool_]:
        """Mark the pairs of a group."""
        rows = np.ones(len(self.fits), dtype=bool)
        for column, wanted in zip((self.glass, self.band), key, strict=True):
            rows &= True if wanted is None else column == wanted
        return rows


def _draw(identity: str) -> bytes:
    """What decides between fit and score, and nothing else."""
    return hashlib.sha256(identity.encode()).digest()


def _name(key: Key) -> str:
    """Who a group is, for people."""
    glass, band = key
    if glass is None:
        return "all pairs" if band is None else f"all glasses at {band}"
    return glass + (" at all temperatures" if band is None else f" at {band}")


def _family(key: Key) -> list[Key]:
    """A group and whom it borrows from, nearest first."""
    glass, band = key
    return [(glass, band), (glass, None), (None, band), ROOT]


def _group_map(table: _Table, key: Key, settings: MapSettings, lines: dict[Key, Line | None]) -> GroupMap:
    """The map of a group; `lines` remembers which lines were fitted (None: too few pairs)."""
    rows = table.rows(key)
    line, line_from = PROPORTIONAL, "proportional"
    for own in _family(key):
        if own not in lines:
            fitted = np.flatnonzero(table.rows(own) & table.fits)
            enough = len(fitted) >= settings.fit_pairs
            lines[own] = _fit_line(table.log_deviation[fitted], table.log_error[fitted]) if enough else None
        if (found := lines[own]) is not None:
            line, line_from = found, _name(own)
            break
    scored = rows & ~table.fits
    scores = table.log_error[scored] - line.at(table.log_deviation[scored])
    return GroupMap(
        glass=key[0],
        band=key[1],
        pairs=int(rows.sum()),
        scores=int(scored.sum()),
        line=line,
        line_from=line_from,
        expected_offset=conformal_quantile(scores, 0.5),
        bound_offset=conformal_quantile(scores, settings.level),
        largest_deviation_eV_A=float(np.exp(table.log_deviation[rows].max())) if rows.any() else 0.0,
    )


def _fit_line(log_deviation: NDArray[np.float64], log_error: NDArray[np.float64]) -> Line:
    """Theil and Sen's line through pairs in hash order; flat where the error does not rise, or all deviations agree."""
    from scipy.stats import theilslopes

    finite = np.isfinite(log_error)
    x, y = log_deviation[finite][:LARGEST_FIT], log_error[finite][:LARGEST_FIT]
    if not len(x):
        return PROPORTIONAL
    slope = max(0.0, float(theilslopes(y, x).slope)) if np.ptp(x) > 0 else 0.0
    return Line(slope, float(np.median(y - slope * x)), float(x.max()))
