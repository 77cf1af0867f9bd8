"""The figures of a report: matplotlib, kept as vectors."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from alloop.glass.composition import TABLE_1
from alloop.report.html.relaxed import FORCE_FIELD, MODELS
from alloop.report.html.replicas import place_of, replicas
from alloop.report.statistics import draw_calibration, draw_classes, draw_histograms

LARGE_ATOMS = 600
"""Cells of fewer atoms are drawn as small ones, as in Urata (2022), which has about 300 and about 1000."""
_BARS = "bars: standard error of the mean"


@dataclass(frozen=True)
class Download:
    """A file within the page: its name and its content as a data URI."""

    name: str
    uri: str


@dataclass(frozen=True)
class Figure:
    """A drawing with the name of its file, what it shows, and what can be taken along.

    counterparts: its counterparts in Urata (2022), with how much of each is here.
    """

    name: str
    caption: str
    draw: Callable[[plt.Figure], None]
    counterparts: Mapping[str, str] = field(default_factory=dict)
    size_in: tuple[float, float] = (6.4, 4.0)
    downloads: tuple[Download, ...] = ()

    def _drawn(self) -> plt.Figure:
        figure = plt.figure(figsize=self.size_in, constrained_layout=True)
        self.draw(figure)
        return figure

    def as_uri(self) -> str:
        """Return the drawing as an SVG in a data URI: complete in itself, and two of them share no ids."""
        text = io.BytesIO()
        figure = self._drawn()
        try:
            figure.savefig(text, format="svg", metadata={"Date": None})
        finally:
            plt.close(figure)
        return "data:image/svg+xml;base64," + base64.b64encode(text.getvalue()).decode()

    def write(self, folder: Path) -> None:
        """Write NAME.pdf and NAME.svg into a folder."""
        figure = self._drawn()
        try:
            for suffix in ("pdf", "svg"):
                figure.savefig(folder / f"{self.name}.{suffix}")
        finally:
            plt.close(figure)


def campaign_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield the figures of the campaign's story that there is something to draw for."""
    statistics, status = report["statistics"], report["status"]
    if any("new_label_force_rmse_eV_A" in row for row in status["iterations"]) or statistics["final_held_out"]:
        caption = "Force errors against the number of training labels. Held out: all ensembles on the one final set."
        yield Figure("learning", caption, lambda figure: _learning(figure.subplots(), report))
    if statistics["iterations"]:
        yield Figure(
            "selection",
            "Left: explored records by trust class. Right: their largest force deviation, with the trust levels.",
            lambda figure: _selection(figure, statistics),
            size_in=(9.6, 4.0),
        )
        yield Figure(
            "labels_by_reason",
            "Why labels were asked for, by iteration.",
            lambda figure: _reasons(figure.subplots(), statistics["iterations"]),
        )
        yield Figure(
            "calibration",
            "Deviation against true error of labels drawn at random, and the error and bound it stands for, "
            "by glass and temperature where there are labels enough.",
            lambda figure: draw_calibration(figure.subplots(), statistics["calibration"]),
        )


