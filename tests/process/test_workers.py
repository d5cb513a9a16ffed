"""`keysvc serve --workers`: several processes behind one port, that come, go and die."""

import asyncio
import contextlib
import json
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import grpc
import psutil
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keysvc.store.embedded import Record
from keysvc.v1 import key_service_pb2, receipt_pb2, usage_service_pb2, verify_pb2
from tests.authority import NEEDS_OPENSSL, Authority
from tests.deployment import Client, Refused, eventually
from tests.process.conftest import Used
from tests.process.running import (
    PATIENCE,
    STOP_SECONDS,
    Serving,
    copy_of,
    postmaster_of,
    processes_of,
    refusal,
    run,
    until,
)
from tests.process.test_serve import ENDINGS

pytestmark = pytest.mark.timeout(240)  # on a busy machine each of many processes takes its time

COUNT = 2
WORKERS = {"KEYSVC_WORKERS": str(COUNT)}

LEASE = {"KEYSVC_LEASE_SECONDS": "10"}
"""Long, so that a change which waits for one is not taken for a slow machine: an end by TIMER takes 12 s."""

RETRYING = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                # A connection that the kernel had given to the dead one is tried again only after a second.
                "waitForReady": True,
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""A service config of clients: Verify is safe to repeat."""


class Deployed(NamedTuple):
    """A database with an operator."""

    url: str
    variables: dict[str, str]
    operator_key: str

    def serve(self, *arguments: str, **variables: str) -> Serving:
        """Several workers."""
        return Serving(*arguments, **WORKERS, **LEASE, **self.variables, **variables)

    def holders(self) -> list[tuple[str, dict[str, Any]]]:
        """Host and report of each member."""
        with psycopg.connect(self.url) as connection:
            return connection.execute("SELECT host, report FROM lease_member").fetchall()

    def pids(self) -> dict[int, int]:
        """The process of each worker, by its number, once they all have told it."""

        def found() -> dict[int, int] | None:
            told = {report.get("worker"): int(host.rpartition("/")[2]) for host, report in self.holders()}
            return told if set(told) == set(range(1, COUNT + 1)) else None

        pids: dict[int, int] = until(found, pause=0.1)
        return pids

    def is_member(self, pid: int) -> bool:
        """Whether a process has a member row."""
        return any(host.endswith(f"/{pid}") for host, _ in self.holders())


@pytest.fixture(scope="module")
def deployed(server_url: str, template_database: str) -> Iterator[Deployed]:
    """The same database for all tests that care for no other."""
    with copy_of(server_url, template_database) as url:
        # Few, since the database server belongs to all tests.
        variables = {
            "KEYSVC_DATABASE_URL": url,
            "KEYSVC_PEPPERS": secrets.token_hex(32),
            "KEYSVC_CONNECTIONS": "6",
        }
        bootstrap = run("bootstrap", KEYSVC_DATABASE_URL=url, KEYSVC_PEPPERS=variables["KEYSVC_PEPPERS"])
        assert bootstrap.returncode == 0, bootstrap.stderr
        assert run("lease-limit", "30", KEYSVC_DATABASE_URL=url).returncode == 0
        yield Deployed(url, variables, bootstrap.stdout.strip())


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what tests open."""
    async with AsyncExitStack() as stack:
        yield stack


async def connect(stack: AsyncExitStack, server: Serving, address: str, operator_key: str) -> tuple[int, Client]:
    """A client with a connection of its own, and the number of the worker at its other end, which the log tells."""
    options = [("grpc.use_local_subchannel_pool", 1), ("keysvc.test", str(uuid4()))]
    channel = grpc.aio.insecure_channel(address, options)
    stack.push_async_callback(channel.close)
    client, asked = Client(channel, operator_key), str(uuid4())
    await client.call(client.keys.List, key_service_pb2.ListRequest(), x_request_id=asked)

    async def find() -> int | None:
        return next((line["worker"] for line in server.log if line.get("request_id") == asked), None)

    return await eventually(find), client


