"""The numbers and the table of `glasses`: means of replicas with their intervals, first peaks of g(r), and text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.ndimage import gaussian_filter1d
from scipy.stats import t

PEAKS_BELOW_A = {"B-O": 1.9, "Si-O": 2.2, "O-O": 3.3, "Li-O": 2.8}
"""Pairs whose first peak is looked for, and the distance below which it lies."""
BONDS_A = {"B-O": "1.357-1.375; 1.481", "Si-O": "1.645", "Li-O": "2.054"}
"""Bond lengths of crystals: threefold boron in B2O3-I; fourfold boron, silicon and lithium in LiBSiO4."""
QUANTITIES = {"4B": "4B (of B)", "5Si": "5Si (of Si)", "three_rings_per_B": "three-membered rings per B"}
"""What is compared before and after relaxing, with its title in the table."""
_SMOOTHING_A = 0.04


def interval(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean and half the 95 % interval (Student's t, n - 1 degrees of freedom) of replicas, and their values.

    Missing values are left out; mean is None without any, half95 below two. Equal replicas have an interval of 0, which
    tells how coarse a small cell is and not how certain the mean.
    """
    found = [float(value) for value in values if value is not None]
    half = None
    if len(found) > 1:
        half = float(t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / math.sqrt(len(found)))
    return {"mean": float(np.mean(found)) if found else None, "half95": half, "values": found}


def seen_numbers(seen: dict[str, Any], boron: int) -> dict[str, float | None]:
    """Return the quantities of what a relaxation's record says of a structure with so many boron atoms."""
    rings = seen["three_rings"] / boron if boron else None
    return {"4B": seen["fraction_4B"], "5Si": seen["fraction_5Si"], "three_rings_per_B": rings}


def run_numbers(row: dict[str, Any], boron: int) -> dict[str, float | None]:
    """Return the quantities of a row of `glass_table`, means over the analysed frames of a run at 300 K."""
    rings = row["three_membered_rings_B"]
    per_boron = rings / boron if boron and rings is not None else None
    return {"4B": row["fraction_4B"], "5Si": row["fraction_5Si"], "three_rings_per_B": per_boron}


