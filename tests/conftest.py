"""Options of the test run: ``--ci`` adds the tests that only continuous integration must run and forbids skips.

In several processes (``-n 2 --dist loadgroup --no-loadscope-reorder``) the tests of a file stay together, as do all
that share a real campaign or trained models, which are made once; what takes longest begins first.
"""

from __future__ import annotations

from collections import Counter

import pytest

SHARED = ("reference", "trained")
"""The fixtures of a session that take a minute or more."""
SLOW = 50
"""How many other tests take as long as one marked as slow, roughly."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ci", action="store_true", help="also run the long kill tests, and fail where a test would skip")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if getattr(config.option, "loadgroup", False):  # a process of several
        _group(items)
    if config.getoption("--ci"):
        return
    for item in items:
        if item.get_closest_marker("ci"):
            item.add_marker(pytest.mark.skip(reason="runs with --ci only"))


def _group(items: list[pytest.Item]) -> None:
    """Say which tests belong to one process, and sort the groups by how long they may take."""
    groups, lengths = {}, Counter[str]()
    for item in items:
        shared = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
        groups[item] = shared[0] if shared else str(item.path.relative_to(item.config.rootpath))
        lengths[groups[item]] += SLOW if item.get_closest_marker("slow") else 1
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: (-lengths[groups[item]], groups[item]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--ci"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which is a failure with --ci: {report.longrepr}"
    return report
