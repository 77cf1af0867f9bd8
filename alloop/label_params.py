"""`label` of `param.json`: who labels, how, and at which level of theory."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, StrictBool, model_validator

from alloop.param_types import Count, CountOrZero, Positive, Real, Section, TwoOrMore

Overrides = dict[str, dict[str, StrictBool | Real | str]]


class VaspParam(Section):
    """VASP's inputs. Together with the INCAR's deciding tags they are the level of theory."""

    incar: str = Field("vasp/INCAR", description="INCAR of all labels, looked up in templates/")
    potcar_library: str = Field(description="folder of the site's POTCARs: NAME/POTCAR or POTCAR.NAME, also compressed")
    potcars: dict[str, str] = Field({}, description="element to data set, such as Li: Li_sv; the element if not given")
    kpoint_spacing_inv_A: Positive | None = Field(
        None, description="as VASP's KSPACING, 2 pi included; the Gamma point only if not given"
    )
    incar_by_glass: Overrides = Field({}, description="tags for one glass; only ones that keep the level of theory")
    incar_by_event: Overrides = Field({}, description="tags for one reason of selection, such as overlap; likewise")


class Cp2kParam(Section):
    """CP2K's inputs. The template without its SCF block is the level of theory."""

    template: str = Field("cp2k/label.inp", description="CP2K input of all labels, looked up in templates/")
    data_dir: str | None = Field(None, description="folder of basis sets and potentials; CP2K's own if not given")
    basis: str = Field("DZVP-MOLOPT-SR-GTH", description="basis set of all elements but those in kinds")
    potential: str = Field("GTH-PBE", description="pseudopotential of all elements but those in kinds")
    kinds: dict[str, dict[Literal["basis", "potential"], str]] = Field(
        {}, description="element to its own basis and potential, such as Li: {basis: DZVP-MOLOPT-SR-GTH-q3}"
    )
    scf: Literal["diagonalization", "ot", "ot-cg", "diagonalization-damped"] = Field(
        "diagonalization", description="how the ground state is sought first; no part of the level of theory"
    )


class RunParam(Section):
    """How vasp or cp2k is run. Nothing here decides a number, so all of it may change at any time."""

    command: str | None = Field(None, description="such as `srun vasp_std` or `mpirun -np 16 cp2k.psmp -i label.inp`")
    command_gamma: str | None = Field(None, description="for the Gamma point only, such as `srun vasp_gam`")
    command_safe: str | None = Field(None, description="for cp2k after a crash or for want of memory: fewer processes")
    script: str = Field("run.sh", description="what runs before the command: modules, limits; in templates/")
    modules: list[str] = Field([], description="modules to load")
    environment: dict[str, str] = Field({}, description="environment variables; nothing else of alloop's is passed on")
    scratch: str | None = Field(None, description="node-local folder to run in, such as $TMPDIR")
    timeout_minutes: Positive = Field(1440.0, description="a run longer than this is ended")
    silent_minutes: Positive = Field(120.0, description="a run whose files have not grown for so long is ended")
    force_ceiling_eV_A: Positive | None = Field(
        50.0, description="labels with larger forces are flagged, but for those of overlaps; null for none"
    )
    keep: list[str] = Field([], description="further output files to keep with every label")


class FoundationParam(Section):
    """A cheap labeler for the first iterations: models learn from it first, and from label.labeler's labels last."""

    labeler: str = Field(
        "sevennet-0",
        description="sevennet-0, chgnet, a force field (teter-rehearsal, shik-rehearsal, bmp-rehearsal, "
        "table-rehearsal), or package.module:Calculator",
    )
    options: dict[str, Any] = Field({}, description="keyword arguments of the calculator")
    iterations: CountOrZero = Field(2, description="iterations labelled by it, besides the bootstrap")
    promote: TwoOrMore = Field(
        100, description="of its structures, labels made anew by label.labeler before it takes over"
    )


class LabelParam(Section):
    """Who labels, and how. What of it decides the numbers is the level of theory, fixed within a campaign."""

    labeler: str = Field(
        "sevennet-0",
        description="vasp, cp2k, sevennet-0, chgnet, a force field (teter-rehearsal, shik-rehearsal, bmp-rehearsal, "
        "table-rehearsal), or package.module:Calculator",
    )
    options: dict[str, Any] = Field(
        {}, description='keyword arguments of a calculator; for table-rehearsal the file: {"table": "my.toml"}'
    )
    vasp: VaspParam | None = Field(None, description="for labeler vasp")
    cp2k: Cp2kParam | None = Field(None, description="for labeler cp2k")
    run: RunParam = Field(RunParam(), description="for labelers vasp and cp2k")
    foundation: FoundationParam | None = Field(None, description="a cheap labeler to begin with")
    max_attempts: Count = Field(3, description="failures after which a label is quarantined")
    per_process: Count | None = Field(
        None, description="labels that share a process; if not given 32 for the built-in labelers, 1 for others"
    )

    @model_validator(mode="after")
    def _whole(self) -> LabelParam:
        if self.labeler == "vasp" and self.vasp is None:
            raise ValueError('labeler vasp needs the key vasp, at least {"potcar_library": "FOLDER"}')
        if self.labeler in CODES and self.run.command is None:
            raise ValueError(f"labeler {self.labeler} needs run.command, such as {CODES[self.labeler]}")
        if self.labeler in CODES and self.options:
            raise ValueError(f"options are for calculators; {self.labeler}'s settings are in label.{self.labeler}")
        if self.foundation and self.foundation.labeler in CODES:
            raise ValueError("foundation.labeler must be a cheap one, such as sevennet-0")
        return self


CODES = {"vasp": "`srun vasp_std`", "cp2k": "`mpirun -np 16 cp2k.psmp -i label.inp`"}
"""Labelers that are programs of their own, and what their command may look like."""
