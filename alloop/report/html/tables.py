"""The tables of a report's page that tell of the glasses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alloop.report.html.drawing import in_order
from alloop.report.html.figures import covered_glasses
from alloop.report.html.glass_figures import compared_glasses, fitted_lags, transport_covered
from alloop.report.html.relaxed import FORCE_FIELD
from alloop.report.html.replicas import Place, Replicas, counted, place_of, replicas, told
from alloop.report.status_text import number


@dataclass(frozen=True)
class PageTable:
    """A table of texts with its caption, and its counterparts in Urata (2022) with how much of each is here."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    counterparts: Mapping[str, str] = field(default_factory=dict)


_PLACE = ("glass", "atoms", "K/ps")


def _place(place: Place) -> tuple[str, str, str]:
    return place[0], str(place[1]), "-" if place[2] is None else f"{place[2]:g}"


def composition_table(glasses: list[dict[str, Any]]) -> PageTable:
    """What the quenched glasses are made of, and what experiment knows of them; a row per glass."""
    by_name = {own["glass"]: own for own in glasses}
    rows = [
        (
            name,
            *(f"{100 * by_name[name]['mole_fractions'].get(oxide, 0.0):g}" for oxide in ("SiO2", "B2O3", "Li2O")),
            *(number(by_name[name][ratio], 2) for ratio in ("K", "R")),
            _percent(by_name[name]["experimental_4B"]),
            number(by_name[name]["experimental_density_g_cm3"], 2),
        )
        for name in in_order(by_name)
    ]
    ratios = ("[SiO₂]/[B₂O₃]", "[Li₂O]/[B₂O₃]")
    columns = ("glass", "SiO₂ %", "B₂O₃ %", "Li₂O %", *ratios, "4B exp. %", "density exp. g/cm³")
    caption = "The glasses in mole percent, with fourfold boron (NMR) and density by experiment."
    measured = [name for name, own in by_name.items() if own["experimental_4B"] is not None]
    return PageTable(caption, columns, rows, {"Table 1": covered_glasses(measured)} if rows else {})


def _percent(share: float | None) -> str:
    return number(None if share is None else 100 * share, 1)


def glass_table(glasses: list[dict[str, Any]]) -> PageTable:
    """What the quenched glasses show, by glass, cell size and rate of cooling."""
    keys = ("fraction_4B", "fraction_4B_at_minimum", "fraction_5Si", "three_rings", "fraction_boroxol")
    values = {key: replicas(glasses, key) for key in keys}
    density = replicas(glasses, "density_g_cm3")
    rows = []
    for place in dict.fromkeys(map(place_of, glasses)):
        runs = [own for own in glasses if place_of(own) == place]
        rows.append(
            (
                *_place(place),
                counted(runs),
                told(density.get(place), digits=3),
                number(runs[0]["experimental_density_g_cm3"], 2),
                _percent(runs[0]["experimental_4B"]),
                *(told(values[key].get(place), 1 if key == "three_rings" else 100) for key in keys),
            )
        )
    columns = (
        "replicas",
        "density g/cm³",
        "density exp.",
        "4B exp. %",
        "4B %",
        "4B + Emin %",
        "5Si %",
        "3-rings of B",
        "B in boroxol %",
    )
    caption = (
        "The quenched glasses over their analysed end, beside density and fourfold boron (NMR) of experiment; Emin: "
        "after minimising the energy with the potential."
    )
    return PageTable(caption, (*_PLACE, *columns), rows)


def watch_table(rows: list[dict[str, Any]]) -> PageTable:
    """What the watch on the melt-quenches saw, run by run; rows: those of the glasses in the status."""

    def melting(found: dict[str, Any] | None) -> str:
        return "-" if not found else f"{found['temperature_K']:g} ({found['known']})"

    told_rows = [
        (
            row["run"],
            row["status"],
            melting(row["melting"]),
            number(row["max_force_deviation_eV_A"], 2),
            _percent(row["records_above_trust_high"]),
            ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in row["events"].items() if count) or "none",
        )
        for row in rows
    ]
    columns = ("run", "status", "melts at, K", "largest deviation eV/Å", "beyond trust %", "records with events")
    caption = (
        "The watch on the melt-quenches, over all stages that models drive: the largest force deviation of the "
        "ensemble, the share of records beyond the upper trust level, and how many records showed each event."
    )
    return PageTable(caption, columns, told_rows)


