"""A double of the commands of Slurm, PBS, LSF and Grid Engine, under whose names it is run.

Its jobs are the files of $FAKE_QUEUE/jobs (JSON). $FAKE_QUEUE/submit and $FAKE_QUEUE/query may hold how to misbehave:
fail (refuse), lost (submit says it failed, but did it), hang, hang-lost (did it, then hangs), stale (an empty answer).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["FAKE_QUEUE"])


def mode(kind: str) -> str:
    file = FOLDER / kind
    return file.read_text().strip() if file.exists() else ""


def jobs() -> list[dict[str, str]]:
    return [json.loads(file.read_text()) for file in sorted((FOLDER / "jobs").iterdir())]


def submit(script: str) -> str:
    how = mode("submit")
    if how == "hang":
        time.sleep(600)
    if how == "fail":
        sys.exit("error: Invalid account or account/partition combination specified")
    name = next(
        m[1] for m in (re.match(r"#(?:SBATCH -J|PBS -N|BSUB -J|\$ -N) (\S+)", x) for x in script.splitlines()) if m
    )
    with (FOLDER / "counter").open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        number = int(counter.read() or 0) + 1
        counter.truncate(0)
        counter.write(str(number))
    job = {"id": str(number), "name": name, "state": "waiting", "host": ""}
    aside = FOLDER / f"aside.{number}"
    aside.write_text(json.dumps(job))
    aside.rename(FOLDER / "jobs" / str(number))
    (FOLDER / "scripts" / str(number)).write_text(script)
    if how == "hang-lost":
        time.sleep(600)
    if how == "lost":
        sys.exit("error: Batch job submission failed: Socket timed out on send/recv operation")
    return str(number)


def query() -> list[dict[str, str]]:
    with (FOLDER / "queries").open("a") as stream:
        stream.write(f"{time.monotonic()}\n")
    how = mode("query")
    if how == "hang":
        time.sleep(600)
    if how == "fail":
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    return [] if how == "stale" else jobs()


def cancel(ids: list[str]) -> None:
    for number in ids:
        (FOLDER / "jobs" / number.partition(".")[0]).unlink(missing_ok=True)


def main(program: str, arguments: list[str]) -> None:
    script = arguments[-1] if arguments else ""
    if program == "sbatch":
        print(f"Submitted batch job {submit(Path(script).read_text())}")
    elif program == "bsub":
        print(f"Job <{submit(sys.stdin.read())}> is submitted to queue <normal>.")
    elif program == "qsub":
        text = Path(script).read_text()
        number = submit(text)
        print(f"{number}.server" if "#PBS" in text else f'Your job {number} ("x") has been submitted')
    elif program in ("scancel", "qdel", "bkill"):
        cancel(arguments)
    elif program == "squeue":
        states = {"waiting": "PENDING", "running": "RUNNING"}
        for job in query():
            print(f"{job['id']}|{job['name']}|{states[job['state']]}|{job['host']}")
    elif program == "qselect":
        for job in query():
            print(f"{job['id']}.server")
    elif program == "qstat" and "-xml" in arguments:
        states = {"waiting": "qw", "running": "r"}
        rows = "".join(
            f"<job_list><JB_job_number>{job['id']}</JB_job_number><JB_name>{job['name']}</JB_name>"
            f"<state>{states[job['state']]}</state>"
            f"<queue_name>{'all.q@' + job['host'] if job['host'] else ''}</queue_name>"
            "</job_list>"
            for job in query()
        )
        print(f"<?xml version='1.0'?><job_info><queue_info>{rows}</queue_info><job_info/></job_info>")
    elif program == "qstat":
        for job in jobs():
            letter = {"waiting": "Q", "running": "R"}[job["state"]]
            print(f"Job Id: {job['id']}.server\n    Job_Name = {job['name']}\n    job_state = {letter}")
            if job["host"]:
                print(f"    exec_host = {job['host']}/0*4")
    elif program == "bjobs":
        found = query()
        if not found:
            sys.exit("No unfinished job found")
        for job in found:
            state = {"waiting": "PEND", "running": "RUN"}[job["state"]]
            print(f"{job['id']}|{job['name']}|{state}|{job['host'] or '-'}")


if __name__ == "__main__":
    main(Path(sys.argv[0]).name, sys.argv[1:])
