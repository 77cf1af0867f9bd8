"""Figures of as many glasses as the literature has: no label lies on another, no legend on the data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase import Atoms
from browser_kit import browse
from matplotlib.legend import Legend
from matplotlib.transforms import Bbox
from test_html_page import EMPTY, errors, glass

from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.report.html.figures import Figure, error_figures
from alloop.report.html.glass_figures import (
    _relative_meV_atom,
    distribution_figures,
    glass_figures,
    over_temperature,
    relaxed_figures,
    transport_figures,
)
from alloop.report.html.page import render
from alloop.report.html.rings import BREAKS, FROM_FOUR, FROM_THREE, LASTS
from alloop.structure import to_record

RATES, REPLICAS = (10.0, 2.0), 3
NAMES = ("4B_small", "4B_large", "three_rings", "rings_cooling", "survival", "relaxed", "energies", "transport")
NAMES += ("energy_parity", "force_errors")


def cooling(rng: np.random.Generator, rate: float, atoms: int) -> dict[str, Any]:
    temperatures_K = np.repeat(np.linspace(1800, 300, 150), 1 if rate > 5 else 2)
    share = 1 / (1 + np.exp((temperatures_K - 1000) / 150))
    rings = rng.poisson(atoms / 30 * share).tolist()
    survival = np.clip(share + rng.normal(0, 0.02, len(share)), 0, 1).tolist()
    times_ps = list(range(len(temperatures_K)))
    return {
        "times_ps": times_ps,
        "temperatures_K": temperatures_K.tolist(),
        "three_rings": rings,
        "survival": survival,
        "shown": [],
    }


def boroxol(farther: float, temperature_K: float, time_ps: float) -> dict[str, Any]:
    """A plane ring of three B and three O, its last oxygen that share of the radius farther out."""
    angles = np.arange(6) * np.pi / 3
    positions_A = 1.37 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    positions_A[5] *= 1 + farther
    made = {"symbols": ["B", "O"] * 3, "positions_A": positions_A.tolist(), "atom_id": list(range(6))}
    return made | {"in_ring": [1] * 6, "temperature_K": temperature_K, "time_ps": time_ps}


def shown() -> list[dict[str, Any]]:
    """One ring of each kind that a page shows."""
    whole, open_ = boroxol(0.0, 900.0, 40.0), boroxol(1.0, 950.0, 35.0)
    both = {FROM_FOUR: [open_, whole], FROM_THREE: [open_, whole], BREAKS: [whole, open_], LASTS: [whole, whole, whole]}
    boron = {FROM_FOUR: [[3, 3, 4], [3, 3, 3]], FROM_THREE: [[3, 3, 3], [3, 3, 3]], BREAKS: [[3, 3, 3], [3, 3, 4]]}
    return [
        {"kind": kind, "lifetime_ps": 7.0, "complete": kind != LASTS, "boron": boron.get(kind, []), "structures": own}
        for kind, own in both.items()
    ]


def runs() -> list[dict[str, Any]]:
    """Eleven glasses of small and large cells, cooled at two rates, three replicas of each."""
    rng = np.random.default_rng(0)
    found = []
    for name, known in TABLE_1.items():
        for wanted in (300, 1000):
            atoms = sum(stoichiometric_counts(known, wanted).values())
            for rate in RATES:
                for replica in range(REPLICAS):
                    four = abs(known.experimental_4B + rng.normal(-0.03, 0.02))
                    more = {"fraction_4B": four, "fraction_4B_at_minimum": four + 0.02, "three_rings": rng.poisson(9)}
                    more |= {"cooling_rate_K_ps": rate, "driven_by": replica, "cooling": cooling(rng, rate, atoms)}
                    found.append(glass(name, atoms, run=f"{name}.n{atoms}.{rate:g}.r{replica}", **more))
    return found


def report() -> dict[str, Any]:
    rng, glasses = np.random.default_rng(1), runs()
    glasses[0]["cooling"]["shown"] = shown()
    ring = boroxol(0.0, 300.0, 0.0)
    made = Atoms(ring["symbols"], positions=ring["positions_A"], cell=[8, 8, 8], pbc=True)
    glasses[0]["structure"] = to_record(made) | {"rings_A": [ring["positions_A"]]}
    glasses[0]["g"] = {"r_A": [0.1, 0.2]} | {f"{k}-O": [0.0, 1.0] for k in ("B", "Li", "O", "Si")}
    keys = ("run", "glass", "atoms", "cooling_rate_K_ps", "driven_by")
    relaxed, energies = [], []
    for own in glasses:
        place = {key: own[key] for key in keys} | {"driver": "models", "status": "done", "reason": None}
        before = {"fraction_4B": own["fraction_4B"], "fraction_5Si": 0.02, "three_rings": own["three_rings"]}
        change = {key: 0.02 * value for key, value in before.items()}
        after = {key: before[key] + change[key] for key in before}
        relaxed.append(place | {"before": before, "after": after, "change": change})
        made = place | {"made_by": f"models, {own['cooling_rate_K_ps']:g} K/ps", "relaxed": False}
        made |= {"temperature_K": None}
        energies.append(made | {"energy_eV_atom": rng.normal(-7, 0.004)})
        energies.append(made | {"relaxed": True, "energy_eV_atom": rng.normal(-7.1, 0.004)})
        classical = {"made_by": "teter, 1 K/ps", "driver": "force field", "cooling_rate_K_ps": 1.0, "driven_by": 0}
        energies.append(made | classical | {"energy_eV_atom": rng.normal(-6.98, 0.004)})
    moved = []
    for name, known in TABLE_1.items():
        value = rng.uniform(1, 9)
        interval = {"value": value, "low_95": 0.7 * value, "high_95": 1.3 * value}
        keyed = dict.fromkeys(("D_cm2_s", "number_density_times_D_1_cm_s", "conductivity_S_cm"), interval)
        own = {"glass": name, "atoms": 1000, "li2o": known.mole_fractions["Li2O"], "temperature_K": 500.0}
        own |= {"melts": 4, "cooling_rates_K_ps": [10.0], "stage_ps": 300.0}
        moved.append(own | {"diffusion": keyed | {"window_ps": [50, 150], "replicas": 4}})
    crystals = ["B2O3-I", "Li2O", "Li2Si2O5", "LiBSiO4", "quartz"]
    transport = {"asked": 66, "runs": [], "glasses": moved}
    measured = errors(dict.fromkeys([*TABLE_1, *crystals], 12))
    return EMPTY | {
        "glasses": glasses,
        "relaxed_glasses": relaxed,
        "energies": energies,
        "transport": transport,
        "errors": measured,
    }


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    made, found = (error_figures, glass_figures, relaxed_figures, transport_figures, distribution_figures), report()
    return {figure.name: figure for draw in made for figure in draw(found)}


def laid_out(own: Figure) -> Iterator[plt.Figure]:
    figure = plt.figure(figsize=own.size_in, constrained_layout=True)
    own.draw(figure)
    figure.canvas.draw()
    yield figure
    plt.close(figure)


def overlap(one: Bbox, other: Bbox) -> bool:
    shared = Bbox.intersection(one, other)
    return shared is not None and shared.width > 0.5 and shared.height > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_apart_and_legends_off_the_data(figures: dict[str, Figure], name: str) -> None:
    for figure in laid_out(figures[name]):
        legends = [*figure.legends, *figure.findobj(Legend)]
        assert legends
        panels = [axes for axes in figure.axes if axes.axison]
        for axes in panels:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                boxes = [tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()]
                assert not any(overlap(*pair) for pair in combinations(boxes, 2)), axes.get_title()
        for legend in legends:
            box = legend.get_window_extent()
            assert not any(overlap(box, text.get_window_extent()) for text in figure.texts), "it covers a title"
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, "it runs out of the figure"
            assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, "it runs out of the figure"
            assert not any(overlap(box, axes.get_tightbbox()) for axes in panels), "it covers data or labels"
        smallest = min(axes.get_window_extent().height for axes in panels) / figure.dpi
        assert smallest > 1.0, "what is shown has room"


def test_a_glass_and_rate_are_told_apart_by_few_entries(figures: dict[str, Figure]) -> None:
    for figure in laid_out(figures["4B_small"]):
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels[:11] == list(TABLE_1) and len(labels) == 11 + len(RATES) + 1
        assert labels[11:] == ["about 300 atoms, 2 K/ps", "about 300 atoms, 10 K/ps", "at the minimum (Emin)"]


def test_rings_while_cooling_have_a_panel_for_each_glass(figures: dict[str, Figure]) -> None:
    for figure in laid_out(figures["rings_cooling"]):
        panels = [axes for axes in figure.axes if axes.axison]
        assert [axes.get_title() for axes in panels] == list(TABLE_1)
        assert {len(axes.lines) for axes in panels} == {len(RATES) * 2}, "one line for all replicas"


def test_glasses_of_equal_lithium_stand_apart(figures: dict[str, Figure]) -> None:
    for figure in laid_out(figures["transport"]):
        for axes in figure.axes:
            assert [label.get_text() for label in axes.get_xticklabels()] == list(TABLE_1)
            assert np.array(axes.containers[0].lines[0].get_xdata()).tolist() == list(range(11))


def test_energies_have_the_error_of_the_table_beside_them() -> None:
    """Two models that disagree drove two replicas each: their four values are no four independent ones."""
    made = {"glass": "g", "atoms": 300, "cooling_rate_K_ps": 10.0, "driver": "models", "relaxed": False}
    made |= {"made_by": "models, 10 K/ps"}
    own = [made | {"run": f"g.n300.r{k}", "driven_by": k % 2, "energy_eV_atom": -7 + 0.002 * (k % 2)} for k in range(4)]
    (figure,) = relaxed_figures({"relaxed_glasses": [], "energies": own})
    for drawn in laid_out(figure):
        (bar,) = drawn.axes[0].containers[0].lines[2][0].get_segments()
        assert bar[1, 1] - bar[0, 1] == pytest.approx(2 * 1.0), "meV/atom"


def test_energies_of_two_cell_sizes_are_of_as_many_melts() -> None:
    """Where the models' cell was too large to be made classically, a force field's glasses of all sizes are shown."""
    made = {"glass": "g", "cooling_rate_K_ps": 10.0, "relaxed": False, "driven_by": 0}
    models = [
        made | {"run": "g.n1000.r0", "atoms": 1000, "driver": "models", "made_by": "models", "energy_eV_atom": -7.0}
    ]
    field = made | {"driver": "force field", "made_by": "teter"}
    field_meV = {(100, 0): 0.0, (100, 1): 1.0, (300, 0): 2.0, (300, 1): 3.0}
    own = [
        field | {"run": f"g.n{n}.r{r}", "atoms": n, "energy_eV_atom": -7 + e / 1000} for (n, r), e in field_meV.items()
    ]
    found = _relative_meV_atom(models + own, "g", 1000, "teter", relaxed=False)
    assert (
        found is not None
        and len(found.values) == 4
        and found.standard_error == pytest.approx(np.std([0, 1, 2, 3], ddof=1) / 2)
    )


def test_g_of_runs_alike_is_one_figure_of_their_mean() -> None:
    place = {"glass": "g", "atoms": 300, "cooling_rate_K_ps": 10.0}
    runs = [place | {"run": f"g.n300.r{k}", "g": {"r_A": [1.0, 2.0], "B-O": [0.0, 2.0 * k]}} for k in (1, 2)]
    other = runs[0] | {"run": "g.n300.slow.r1", "cooling_rate_K_ps": 2.0}
    figures = list(distribution_figures({"glasses": [*runs, other]}))
    assert len(figures) == 2
    assert "g.n300.r1, g.n300.r2" in figures[0].caption and "mean of 2 runs" in figures[0].caption
    for drawn in laid_out(figures[0]):
        (line,) = drawn.axes[0].get_lines()
        assert line.get_ydata().tolist() == [0.0, 3.0]
        (band,) = drawn.axes[0].collections
        edge = band.get_paths()[0].vertices
        assert {2.0, 4.0} <= set(edge[edge[:, 0] == 2.0, 1].tolist()), "the two runs"
    for drawn in laid_out(figures[1]):
        assert not drawn.axes[0].collections, "one run has no spread"


def test_replicas_held_for_different_times_are_averaged_at_equal_temperature() -> None:
    quick = {"temperatures_K": [1200, 1000, 800, 600], "three_rings": [0, 2, 4, 6]}
    held = {"temperatures_K": [1200, 1000, 1000, 1000, 800, 600], "three_rings": [0, 4, 4, 4, 4, 8]}
    at_K, mean, low, high = over_temperature([quick, held], "three_rings")
    assert at_K.tolist() == [700, 1075]
    assert (low.tolist(), high.tolist()) == ([5, 1], [6, 3]) and mean.tolist() == [5.5, 2]


@pytest.mark.slow
def test_page_of_eleven_glasses_in_a_browser(tmp_path: Path) -> None:
    """Every figure that a campaign through to transport has is drawn, with the counterparts it names."""
    found = report()
    done = {"done": 9, "training": 8, "held_out": 1}
    found["status"] |= {"campaign": "c", "time": "", "level": "x", "labels": done, "converged": True, "reason": ""}
    found["status"]["warnings"] = []
    seen = browse(render(found, lambda _: None), tmp_path)
    assert len(seen["figures"]) == seen["images"] and all(figure["drawn"] for figure in seen["figures"])
    named = {tag for figure in seen["figures"] for tag in figure["tags"]}
    assert {
        "Fig. 1 energy",
        "Fig. 2a",
        "Fig. 2b",
        "Fig. 3",
        "Fig. 4a",
        "Fig. 4b-e",
        "Fig. 5",
        "Fig. 6",
        "Fig. 7a",
        "Fig. 7b",
        "Fig. 7c",
        "Fig. 7d",
        "Fig. 7e",
        "Fig. 8",
    } <= named
    assert seen["tables"] > 11 and not seen["wide"]
