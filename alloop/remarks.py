"""What keeps no campaign from running, but hardly is what is wanted: told by `alloop check` and `alloop plan`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.calibration import LEAST_AUDIT_LABELS
from alloop.decisions.exploration import explored_groups
from alloop.decisions.force_fields import quench_force_field
from alloop.decisions.quenching import quench_sizes
from alloop.label_params import CODES
from alloop.pool_params import BatchPoolParam, pool_of
from alloop.preflight import Problem, uses_of_force_field
from alloop.report.outlook import EDITED
from alloop.selection.calibration import DEFAULT_SETTINGS, needed_scores


def remarks(campaign: Campaign, param: Param) -> list[Problem]:
    """Return all remarks on a configuration that has no problem; the campaign is loaded if it exists."""
    return [
        *_short_audit(param),
        *_never_met(param),
        *_edited_levels(campaign, param),
        *_heating_force_field(param),
        *_small_cells(param),
        *_long_steps(param),
        *_label_runs(param),
    ]


def _edited_levels(campaign: Campaign, param: Param) -> Iterator[Problem]:
    explored = [decision for (kind, _), decision in campaign.state.decisions.items() if kind == "explore"]
    if param.select.trust == "fixed" or not explored:
        return
    newest = max(explored, key=lambda decision: decision["number"])
    start = next(start for start in reversed(campaign.state.starts) if start["number"] <= newest["number"])
    for name in ("trust_low_eV_A", "trust_high_eV_A"):
        now, then = getattr(param.select, name), start["config"]["select"][name]
        if now != then:
            remedy = 'move them by select.error_low_eV_A and error_high_eV_A, or set select.trust to "fixed"'
            found = f"changed from {then:g} to {now:g} eV/A: {EDITED}"
            yield Problem(f"param.json: select.{name}", found, remedy)


def _short_audit(param: Param) -> Iterator[Problem]:
    own, iterations, needed = param.select, param.stop.max_iterations, needed_scores(DEFAULT_SETTINGS.level)
    drawn = own.audit_labels * iterations
    if own.trust == "calibrated" and drawn < needed:
        found = (
            f"{own.audit_labels} random labels in each of at most {iterations} iteration(s) are {drawn}; the map from "
            f"deviation to error needs {needed}, so the trust levels will never follow the error"
        )
        remedy = f'set it to {math.ceil(needed / iterations)} or more, or select.trust to "fixed"'
        yield Problem("param.json: select.audit", found, remedy)
    groups = len(explored_groups(param))
    if param.stop.audit_force_rmse_eV_A is not None and drawn < LEAST_AUDIT_LABELS * groups:
        found = (
            f"{own.audit_labels} random labels in each of at most {iterations} iteration(s) are {drawn}; "
            f"stop.audit_force_rmse_eV_A wants {LEAST_AUDIT_LABELS} in each of {groups} glasses and temperature bands, "
            "so it will never be met"
        )
        least = math.ceil(LEAST_AUDIT_LABELS * groups / iterations)
        yield Problem("param.json: select.audit", found, f"set it well above {least}, or leave the criterion out")


def _never_met(param: Param) -> Iterator[Problem]:
    """Criteria of convergence for which nothing will ever be measured."""
    for section, own in (("bootstrap", param.bootstrap), ("select", param.select)):
        if own.held_out_fraction == 0:
            found = "is 0: without held-out labels their force error is not known, so the campaign never converges"
            yield Problem(f"param.json: {section}.held_out_fraction", found, "give the share to test on, such as 0.2")
    probe, most = param.stop.probe, param.stop.max_iterations
    if probe is not None and probe.iterations > most:
        found = f"compares the glasses of {probe.iterations} ensembles, and stop.max_iterations is {most}: never met"
        yield Problem("param.json: stop.probe", found, f"set stop.probe.iterations to {most} or less, or explore more")


def _heating_force_field(param: Param) -> Iterator[Problem]:
    """BMP-shrm in LAMMPS; its numbers are those of `alloop.glass.bmp.BmpPotential`."""
    names = {f"bootstrap.force_fields[{number}]": name for number, name in enumerate(param.bootstrap.force_fields)}
    if uses_of_force_field(param):
        names["quench.force_field"] = quench_force_field(param)
    for key, name in names.items():
        if name == "bmp-shrm":
            found = (
                "bmp-shrm does not conserve energy, its three-body term breaks off at 3.3 Å: at constant energy it "
                "gains 0.19 eV/atom/ps at 2000 K; thermostatted at a nominal 300 K boron has 410 K and lithium 150 K"
            )
            remedy = "keep it for melts and starting structures; take teter or shik where what is cold counts"
            yield Problem(f"param.json: {key}", found, remedy)


LONGEST_STEP_FS = 2.0
"""A bond between boron and oxygen stretches at about 1400 cm^-1 (E. I. Kamitsos, M. A. Karakassides, G. D. Chryssikos,
J. Phys. Chem. 91, 1073 (1987)), once in 24 fs; a dozen steps of velocity Verlet follow that well."""


def _long_steps(param: Param) -> Iterator[Problem]:
    """Time steps that are long for the fastest bond."""
    for section, own in (("bootstrap", param.bootstrap), ("explore", param.explore), ("quench", param.quench)):
        if own is not None and own.timestep_fs > LONGEST_STEP_FS:
            found = f"is {own.timestep_fs:g} fs; a bond between boron and oxygen stretches once in about 24 fs"
            remedy = f"take {LONGEST_STEP_FS:g} fs or less, or bonds are not followed"
            yield Problem(f"param.json: {section}.timestep_fs", found, remedy)


def _label_runs(param: Param) -> Iterator[Problem]:
    """Settings of the runs of VASP or CP2K that do nothing."""
    label, pool = param.label, param.pools[pool_of(param.pools, "label")]
    if label.labeler not in CODES and label.run.model_fields_set:
        found = f"is for vasp and cp2k; labeler {label.labeler} runs in a process of alloop's own"
        yield Problem("param.json: label.run", found, "leave it out, unless it waits for another label.labeler")
        return
    given, own = "timeout_minutes" in label.run.model_fields_set, label.run.timeout_minutes
    if given and isinstance(pool, BatchPoolParam) and own > pool.walltime_minutes:
        found = f"is {own:g}, and the jobs that label end after {pool.walltime_minutes:g}"
        remedy = "take less, so that a run that hangs is told from one that needs a longer job"
        yield Problem("param.json: label.run.timeout_minutes", found, remedy)


def _small_cells(param: Param) -> Iterator[Problem]:
    """The paper's protocol in cells smaller than the paper's."""
    own = param.quench
    if own is None or own.protocol != "urata2022" or own.n_atoms is not None:
        return
    with contextlib.suppress(ValueError):  # a cell size that cannot be: a problem of its own
        sizes = sorted({size for entry in param.glasses for size in quench_sizes(own, entry)})
        found = (
            f"is not given, so urata2022 quenches the glasses' own cells of {', '.join(map(str, sizes))} atoms; "
            "the paper has about 300 and about 1000"
        )
        yield Problem("param.json: quench.n_atoms", found, 'to compare with the paper write "n_atoms": [300, 1000]')