def error_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield parity and errors on the held-out labels, once they were measured."""
    errors = report["errors"]
    if errors is None:
        return
    covered = f"{len(errors['rows'])} labels, {covered_glasses(errors['forces'])}"
    yield Figure(
        "energy_parity",
        "Energy of the held-out labels by labeler and ensemble; below, the error by glass, mean offset left in.",
        lambda figure: _parity(figure, errors["rows"]),
        {"Fig. 1 energy": covered},
        (6.4, 6.0),
    )
    components = sum(len(sample["true"]) for sample in errors["forces"].values())
    if components:
        yield Figure(
            "force_parity",
            f"{components} force components of the held-out labels, drawn at random, by labeler and ensemble.",
            lambda figure: _force_parity(figure, errors["forces"]),
            {"Fig. 1 force": covered},
            (max(4.8, 3.2 * min(3, len(errors["forces"]))), 3.4 * -(-len(errors["forces"]) // 3)),
        )
    yield Figure(
        "force_errors",
        "Force errors of the held-out labels, by glass: mean absolute error of each label and its largest error.",
        lambda figure: _force_errors(figure.subplots(), errors["rows"]),
    )


def covered_glasses(names: Iterable[str]) -> str:
    """Say how many of the glasses of Table 1 are among some names."""
    return f"{len(set(names) & set(TABLE_1))} of {len(TABLE_1)} glasses"


def glass_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield the figures of the quenched glasses, if there are any."""
    glasses = report["glasses"]
    for counterpart, chosen, name in (
        ("Fig. 2a", [own for own in glasses if own["atoms"] and own["atoms"] < LARGE_ATOMS], "4B_small"),
        ("Fig. 3", [own for own in glasses if own["atoms"] and own["atoms"] >= LARGE_ATOMS], "4B_large"),
    ):
        compared = [own for own in chosen if own["glass"] in TABLE_1 and own["fraction_4B"] is not None]
        if compared:
            caption = f"Fourfold boron beside experiment, cells of {_sizes(compared)} atoms; {_BARS}."
            if any(own["fraction_4B_at_minimum"] is not None for own in compared):
                caption += " Emin: after minimising the energy with the potential."
            yield Figure(name, caption, partial(_on_axes, _fourfold, compared), {counterpart: _covered(compared)})
    analysed = [own for own in glasses if own["atoms"]]
    if analysed:
        yield Figure(
            "three_rings",
            f"Three-membered boron rings of the glass at its final temperature; {_BARS}.",
            lambda figure: _three_rings(figure.subplots(), analysed),
            {"Fig. 4a": _covered(analysed)},
        )
    cooled = [own for own in glasses if own["cooling"]]
    lasting = [own for own in cooled if own["cooling"]["survival"]]
    for name, draw, own, caption, counterpart in (
        ("rings_cooling", _rings_cooling, cooled, "Three-membered boron rings while the glass cools.", "Fig. 6"),
        (
            "survival",
            _survival,
            lasting,
            "Of the three-membered rings of the final glass, the share that existed at each temperature.",
            "Fig. 7e",
        ),
    ):
        if own:
            yield Figure(name, caption, partial(_on_axes, draw, own), {counterpart: _covered(own)})


def relaxed_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield what relaxing the glasses with the labeler changes, and their energies, once some were relaxed."""
    done = [own for own in report["relaxed_glasses"] if own["status"] == "done" and own["driver"] == MODELS]
    if done:
        yield Figure(
            "relaxed",
            f"The glasses before and after relaxing with the labeler; {_BARS}. On the line nothing changes.",
            lambda figure: _relaxed(figure, done),
            {"Fig. 2b": _covered(done)},
            (9.6, 4.6),
        )
    energies = report["energies"]
    if any(own["driver"] == MODELS and not own["relaxed"] for own in energies):
        yield Figure(
            "energies",
            "Energy of the glasses by the labeler, relative to what the models made of the same glass and cell size; "
            f"below zero is more stable; {_BARS}.",
            lambda figure: _energies(figure, energies),
            compared_glasses(energies),
            (9.6, 4.6),
        )


def compared_glasses(energies: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return how much of Fig. 5 is there: of how many glasses both models' and force fields' energies are known."""
    of_models = [own for own in energies if own["driver"] == MODELS]
    classical = {own["glass"] for own in energies if own["driver"] == FORCE_FIELD}
    glasses = {own["glass"] for own in of_models} & classical
    sizes = {own["atoms"] >= LARGE_ATOMS for own in of_models if own["glass"] in glasses}
    cells = " and ".join(name for name, large in (("small", False), ("large", True)) if large in sizes)
    return {"Fig. 5": f"{covered_glasses(glasses)}, {cells} cells"} if glasses else {}


