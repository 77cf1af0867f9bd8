"""A report's figures, kept as vectors by matplotlib; here those of the campaign's story and of the errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from alloop.glass.composition import TABLE_1
from alloop.report.html.drawing import colours, in_order, legend_below, legend_in, names_below, wide_in
from alloop.report.html.errors import models_text
from alloop.report.statistics import draw_calibration, draw_classes, draw_histograms


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
    names, models = in_order(row["glass"] for row in errors["rows"]), models_text(errors)
    width_in = wide_in(len(names))
    yield Figure(
        "energy_parity",
        f"Energy of the held-out labels by labeler and the mean of the models; below, the error of that mean, offset "
        f"left in. {models}.",
        partial(_parity, errors["rows"]),
        {"Fig. 1 energy": covered},
        (width_in, 7.0 + legend_in(names, width_in)),
    )
    components = sum(len(sample["true"]) for sample in errors["forces"].values())
    if components:
        yield Figure(
            "force_parity",
            f"{components} force components of the held-out labels, drawn at random, by labeler and the mean of the "
            f"models. {models}.",
            lambda figure: _force_parity(figure, errors["forces"]),
            {"Fig. 1 force": covered},
            (max(4.8, 3.2 * min(3, len(errors["forces"]))), 3.4 * -(-len(errors["forces"]) // 3)),
        )
    yield Figure(
        "force_errors",
        "Force errors of single models on the held-out labels, by glass: mean absolute error of a label's components, "
        f"and the largest error of an atom's force by any model. {models}.",
        partial(_force_errors, errors["rows"]),
        size_in=(width_in, 4.8),
    )


def covered_glasses(names: Iterable[str]) -> str:
    """Say how many of the glasses of Table 1 are among some names."""
    return f"{len(set(names) & set(TABLE_1))} of {len(TABLE_1)} glasses"


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
    return {name: [row for row in rows if row["glass"] == name] for name in in_order(row["glass"] for row in rows)}


def _parity(rows: list[dict[str, Any]], figure: plt.Figure) -> None:
    parity, error = figure.subplots(2, 1, height_ratios=(2, 1))
    groups = _groups(rows)
    colour = colours(groups)
    for name, own in groups.items():
        energy = np.array([row["energy_eV_atom"] for row in own])
        predicted = energy + [row["energy_error_eV_atom"] for row in own]
        parity.plot(energy, predicted, ".", color=colour[name], label=name)
    ends = np.array(parity.get_xlim())
    parity.plot(ends, ends, color="black", linewidth=0.8)
    parity.set(xlabel="labeler (eV/atom)", ylabel="models' mean (eV/atom)")
    for place, (name, own) in enumerate(groups.items()):
        values = 1000 * np.array([row["energy_error_eV_atom"] for row in own])
        error.plot(np.full(len(values), place), values, ".", color=colour[name], alpha=0.6)
        error.plot(place, values.mean(), "_", color="black", markersize=24)
    error.axhline(0, color="black", linewidth=0.8)
    names_below(error, list(groups), float(figure.get_size_inches()[0]))
    error.set(ylabel="error (meV/atom)")
    legend_below(figure)


def _force_parity(figure: plt.Figure, forces: dict[str, dict[str, list[float]]]) -> None:
    panels = figure.subplots(-(-len(forces) // 3), min(3, len(forces)), squeeze=False).ravel()
    for axes in panels[len(forces) :]:
        axes.set_axis_off()
    for axes, (name, sample) in zip(panels, ((name, forces[name]) for name in in_order(forces)), strict=False):
        true, mean = np.array(sample["true"]), np.array(sample["mean"])
        ends = np.array([min(true.min(), mean.min()), max(true.max(), mean.max())]) if len(true) else np.array([-1, 1])
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.plot(true, mean, ".", markersize=3, alpha=0.4)
        axes.set(title=name, xlabel="labeler (eV/Å)", ylabel="models' mean (eV/Å)")


def _force_errors(rows: list[dict[str, Any]], figure: plt.Figure) -> None:
    axes, groups = figure.subplots(), _groups(rows)
    colour = colours(groups)
    for place, (name, own) in enumerate(groups.items()):
        for key, marker in (("force_mae_eV_A", "o"), ("max_force_error_eV_A", "x")):
            values = [np.nan if row[key] is None else row[key] for row in own]
            axes.plot(np.full(len(own), place), values, marker, color=colour[name], alpha=0.6)
    axes.plot([], [], "o", color="grey", label="MAE of a label")
    axes.plot([], [], "x", color="grey", label="its largest error")
    axes.set(yscale="log", ylabel="force error (eV/Å)")
    names_below(axes, list(groups), float(figure.get_size_inches()[0]))
    legend_below(figure)