async def connect_to_all(
    stack: AsyncExitStack, server: Serving, address: str, operator_key: str, count: int = COUNT
) -> dict[int, Client]:
    """A client of each worker; the kernel chooses, so there is a try for each until all have been met."""
    clients: dict[int, Client] = {}
    for _ in range(100 * count):
        number, client = await connect(stack, server, address, operator_key)
        clients.setdefault(number, client)
        if len(clients) == count:
            return clients
    raise AssertionError(f"only workers {sorted(clients)} were met")


def workers_of(pid: int) -> list[psutil.Process]:
    """The workers of a supervisor."""
    found = []
    for process in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            if "keysvc.worker" in process.cmdline():
                found.append(process)
    return found


def all_ended(processes: list[psutil.Process]) -> bool:
    """Whether they have ended."""
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


async def test_all_workers_answer_on_one_port(deployed: Deployed, stack: AsyncExitStack) -> None:
    """Each is a member and answers from memory, and what one revokes the others refuse in the next call.

    Each is healthy on its own. The supervisor tells once where it serves; lines of workers have their numbers.
    """
    with deployed.serve() as server:
        address = server.ready()
        clients = await connect_to_all(stack, server, address, deployed.operator_key)
        assert set(await asyncio.to_thread(deployed.pids)) == set(clients)
        for client in clients.values():
            health = health_pb2_grpc.HealthStub(client.channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        workspace = (await clients[1].create_workspace(f"acme-corp/{uuid4().hex}")).name
        for revoker in clients.values():
            created = await revoker.create(workspace=workspace)
            for client in clients.values():
                await client.verify(created.key_string)
                answer = await client.verify(created.key_string)
                assert (answer.verdict, answer.basis) == (verify_pb2.VERDICT_VALID, verify_pb2.BASIS_MEMORY)
            receipt = (await revoker.revoke(created.key.id)).receipt
            assert receipt.path == receipt_pb2.Receipt.PATH_ACK
            assert {await client.verdict(created.key_string) for client in clients.values()} == {"REVOKED"}
        text = (await asyncio.to_thread(run, "status", KEYSVC_DATABASE_URL=deployed.url)).stdout
        assert "WORKER" in text
        server.stop()
    (serving,) = (line for line in server.log if line["event"] == "serving")
    assert serving["address"] == address
    assert [line["event"] for line in server.log if "worker" not in line] == ["serving", "stopping", "stopped"]
    assert not deployed.holders()


async def test_a_killed_worker_comes_back_and_holds_up_nobody(deployed: Deployed, stack: AsyncExitStack) -> None:
    """Its row goes when it is reaped, so changes are acknowledged by the rest; calls that may be retried go on."""
    with deployed.serve() as server:
        address = server.ready()
        clients = await connect_to_all(stack, server, address, deployed.operator_key)
        workspace = (await clients[2].create_workspace(f"acme-corp/{uuid4().hex}")).name
        doomed, lasting = [await clients[2].create(workspace=workspace) for _ in range(2)]
        channels = [
            grpc.aio.insecure_channel(
                address, [("grpc.use_local_subchannel_pool", 1), ("n", n), ("grpc.service_config", RETRYING)]
            )
            for n in range(8)
        ]
        for channel in channels:
            stack.push_async_callback(channel.close)
        callers, verdicts, over = (
            [Client(each, deployed.operator_key) for each in channels],
            set[str](),
            asyncio.Event(),
        )

        async def ask(client: Client) -> None:
            while not over.is_set():
                verdicts.add(await client.verdict(lasting.key_string))
                await asyncio.sleep(0.01)

        asking = [asyncio.create_task(ask(caller)) for caller in callers]
        victim = (await asyncio.to_thread(deployed.pids))[1]
        psutil.Process(victim).kill()
        killed = time.monotonic()

        async def is_gone() -> bool:
            return not deployed.is_member(victim)

        await eventually(is_gone)
        assert time.monotonic() - killed < PATIENCE * 1, "a collector would have come to it much later"
        receipt = (await clients[2].revoke(doomed.key.id)).receipt
        assert receipt.path == receipt_pb2.Receipt.PATH_ACK

        async def is_back() -> bool:
            return any(line["event"] == "worker serves again" for line in server.log)

        await eventually(is_back, seconds=40)
        number, _ = await connect(stack, server, address, deployed.operator_key)
        while number != 1:
            number, _ = await connect(stack, server, address, deployed.operator_key)
        over.set()
        await asyncio.gather(*asking)
        assert verdicts == {"VALID"}
        assert (await asyncio.to_thread(deployed.pids))[1] != victim
        server.stop()
    (ended,) = (line for line in server.log if line["event"] == "worker ended")
    assert (ended["number"], ended["pid"], ended["signal"], ended["level"]) == (1, victim, "SIGKILL", "error")
    assert "worker" not in ended
    assert not deployed.holders()


def test_a_worker_can_be_renewed_alone(deployed: Deployed) -> None:
    """SIGTERM to one of them lets it finish, and another takes its place; that is no error."""
    with deployed.serve() as server:
        server.ready()
        victim = deployed.pids()[1]
        psutil.Process(victim).terminate()
        until(lambda: any(line["event"] == "worker serves again" for line in server.log))
        server.stop()
    (ended,) = (line for line in server.log if line["event"] == "worker ended")
    assert (ended["level"], ended["exit_code"]) == ("info", 0)


def test_a_worker_that_dies_again_and_again_stays_away_for_longer(deployed: Deployed) -> None:
    """The pause before its next start doubles; the others serve all the time."""
    with deployed.serve() as server:
        server.ready()
        other = deployed.pids()[2]

        def ended() -> list[dict[str, Any]]:
            return [line for line in server.log if line["event"] == "worker ended"]

        for times in range(4):
            victims = until(lambda: [each for each in workers_of(server.pid) if each.pid != other])
            victims[0].kill()
            until(lambda expected=times + 1: len(ended()) == expected)
        assert [line["restart_seconds"] for line in ended()] == [0.1, 0.2, 0.4, 0.8]
        assert psutil.pid_exists(other)
        server.stop()


@pytest.mark.parametrize(("number", "group"), ENDINGS)
def test_a_signal_stops_all_workers_and_then_the_database(used: Used, number: signal.Signals, group: bool) -> None:
    """Exit code 0 within 5 s, no process and no member left, and nothing in the log but what one process says."""
    with Serving("--data-dir", used.folder, **WORKERS) as server:
        server.ready()
        workers = workers_of(server.pid)
        assert len(workers) == COUNT
        assert not {each.pid for each in workers} & {each.pid for each in processes_of(used.folder)}
        seconds = server.stop(number, group=group)
        assert all_ended(workers)
        assert not processes_of(used.folder)
    assert seconds < PATIENCE * STOP_SECONDS
    assert [line["event"] for line in server.log] == ["serving", "stopping", "stopped"]
    assert "database system is shut down" in (used.folder / "postgres.log").read_text().splitlines()[-1]
    status = run("status", "--json", "--data-dir", used.folder)
    assert json.loads(status.stdout)["holders"] == []


def test_another_ctrl_c_changes_nothing(used: Used) -> None:
    """Whoever is impatient gets the same good end."""
    with Serving("--data-dir", used.folder, **WORKERS) as server:
        server.ready()
        workers = workers_of(server.pid)
        server.signal_group(signal.SIGINT)
        with contextlib.suppress(ProcessLookupError):
            server.signal_group(signal.SIGINT)
        assert server.ended(PATIENCE * STOP_SECONDS) == 0
        assert all_ended(workers)
    assert [line["event"] for line in server.log] == ["serving", "stopping", "stopped"]


@pytest.mark.parametrize(
    ("seconds", "number", "group"),
    [(0.0, signal.SIGINT, True), (0.3, signal.SIGTERM, True), (0.8, signal.SIGTERM, False), (1.5, signal.SIGINT, True)],
    ids=str,
)
def test_a_signal_while_workers_start_stops_everything(
    used: Used, seconds: float, number: signal.Signals, group: bool
) -> None:
    """However far they are: a good exit, and neither an error nor a traceback."""
    with Serving("--data-dir", used.folder, **WORKERS) as server:
        workers = until(lambda: workers_of(server.pid), pause=0.003)
        time.sleep(seconds)
        server.stop(number, group=group)
        assert all_ended(workers)
        assert not processes_of(used.folder)
    assert not [line for line in server.log if line["level"] != "info"]


def test_the_operator_key_is_shown_once_when_all_answer(data_dir: Path) -> None:
    """On a terminal the first start has one page, as with one process, and Ctrl-C ends it well."""
    with Serving("--data-dir", data_dir, terminal=True, **WORKERS) as server:
        server.ready()
        assert server.out.count("keysvc is ready on") == 1
        assert server.out.count("export KEYSVC_API_KEY=sk_live_") == 1
        server.stop(signal.SIGINT, group=True)


def test_workers_whose_supervisor_is_killed_end_by_themselves(used: Used) -> None:
    """They leave in order; the database waits for the next run, which finds no member and stops it at its end."""
    with Serving("--data-dir", used.folder, **WORKERS) as server:
        server.ready()
        workers = workers_of(server.pid)
        server.process.kill()
        assert server.ended() == -signal.SIGKILL
        until(lambda: all_ended(workers), PATIENCE * STOP_SECONDS)
        assert postmaster_of(used.folder).is_running()
        assert json.loads(run("status", "--json", "--data-dir", used.folder).stdout)["holders"] == []
    with Serving("--data-dir", used.folder, **WORKERS) as server:
        server.ready()
        server.stop()
        assert not processes_of(used.folder)


def test_a_worker_that_hangs_does_not_keep_the_server_from_stopping(deployed: Deployed) -> None:
    """It is killed after a while, and its row goes with it."""
    with deployed.serve() as server:
        server.ready()
        hanging = psutil.Process(deployed.pids()[1])
        hanging.suspend()
        server.process.terminate()
        assert server.ended() == 0
        assert all_ended([hanging])
    assert [line["event"] for line in server.log if line["level"] == "error"] == ["worker killed: it does not stop"]
    assert not deployed.holders()


def test_a_worker_that_refuses_to_start_ends_the_server_with_one_sentence(deployed: Deployed) -> None:
    """However many say it."""
    variables = {**deployed.variables, **WORKERS, "KEYSVC_LEASE_SECONDS": "60"}
    refused = run("serve", "--listen", "127.0.0.1:0", **variables)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "lease-limit" in refusal(refused.stderr)
    assert not deployed.holders()


@pytest.mark.parametrize("counts", [("2", "2"), ("2", "1"), ("1", "2")], ids="-then-".join)
def test_a_port_that_a_server_has_is_refused_to_the_next(deployed: Deployed, counts: tuple[str, str]) -> None:
    """However many workers either has: nobody takes half of the other's connections without a word."""
    with Serving(**{**deployed.variables, "KEYSVC_WORKERS": counts[0]}) as server:
        address = server.ready()
        variables = {**deployed.variables, "KEYSVC_WORKERS": counts[1]}
        refused = run("serve", "--listen", address, **variables)
        assert refused.returncode == 1
        told = f"--listen (KEYSVC_LISTEN): cannot listen on {address}: Address already in use"
        assert refusal(refused.stderr) == told
        server.stop()


@pytest.mark.parametrize("option", ["workers", "connections"])
@pytest.mark.parametrize("value", ["0", "-3", "x", "100000"])
def test_a_count_that_is_none_is_refused(data_dir: Path, option: str, value: str) -> None:
    """By the name of the option, also when the variable says it; nothing is started."""
    for arguments, variables in (
        ([f"--{option}", value], {}),
        ([], {f"KEYSVC_{option.upper()}": value}),
    ):
        refused = run("serve", "--data-dir", data_dir, *arguments, **variables)
        assert refused.returncode == 2
        assert f"--{option}" in refused.stderr
        assert len(refused.stderr.splitlines()) <= 2
        assert not data_dir.exists()


def test_secrets_are_in_no_argument_and_no_environment_of_a_worker(deployed: Deployed) -> None:
    """Neither peppers nor the database's URL: they come over a pipe."""
    with deployed.serve() as server:
        server.ready()
        for worker in workers_of(server.pid):
            shown = " ".join([*worker.cmdline(), *worker.environ(), *worker.environ().values()])
            assert deployed.variables["KEYSVC_PEPPERS"] not in shown
            assert deployed.url not in shown
            assert "KEYSVC_" not in shown
        server.stop()


async def test_usage_is_counted_by_all_workers(deployed: Deployed, stack: AsyncExitStack) -> None:
    """Totals are the sum of what each has counted; what was written is not lost with a worker that is killed."""
    with deployed.serve() as server:
        address = server.ready()
        clients = await connect_to_all(stack, server, address, deployed.operator_key)
        workspace = (await clients[2].create_workspace(f"acme-corp/{uuid4().hex}")).name
        key = await clients[2].create(workspace=workspace)

        async def verify(number: int, times: int) -> None:
            for _ in range(times):
                await clients[number].verify(key.key_string)

        async def total() -> int:
            request = usage_service_pb2.QueryUsageRequest(workspace=workspace)
            buckets = (await clients[2].call(clients[2].usage.QueryUsage, request)).buckets
            return sum(each.verify_count for each in buckets)

        async def counts(expected: int) -> bool:
            return await total() == expected

        await asyncio.gather(verify(1, 30), verify(2, 50))
        await eventually(lambda: counts(80))
        psutil.Process((await asyncio.to_thread(deployed.pids))[1]).kill()
        await verify(2, 7)
        await eventually(lambda: counts(87))
        server.stop()


@NEEDS_OPENSSL
def test_each_worker_uses_changed_files(deployed: Deployed, tmp_path: Path) -> None:
    """A new certificate and new callers reach all of them, each by itself."""
    authority = Authority.create(tmp_path, "authority")
    old, new = authority.sign("old"), authority.sign("new")
    cert, key = (tmp_path / name for name in ("cert.pem", "key.pem"))

    def use(pair: tuple[Path, Path]) -> None:
        for file, source in zip((cert, key), pair, strict=True):
            file.write_text(source.read_text())

    use(old)
    with deployed.serve("--tls-cert", str(cert), "--tls-key", str(key)) as server:
        server.ready()
        use(new)

        def told() -> set[int]:
            return {line["worker"] for line in server.log if line["event"] == "changed files used"}

        until(lambda: told() == set(range(1, COUNT + 1)))
        server.stop()


async def test_sixteen_workers_fit_a_database_as_it_is(used: Used, stack: AsyncExitStack) -> None:
    """After work on every path they leave five of the connections that PostgreSQL gives by default; changes go on."""
    count = 16
    assert run("lease-limit", "30", "--data-dir", used.folder).returncode == 0
    with Serving("--data-dir", used.folder, KEYSVC_WORKERS=str(count), **LEASE) as server:
        await asyncio.to_thread(server.ready, 150)
        address = server.ready()
        clients = await connect_to_all(stack, server, address, used.operator_key, count)

        async def work(client: Client) -> None:
            workspace = (await client.create_workspace(f"acme-corp/{uuid4().hex}")).name
            created = await client.create(workspace=workspace)
            await asyncio.gather(
                *(client.verify(created.key_string, consistency={"strong": {}}) for _ in range(5)),
                *(client.get(created.key.id) for _ in range(5)),
                *(client.list(workspace=workspace) for _ in range(5)),
                client.call(client.usage.QueryUsage, usage_service_pb2.QueryUsageRequest()),
                client.suspend(created.key.id),
            )
            receipt = (await client.revoke(created.key.id)).receipt
            assert receipt.path == receipt_pb2.Receipt.PATH_ACK

        some = asyncio.Semaphore(4)

        async def persist(client: Client) -> None:
            # It is more than a machine of tests is made for: where that is too slow, callers are told to come again.
            async with some, asyncio.timeout(90):
                while True:
                    try:
                        return await work(client)
                    except Refused as refused:
                        if refused.retry_after_seconds is None:
                            raise
                    await asyncio.sleep(0.5)

        await asyncio.gather(*map(persist, clients.values()))
        record = Record.read(used.folder / "cluster")
        assert record is not None
        with psycopg.connect(record.admin_url) as connection:
            query = "SELECT application_name, count(*) FROM pg_stat_activity WHERE usename = 'keysvc' GROUP BY 1"
            used_for = dict(connection.execute(query).fetchall())
        assert sum(used_for.values()) <= 97 - 5
        for line in ("keysvc lease", "keysvc barrier", "keysvc listen", "keysvc verify"):
            assert used_for[line] == count
        status = await asyncio.to_thread(run, "status", "--json", "--data-dir", used.folder)
        assert len(json.loads(status.stdout)["holders"]) == count
        server.stop()
        assert not processes_of(used.folder)
    assert not [line for line in server.log if line["event"] == "worker ended"]