def transport_figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield the lithium's diffusion against composition, once a stage of transport has come to its end."""
    known = [own for own in report["transport"]["glasses"] if own["li2o"] is not None]
    if known:
        lags = ", ".join(dict.fromkeys(f"{fitted_lags(own['diffusion'])} ps" for own in known))
        yield Figure(
            "transport",
            "Number density of lithium times its diffusion coefficient, and the Nernst-Einstein conductivity, against "
            f"composition; D from lags of {lags}; bars: 95 % interval, where it is finite.",
            lambda figure: _transport(figure, known),
            transport_covered(known),
            (9.6, 4.6),
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
    """Yield g(r) of each run."""
    for own in report["glasses"]:
        if own["g"]:
            caption = f"Radial distribution functions of {own['run']} over its analysed end."
            yield Figure(f"g_{own['run']}", caption, partial(_on_axes, _g, own["g"]))


def _covered(glasses: Iterable[dict[str, Any]]) -> str:
    return covered_glasses(own["glass"] for own in glasses)


def _on_axes(draw: Callable[[Any, Any], None], what: Any, figure: plt.Figure) -> None:
    draw(figure.subplots(), what)


def _sizes(glasses: Iterable[dict[str, Any]]) -> str:
    sizes = sorted({own["atoms"] for own in glasses})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _learning(axes: Any, report: dict[str, Any]) -> None:
    trained_on = {row["iteration"]: row["training_labels"] for row in report["status"]["iterations"]}
    series = {
        "final held-out set": [
            (trained_on[row["iteration"]], row["force_rmse_eV_A"]) for row in report["statistics"]["final_held_out"]
        ],
        "new labels, before training on them": _by_labels(report, "new_label_force_rmse_eV_A"),
        "audit (drawn at random)": _by_labels(report, "audit_force_rmse_eV_A"),
    }
    for (name, points), marker in zip(series.items(), "osD", strict=True):
        known = np.array([point for point in points if point[1] is not None], dtype=float)
        if len(known):
            axes.plot(known[:, 0], known[:, 1], marker=marker, label=name)
    axes.set(xlabel="training labels", ylabel="force RMSE (eV/Å)")
    axes.set_ylim(bottom=0)
    axes.legend()


def _by_labels(report: dict[str, Any], key: str) -> list[tuple[int, float | None]]:
    return [(row["training_labels"], row.get(key)) for row in report["status"]["iterations"]]


def _selection(figure: plt.Figure, statistics: dict[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    draw_classes(left, statistics["iterations"])
    draw_histograms(right, statistics["iterations"], np.array(statistics["histogram_edges_eV_A"]))


def _reasons(axes: Any, records: list[dict[str, Any]]) -> None:
    reasons = sorted({reason for record in records for reason in record["reasons"]})
    bottom = np.zeros(len(records))
    for reason in reasons:
        counts = np.array([record["reasons"].get(reason, 0) for record in records])
        axes.bar(range(len(records)), counts, bottom=bottom, label=reason.replace("_", " "))
        bottom += counts
    axes.set(xlabel="iteration", ylabel="labels")
    axes.set_xticks(range(len(records)), [record["iteration"] for record in records])
    axes.legend(fontsize="small")


def _groups(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["glass"], []).append(row)
    return dict(sorted(groups.items()))


def _parity(figure: plt.Figure, rows: list[dict[str, Any]]) -> None:
    parity, error = figure.subplots(2, 1, height_ratios=(2, 1))
    groups = _groups(rows)
    for name, own in groups.items():
        energy = np.array([row["energy_eV_atom"] for row in own])
        parity.plot(energy, energy + [row["energy_error_eV_atom"] for row in own], ".", label=name)
    ends = np.array(parity.get_xlim())
    parity.plot(ends, ends, color="black", linewidth=0.8)
    parity.set(xlabel="labeler (eV/atom)", ylabel="ensemble (eV/atom)")
    parity.legend(fontsize="small")
    for place, own in enumerate(groups.values()):
        values = 1000 * np.array([row["energy_error_eV_atom"] for row in own])
        error.plot(np.full(len(values), place), values, ".", alpha=0.6)
        error.plot(place, values.mean(), "_", color="black", markersize=24)
    error.axhline(0, color="black", linewidth=0.8)
    error.set_xticks(range(len(groups)), list(groups))
    error.set(ylabel="error (meV/atom)")


def _force_parity(figure: plt.Figure, forces: dict[str, dict[str, list[float]]]) -> None:
    panels = figure.subplots(-(-len(forces) // 3), min(3, len(forces)), squeeze=False).ravel()
    for axes in panels[len(forces) :]:
        axes.set_axis_off()
    for axes, (name, sample) in zip(panels, sorted(forces.items()), strict=False):
        true, mean = np.array(sample["true"]), np.array(sample["mean"])
        ends = np.array([min(true.min(), mean.min()), max(true.max(), mean.max())]) if len(true) else np.array([-1, 1])
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.plot(true, mean, ".", markersize=3, alpha=0.4)
        axes.set(title=name, xlabel="labeler (eV/Å)", ylabel="ensemble (eV/Å)")


def _force_errors(axes: Any, rows: list[dict[str, Any]]) -> None:
    for place, (name, own) in enumerate(_groups(rows).items()):
        for key, marker in (("force_mae_eV_A", "o"), ("max_force_error_eV_A", "x")):
            axes.plot(np.full(len(own), place), [row[key] for row in own], marker, color=f"C{place}", alpha=0.6)
        axes.plot([], [], color=f"C{place}", label=name)
    axes.plot([], [], "o", color="grey", label="MAE of a label")
    axes.plot([], [], "x", color="grey", label="its largest error")
    axes.set(yscale="log", ylabel="force error (eV/Å)", xticks=[])
    axes.legend(fontsize="small")


def _rate(rate_K_ps: float | None) -> str:
    return "not cooled" if rate_K_ps is None else f"{rate_K_ps:g} K/ps"


def _fourfold(axes: Any, glasses: list[dict[str, Any]]) -> None:
    at_minimum = replicas(glasses, "fraction_4B_at_minimum")
    for place, own in replicas(glasses, "fraction_4B").items():
        name, atoms, rate = place
        experiment = TABLE_1[name].experimental_4B
        label = f"{name}, {atoms} atoms, {_rate(rate)}"
        bars = axes.errorbar(experiment, own.mean, own.standard_error or 0, fmt="o", capsize=3, label=label)
        if lowest := at_minimum.get(place):
            style = {
                "fmt": "s",
                "color": bars.lines[0].get_color(),
                "markerfacecolor": "none",
                "label": f"{label} + Emin",
            }
            axes.errorbar(experiment, lowest.mean, lowest.standard_error or 0, capsize=3, **style)
    axes.plot([0, 0.7], [0, 0.7], color="black", linewidth=0.8)
    axes.set(
        xlabel="fourfold boron, experiment (NMR)", ylabel="fourfold boron, simulated", xlim=(0, 0.7), ylim=(0, 0.7)
    )
    axes.legend(fontsize="small")


def _three_rings(axes: Any, glasses: list[dict[str, Any]]) -> None:
    found = replicas(glasses, "three_rings")
    means, bars = [own.mean for own in found.values()], [own.standard_error or 0 for own in found.values()]
    axes.bar(range(len(found)), means, yerr=bars, capsize=3)
    labels = [f"{name}\n{atoms} atoms\n{_rate(rate)}" for name, atoms, rate in found]
    axes.set_xticks(range(len(found)), labels, fontsize="small")
    axes.set(ylabel="three-membered boron rings")


def _relaxed(figure: plt.Figure, relaxed: list[dict[str, Any]]) -> None:
    shown = (("fraction_4B", "4B (of B)"), ("fraction_5Si", "5Si (of Si)"), ("three_rings", "3-membered rings of B"))
    places = list(dict.fromkeys(map(place_of, relaxed)))
    colours = {name: f"C{k}" for k, name in enumerate(dict.fromkeys(name for name, _, _ in places))}
    markers = dict(zip(dict.fromkeys(place[1:] for place in places), cycle("os^vD<>p"), strict=False))
    for axes, (key, title) in zip(figure.subplots(1, 3), shown, strict=True):
        before, after = (replicas(relaxed, side, key) for side in ("before", "after"))
        for place in before:
            bars = {"xerr": before[place].standard_error or 0, "yerr": after[place].standard_error or 0}
            style = {"fmt": markers[place[1:]], "color": colours[place[0]], "capsize": 3, "alpha": 0.8}
            axes.errorbar(before[place].mean, after[place].mean, **bars, **style)
        top = max(axes.get_xlim()[1], axes.get_ylim()[1], 0.02)
        axes.plot([0, top], [0, top], color="black", linewidth=0.8)
        axes.set(title=title, xlabel="before relaxing", ylabel="after")
    for name, colour in colours.items():
        figure.axes[0].plot([], [], "o", color=colour, label=name)
    for (atoms, rate), marker in markers.items():
        figure.axes[0].plot([], [], marker, color="grey", label=f"{atoms} atoms, {_rate(rate)}")
    _legend_below(figure)


def _legend_below(figure: plt.Figure) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")


def _energies(figure: plt.Figure, energies: list[dict[str, Any]]) -> None:
    sizes: dict[str, set[tuple[str, int]]] = {}
    for own in energies:
        if own["driver"] == MODELS and not own["relaxed"]:
            title = f"below {LARGE_ATOMS} atoms" if own["atoms"] < LARGE_ATOMS else f"{LARGE_ATOMS} atoms and more"
            sizes.setdefault(title, set()).add((own["glass"], own["atoms"]))
    series = list(dict.fromkeys((own["made_by"], own["relaxed"]) for own in energies))
    colours = {made_by: f"C{k}" for k, made_by in enumerate(dict.fromkeys(made_by for made_by, _ in series))}
    for axes, (title, cells) in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes.items(), strict=True):
        for place, cell in enumerate(sorted(cells)):
            for number, one in enumerate(series):
                values = _relative_meV_atom(energies, *cell, *one)
                if len(values):
                    bar = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
                    shift = 0.7 * ((number + 0.5) / len(series) - 0.5)
                    style = {"fmt": "s" if one[1] else "o", "color": colours[one[0]], "capsize": 3}
                    axes.errorbar(place + shift, values.mean(), bar, **style)
        for made_by, relaxed in series:
            label = f"{made_by}, {'relaxed' if relaxed else 'as made'}"
            axes.plot([], [], "s" if relaxed else "o", color=colours[made_by], label=label)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(cells)), [f"{name}\n{atoms}" for name, atoms in sorted(cells)], fontsize="small")
        axes.set(title=title, ylabel="energy by the labeler (meV/atom)")
    _legend_below(figure)


def _relative_meV_atom(
    energies: list[dict[str, Any]], glass: str, atoms: int, made_by: str, relaxed: bool
) -> np.ndarray:
    """Return the energies of what was made so, less the mean of what models made of this glass and cell size.

    Of a force field's glasses those of the same cell size are taken, or if there are none those of any.
    """
    own = [one for one in energies if one["glass"] == glass]
    of_models = [one for one in own if one["driver"] == MODELS and one["atoms"] == atoms]
    wanted = [one for one in own if (one["made_by"], one["relaxed"]) == (made_by, relaxed)]
    same = [one for one in wanted if one["atoms"] == atoms]
    chosen = same or [one for one in wanted if one["driver"] == FORCE_FIELD]
    reference = np.mean([one["energy_eV_atom"] for one in of_models if not one["relaxed"]])
    return 1000 * (np.array([one["energy_eV_atom"] for one in chosen]) - reference)


def _transport(figure: plt.Figure, known: list[dict[str, Any]]) -> None:
    shown = (
        ("number_density_times_D_1_cm_s", "C·D of Li (1/(cm s))"),
        ("conductivity_S_cm", "Nernst-Einstein conductivity (S/cm)"),
    )
    for axes, (key, title) in zip(figure.subplots(1, 2), shown, strict=True):
        values = [own["diffusion"][key] for own in known]
        for own, found in zip(known, values, strict=True):
            below, above = (found["value"] if found[end] is None else found[end] for end in ("low_95", "high_95"))
            bars = np.array([[found["value"] - below], [above - found["value"]]])
            label = f"{own['glass']}, {own['atoms']}"
            axes.errorbar(100 * own["li2o"], found["value"], bars, fmt="o", capsize=3, label=label)
        if min(found["value"] for found in values) > 0:
            axes.set_yscale("log", nonpositive="clip")
        axes.set(xlabel="Li$_2$O (mol %)", ylabel=title)
    _legend_below(figure)


def _rings_cooling(axes: Any, glasses: list[dict[str, Any]]) -> None:
    for own in glasses:
        axes.plot(own["cooling"]["temperatures_K"], own["cooling"]["three_rings"], linewidth=1, label=own["run"])
    axes.set(xlabel="temperature (K)", ylabel="three-membered boron rings")
    axes.invert_xaxis()
    axes.legend(fontsize="small")


def _survival(axes: Any, glasses: list[dict[str, Any]]) -> None:
    for own in glasses:
        axes.plot(own["cooling"]["temperatures_K"], own["cooling"]["survival"], linewidth=1, label=own["run"])
    axes.set(xlabel="temperature (K)", ylabel="share of the final rings", ylim=(0, 1.05))
    axes.invert_xaxis()
    axes.legend(fontsize="small")


def _g(axes: Any, columns: dict[str, list[float]]) -> None:
    for name, values in columns.items():
        if name != "r_A":
            style = {"color": "black"} if name == "total" else {"linewidth": 1}
            axes.plot(columns["r_A"], values, label=name, **style)
    axes.set(xlabel="r (Å)", ylabel="g(r)", xlim=(0, max(columns["r_A"])))
    axes.legend(fontsize="small", ncols=2)
