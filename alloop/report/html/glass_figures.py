"""The figures of the glasses: fourfold boron, rings, relaxing, energies, transport, g(r)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from numpy.typing import NDArray
from scipy.stats import binned_statistic

from alloop.report.html.drawing import (
    Style,
    about,
    beside_each_other,
    colours,
    in_order,
    key_of,
    legend_below,
    legend_in,
    series_of,
    styles,
    wide_in,
)
from alloop.report.html.figures import Figure, covered_glasses
from alloop.report.html.relaxed import FORCE_FIELD, MODELS
from alloop.report.html.replicas import Place, Replicas, melt_of, place_of, replicas, together

LARGE_ATOMS = 600
"""Cells of fewer atoms are drawn as small ones, as in Urata (2022), which has about 300 and about 1000."""
_BARS = "bars: standard error of the mean over replicas, or standard deviation of the branches of one melt"
_WIDE_IN = 9.6
_MOST_TEMPERATURES = 60
_APART = 0.01  # of fourfold boron by experiment, between sizes and rates of one glass


def glass_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield the figures of the quenched glasses, if there are any."""
    glasses = report["glasses"]
    for counterpart, chosen, name in (
        ("Fig. 2a", [own for own in glasses if own["atoms"] and own["atoms"] < LARGE_ATOMS], "4B_small"),
        ("Fig. 3", [own for own in glasses if own["atoms"] and own["atoms"] >= LARGE_ATOMS], "4B_large"),
    ):
        compared = [own for own in chosen if None not in (own["experimental_4B"], own["fraction_4B"])]
        if compared:
            caption = f"Fourfold boron beside experiment, cells of {_sizes(compared)} atoms; {_BARS}."
            if len(set(map(series_of, compared))) > 1:
                caption += " Sizes and rates are drawn a little aside from each other."
            if any(own["fraction_4B_at_minimum"] is not None for own in compared):
                caption += " Emin: after minimising the energy with the potential."
            size_in = (6.4, 4.8 + legend_in([*_key(compared), "at the minimum (Emin)"], 6.4))
            yield Figure(name, caption, partial(_fourfold, compared), {counterpart: _covered(compared)}, size_in)
    analysed = [own for own in glasses if own["atoms"]]
    if analysed:
        panels = _by_size(analysed)
        yield Figure(
            "three_rings",
            f"Three-membered boron rings of the glass at its final temperature; {_BARS}.",
            partial(_three_rings, panels),
            {"Fig. 4a": _covered(analysed)},
            (_width_in(panels), 4.8),
        )
    yield from _cooling_figures([own for own in glasses if own["cooling"]])


