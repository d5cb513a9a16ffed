"""The bench: that it measures everything, and notices when it measures something else. How fast, no test says."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes

import pytest

from bench.contest import Keysvc
from bench.deployment import open_deployment
from bench.generator import Answers, Generator, GoMissingError, Kind, Loop, WrongAnswersError, build
from bench.page import page
from bench.seeding import Size, seed
from bench.session import QUICK, Pool, Session, body, create_caller, settle
from keysvc.core.keystring import Environment, mint

CHECKOUT = Path(__file__).parent.parent
WORKSPACES = 20

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="the load generator is a Go program")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A small deployment, ready to be measured."""
    program = build(tmp_path_factory.mktemp("load"))
    size = Size(2_000, WORKSPACES)
    with open_deployment() as deployment:
        operator = deployment.bootstrap()
        minted = seed(deployment.url, deployment.admin_url, deployment.peppers, size)
        with deployment.serve() as served:
            caller = asyncio.run(create_caller(served, operator))
        chance = random.Random(1)
        yield Session(
            deployment,
            operator,
            Generator(program, caller),
            Pool(minted, chance),
            replace(QUICK, rounds=1),
            chance,
            print,
            size.keys,
            size.workspaces,
        )


@needs_go
@pytest.mark.timeout(600)
def test_the_bench_runs_to_its_end(tmp_path: Path) -> None:
    """With few keys it measures every topic, in tables and as JSON that makes a page, and leaves nothing behind."""
    result = tmp_path / "bench.json"
    left = tmp_path / "temporary"
    left.mkdir()
    command = [sys.executable, "-m", "bench", "--keys", "3000", "--workspaces", f"{WORKSPACES}", "--quick"]
    done = subprocess.run(
        [*command, "--json", result],
        check=False,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(left)},
        start_new_session=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(result.read_text())
    assert {"commit", "machine", "python", "grpcio", "postgresql", "keys", "workspaces", "effort"} <= written.keys()
    assert written["failures"] == {}
    rows = {topic["name"]: [row["name"] for row in topic["rows"]] for topic in written["topics"]}
    assert list(rows) == [
        "contest",
        "rates",
        "flood",
        "revoke",
        "leased",
        "protect",
        "usage",
        "memory",
        "start",
        "records",
    ]
    assert rows["contest"] == ["empty", "hot", "hot, all fields asked", "mixed, 90 % hot", "cold", "naive"]
    assert rows["flood"][-3:] == ["malformed keys", "forged keys", "unknown keys"]
    assert rows["revoke"] == ["1 holder, idle", "1 holder, under load", "2 holders, idle", "2 holders, under load"]
    assert rows["records"][-1] == "Create in one workspace"
    for topic in written["topics"]:
        columns = {column["name"] for column in topic["columns"]}
        assert topic["rows"]
        for row in topic["rows"]:
            assert columns & row["figures"].keys()
            assert row["target"] != "to be measured"
            assert (row["holds"] is None) == (not row["target"])
    text = page(written, "performance", ["flood.png"], {"microseconds": "They go away."})
    assert all(topic["title"] in text for topic in written["topics"])
    assert "performance/flood.png" in text
    assert "They go away." in text
    assert list(left.glob("keysvc-bench-*")) == []


@needs_go
@pytest.mark.timeout(300)
async def test_a_server_that_refuses_every_call_is_noticed(session: Session) -> None:
    """Errors come fast; a run in which all calls fail, as with a caller's key that nobody knows, has no figures."""
    stranger = mint(Environment.LIVE, token_bytes(32), token_bytes).key_string
    with session.serve() as served:
        mistaken = replace(session, generator=Generator(session.generator.program, stranger))
        with pytest.raises(WrongAnswersError, match="grpc-status 16"):
            await mistaken.verify(served, session.hot, Loop(requests=50))
        with pytest.raises(WrongAnswersError, match="grpc-status 16"):
            await mistaken.prime([served], session.hot)


@needs_go
@pytest.mark.timeout(300)
async def test_misses_are_not_taken_for_hits_nor_hits_for_misses(session: Session) -> None:
    """A hot round with a key that is not remembered has no figures, nor has a cold round with one that is."""
    with session.serve() as served:
        await session.prime([served], session.hot)
        keysvc = Keysvc(session, served, await settle(served))
        known = [body(key.key_string) for key in session.hot]
        new = [body(session.pool.take(1)[0].key_string) for _ in range(3)]
        loop = Loop(requests=len(known) + 1)
        with pytest.raises(WrongAnswersError, match="DATABASE"):
            await keysvc.play("hot", 0, [*known, new[0]], loop, 0)
        with pytest.raises(WrongAnswersError, match="2 answers should be from the database, but 1 were"):
            await keysvc.play("cold", 0, [*known, new[1]], loop, 2)
        keysvc.last = await settle(served)
        await session.generator.run([served.address], [new[2]], Loop(requests=1))
        with pytest.raises(WrongAnswersError, match=r"the server counted .* and 1 misses"):
            await keysvc.play("hot", 0, known, loop, 0)


@needs_go
@pytest.mark.timeout(300)
async def test_a_key_that_is_refused_is_noticed(session: Session) -> None:
    """A verdict other than VALID is no figure either, however fast it came."""
    with session.serve() as served:
        answers = await session.generator.run([served.address], [b""], Loop(requests=20))
        with pytest.raises(WrongAnswersError, match="20 x grpc-status 0 MALFORMED"):
            answers.check_all("VALID", "MEMORY")


@needs_go
@pytest.mark.timeout(300)
async def test_a_latency_counts_from_when_the_call_was_due(session: Session) -> None:
    """Calls that are due while a server stands still are made, and their wait counts; but for those that are shed."""
    with session.serve() as served:
        await session.prime([served], session.hot)
        bodies = [body(key.key_string) for key in session.hot]
        loop = Loop(rate=200, seconds=1, connections=2)
        for each in (loop, replace(loop, shed_above=10)):
            os.kill(served.pid, signal.SIGSTOP)
            try:
                calling = asyncio.create_task(session.generator.run([served.address], bodies, each))
                await asyncio.sleep(1.5)
            finally:
                os.kill(served.pid, signal.SIGCONT)
            answers = await calling
            answers.check_all("VALID", "MEMORY", "DATABASE")
            assert answers.latency_ms["p50"] > 300
            if each.shed_above:
                assert answers.answered == 10
                assert answers.shed > 100
            else:
                assert answers.answered > 100
                assert answers.shed == 0


def test_a_machine_without_go_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator is built by the bench; where that cannot be, a sentence says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GoMissingError, match=r"install 1\.24 or newer"):
        build(tmp_path)


def test_answers_are_checked_one_and_all() -> None:
    """One wrong answer among many is enough, and so is no answer at all."""

    def answers(*kinds: Kind) -> Answers:
        count = sum(kind.count for kind in kinds)
        return Answers(count, count, 1.0, count, kinds, {}, {}, 0, 0.0)

    good = Kind(0, "VALID", "MEMORY", 10_000)
    answers(good).check_all("VALID", "MEMORY")
    for bad in (
        Kind(0, "VALID", "DATABASE", 1),
        Kind(0, "REVOKED", "MEMORY", 1),
        Kind(14, "", "", 1),
        Kind(-3, "", "", 1),
    ):
        with pytest.raises(WrongAnswersError, match="1 x "):
            answers(good, bad).check_all("VALID", "MEMORY")
    with pytest.raises(WrongAnswersError, match="no answers"):
        answers().check_all("VALID", "MEMORY")
