"""What keeps figures of many glasses readable: colours and markers, names along an axis, a legend off the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike

from alloop.glass.composition import TABLE_1

Series = tuple[int, float | None]
"""About how many atoms, and the rate of cooling (K/ps): runs of any glass that are drawn with one marker."""
Style = dict[str, Any]
"""Keywords of matplotlib for the points of a series."""

_LETTER_IN, _LINE_IN, _HANDLE_IN = 0.07, 0.19, 0.62  # of small letters, of a line of them, of a legend's symbol
_WIDEST_IN = 16.0


def in_order(names: Iterable[str]) -> list[str]:
    """Return names without repetition: glasses of Table 1 in its order, then the others by name."""
    ranks = {name: rank for rank, name in enumerate(TABLE_1)}
    return sorted(set(names), key=lambda name: (ranks.get(name, len(ranks)), name))


def colours(names: Iterable[str]) -> dict[str, Any]:
    """Return a colour for each name, twenty different ones before any comes again."""
    shades = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    return dict(zip(in_order(names), cycle([*shades[::2], *shades[1::2]]), strict=False))


def series_of(own: dict[str, Any]) -> Series:
    """Return the series of the record of a run; cells of a size differ a little between glasses, as they are exact."""
    return about(own["atoms"]), own["cooling_rate_K_ps"]


def about(atoms: int) -> int:
    """Return a number of atoms to one digit."""
    return int(float(f"{atoms:.1g}"))


def styles(series: Iterable[Series]) -> dict[Series, Style]:
    """Return how the points of each series are drawn: marker, colour and label."""
    known = sorted(set(series), key=lambda one: (one[0], one[1] is None, one[1] or 0))
    return {
        one: {"marker": marker, "color": f"C{number % 10}", "label": f"about {one[0]} atoms, {rate_text(one[1])}"}
        for number, (one, marker) in enumerate(zip(known, cycle("os^vD<>pPX"), strict=False))
    }


def rate_text(rate_K_ps: float | None) -> str:
    """Return a rate of cooling as text."""
    return "not cooled" if rate_K_ps is None else f"{rate_K_ps:g} K/ps"


def wide_in(places: int, panels: int = 1) -> float:
    """Return how wide (inches) a figure must be for so many names along the axis of each panel."""
    return min(_WIDEST_IN, max(6.4, panels * (1.0 + 0.36 * places)))


def names_below(axes: Any, names: Sequence[str], width_in: float) -> None:
    """Write names at the places 0, 1, ... of an axis so wide, upright where they would run into each other."""
    crowded = max((len(name) for name in names), default=0) * _LETTER_IN * 1.3 > width_in / max(1, len(names))
    axes.set_xticks(range(len(names)), names, rotation=90 if crowded else 0, fontsize="small")
    axes.set_xlim(-0.6, len(names) - 0.4)


def beside_each_other(
    axes: Any, points: Sequence[tuple[str, str, float, ArrayLike]], look: Mapping[str, Style], width_in: float
) -> None:
    """Draw points over the names they belong to, series side by side.

    points: name, series, value and its bars, one number or two (below, above); look: by series. Axis so wide (inches).
    """
    names = in_order(name for name, *_ in points)
    for number, (series, style) in enumerate(look.items()):
        own = [point for point in points if point[1] == series]
        shift = 0.7 * ((number + 0.5) / len(look) - 0.5)
        places = [names.index(name) + shift for name, *_ in own]
        bars = np.array([np.broadcast_to(np.asarray(bar, dtype=float), 2) for *_, bar in own]).reshape(-1, 2).T
        axes.errorbar(places, [value for _, _, value, _ in own], bars, linestyle="none", capsize=3, **style)
    for place in range(1, len(names)):
        axes.axvline(place - 0.5, color="lightgrey", linewidth=0.6, zorder=0)
    names_below(axes, names, width_in)


def key_of(axes: Any, colour: Mapping[str, Any], look: Mapping[Any, Style]) -> None:
    """Explain colours by name and, in grey, markers by series, in what becomes the legend."""
    for name, own in colour.items():
        axes.plot([], [], "s", color=own, label=name)
    for style in look.values():
        axes.plot([], [], linestyle="none", **style | {"color": "grey"})


def legend_columns(labels: Iterable[str], width_in: float) -> int:
    """Return in how many columns labels fit below a figure so wide."""
    lengths = [len(label) for label in labels]
    fit = int(width_in / (_HANDLE_IN + _LETTER_IN * max(lengths, default=1)))
    return max(1, min(fit, len(lengths)))


def legend_in(labels: Sequence[str], width_in: float) -> float:
    """Return how high (inches) the legend below a figure so wide is."""
    return 0.1 + _LINE_IN * -(-len(labels) // legend_columns(labels, width_in))


def legend_below(figure: plt.Figure) -> None:
    """Put one legend of everything that is labelled below the figure's panels."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = legend_columns(entries, float(figure.get_size_inches()[0]))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize="small")
