"""What each decision holds once it is due: one function per kind, reading results and returning plain content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.convergence import decide_verdict
from alloop.decisions.exploration import decide_explore
from alloop.decisions.final_training import decide_final_check, decide_final_train
from alloop.decisions.guarding import decide_guard
from alloop.decisions.levels import decide_pretrain, decide_promote
from alloop.decisions.probing import decide_probe
from alloop.decisions.production import decide_assess, decide_melting, decide_quench
from alloop.decisions.relaxing import decide_relax, decide_relax_glass
from alloop.decisions.seeding import decide_bootstrap, decide_seed_labels
from alloop.decisions.selection import decide_describe, decide_rank, decide_select
from alloop.decisions.training import decide_evaluate, decide_train

Content = dict[str, Any]

DECIDERS: dict[str, Callable[[Campaign, Param, int], Content]] = {
    "bootstrap": decide_bootstrap,
    "seed_labels": decide_seed_labels,
    "promote": decide_promote,
    "pretrain": decide_pretrain,
    "train": decide_train,
    "explore": decide_explore,
    "describe": decide_describe,
    "rank": decide_rank,
    "select": decide_select,
    "evaluate": decide_evaluate,
    "probe": decide_probe,
    "relax": decide_relax,
    "verdict": decide_verdict,
    "assess": decide_assess,
    "melting": decide_melting,
    "quench": decide_quench,
    "final_train": decide_final_train,
    "final_check": decide_final_check,
    "guard": decide_guard,
    "relax_glass": decide_relax_glass,
}