def _cooling_figures(cooled: list[dict[str, Any]]) -> Iterator[Figure]:
    """Yield what becomes of the rings as glasses cool, a panel for each glass."""
    band = "Mean over replicas in steps of the thermostat's temperature; band: from the lowest to the highest of them."
    rings = "Three-membered boron rings while the glass cools."
    lasting = "Of the three-membered rings of the final glass, the share that existed at each temperature."
    for name, key, caption, ylabel, counterpart in (
        ("rings_cooling", "three_rings", rings, "three-membered boron rings", "Fig. 6"),
        ("survival", "survival", lasting, "share of the final rings", "Fig. 7e"),
    ):
        own = [one for one in cooled if one["cooling"][key]]
        if own:
            rows = -(-len(in_order(one["glass"] for one in own)) // 4)
            size_in = (_WIDE_IN, 0.6 + 2.4 * rows + legend_in(_series_labels(own), _WIDE_IN))
            draw = partial(_while_cooling, own, key, ylabel)
            yield Figure(name, f"{caption} {band}", draw, {counterpart: _covered(own)}, size_in)


def relaxed_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield what relaxing the glasses with the labeler changes, and their energies, once some were relaxed."""
    done = [own for own in report["relaxed_glasses"] if own["status"] == "done" and own["driver"] == MODELS]
    if done:
        yield Figure(
            "relaxed",
            f"The glasses before and after relaxing with the labeler; {_BARS}. On the line nothing changes.",
            partial(_relaxed, done),
            {"Fig. 2b": f"{_covered(done)}, of the melt-quenches"},
            (_WIDE_IN, 3.8 + legend_in(_key(done), _WIDE_IN)),
        )
    energies = report["energies"]
    of_models = [own for own in energies if own["driver"] == MODELS and not own["relaxed"]]
    if of_models:
        panels = _by_size(of_models)
        yield Figure(
            "energies",
            "Energy of the glasses by the labeler, relative to what the models made of the same glass and cell size; "
            f"below zero is more stable{_states_text(energies)}; {_BARS}.",
            partial(_energies, energies, panels),
            compared_glasses(energies),
            (_width_in(panels), 5.2),
        )


def _states_text(energies: Iterable[dict[str, Any]]) -> str:
    """Return, where glasses as made are at their minimum and others are not, what of the difference is only motion."""
    kelvin = {own.get("temperature_K") for own in energies if not own["relaxed"]}
    warm_K = max((one for one in kelvin if one is not None), default=0.0)
    if None not in kelvin or not warm_K:
        return ""
    return (
        f", among structures in one state: those of a minimum are compared with frames at up to {warm_K:g} K, of which "
        f"about {1.5 * units.kB * warm_K:.2g} eV/atom (3/2 k_B T) is motion"
    )


def compared_glasses(energies: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return how much of Fig. 5 is there: of how many glasses both models' and force fields' energies are known.

    Says so where no force field's glass was relaxed: those of the bootstrap are single labels.
    """
    energies = list(energies)
    of_models = [own for own in energies if own["driver"] == MODELS]
    classical = {own["glass"] for own in energies if own["driver"] == FORCE_FIELD}
    glasses = {own["glass"] for own in of_models} & classical
    sizes = {own["atoms"] >= LARGE_ATOMS for own in of_models if own["glass"] in glasses}
    cells = " and ".join(name for name, large in (("small", False), ("large", True)) if large in sizes)
    relaxed = any(own["relaxed"] for own in energies if own["driver"] == FORCE_FIELD and own["glass"] in glasses)
    note = "" if relaxed else "; force fields' as made, not relaxed"
    return {"Fig. 5": f"{covered_glasses(glasses)}, {cells} cells{note}"} if glasses else {}


def transport_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield the lithium's diffusion in the glasses, once a stage of transport has come to its end."""
    known = [own for own in report["transport"]["glasses"] if own["li2o"] is not None]
    if known:
        lags = ", ".join(dict.fromkeys(f"{fitted_lags(own['diffusion'])} ps" for own in known))
        yield Figure(
            "transport",
            "Number density of lithium times its diffusion coefficient, and the Nernst-Einstein conductivity, by "
            f"glass; D from lags of {lags}; bars: 95 % interval, where it is finite, or standard deviation of the "
            "branches of one melt.",
            partial(_transport, known),
            transport_covered(known),
            (wide_in(len({own["glass"] for own in known}), 2), 5.2),
        )


def transport_covered(known: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return how much of Fig. 8 is there."""
    temperatures = ", ".join(f"{own:g}" for own in sorted({own["temperature_K"] for own in known}))
    lags = ", ".join(dict.fromkeys(fitted_lags(own["diffusion"]) for own in known))
    return {"Fig. 8": f"{_covered(known)}, at {temperatures} K, lags of {lags} ps"}


def fitted_lags(diffusion: dict[str, Any]) -> str:
    """Say in which lags (ps) a diffusion was fitted."""
    first_ps, last_ps = diffusion["window_ps"]
    return f"{first_ps:g} to {last_ps:g}"


def distribution_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield g(r) of each glass, cell size and rate of cooling, the mean over its runs."""
    found: dict[Place, list[dict[str, Any]]] = {}
    for own in report["glasses"]:
        if own["g"]:
            found.setdefault(place_of(own), []).append(own)
    for (glass, atoms, _), runs in found.items():
        names = ", ".join(own["run"] for own in runs)
        mean = "" if len(runs) == 1 else f", mean of {len(runs)} runs, shaded from the smallest to the largest of them"
        caption = f"Radial distribution functions of {glass}, {atoms} atoms ({names}), over the analysed end{mean}."
        columns = {name: np.array([own["g"][name] for own in runs]) for name in runs[0]["g"]}
        yield Figure(f"g_{runs[0]['run']}", caption, partial(_g, columns), size_in=(6.4, 4.6))


def _covered(glasses: Iterable[dict[str, Any]]) -> str:
    return covered_glasses(own["glass"] for own in glasses)


def _sizes(glasses: Iterable[dict[str, Any]]) -> str:
    sizes = sorted({own["atoms"] for own in glasses})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _by_size(records: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return records of small and of large cells, by what the panel with them is called."""
    found: dict[str, list[dict[str, Any]]] = {}
    for own in sorted(records, key=lambda own: own["atoms"] >= LARGE_ATOMS):
        small = own["atoms"] < LARGE_ATOMS
        found.setdefault(f"below {LARGE_ATOMS} atoms" if small else f"{LARGE_ATOMS} atoms and more", []).append(own)
    return found


def _width_in(panels: dict[str, list[dict[str, Any]]]) -> float:
    return wide_in(max(len({own["glass"] for own in panel}) for panel in panels.values()), len(panels))


def _series_labels(records: Iterable[dict[str, Any]]) -> list[str]:
    return [style["label"] for style in styles(map(series_of, records)).values()]


def _key(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the labels of a legend by glass and by series."""
    return [*in_order(own["glass"] for own in records), *_series_labels(records)]


def _fourfold(glasses: list[dict[str, Any]], figure: plt.Figure) -> None:
    axes = figure.subplots()
    colour, look = colours(own["glass"] for own in glasses), styles(map(series_of, glasses))
    series = {place_of(own): series_of(own) for own in glasses}
    experiment = {own["glass"]: own["experimental_4B"] for own in glasses}
    aside = {one: _APART * (number - (len(look) - 1) / 2) for number, one in enumerate(look)}
    sides: tuple[tuple[str, Style], ...] = (
        ("fraction_4B", {}),
        ("fraction_4B_at_minimum", {"markerfacecolor": "none"}),
    )
    for key, face in sides:
        for place, own in replicas(glasses, key).items():
            style = {"marker": look[series[place]]["marker"], "color": colour[place[0]], "capsize": 3} | face
            at = experiment[place[0]] + aside[series[place]]
            axes.errorbar(at, own.mean, own.bar, **style)
    axes.plot([0, 0.7], [0, 0.7], color="black", linewidth=0.8)
    axes.set(
        xlabel="fourfold boron, experiment (NMR)", ylabel="fourfold boron, simulated", xlim=(0, 0.7), ylim=(0, 0.7)
    )
    key_of(axes, colour, look)
    if any(own["fraction_4B_at_minimum"] is not None for own in glasses):
        axes.plot([], [], "o", color="grey", markerfacecolor="none", label="at the minimum (Emin)")
    legend_below(figure)


def _three_rings(panels: dict[str, list[dict[str, Any]]], figure: plt.Figure) -> None:
    look = styles(series_of(own) for panel in panels.values() for own in panel)
    by_label = {style["label"]: style for style in look.values()}
    for axes, (title, own) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        label = {place_of(one): look[series_of(one)]["label"] for one in own}
        points = [(place[0], label[place], seen.mean, seen.bar) for place, seen in replicas(own, "three_rings").items()]
        shown = {name: style for name, style in by_label.items() if name in label.values()}
        beside_each_other(axes, points, shown, _width_in(panels) / len(panels))
        axes.set(title=title, ylabel="three-membered boron rings")
        axes.set_ylim(bottom=0)
    legend_below(figure)


def _relaxed(relaxed: list[dict[str, Any]], figure: plt.Figure) -> None:
    shown = (("fraction_4B", "4B (of B)"), ("fraction_5Si", "5Si (of Si)"), ("three_rings", "3-membered rings of B"))
    colour, look = colours(own["glass"] for own in relaxed), styles(map(series_of, relaxed))
    series = {place_of(own): series_of(own) for own in relaxed}
    for axes, (key, title) in zip(figure.subplots(1, 3), shown, strict=True):
        before, after = (replicas(relaxed, side, key) for side in ("before", "after"))
        for place in before:
            bars = {"xerr": before[place].bar, "yerr": after[place].bar}
            style = {"marker": look[series[place]]["marker"], "color": colour[place[0]], "capsize": 3, "alpha": 0.8}
            axes.errorbar(before[place].mean, after[place].mean, **bars, **style)
        top = max(axes.get_xlim()[1], axes.get_ylim()[1], 0.02)
        axes.plot([0, top], [0, top], color="black", linewidth=0.8)
        axes.set(title=title, xlabel="before relaxing", ylabel="after")
        axes.locator_params(nbins=5)
    key_of(figure.axes[0], colour, look)
    legend_below(figure)


def _energies(energies: list[dict[str, Any]], panels: dict[str, list[dict[str, Any]]], figure: plt.Figure) -> None:
    series = list(dict.fromkeys((own["made_by"], own["relaxed"]) for own in energies))
    colour = {made_by: f"C{k % 10}" for k, made_by in enumerate(dict.fromkeys(made_by for made_by, _ in series))}
    labels = {one: f"{one[0]}, {'relaxed' if one[1] else 'as made'}" for one in series}
    look: dict[str, Style] = {
        labels[one]: {"marker": "s" if one[1] else "o", "color": colour[one[0]], "label": labels[one]} for one in series
    }
    for axes, (title, own) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        points = []
        for glass, atoms in sorted({(one["glass"], one["atoms"]) for one in own}):
            for one in series:
                seen = _relative_meV_atom(energies, glass, atoms, *one)
                points += [(glass, labels[one], seen.mean, seen.bar)] if seen else []
        beside_each_other(axes, points, look, _width_in(panels) / len(panels))
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=title, ylabel="energy by the labeler (meV/atom)")
    legend_below(figure)


def _relative_meV_atom(
    energies: list[dict[str, Any]], glass: str, atoms: int, made_by: str, relaxed: bool
) -> Replicas | None:
    """Return the energies of what was made so, less the mean of what models made of this glass and cell size.

    Of a force field's glasses those of the same cell size are taken, or if there are none those of any.
    """
    own = [one for one in energies if one["glass"] == glass]
    of_models = [one for one in own if one["driver"] == MODELS and one["atoms"] == atoms]
    wanted = [one for one in own if (one["made_by"], one["relaxed"]) == (made_by, relaxed)]
    same = [one for one in wanted if one["atoms"] == atoms]
    chosen = same or [one for one in wanted if one["driver"] == FORCE_FIELD]
    if not chosen:
        return None
    reference = np.mean([one["energy_eV_atom"] for one in of_models if not one["relaxed"]])
    return together(
        (1000 * (one["energy_eV_atom"] - reference), f"{one['atoms']} {melt_of(one)}", one["driven_by"])
        for one in chosen
    )


def _transport(known: list[dict[str, Any]], figure: plt.Figure) -> None:
    shown = (
        ("number_density_times_D_1_cm_s", "C·D of Li (1/(cm s))"),
        ("conductivity_S_cm", "Nernst-Einstein conductivity (S/cm)"),
    )
    labels = [f"about {about(own['atoms'])} atoms, {own['temperature_K']:g} K" for own in known]
    look: dict[str, Style] = {
        label: {"marker": marker, "color": f"C{k % 10}", "label": label}
        for k, (label, marker) in enumerate(zip(sorted(set(labels)), "os^vD<>pPX" * len(known), strict=False))
    }
    width_in = float(figure.get_size_inches()[0]) / 2
    for axes, (key, title) in zip(figure.subplots(1, 2), shown, strict=True):
        points = []
        for own, label in zip(known, labels, strict=True):
            found = own["diffusion"][key]
            deviation = found.get("sd_of_branches", 0.0)
            ends = ((found["low_95"], -deviation), (found["high_95"], deviation))
            below, above = (found["value"] + spread if end is None else end for end, spread in ends)
            points.append((own["glass"], label, found["value"], (found["value"] - below, above - found["value"])))
        beside_each_other(axes, points, look, width_in)
        if min(value for _, _, value, _ in points) > 0:
            axes.set_yscale("log", nonpositive="clip")
        axes.set_ylabel(title)
    legend_below(figure)


def _while_cooling(glasses: list[dict[str, Any]], key: str, ylabel: str, figure: plt.Figure) -> None:
    names, look = in_order(own["glass"] for own in glasses), styles(map(series_of, glasses))
    series = {place_of(own): series_of(own) for own in glasses}
    temperatures = [T for own in glasses for T in own["cooling"]["temperatures_K"]]
    columns = min(4, len(names))
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for number, (axes, name) in enumerate(zip(panels, names, strict=False)):
        own = [one for one in glasses if one["glass"] == name]
        for place in sorted(set(map(place_of, own)), key=lambda place: list(look).index(series[place])):
            runs = [one["cooling"] for one in own if place_of(one) == place]
            style = look[series[place]]
            at_K, mean, low, high = over_temperature(runs, key)
            axes.plot(at_K, mean, color=style["color"], linewidth=1.2, label=style["label"])
            axes.fill_between(at_K, low, high, color=style["color"], alpha=0.25, linewidth=0)
        axes.set_title(name, fontsize="small")
        axes.set_xlim(max(temperatures), min(temperatures))
        axes.set_ylim(0, 1.05 if key == "survival" else None)
        axes.locator_params(nbins=4)
        if number + columns >= len(names):
            axes.set_xlabel("temperature (K)")
    figure.supylabel(ylabel, fontsize="medium")
    legend_below(figure)


def over_temperature(cooled: Sequence[dict[str, Any]], key: str) -> NDArray[np.float64]:
    """Return temperature (K), mean, lowest and highest of replicas (4, n), over steps of temperature.

    Replicas need not have been at each temperature at one time, nor for as long: in each step a replica counts as the
    mean of its frames there. cooled: records of `rings.cooling`.
    """
    runs = [(np.array(own["temperatures_K"]), np.array(own[key], dtype=float)) for own in cooled]
    lowest, highest = (pick(pick(T) for T, _ in runs) for pick in (min, max))
    steps = max(2, min(_MOST_TEMPERATURES, min(len(np.unique(T)) for T, _ in runs) // 2))
    edges = np.linspace(lowest, max(highest, lowest + 1), steps + 1)
    binned = np.array([binned_statistic(T, [T, values], bins=edges).statistic for T, values in runs])
    at_K, values = binned[:, :, np.isfinite(binned[:, 0]).any(axis=0)].swapaxes(0, 1)
    return np.array(
        [np.nanmean(at_K, axis=0), np.nanmean(values, axis=0), np.nanmin(values, axis=0), np.nanmax(values, axis=0)]
    )


def _g(columns: dict[str, NDArray[np.float64]], figure: plt.Figure) -> None:
    """Draw the mean of every pair's curves (runs, points) and where they all lie."""
    axes = figure.subplots()
    r_A = columns["r_A"].mean(axis=0)
    for name, values in columns.items():
        if name != "r_A":
            style = {"color": "black"} if name == "total" else {"linewidth": 1}
            (line,) = axes.plot(r_A, values.mean(axis=0), label=name, **style)
            if len(values) > 1:
                axes.fill_between(r_A, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.2, lw=0)
    axes.set(xlabel="r (Å)", ylabel="g(r)", xlim=(0, r_A.max()))
    legend_below(figure)