def intervals(rows: Sequence[dict[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Return the interval of every quantity over the replicas."""
    return {name: interval([row[name] for row in rows]) for name in QUANTITIES}


def relaxed_numbers(relaxed: Sequence[dict[str, Any]], boron: int) -> dict[str, Any]:
    """Return the quantities before and after relaxing and their change, paired by replica, and how far it went.

    relaxed: the records (`relaxed.json`) of a glass; empty if none was relaxed.
    """
    before = [seen_numbers(one["before"], boron) for one in relaxed]
    after = [seen_numbers(one["after"], boron) for one in relaxed]
    change = [
        {name: _difference(new[name], old[name]) for name in QUANTITIES} for old, new in zip(before, after, strict=True)
    ]
    gains = [
        (one["before"]["energy_eV"] - one["after"]["energy_eV"]) / len(one["structure"]["symbols"]) for one in relaxed
    ]
    return {
        "before": intervals(before),
        "after": intervals(after),
        "change": intervals(change),
        "energy_gain_eV_atom": interval(gains),
        "rms_displacement_A": interval([one["rms_displacement_A"] for one in relaxed]),
        "steps": [one["relaxation"]["steps"] for one in relaxed],
        "relaxed_from": [one["relaxed_from"] for one in relaxed],
    }


def _difference(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old


def first_peak_A(r_A: NDArray[np.float64], g: NDArray[np.float64], below_A: float) -> float | None:
    """Return where the first peak of g(r) is, smoothed a little and refined by a parabola.

    r_A: evenly spaced centres of bins (n,); g: (n,). None if g is zero below that distance, or only rises there.
    """
    smooth = gaussian_filter1d(g, _SMOOTHING_A / (r_A[1] - r_A[0]))
    inside = int(np.searchsorted(r_A, below_A))
    top = int(np.argmax(smooth[:inside]))
    if smooth[top] <= 0 or not 0 < top < inside - 1:
        return None
    left, middle, right = smooth[top - 1 : top + 2]
    curvature = left - 2 * middle + right
    shift = 0.5 * (left - right) / curvature if curvature else 0.0
    return float(r_A[top] + shift * (r_A[1] - r_A[0]))


# ---------------------------------------------------------------------------------------- text


def told(found: dict[str, Any] | None, digits: int = 3) -> str:
    """Return an interval as text: mean and half of the 95 % interval; a dash if nothing is known."""
    if found is None or found["mean"] is None:
        return "-"
    count = len(found["values"])
    half = f" ± {found['half95']:.{digits}f} ({count})" if found["half95"] is not None else " (1)"
    return f"{found['mean']:.{digits}f}{half}"


def glasses_table(record: dict[str, Any]) -> Table:
    """Return the table of a record: a row per quantity, a column per glass."""
    glasses = record["glasses"]
    table = Table("", *glasses, title="glasses: mean ± half of the 95 % interval between replicas (replicas)")

    def row(name: str, value: Callable[[dict[str, Any]], Any]) -> None:
        table.add_row(name, *("-" if (cell := value(glass)) is None else str(cell) for glass in glasses.values()))

    row("atoms (B, Si)", lambda one: f"{one['atoms']} ({one['boron']}, {one['silicon']})")
    row("4B, experiment", lambda one: f"{one['experimental_4B']:.3f}")
    for name, title in QUANTITIES.items():
        table.add_section()
        row(f"{title}, 300 K", lambda one, name=name: told(one["at_300K"][name]))
        for when in ("before", "after", "change"):
            text = {"before": "before relaxing", "after": "relaxed by the labeler", "change": "change"}[when]
            row(f"  {text}", lambda one, name=name, when=when: told(one["relaxing"][when][name]))
    row("relaxed from", lambda one: ", ".join(sorted(set(one["relaxing"]["relaxed_from"]))) or None)
    table.add_section()
    for pair in PEAKS_BELOW_A:
        row(f"first peak {pair} (Å)", lambda one, pair=pair: told(one["first_peaks_A"][pair]))
        row("  in crystals", lambda _, pair=pair: BONDS_A.get(pair))
    table.add_section()
    row("largest deviation (eV/Å)", lambda one: told(interval(one["max_force_deviation_eV_A"]), 2))
    row("records beyond trust", lambda one: told(interval(one["records_above_trust_high"])))
    row("quenches lost", lambda one: f"{len(one['quenches_lost'])} of {one['quenches']}")
    row("not relaxed", lambda one: f"{len(one['not_relaxed'])} of {one['to_relax']}")
    for name, value in melt_cells().items():
        row(name, lambda one, value=value: one["melt"] and value(one["melt"]))
    return table


def melt_cells() -> dict[str, Callable[[dict[str, Any]], str]]:
    """Return what the table says of a run at 2000 K, by name of the row."""
    return {
        "overlap frames, 2000 K": lambda melt: f"{melt['overlap_frames']} of {melt['frames']}",
        "5Si (of Si), 2000 K": lambda melt: told(interval([melt["share_5Si"]])),
        "run at 2000 K": lambda melt: f"lost: {melt['lost']}" if melt["lost"] else "whole",
    }


def lines(record: dict[str, Any]) -> list[str]:
    """Return what the table does not say: the campaign's end, its errors, what went wrong, and how long all took."""
    campaign, found = record["campaign"], []
    end = "converged" if campaign["converged"] else "NOT converged"
    found.append(f"campaign: {end}; {campaign['reason']}")
    labels = campaign["labels"]
    found.append(
        f"labels: {labels['done']} ({labels['training']} for training, {labels['held_out']} held out), "
        f"{labels['quarantined']} given up"
    )
    for row in campaign["held_out"]:
        error = row["force_rmse_eV_A"]
        found.append(f"ensemble {row['ensemble']}: force RMSE {error:.3f} eV/Å on {row['labels']} held-out labels")
    for name, one in record["glasses"].items():
        found += [f"{name}: quench lost: {reason}" for reason in one["quenches_lost"]]
        found += [f"{name}: {reason}" for reason in one["not_relaxed"]]
        if differs(one):
            told_4B = told(one["at_300K"]["4B"])
            found.append(f"{name}: 4B at 300 K is {told_4B}, experiment's {one['experimental_4B']:.3f} is outside")
    seconds = ", ".join(f"{piece} {spent:.0f} s" for piece, spent in record["seconds"].items())
    found.append(f"pieces: {seconds or 'none'}; commit {record['commit']}")
    if record["missing"]:
        found.append(f"still missing: {', '.join(record['missing'])}")
    return found


def differs(one: dict[str, Any]) -> bool:
    """Tell whether experiment's 4B is outside the interval of the replicas at 300 K; False if either is not known."""
    ours, experiment = one["at_300K"]["4B"], one["experimental_4B"]
    if ours["half95"] is None or experiment is None:
        return False
    return bool(abs(ours["mean"] - experiment) > ours["half95"])
