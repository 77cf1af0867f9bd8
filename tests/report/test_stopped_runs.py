"""A melt-quench that the guard stopped is no glass: not in `status`, nor on the page of `alloop report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from glass_kit import campaign_of_glasses, chunk, decide_quench, ended_with

from alloop.report.html.runs import finished_runs
from alloop.report.status import glass_table
from alloop.report.status_text import glass_text_table
from alloop.store import write_json

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


@pytest.mark.parametrize("converged", [True, False])
def test_a_minimisation_that_reached_no_minimum_gives_no_value_and_is_told(converged: bool, tmp_path: Path) -> None:
    campaign = campaign_of_glasses(tmp_path)
    glass = chunk("r0", 0, "glass", GLASS, analyse_from_step=0)
    minimum = chunk("r0", 1, "minimum", GLASS, stage_kind="minimise")
    decide_quench(campaign, {"r0": (GLASS, 10.0, [glass, minimum])})
    found = {"converged": converged, "max_force_eV_A": 0.1234, "steps": 5000}
    frame = {"fraction_5Si": None, "rings": {"counts": {}}, "boroxol": {"rings": 0}}
    for task, fraction, more in ((glass, 0.3, {}), (minimum, 0.4, found)):
        result = ended_with(campaign, task, RECORD | CLASSES | {"status": "finished"} | more)
        write_json(result / "analysis.json", [frame | {"fraction_4B": fraction}])
    (row,) = glass_table(campaign)
    assert (row["status"], row["fraction_4B"]) == ("done", 0.3)
    assert row["fraction_4B_at_minimum"] == (0.4 if converged else None)
    said = "r0 was not minimised: largest force 0.123 eV/Å after 5000 steps"
    assert (said in str(glass_text_table([row]).caption)) is not converged


def test_a_run_of_which_a_chunk_was_given_up_is_not_said_to_run(tmp_path: Path) -> None:
    campaign = campaign_of_glasses(tmp_path)
    own = [chunk("r0", number, stage, GLASS) for number, stage in enumerate(("melt", "glass"))]
    decide_quench(campaign, {"r0": (GLASS, 10.0, own)})
    ended_with(campaign, own[0], RECORD | CLASSES | {"status": "finished"})
    assert glass_table(campaign)[0]["status"] == "running 1/2"
    campaign.decide("quarantine", key=own[1].key, name="x", message="no", detail="", **{"class": "numeric"})
    assert glass_table(campaign)[0]["status"] == "given up 1/2"
