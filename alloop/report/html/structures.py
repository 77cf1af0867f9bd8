"""Structures on a page: small drawings of rings and whole glasses, and the atoms as extxyz to take along."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import ase.io
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from matplotlib.collections import LineCollection
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from alloop.glass.coordination import DEFAULT_CUTOFFS_A
from alloop.report.html.figures import Download, Figure
from alloop.report.html.rings import BREAKS, FROM_FOUR, FROM_THREE, LASTS, SHOWN_PER_KIND

Array = NDArray[np.float64]

COLOURS = {"B": "#e58bb0", "Si": "#e3c04b", "O": "#d0312d", "Li": "#7a5230"}
SIZES = {"B": 1.0, "Si": 1.2, "O": 0.8, "Li": 0.7}
KINDS = {
    FROM_FOUR: ("Fig. 7a", "A three-membered ring forms from one of four boron atoms"),
    FROM_THREE: ("Fig. 7b", "A three-membered ring forms from boron atoms that were in no ring of four"),
    BREAKS: ("Fig. 7c", "A three-membered ring breaks"),
    LASTS: ("Fig. 7d", "The three-membered ring that lasts longest to the end of the cooling"),
}
"""Counterpart in Urata (2022), and the beginning of the caption, by kind of what is shown."""
GLASSES_DRAWN = 4
"""As many glasses are drawn as in Urata (2022), Fig. 4b-e."""


def ring_figures(glasses: Iterable[dict[str, Any]]) -> Iterator[Figure]:
    """Yield the longest-lived rings of each kind over all runs, with their structures to take along."""
    seen = [(own["run"], shown) for own in glasses if own["cooling"] for shown in own["cooling"]["shown"]]
    for kind, (counterpart, told) in KINDS.items():
        chosen = sorted((one for one in seen if one[1]["kind"] == kind), key=lambda one: -one[1]["lifetime_ps"])
        for number, (run, shown) in enumerate(chosen[:SHOWN_PER_KIND], start=1):
            name = f"ring_{kind}_{number}"
            yield Figure(
                name,
                f"{told}: {run}, {_told(shown)}",
                partial(_draw_side_by_side, shown["structures"], whole=0 if kind in (BREAKS, LASTS) else -1),
                {counterpart: f"{min(len(chosen), SHOWN_PER_KIND)} shown"},
                (max(6.4, 3.2 * len(shown["structures"])), 3.2),
                (Download(f"{name}.extxyz", as_extxyz(map(_atoms_of, shown["structures"]))),),
            )


def _told(shown: dict[str, Any]) -> str:
    first, last = shown["structures"][0], shown["structures"][-1]
    lifetime = f"{'' if shown['complete'] else 'at least '}{shown['lifetime_ps']:.1f} ps"
    when = f"{first['temperature_K']:.0f} K to {last['temperature_K']:.0f} K; it existed for {lifetime}."
    if not shown["boron"]:
        return when
    before, after = (", ".join(map(str, numbers)) for numbers in shown["boron"])
    return f"{when} Its boron has {before} oxygen neighbours before and {after} after."


def glass_drawings(glasses: Iterable[dict[str, Any]]) -> Iterator[Figure]:
    """Yield the structure with the most three-membered rings of up to four glasses, those with most rings first."""
    best: dict[str, dict[str, Any]] = {}
    for own in glasses:
        rings = len(own["structure"]["rings_A"]) if own["structure"] else 0
        if rings and rings > len(best.get(own["glass"], {"structure": {"rings_A": ()}})["structure"]["rings_A"]):
            best[own["glass"]] = own
    chosen = sorted(best.values(), key=lambda own: -len(own["structure"]["rings_A"]))[:GLASSES_DRAWN]
    for own in chosen:
        name, structure = f"structure_{own['run']}", own["structure"]
        atoms = Atoms(structure["symbols"], positions=structure["positions_A"], cell=structure["cell_A"], pbc=True)
        yield Figure(
            name,
            f"The last frame of {own['run']} along the cell's third vector, its {len(structure['rings_A'])} "
            "three-membered boron rings in bold. Si yellow, B pink, O red, Li brown.",
            partial(_draw_glass, atoms, structure["rings_A"]),
            {"Fig. 4b-e": f"{len(chosen)} of {GLASSES_DRAWN} glasses"},
            (5.0, 5.0),
            (Download(f"{name}.extxyz", as_extxyz([atoms])),),
        )


def as_extxyz(frames: Iterable[Atoms]) -> str:
    """Return structures as an extxyz file in a data URI."""
    text = io.StringIO()
    ase.io.write(text, list(frames), format="extxyz")
    return "data:chemical/x-xyz;base64," + base64.b64encode(text.getvalue().encode()).decode()


def _atoms_of(cluster: dict[str, Any]) -> Atoms:
    atoms = Atoms(cluster["symbols"], positions=cluster["positions_A"])
    for name in ("atom_id", "in_ring"):
        atoms.arrays[name] = np.array(cluster[name])
    atoms.info |= {name: cluster[name] for name in ("temperature_K", "time_ps")}
    return atoms


def _draw_side_by_side(clusters: list[dict[str, Any]], figure: plt.Figure, *, whole: int) -> None:
    """Draw clusters around a ring in the plane that its atoms have in the cluster where it is whole."""
    many = [_atoms_of(cluster) for cluster in clusters]
    ring = many[whole].positions[many[whole].arrays["in_ring"] == 1]
    view: Array = np.linalg.svd(ring - ring.mean(axis=0))[2]
    reach = max(np.abs(atoms.positions @ view.T).max() for atoms in many) + 0.6
    for axes, atoms, cluster in zip(np.atleast_1d(figure.subplots(1, len(many))), many, clusters, strict=True):
        in_ring = atoms.arrays["in_ring"] == 1
        _draw_atoms(axes, atoms, atoms.positions @ view.T, in_ring, 260)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        axes.set_title(f"{cluster['temperature_K']:.0f} K, {cluster['time_ps']:.2f} ps", fontsize="small")


def _draw_glass(atoms: Atoms, rings_A: list[list[list[float]]], figure: plt.Figure) -> None:
    axes = figure.subplots()
    cell = atoms.cell.array
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) @ cell[:2]
    axes.plot(corners[:, 0], corners[:, 1], color="grey", linewidth=0.8)
    _draw_atoms(axes, atoms, atoms.positions, np.zeros(len(atoms), dtype=bool), 3e4 / len(atoms))
    closed = [np.array([*ring, ring[0]])[:, :2] for ring in rings_A]
    axes.add_collection(LineCollection(closed, colors="black", linewidths=3, zorder=3))
    axes.autoscale_view()


def _draw_atoms(axes: Any, atoms: Atoms, seen_A: Array, bold: NDArray[np.bool_], size: float) -> None:
    """Draw atoms as seen (n, 3), depth last, and the bonds of formers, heavy between atoms that are `bold` (n,)."""
    symbols = np.array(atoms.get_chemical_symbols())
    reach = np.zeros((len(atoms), len(atoms)))
    for former in ("B", "Si"):
        pairs = (symbols == former)[:, None] & (symbols == "O")
        reach[pairs] = DEFAULT_CUTOFFS_A[f"{former}-O"]
    one, other = np.nonzero(cdist(atoms.positions, atoms.positions) < reach)
    width = np.where(bold[one] & bold[other], 5.0, 1.2)
    lines = np.stack([seen_A[one, :2], seen_A[other, :2]], axis=1)
    axes.add_collection(LineCollection(list(lines), colors="#444444", linewidths=width, zorder=1))
    order = np.argsort(seen_A[:, 2])
    colours = [COLOURS.get(symbol, "grey") for symbol in symbols[order]]
    sizes = size * np.array([SIZES.get(symbol, 1.0) for symbol in symbols[order]])
    if bold.any():
        sizes *= np.where(bold[order], 1.0, 0.4)
    axes.scatter(*seen_A[order, :2].T, s=sizes, c=colours, edgecolors="black", linewidths=0.5, zorder=2)
    axes.set_aspect("equal")
    axes.set_axis_off()
