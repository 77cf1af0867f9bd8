"""Job scripts, and what of dask-jobqueue they rest on."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
from pathlib import Path

import pytest
from dask_jobqueue.core import Job
from pools_kit import params

from alloop.errors import InputError
from alloop.pools import jobqueue
from alloop.pools.jobqueue import JOB_CLASSES, Place, check_options, job_script

KINDS = sorted(JOB_CLASSES)
PLACE = Place(Path("/c p/run"), Path("/c p/run/scheduler.address"), Path("/c p/run/tls"))


def script(kind: str, **changes: object) -> str:
    return job_script("vasp", params(type=kind, **changes), "al-c0ffee-vasp-abcde", PLACE)


def test_parts_of_dask_jobqueue_that_are_private() -> None:
    """The adapter replaces two private parts; another version of dask-jobqueue has to be looked at first."""
    assert importlib.metadata.version("dask-jobqueue").startswith("0.9.")
    pieces = ("shebang", "job_header", "job_script_prologue", "worker_command")
    assert all(f"%({piece})s" in Job._script_template and f"%({piece})s" in jobqueue.SCRIPT for piece in pieces)
    assert list(inspect.signature(Job._call).parameters) == ["cmd", "shell", "kwargs"]


def test_no_other_module_imports_dask_jobqueue() -> None:
    package = Path(jobqueue.__file__).parents[1]
    found = [file.name for file in package.rglob("*.py") if "dask_jobqueue" in file.read_text()]
    assert found == ["jobqueue.py"]


@pytest.mark.parametrize("kind", KINDS)
def test_script_is_valid_and_says_all(kind: str, tmp_path: Path) -> None:
    text = script(kind, prologue=["module load vasp/6"], slots_per_job=3, threads=2, queue="short", walltime_minutes=90)
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "\nmodule load vasp/6\n" in text
    assert text.count("--nthreads 3 --memory-limit 0") == 1 and "--no-nanny" in text
    assert "--nworkers" not in text, "one process per job"
    assert "--tls-key '/c p/run/tls/key.pem'" in text
    assert "--name al-c0ffee-vasp-abcde" in text
    assert "short" in text and "5400" in text


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("slurm", ["-J al-c0ffee-vasp-abcde", "-p q", "-n 8", "-N 1", "--mem=4G", "-t 01:30:30", "--no-requeue"]),
        (
            "pbs",
            ["-N al-c0ffee-vasp-abcde", "-q q", "select=1:ncpus=8:mem=3815MB", "walltime=01:30:30", "-j oe", "-r n"],
        ),
        ("lsf", ["-J al-c0ffee-vasp-abcde", "-q q", "-n 8", "-W 01:31", "-rn"]),
        ("sge", ["-N al-c0ffee-vasp-abcde", "-q q", "h_rt=01:30:30", "-S /bin/bash", "-r n"]),
    ],
)
def test_directives(kind: str, expected: list[str]) -> None:
    text = script(kind, cores=8, memory="4GB", queue="q", walltime_minutes=90.5)
    sign = {"slurm": "#SBATCH", "pbs": "#PBS", "lsf": "#BSUB", "sge": "#$"}[kind]
    lines = [line.removeprefix(sign).strip() for line in text.splitlines() if line.startswith(f"{sign} ")]
    assert all(any(want in line for line in lines) for want in expected), lines


def test_slurm_jobs_have_one_task_per_core_unless_told_otherwise() -> None:
    lines = script("slurm", slots_per_job=2, threads=4).splitlines()
    assert "#SBATCH -n 8" in lines and "#SBATCH -n 1" not in lines
    assert not any("cpus-per-task" in line for line in lines)
    own = {"job_directives_skip": ["--mem"], "job_extra_directives": ["--exclusive"]}
    lines = script("slurm", slots_per_job=2, threads=4, options=own).splitlines()
    assert {"#SBATCH -n 1", "#SBATCH --cpus-per-task=8", "#SBATCH --exclusive"} <= set(lines)
    assert not any("--mem=" in line for line in lines)


def test_further_options_reach_dask_jobqueue() -> None:
    options = {"account": "abc", "interface": "ib0", "python": "/opt/my python", "worker_extra_args": ["--foo"]}
    text = script("slurm", options=options)
    assert "#SBATCH -A abc" in text and "--interface ib0" in text and "--foo" in text
    assert "'/opt/my python' -m alloop.pools.drain" in text


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_option_names_what_is_accepted(kind: str) -> None:
    with pytest.raises(InputError, match=r"pools.vasp.options.acount.*(?s:.*)it accepts: .*shebang"):
        check_options("vasp", params(type=kind, options={"acount": "abc"}))


@pytest.mark.parametrize(
    ("option", "advice"), [("cores", "pools.vasp.cores"), ("walltime", "walltime_minutes"), ("nanny", "leave it out")]
)
def test_option_that_alloop_sets(option: str, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        check_options("vasp", params(options={option: 1}))


@pytest.mark.parametrize("option", ["job_extra_directives", "job_directives_skip", "worker_extra_args"])
@pytest.mark.parametrize("value", ["--exclusive", 3, None, ["--exclusive", 3]])
def test_text_in_place_of_a_list_is_refused_and_not_taken_letter_by_letter(option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"pools.vasp.options.{option}: expected a list of strings, found"):
        check_options("vasp", params(options={option: value}))


def test_directives_as_an_object() -> None:
    text = script("slurm", options={"job_extra_directives": {"--exclusive": "", "--qos": "long"}})
    assert {"#SBATCH --exclusive", "#SBATCH --qos long"} <= set(text.splitlines())


def test_value_that_dask_jobqueue_refuses() -> None:
    with pytest.raises(InputError, match=r"pools\.vasp: dask-jobqueue does not accept"):
        script("slurm", options={"job_cpu": "x"})


def test_percent_signs_survive() -> None:
    place = Place(Path("/c%50/run"), Path("/c%50/run/a"), Path("/c%50/tls"))
    text = job_script("vasp", params(), "n", place)
    assert "ALLOOP_RUN=/c%50/run" in text and '-o "/c%%50/run/jobs/n.log"' in text and "date +%s" in text
