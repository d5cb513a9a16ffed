"""Counts of answers that were given in a process: kept for as long as somebody may report them, and reported once."""

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from keysvc_client import AsyncKeysvcClient, ConfigurationError, Verdict
from keysvc_client.counting import SLOTS, Counting, Kind, Sheet, left_over
from tests.client.conftest import OF_ONE_KIND, Connect, call
from tests.deployment import Client, Deployment, eventually

ASKING = """
import os, sys
from keysvc_client import KeysvcClient

address, api_key, key_string, number, spool, how = sys.argv[1:]
client = KeysvcClient(address, api_key=api_key, lease=True, usage_spool=spool or None)
asked = own = 0
while own < int(number):
    answer = client.verify(key_string)
    assert answer.valid
    asked, own = asked + 1, own + answer.holder.endswith("(client)")
print(asked, flush=True)
if how == "returns":
    sys.exit()
sys.stdin.read()
"""
"""Asks until so many answers were its own, says how many it has asked for, and waits to be ended, or returns."""


def counted(sheets: list[Sheet]) -> list[tuple[str, Verdict, int]]:
    """What is on sheets."""
    return [(count.kind.key_id, Verdict[count.kind.verdict], count.number) for sheet in sheets for count in sheet]


def count(counting: Counting, key_id: str, number: int = 1) -> Sheet:
    """Count answers of one kind; where."""
    sheet, slot = counting.place(Kind(key_id, "secret", "VALID"))
    sheet.counts[slot] += number
    sheet.times[slot] = 1e9
    return sheet