def single_runs_table(glasses: list[dict[str, Any]]) -> PageTable:
    """What every run shows by itself."""
    rows = [
        (
            own["run"],
            str(own["driven_by"]),
            *("-" if own[key] is None else f"{100 * own[key]:.1f}" for key in ("fraction_4B", "fraction_5Si")),
            "-" if own["three_rings"] is None else f"{own['three_rings']:.1f}",
        )
        for own in glasses
    ]
    return PageTable("Run by run.", ("run", "model", "4B %", "5Si %", "3-rings of B"), rows)


def probed_table(relaxed: list[dict[str, Any]]) -> PageTable:
    """What the last probe's glasses show before and after relaxing with the labeler."""

    def pair(record: dict[str, Any], key: str, factor: float, digits: int) -> str:
        values = (record[side][key] for side in ("before", "after"))
        return " → ".join("-" if value is None else f"{factor * value:.{digits}f}" for value in values)

    rows = [
        (
            record["run"],
            *(pair(record, key, 100, 1) for key in ("fraction_4B", "fraction_5Si")),
            pair(record, "three_rings", 1, 0),
        )
        for record in relaxed
    ]
    columns = ("run", "4B %", "5Si %", "3-rings of B")
    rates = sorted({own["cooling_rate_K_ps"] for own in relaxed if own["cooling_rate_K_ps"] is not None})
    cooled = f", cooled at {', '.join(f'{rate:g}' for rate in rates)} K/ps" if rates else ""
    caption = (
        f"Short quenches of the last ensemble before it was judged (stop.probe{cooled}), not the melt-quenches above: "
        "before → after relaxing with the labeler (stop.relax)."
    )
    extent = f"{covered_glasses(record['glass'] for record in relaxed)}, of short quenches (stop.probe{cooled})"
    return PageTable(caption, columns, rows, {"Fig. 2b": extent})


_CHANGES = (("fraction_4B", "4B %", 100), ("fraction_5Si", "5Si %", 100), ("three_rings", "3-rings of B", 1))


def relaxed_table(relaxed: list[dict[str, Any]], experimental_4B: Mapping[str, float | None]) -> PageTable:
    """What the quenched glasses show before and after relaxing, beside experiment by glass.

    relaxed: the records of what the models made.
    """
    seen = {
        (key, side): replicas(relaxed, side, key) for key, _, _ in _CHANGES for side in ("before", "after", "change")
    }
    rows = []
    for place in dict.fromkeys(map(place_of, relaxed)):
        cells = [str(sum(place_of(own) == place for own in relaxed)), _percent(experimental_4B.get(place[0]))]
        for key, _, factor in _CHANGES:
            before, after, change = (seen[key, side].get(place) for side in ("before", "after", "change"))
            cells += [f"{told(before, factor)} → {told(after, factor)}", _signed(change, factor)]
        rows.append((*_place(place), *cells))
    columns = (*_PLACE, "relaxed", "4B exp. %", *(name for _, title, _ in _CHANGES for name in (title, "change")))
    caption = (
        "The quenched glasses, at the models' energy minimum if there is one, else one frame at their final "
        "temperature, before → after relaxing with the labeler at fixed cell (quench.relax), beside fourfold boron by "
        "experiment (NMR); changes and their errors are of pairs."
    )
    there = {"Fig. 2b": f"{covered_glasses(row[0] for row in rows)}, of the melt-quenches"} if rows else {}
    return PageTable(caption, columns, rows, there)


def _signed(own: Replicas | None, factor: float) -> str:
    text = told(own, factor)
    return text if own is None or text.startswith("-") else f"+{text}"


