"""A melt-quench that the guard stopped is no glass: not in `status`, nor on the page of `alloop report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from glass_kit import campaign_of_glasses, chunk, decide_quench, ended_with

from alloop.report.html.runs import finished_runs
from alloop.report.status import glass_table

GLASS = "LBS-20-60-20"
RECORD = {"reason": "", "records": 0, "events": {}, "max_force_deviation_eV_A": 0.1}
CLASSES = {"classes": {"accurate": 0, "candidate": 0, "failed": 0}}


@pytest.mark.parametrize("status", ["stopped", "lost"])
def test_a_run_whose_chunks_have_all_ended_is_not_done_if_one_did_not_come_to_its_end(
    status: str, tmp_path: Path
) -> None:
    campaign = campaign_of_glasses(tmp_path)
    own = [chunk("r0", number, stage, GLASS) for number, stage in enumerate(("melt", "cool", "glass"))]
    decide_quench(campaign, {"r0": (GLASS, 10.0, own)})
    for task, ending in zip(own, ("finished", status, "void"), strict=True):
        reason = "deviation above 0.4 eV/A" if ending == status else ""
        ended_with(campaign, task, RECORD | CLASSES | {"status": ending, "reason": reason})
    (row,) = glass_table(campaign)
    assert (row["status"], row["lost_reason"]) == (status, "deviation above 0.4 eV/A")
    assert finished_runs(campaign) == []
