"""What `alloop stop` does: a living driver is asked; without one, what earlier drivers left is ended."""

from __future__ import annotations

from collections.abc import Callable

from alloop.campaign import Campaign
from alloop.loop import request_stop
from alloop.process import ProcessIdentity


def stop(campaign: Campaign, say: Callable[[str], None], *, now: bool, cancel_jobs: bool) -> None:
    """Ask the campaign's driver to stop; without one, keep a queued successor from starting and cancel jobs if asked.

    CampaignHeldError if a driver starts meanwhile, or one on another host turns out to live.
    """
    if campaign.driver_alive():
        request_stop(campaign, now=now or cancel_jobs, cancel_jobs=cancel_jobs)
        what = "end what runs" if now or cancel_jobs else "let running tasks finish"
        say(f"the driver will stop and {what}")
        return
    if not campaign.exists():
        say("no driver runs here; nothing to stop")
        return
    request_stop(campaign, now=now or cancel_jobs, cancel_jobs=cancel_jobs)
    say("no driver runs here; a successor that driver.sbatch may have queued will not start")
    if cancel_jobs:
        _cancel_jobs(campaign, say)


def _cancel_jobs(campaign: Campaign, say: Callable[[str], None]) -> None:
    """Cancel the batch jobs that earlier drivers left, holding the campaign meanwhile."""
    from alloop.pools.cancelling import cancel_jobs, end_scheduler, jobs_on_record  # a second of imports

    if not jobs_on_record(campaign.run_folder):
        say("no batch job is on record: nothing to cancel")
        return
    beat = campaign.read_beat()
    if beat is not None and not ProcessIdentity.from_json(beat).is_local():
        say(f"a driver on {beat['host']} went without a word: watching for five minutes whether it lives")
    campaign.take_for_a_moment()
    try:
        request_stop(campaign, now=True, cancel_jobs=True)  # taking it has cleared the one before away
        jobs = jobs_on_record(campaign.run_folder)
        left = cancel_jobs(campaign.run_folder, jobs, lambda: campaign.beat(force=True))
        if not left:
            end_scheduler(campaign.run_folder, campaign.state.identity["id"])
    finally:
        campaign.release()
    if gone := [job.name for job in jobs if job not in left]:
        say(f"{len(gone)} batch job(s) cancelled: {', '.join(gone)}")
    if left:
        names = ", ".join(f"{job.name} ({job.id or 'id unknown'})" for job in left)
        say(f"the queue still shows {names}: call this again in a minute")
