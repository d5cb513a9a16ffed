"""A client of several servers, real processes, that are restarted one after the other."""

import asyncio
import secrets
from contextlib import ExitStack

import pytest

from keysvc_client import Verdict
from tests.client.conftest import Connect, call
from tests.deployment import eventually
from tests.process.running import Serving, copy_of, run, until

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

TASKS = 8


async def test_a_rolling_restart_fails_no_call(connect: Connect, server_url: str, template_database: str) -> None:
    """Calls take turns among the servers; while each is stopped and started again, all are answered."""
    with ExitStack() as stack:
        url = stack.enter_context(copy_of(server_url, template_database))
        variables = {"KEYSVC_DATABASE_URL": url, "KEYSVC_PEPPERS": secrets.token_hex(32)}
        servers = [stack.enter_context(Serving(**variables)) for _ in range(2)]
        addresses = [await asyncio.to_thread(server.ready) for server in servers]
        operator_key = (await asyncio.to_thread(run, "bootstrap", **variables)).stdout.strip()
        client = connect(f"ipv4:{','.join(addresses)}", api_key=operator_key, verify_timeout=30, timeout=30)
        await call(client.workspaces.create, "acme-corp/sales")
        created = await call(client.keys.create, workspace="acme-corp/sales", display_name="a key", environment="live")
        ended = asyncio.Event()
        answers: list[Verdict] = []

        async def verify() -> None:
            while not ended.is_set():
                answers.append((await call(client.verify, created.key_string)).verdict)

        async def holders() -> set[str]:
            found = {(await call(client.verify, created.key_string)).holder for _ in range(2 * TASKS)}
            return found if len(found) == len(servers) else set()

        seen = set(await eventually(holders))
        verifying = [asyncio.create_task(verify()) for _ in range(TASKS)]
        for at, address in enumerate(addresses):
            await asyncio.to_thread(servers[at].stop)
            count = len(answers)
            await asyncio.to_thread(until, lambda before=count: len(answers) > before + TASKS)
            servers[at] = stack.enter_context(Serving(listen=address, **variables))
            await asyncio.to_thread(servers[at].ready)
            seen |= await eventually(holders)
        ended.set()
        await asyncio.gather(*verifying)
        await call(client.close)
    assert set(answers) == {Verdict.VALID}
    assert len(seen) == 2 * len(servers)
