"""The scheduler as a process of its own: who may connect, who finds it, and when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alloop import store
from alloop.pools import scheduler
from alloop.pools.keys import campaign_keys, security
from alloop.pools.link import Link
from alloop.pools.worker import Share, gpu_share
from alloop.process import ProcessIdentity, this_process

CAMPAIGN = "c0ffee" + "0" * 26


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Callable[[], Link]]:
    """Makes links on one run folder; all are closed at the end, and the scheduler ended."""
    made: list[Link] = []

    def make() -> Link:
        made.append(Link(tmp_path, CAMPAIGN, 5.0, 0.2))
        made[-1].address_file(None)
        made[-1].need()
        return made[-1]

    yield make
    for link in made:
        link.close(end_scheduler=link is made[-1])


def record(folder: Path) -> dict[str, Any] | None:
    return scheduler.read_record(folder, CAMPAIGN)


def test_keys_are_private_and_made_once(tmp_path: Path) -> None:
    folder = campaign_keys(tmp_path / "tls", CAMPAIGN)
    assert sorted(file.name for file in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert campaign_keys(tmp_path / "tls", CAMPAIGN) == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["tls"]


def test_certificates_hold_under_strict_rules(tmp_path: Path) -> None:
    """Python 3.13 verifies them so by default."""
    folder = campaign_keys(tmp_path / "tls", CAMPAIGN)
    sides = []
    for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH):
        context = ssl.create_default_context(purpose, cafile=str(folder / "ca.pem"))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        sides.append(context)
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
    server = sides[0].wrap_bio(ends[0][0], ends[1][0], server_side=True)
    client = sides[1].wrap_bio(ends[1][0], ends[0][0])
    done = set()
    for _ in range(6):
        for name, end in (("client", client), ("server", server)):
            try:
                end.do_handshake()
                done.add(name)
            except ssl.SSLWantReadError:
                continue
    assert done == {"client", "server"}


def test_scheduler_outlives_its_link_and_is_found_again(tmp_path: Path, links: Callable[[], Link]) -> None:
    first = links()
    found = until(lambda: record(tmp_path) and first._client and record(tmp_path))
    process = ProcessIdentity.from_json(found)
    assert process.alive() and os.getsid(process.pid) == process.pid
    assert (tmp_path / "scheduler.address").read_text().startswith("tls://")
    first.close(end_scheduler=False)
    assert process.alive()
    second = links()
    until(lambda: second._client)
    assert record(tmp_path) == found and second.problem == ""
    second.close(end_scheduler=True)
    until(lambda: not process.alive(), 15)


def test_killed_scheduler_is_replaced_and_its_address_told(tmp_path: Path, links: Callable[[], Link]) -> None:
    link = links()
    until(lambda: link._client and (tmp_path / "scheduler.address").exists())
    found, address = record(tmp_path), (tmp_path / "scheduler.address").read_text()
    assert found is not None
    os.kill(found["pid"], signal.SIGKILL)
    until(lambda: (tmp_path / "scheduler.address").read_text() != address)
    until(lambda: link._client is not None and link.problem == "")
    again = record(tmp_path)
    assert again is not None and again["pid"] != found["pid"]


def test_nobody_connects_without_the_keys(tmp_path: Path, links: Callable[[], Link]) -> None:
    link = links()
    until(lambda: link._client)
    found = record(tmp_path)
    assert found is not None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def greet(**how: Any) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", found["port"], **how)
        try:
            if "ssl" in how:
                writer.write(b"x" * 64)
                await writer.drain()
            if not (said := await asyncio.wait_for(reader.read(1), 10)):
                raise ConnectionResetError
            return said
        finally:
            writer.close()

    refused = (ssl.SSLError, ConnectionResetError)
    with pytest.raises(refused):
        asyncio.run(greet(ssl=context))
    other = security(campaign_keys(tmp_path / "other", CAMPAIGN)).get_connection_args("client")["ssl_context"]
    with pytest.raises(refused):
        asyncio.run(greet(ssl=other))


def test_dashboard_is_for_this_machine_only(tmp_path: Path, links: Callable[[], Link]) -> None:
    import psutil

    link = links()
    until(lambda: link._client)
    found = record(tmp_path)
    assert found is not None
    listening = [c.laddr for c in psutil.Process(found["pid"]).net_connections() if c.status == "LISTEN"]
    assert {where.ip for where in listening if where.port == found["dashboard_port"]} == {"127.0.0.1"}
    assert {where.port for where in listening} == {found["dashboard_port"], found["port"]}


def test_record_of_another_campaign_or_folder_is_not_taken(tmp_path: Path) -> None:
    whole = this_process().to_json() | {
        "campaign": CAMPAIGN, "run_folder": str(tmp_path), "address": "tls://1.2.3.4:5", "port": 5
    }  # fmt: skip
    assert record(tmp_path) is None
    for change in ({"campaign": "other"}, {"run_folder": "/elsewhere"}, {"port": None}):
        store.write_json(scheduler.record_file(tmp_path), {k: v for k, v in (whole | change).items() if v is not None})
        assert record(tmp_path) is None
    scheduler.record_file(tmp_path).write_text('{"half')
    assert record(tmp_path) is None
    store.write_json(scheduler.record_file(tmp_path), whole)
    assert record(tmp_path) == whole and not scheduler.is_gone(whole)
    assert scheduler.is_gone(whole | {"start_ticks": 1}) and not scheduler.is_gone(whole | {"host": "far"})


def test_scheduler_makes_way_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 0.02)
    mine, other = this_process().to_json(), this_process().to_json() | {"pid": 1}

    async def waits(seconds: float) -> bool:
        try:
            await asyncio.wait_for(scheduler._replaced(tmp_path / "run"), seconds)
        except TimeoutError:
            return True
        return False

    (tmp_path / "run").mkdir()
    store.write_json(scheduler.record_file(tmp_path / "run"), mine)
    assert asyncio.run(waits(0.3))
    store.write_json(scheduler.record_file(tmp_path / "run"), other)
    assert not asyncio.run(waits(2.0))
    scheduler.record_file(tmp_path / "run").unlink()
    assert asyncio.run(waits(0.3)), "a record that cannot be read is no reason to end"
    (tmp_path / "run").rmdir()
    assert not asyncio.run(waits(2.0))


def test_workers_without_driver_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go: list[str] = []

    async def retire_workers(workers: list[str], **_: Any) -> None:
        let_go.extend(workers)

    served = SimpleNamespace(
        clients={"Client-alloop": None, "fire-and-forget": None},
        workers={"tls://a": SimpleNamespace(processing={"task": 1.0}), "tls://b": SimpleNamespace(processing={})},
        retire_workers=retire_workers,
    )
    monkeypatch.setattr(scheduler, "WITHOUT_DRIVER_SECONDS", 0.1)
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 0.02)

    async def watch() -> None:
        task = asyncio.create_task(scheduler._let_go(served, 0.0))
        await asyncio.sleep(0.4)
        assert let_go == []
        del served.clients["Client-alloop"]
        await asyncio.sleep(0.4)
        task.cancel()

    asyncio.run(watch())
    assert set(let_go) == {"tls://b"}


def test_trouble_is_told_when_no_scheduler_comes_up(
    tmp_path: Path, links: Callable[[], Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run_folder: Path, *_: object) -> subprocess.Popen[bytes]:
        with (run_folder / "scheduler.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", "raise SystemExit('no port left')"], stderr=log)

    monkeypatch.setattr(scheduler, "start", broken)
    link = links()
    until(lambda: "no port left" in link.problem)


@pytest.mark.parametrize(
    ("visible", "gpus", "expected"),
    [
        ("4,5", 2, ["4", "5"]),
        ("GPU-a,GPU-b,GPU-c,GPU-d", 4, ["GPU-a,GPU-b", "GPU-c,GPU-d"]),
        (None, 2, ["0", "1"]),
        ("7", 1, ["7", "7"]),
    ],
)
def test_slots_share_the_gpus_of_their_job(visible: str | None, gpus: int, expected: list[str]) -> None:
    assert [gpu_share(visible, Share(slot, 2, 1, gpus)) for slot in range(2)] == expected