@pytest.fixture(params=["memory", "files"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where sheets are."""
    return tmp_path if request.param == "files" else None


def test_sheets_are_numbered_batches(folder: Path | None) -> None:
    """A new one follows where one is full, and after each that was sealed; none without counts is among them."""
    counting = Counting(folder)
    for number in range(SLOTS + 1):
        count(counting, f"key {number}")
    first = counting.seal()
    assert [sheet.seq for sheet in first] == [1, 2]
    assert counted(first) == [(f"key {number}", Verdict.VALID, 1) for number in range(SLOTS + 1)]
    assert counting.seal() == []
    counting.prepare()
    count(counting, "another", 7)
    (second,) = counting.seal()
    assert (second.seq, counted([second])) == (3, [("another", Verdict.VALID, 7)])
    assert len({sheet.source_id for sheet in [*first, second]}) == 1
    assert not second.is_open
    for sheet in [*first, second]:
        sheet.discard()
    counting.close()
    assert folder is None or list(folder.iterdir()) == []


def test_files_are_for_nobody_else(tmp_path: Path) -> None:
    """They tell which keys were used."""
    count(Counting(tmp_path), "key")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_without_room_counts_are_kept_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks is answered all the same, and operators are told."""
    counting = Counting(tmp_path / "gone")
    assert counted([count(counting, "key")]) == [("key", Verdict.VALID, 1)]
    assert "usage is kept in memory alone" in caplog.text


@pytest.mark.parametrize("client_type", [AsyncKeysvcClient])
def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path: Path, client_type: type[AsyncKeysvcClient]) -> None:
    """And not at the first answer."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"usage_spool: no folder .*file"):
        client_type(api_key="x", lease=True, usage_spool=tmp_path / "file")


def _count_and_be_killed(folder: Path) -> None:
    counting = Counting(folder)
    count(counting, "first", 3)
    counting.seal()
    count(counting, "second", 4)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_counted_survives_a_kill(tmp_path: Path) -> None:
    """In the batches in which it would have been reported, and for one process alone."""
    process = multiprocessing.get_context("fork").Process(target=_count_and_be_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    counting = Counting(tmp_path)
    count(counting, "ours")
    (sheets,) = left_over(tmp_path)
    assert [sheet.seq for sheet in sheets] == [1, 2]
    assert counted(sheets) == [("first", Verdict.VALID, 3), ("second", Verdict.VALID, 4)]
    pid = os.fork()
    if not pid:
        # Another process, which has no source in the folder: we hold what we have found.
        os._exit(len(list(left_over(tmp_path))))
    assert os.waitpid(pid, 0)[1] == 0
    for sheet in sheets:
        sheet.discard()
    assert list(left_over(tmp_path)) == []


@pytest.mark.parametrize(
    ("damage_at", "damage"), [(256 + 16 * SLOTS, b"\xff"), (256 + 8 * SLOTS, b"\xff" * 8), (15, b"\xff")]
)
def test_a_damaged_file_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage_at: int, damage: bytes
) -> None:
    """It holds up nobody else's counts, and operators are told of it once."""
    process = multiprocessing.get_context("fork").Process(target=_count_and_be_killed, args=(tmp_path,))
    process.start()
    process.join()
    damaged, whole = sorted(tmp_path.iterdir())
    with damaged.open("r+b") as file:
        file.seek(damage_at)
        file.write(damage)
    ((sheet,),) = left_over(tmp_path)
    assert counted([sheet]) == [("second", Verdict.VALID, 4)]
    sheet.close()
    assert set(tmp_path.iterdir()) == {whole, damaged.with_name(f"{damaged.name}.damaged")}
    list(left_over(tmp_path))
    assert caplog.text.count("usage cannot be read") == 1


@pytest.fixture
def ask(deployment: Deployment) -> Callable[..., subprocess.Popen[str]]:
    """Start a process that asks."""

    def start(key_string: str, number: int, how: str, spool: Path | str = "") -> subprocess.Popen[str]:
        words = [deployment.address, deployment.operator_key, key_string, str(number), str(spool), how]
        return subprocess.Popen(
            [sys.executable, "-c", ASKING, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def asked_by(process: subprocess.Popen[str]) -> int:
    """How many answers a process has had."""
    assert process.stdout
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return int(line)


async def until_counted(operator: Client, key_id: str, asked: int) -> None:
    """Wait until the service says that a key was used so often; it never says more."""

    async def is_all_counted() -> bool:
        counted = (await operator.get(key_id)).usage_total
        assert counted <= asked
        return counted == asked

    await eventually(is_all_counted)


@pytest.mark.parametrize("how", ["returns", "is terminated"])
async def test_the_last_counts_are_reported_when_a_program_ends(
    operator: Client, ask: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    """At its end, and at SIGTERM, which then ends it as if nobody had looked."""
    created = await operator.create()
    process = await call(ask, created.key_string, 300, how)
    asked = await call(asked_by, process)
    if how == "is terminated":
        process.terminate()
    _, err = await call(process.communicate)
    assert (err, process.returncode) == ("", 0 if how == "returns" else -signal.SIGTERM)
    await until_counted(operator, created.key.id, asked)


@OF_ONE_KIND
async def test_with_a_spool_a_kill_loses_nothing(
    operator: Client,
    connect: Connect,
    deployment: Deployment,
    ask: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    """The next process that uses the folder reports what others have left, each answer once."""
    created = await operator.create()
    asked = 0
    for _ in range(3):
        process = await call(ask, created.key_string, 1000, "is killed", tmp_path)
        asked += await call(asked_by, process)
        process.kill()
        await call(process.communicate)
    client = connect(deployment.address, api_key=deployment.operator_key, lease=True, usage_spool=tmp_path)
    asked += (await call(client.verify, created.key_string)).valid
    await until_counted(operator, created.key.id, asked)


@OF_ONE_KIND
async def test_a_service_that_has_forgotten_a_source_is_told_all_the_same(
    operator: Client, connect: Connect, deployment: Deployment, database_url: str
) -> None:
    """As after a restore: what follows is numbered anew, and counted once."""
    created = await operator.create()
    client = connect(deployment.address, api_key=deployment.operator_key, lease=True)

    async def ask(own: int) -> int:
        asked = 0
        while own:
            own -= (await call(client.verify, created.key_string)).holder.endswith("(client)")
            asked += 1
        return asked

    asked = await ask(10)
    await until_counted(operator, created.key.id, asked)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("DELETE FROM usage_source WHERE id LIKE 'client-%'")
    asked += await ask(10)
    await until_counted(operator, created.key.id, asked)
    asked += await ask(10)
    await until_counted(operator, created.key.id, asked)
