"""Options of the test run: ``--ci`` adds the tests that only continuous integration must run and forbids skips.

In several processes (``-n 2 --dist loadfile --no-loadscope-reorder``) the tests of a file stay together, as do the
files that share a real campaign or trained models, which are made once; what takes longest begins first.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = {"tests/campaign": "reference", "tests/potential": "trained"}
"""By folder, the fixture that takes a minute or more and is made once for all files that name it."""
SLOW = 50
"""How many other tests take as long as one marked as slow, roughly."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ci", action="store_true", help="also run the long kill tests, and fail where a test would skip")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # a process of several
        lengths = Counter[str]()
        for item in items:
            lengths[group(item.nodeid)] += SLOW if item.get_closest_marker("slow") else 1
        items.sort(key=lambda item: (-lengths[group(item.nodeid)], group(item.nodeid)))
    if config.getoption("--ci"):
        return
    for item in items:
        if item.get_closest_marker("ci"):
            item.add_marker(pytest.mark.skip(reason="runs with --ci only"))


def group(nodeid: str) -> str:
    """Say which tests belong to one process: those of a file, and of all that share what takes long."""
    return _group_of_file(nodeid.partition("::")[0])


@functools.cache
def _group_of_file(file: str) -> str:
    fixture = SHARED.get(file.rpartition("/")[0])
    return fixture if fixture and fixture in (ROOT / file).read_text() else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class LoadGroups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return LoadGroups(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--ci"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which is a failure with --ci: {report.longrepr}"
    return report