def relaxation_text(relaxed: Sequence[dict[str, Any]]) -> str:
    """Say how many structures were relaxed, and why others were not."""
    counts = Counter(own["status"] for own in relaxed)
    others = "".join(f", {count} {status}" for status, count in counts.items() if status != "done")
    reasons = "".join(f"; {own['run']}: {own['reason']}" for own in relaxed if own["reason"])
    return f"Of {len(relaxed)} glasses to relax with the labeler {counts['done']} were{others}{reasons}."


def energy_table(energies: list[dict[str, Any]]) -> PageTable:
    """Energies by the labeler of what models and force fields made, as made and as relaxed."""
    rows = []
    for glass, atoms, made_by in dict.fromkeys((own["glass"], own["atoms"], own["made_by"]) for own in energies):
        alike = [own for own in energies if (own["glass"], own["atoms"], own["made_by"]) == (glass, atoms, made_by)]
        place = place_of(alike[0])
        sides = [replicas((own for own in alike if own["relaxed"] == relaxed), "energy_eV_atom") for relaxed in (0, 1)]
        told_sides = [told(side.get(place), digits=4) for side in sides]
        structures = len({own["run"] for own in alike})
        temperatures = {"Emin" if own["temperature_K"] is None else f"{own['temperature_K']:.0f}" for own in alike}
        rows.append((glass, str(atoms), made_by, ", ".join(sorted(temperatures)), str(structures), *told_sides))
    columns = ("glass", "atoms", "made by", "K", "structures", "as made, eV/atom", "relaxed, eV/atom")
    caption = (
        "Energies of the glasses by the labeler, as made (Emin: at the minimum of the models; else one frame at the "
        f"temperature told, whose motion is in it) and relaxed at fixed cell. {_beside(energies)}"
    )
    return PageTable(caption, columns, rows, compared_glasses(energies))


def _beside(energies: Iterable[dict[str, Any]]) -> str:
    classical = [own for own in energies if own["driver"] == FORCE_FIELD]
    if not classical:
        return "There is no glass of a force field to stand beside them."
    if any(own["relaxed"] for own in classical):
        return "Force fields made what the melt-quenches began with."
    return "Glasses of force fields are the bootstrap's; mind that they cooled at another rate."


def transport_table(found: list[dict[str, Any]]) -> PageTable:
    """Diffusion of lithium, a row per glass and cell size."""

    def interval(values: dict[str, float | None]) -> str:
        if "sd_of_branches" in values:
            return f"{values['value']:.3g} (sd {values['sd_of_branches']:.2g})"
        low, high = ("?" if values[end] is None else f"{values[end]:.2g}" for end in ("low_95", "high_95"))
        return f"{values['value']:.3g} ({low} to {high})"

    rows = [
        (
            own["glass"],
            str(own["atoms"]),
            "-" if own["li2o"] is None else f"{100 * own['li2o']:.0f}",
            f"{own['temperature_K']:g}",
            _runs_of_melts(own["diffusion"]["replicas"], own["melts"]),
            ", ".join(f"{rate:g}" for rate in own["cooling_rates_K_ps"]) or "-",
            f"{fitted_lags(own['diffusion'])} of {own['stage_ps']:g}",
            *(
                interval(own["diffusion"][key])
                for key in ("D_cm2_s", "number_density_times_D_1_cm_s", "conductivity_S_cm")
            ),
        )
        for own in found
    ]
    columns = ("glass", "atoms", "Li₂O %", "K", "runs", "K/ps", "lags, ps", "D cm²/s", "C·D 1/(cm s)", "σ S/cm")
    caption = (
        "Lithium in the stage transport: D from the line through its mean squared displacement relative to the "
        "network, number density times D, and the Nernst-Einstein conductivity (Haven ratio 1). In brackets the 95 % "
        "interval: of several melts from the scatter between them or, if wider, between the models that drove them; of "
        "one run from the scatter between its atoms; several branches of one melt have their standard deviation, sd."
    )
    return PageTable(caption, columns, rows, transport_covered(found))


def _runs_of_melts(runs: int, melts: int) -> str:
    return str(runs) if runs == melts else f"{runs} branches of {'one melt' if melts == 1 else f'{melts} melts'}"
