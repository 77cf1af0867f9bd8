"""Options of the test run: ``--ci`` adds the tests that only continuous integration must run and forbids skips."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ci", action="store_true", help="also run the long kill tests, and fail where a test would skip")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--ci"):
        return
    for item in items:
        if item.get_closest_marker("ci"):
            item.add_marker(pytest.mark.skip(reason="runs with --ci only"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--ci"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which is a failure with --ci: {report.longrepr}"
    return report
