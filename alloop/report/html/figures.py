"""The figures of a report: matplotlib, kept as vectors."""

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
from alloop.report.statistics import draw_calibration, draw_classes, draw_histograms

LARGE_ATOMS = 600
"""Cells of fewer atoms are drawn as small ones, as in Urata (2022), which has about 300 and about 1000."""


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
            "Deviation against true error of labels drawn at random, and the error and bound it stands for.",
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
            caption = f"Fourfold boron beside experiment, cells of {_sizes(compared)} atoms; bars: between replicas."
            yield Figure(name, caption, partial(_on_axes, _fourfold, compared), {counterpart: _covered(compared)})
    analysed = [own for own in glasses if own["atoms"]]
    if analysed:
        yield Figure(
            "three_rings",
            "Three-membered boron rings of the glass at its final temperature; bars: between replicas.",
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


Place = tuple[str, int, float | None]
"""Glass, atoms and rate of cooling (K/ps): runs alike in all three are replicas."""


def place_of(own: dict[str, Any]) -> Place:
    """Return what a quenched glass is a replica of."""
    return own["glass"], own["atoms"], own["cooling_rate_K_ps"]


def _rate(rate_K_ps: float | None) -> str:
    return "not cooled" if rate_K_ps is None else f"{rate_K_ps:g} K/ps"


def replicas(glasses: list[dict[str, Any]], key: str) -> dict[Place, np.ndarray]:
    """Return the values of the replicas of each glass, cell size and rate, those that have one."""
    found: dict[Place, list[float]] = {}
    for own in glasses:
        if own[key] is not None:
            found.setdefault(place_of(own), []).append(own[key])
    return {place: np.array(values) for place, values in found.items()}


def _bar(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _fourfold(axes: Any, glasses: list[dict[str, Any]]) -> None:
    for (name, atoms, rate), values in replicas(glasses, "fraction_4B").items():
        experiment = TABLE_1[name].experimental_4B
        label = f"{name}, {atoms} atoms, {_rate(rate)}"
        axes.errorbar(experiment, values.mean(), _bar(values), fmt="o", capsize=3, label=label)
    axes.plot([0, 0.7], [0, 0.7], color="black", linewidth=0.8)
    axes.set(
        xlabel="fourfold boron, experiment (NMR)", ylabel="fourfold boron, simulated", xlim=(0, 0.7), ylim=(0, 0.7)
    )
    axes.legend(fontsize="small")


def _three_rings(axes: Any, glasses: list[dict[str, Any]]) -> None:
    found = replicas(glasses, "three_rings")
    means, bars = [values.mean() for values in found.values()], [_bar(values) for values in found.values()]
    axes.bar(range(len(found)), means, yerr=bars, capsize=3)
    labels = [f"{name}\n{atoms} atoms\n{_rate(rate)}" for name, atoms, rate in found]
    axes.set_xticks(range(len(found)), labels, fontsize="small")
    axes.set(ylabel="three-membered boron rings")


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
