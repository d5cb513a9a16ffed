"""A server that is killed in the middle of its work forgets nothing that it acknowledged, and leaves nothing half done.

Each round kills one under load, starts another one on the same folder, and lets ``history`` judge what that tells.
"""

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import grpc
import psutil
import pytest
from google.protobuf.json_format import MessageToDict

from keysvc.core.usage import Tally
from keysvc.v1 import audit_service_pb2, key_pb2, key_service_pb2, usage_pb2, usage_service_pb2, verify_pb2
from tests.deployment import WORKSPACE, Client, Refused
from tests.process.conftest import Used
from tests.process.history import Answer, Batch, Call, Event, Judged, Key, Life, Secret, Seen, Source, violations
from tests.process.running import START_SECONDS_MAX, Serving, postmaster_of

pytestmark = pytest.mark.timeout(180)  # on a busy machine each of many processes takes its time

T = TypeVar("T")

LIVES: Final = 160
SOURCES: Final = 40
"""Together so many calls are under way at once."""

CALLS_MAX: Final = 6
"""Of one key or source, while the server is under load; sources make all of them."""

ACKNOWLEDGED: Final = (20, 250)
"""Somewhere between so many acknowledgements the server is killed; there are always more to come."""

UNANSWERED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""After these a caller knows nothing. Without a kill they come where a machine is very busy."""

NAMES: Final = ("display_name", "owner", "scopes", "tags", "metadata")
"""Fields of keys that are given and changed."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """As many rounds as ``--rounds`` says."""
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(metafunc.config.getoption("rounds")))


async def test_a_killed_server_forgets_nothing(used: Used, number: int, pytestconfig: pytest.Config) -> None:
    """What was acknowledged is there, once; what was not is there wholly or not at all, and can be repeated.

    In every second round PostgreSQL is killed too, by turns with its backends and without.
    """
    seed = pytestconfig.getoption("seed")
    chance = random.Random(f"{seed} {number}")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Serving("--data-dir", used.folder))
        load = Load(await client_of(stack, server, used.operator_key), chance)
        await load.prepare()
        victims = [server.process, *(postgres_of(used.folder, with_backends=number % 4 == 3) if number % 2 else [])]
        told = f"--seed={seed}, round {number}, {len(victims)} processes"
        told += f" killed after {await load.run_until_killed(victims)}"
        assert server.ended() == -signal.SIGKILL
        assert load.acknowledged
        assert load.cut_off

    async with AsyncExitStack() as stack:
        server = stack.enter_context(Serving("--data-dir", used.folder))
        after = After(await client_of(stack, server, used.operator_key), load)
        seen = await after.look()
        found = load.violations(seen)
        made = sum(seen.has(call) for call in load.open_calls)
        told += f"; {load.acknowledged} calls acknowledged, {load.unanswered} not, of which {made} changes and "
        told += f"{sum(load.was_recorded(source, seen) for source in load.sources)} batches were made all the same"
        repeated = await after.repeat(seen)
        found += load.violations(await after.look())
        print(f"{told}; {repeated} repeated; {len(found)} violations")  # noqa: T201 (for `make test-killed`)
        assert found == []
        server.stop()


async def client_of(stack: AsyncExitStack, server: Serving, key_string: str) -> Client:
    """The operator, as a client of a server."""
    channel = grpc.aio.insecure_channel(server.ready())
    stack.push_async_callback(channel.close)
    return Client(channel, key_string)


def postgres_of(folder: Path, *, with_backends: bool) -> list[psutil.Process]:
    """The PostgreSQL of a data folder, and all that it has started."""
    postmaster = postmaster_of(folder)
    return [postmaster, *(postmaster.children() if with_backends else [])]


def key_of(message: key_pb2.Key) -> Key:
    """A key as the API tells it."""
    told = MessageToDict(message, preserving_proto_field_name=True)
    return Key(
        message.id,
        {name: told[name] for name in NAMES if name in told},
        key_pb2.Key.State.Name(message.state).removeprefix("STATE_"),
        message.revocation.reason,
        tuple(
            Secret(secret.id, key_pb2.Key.State.Name(secret.state).removeprefix("STATE_"), secret.revocation.reason)
            for secret in message.secrets
        ),
        message.etag,
    )


async def send(operator: Client, call: Call, key: Key | None) -> Answer:
    """Make a call; what was acknowledged.

    Parameters:
        key: as it was before.
    """
    fields: dict[str, Any] = {**call.wanted, "reason": call.label}
    if call.method == "Create":
        created = await operator.create(**fields)
        return Answer(key_of(created.key), created.key.secrets[0].id, created.key_string)
    assert key is not None
    if call.method == "Update":
        request = key_service_pb2.UpdateRequest(
            key={"id": key.id, "etag": key.etag, **call.wanted},
            update_mask={"paths": [*call.wanted]},
            reason=call.label,
        )
        return Answer(key_of((await operator.call(operator.keys.Update, request)).key))
    if call.method == "Rotate":
        rotated = await operator.rotate(key.id, **{**fields, "overlap": {"seconds": call.wanted["overlap"]}})
        return Answer(key_of(rotated.key), rotated.key.secrets[-1].id, rotated.key_string)
    change: Any = {"Suspend": operator.suspend, "Resume": operator.resume, "Revoke": operator.revoke}[call.method]
    return Answer(key_of((await change(key.id, **fields)).key))


async def report(operator: Client, source: Source, number: int, records: Sequence[Any]) -> Any:
    """Send a batch of a source."""
    request = usage_pb2.RecordUsageRequest(source_id=source.name, batch_seq=number, records=records)
    answer = await operator.call(operator.keys.RecordUsage, request)
    assert answer.accepted == len(records)
    return answer


@dataclass
class Planned(Life):
    """The life of a key, and what becomes of it.

    Parameters:
        key: as it was last acknowledged.
    """

    chance: random.Random = field(default_factory=random.Random)
    key: Key | None = None

    def plan(self, *, repeatable: bool = False) -> Call | None:
        """The next call, one that changes something; None if nothing is left that does.

        Parameters:
            repeatable: a creation shall have a request id; else chance decides.
        """
        label = f"{self.name}.{len(self.calls)}"
        claim = {"request_id": str(UUID(int=self.chance.getrandbits(128), version=4))}
        claim = claim if repeatable or self.chance.getrandbits(1) else {}
        if self.key is None:
            some = self.fields() | {"display_name": self.name}
            return Call(label, "Create", {**some, **claim})
        if self.key.state == "REVOKED":
            return None
        revoke = [{"secret_id": secret.id} for secret in self.key.living]
        rotate = [{"overlap": overlap, **claim} for overlap in (0, 3600) if len(self.key.living) < 2]
        choices: list[tuple[str, list[dict[str, Any]]]] = [
            ("Rotate", rotate),
            ("Revoke", [*revoke, {"secret_id": ""}]),
            ("Update", [self.fields()]),
            ("Resume" if self.key.state == "SUSPENDED" else "Suspend", [{}]),
        ]
        method, wanted = self.chance.choice([(method, wanted) for method, wanted in choices if wanted])
        return Call(label, method, self.chance.choice(wanted))

    def fields(self) -> dict[str, Any]:
        """Fields of a key; no two calls have the same."""
        word = f"{self.chance.getrandbits(64):x}"
        given: dict[str, Any] = {"owner": word, "scopes": [f"pdf.{word}"], "tags": [word], "metadata": {"plan": word}}
        return {"owner": word} | {name: value for name, value in given.items() if self.chance.getrandbits(1)}


class Load:
    """Calls that are made at once, until the server is killed, and what became of them.

    Parameters:
        operator: makes them.
        chance: decides what is left to chance.
    """

    def __init__(self, operator: Client, chance: random.Random) -> None:
        self._operator = operator
        self._chance = chance
        self._answered = asyncio.Event()
        self._is_killed = False
        self._records = dict[tuple[str, int], list[usage_pb2.UsageRecord]]()
        self.acknowledged = 0
        self.cut_off = 0
        self.shared = usage_pb2.UsageRecord()
        self.lives = [Planned(f"{each}", [], random.Random(chance.getrandbits(64))) for each in range(LIVES)]
        self.sources = list[Source]()

    @property
    def open_calls(self) -> list[Call]:
        """The changes that were not answered."""
        return [life.open for life in self.lives if life.open]

    @property
    def unanswered(self) -> int:
        """How many calls were not answered."""
        return len(self.open_calls) + sum(source.open is not None for source in self.sources)

    def was_recorded(self, source: Source, seen: Seen) -> bool:
        """Whether the unanswered batch of a source is in the totals."""
        return source.open is not None and source.recorded(seen.usage) == source.batches

    def violations(self, seen: Seen) -> list[str]:
        """What is wrong with what is there."""
        return violations(self.lives, self.sources, self.shared.secret_id, seen)

    def records(self, source: Source, number: int) -> list[usage_pb2.UsageRecord]:
        """The records of a batch, the same whenever they are asked for."""
        return self._records[source.name, number]

    async def prepare(self) -> None:
        """Make a workspace, what usage is reported of, and every second key: those begin with other calls."""
        await self._operator.create_workspace()
        metered = [Planned(f"metered {each}", []) for each in range(SOURCES + 1)]
        await at_once(*(self._create(life) for life in [*metered, *self.lives[::2]]))
        made = [life.calls[0].answer for life in metered]
        *own, shared = [usage_pb2.UsageRecord(key_id=each.key.id, secret_id=each.secret_id) for each in made if each]
        self.shared = shared
        for each in own:
            source = Source(f"source {each.key_id}", each.secret_id, [])
            self.sources.append(source)
            for number in range(1, CALLS_MAX + 1):
                self._records[source.name, number] = [*self._some_of(each), *self._some_of(shared)]
        self.lives += metered

    async def run_until_killed(self, victims: Sequence[Any]) -> str:
        """Make calls, all keys and sources at once, each one after the other; what was killed when."""
        kill_at = self._chance.randint(*ACKNOWLEDGED)
        pause = self._chance.choice([0.0, self._chance.uniform(0, 1)]) if len(victims) > 1 else 0.0
        first, last = self._chance.choice([(victims[:1], victims[1:]), (victims[1:], victims[:1])])
        async with asyncio.TaskGroup() as group:
            sources = [group.create_task(self._report(source)) for source in self.sources]
            lives = [group.create_task(self._live(life)) for life in self.lives[:LIVES]]
            # Where a busy machine leaves too many calls without an answer it is never so far: then the end is.
            while self.acknowledged < kill_at and not all(task.done() for task in lives + sources):
                await self._answered.wait()
                self._answered.clear()
            # Not always right after an answer, nor always all at once: a server may notice that its database has died.
            await asyncio.sleep(self._chance.uniform(0, 0.02))
            self._is_killed = True
            for each in first:
                kill(each)
            await asyncio.sleep(pause)
            for each in last:
                kill(each)
        return f"{kill_at} acknowledgements, the last one after {pause:.2f} s"

    async def _create(self, life: Planned) -> None:
        """Begin the life of a key."""
        call = life.plan(repeatable=True)
        assert call
        life.calls.append(call)
        call.answer = await persist(send, self._operator, call, None)
        life.key = call.answer.key

    async def _live(self, life: Planned) -> None:
        """Make the calls of a key, until one is not answered."""
        for _ in range(CALLS_MAX):
            call = None if self._is_killed else life.plan()
            if call is None:
                break
            life.calls.append(call)
            with refused_with(*UNANSWERED) as refusals:
                call.answer = await send(self._operator, call, life.key)
                life.key = call.answer.key
            self._count(is_answered=not refusals)
            if refusals:
                break

    async def _report(self, source: Source) -> None:
        """Send the batches of a source, until one is not answered."""
        for number in range(1, CALLS_MAX + 1):
            if self._is_killed:
                break
            records = self.records(source, number)
            own = [record for record in records if record.secret_id == source.secret_id]
            shared = [record for record in records if record.secret_id != source.secret_id]
            batch = Batch(tally_of(own), tally_of(shared))
            source.batches.append(batch)
            with refused_with(*UNANSWERED) as refusals:
                assert not (await report(self._operator, source, number, records)).duplicate
                batch.is_acknowledged = True
            self._count(is_answered=not refusals)
            if refusals:
                break

    def _count(self, *, is_answered: bool) -> None:
        """Count a call."""
        self.acknowledged += is_answered
        self.cut_off += not is_answered and self._is_killed
        self._answered.set()

    def _some_of(self, record: usage_pb2.UsageRecord) -> Iterator[usage_pb2.UsageRecord]:
        """Records of a secret."""
        for _ in range(self._chance.randint(1, 5)):
            some = usage_pb2.UsageRecord(
                outcome=self._chance.choice([usage_pb2.OUTCOME_SUCCESS, usage_pb2.OUTCOME_FAILURE]),
                count=self._chance.randint(1, 1000),
                units=self._chance.randint(0, 10**6),
            )
            some.MergeFrom(record)
            yield some


class After:
    """What is there after the kill.

    Parameters:
        operator: asks for it.
        load: what was there before.
    """

    def __init__(self, operator: Client, load: Load) -> None:
        self._operator = operator
        self._load = load

    async def look(self) -> Seen:
        """All that the API tells, once every revocation is final: a server finishes what a killed one waited for."""
        async with asyncio.timeout(START_SECONDS_MAX):
            while True:
                seen = await self._look()
                if not any("REVOKING" in {key.state, *(each.state for each in key.secrets)} for key in seen.keys):
                    return seen
                await asyncio.sleep(0.2)

    async def _look(self) -> Seen:
        """All that the API tells."""
        answers = [call.answer for life in self._load.lives for call in life.calls if call.answer]
        key_strings = [answer.key_string for answer in answers if answer.key_string]
        return Seen(
            [
                key_of(key)
                for page in await self._pages(
                    self._operator.keys.List, key_service_pb2.ListRequest(workspace=WORKSPACE, page_size=1000)
                )
                for key in page.keys
            ],
            [
                event_of(event)
                for page in await self._pages(
                    self._operator.audit.ListAuditEvents,
                    audit_service_pb2.ListAuditEventsRequest(workspace=WORKSPACE, page_size=1000),
                )
                for event in page.events
                if event.key_id
            ],
            {
                bucket.secret_id: Tally(0, bucket.success_count, bucket.failure_count, bucket.units)
                for page in await self._pages(
                    self._operator.usage.QueryUsage,
                    usage_service_pb2.QueryUsageRequest(
                        workspace=WORKSPACE, groups=["GROUP_SECRET", "GROUP_VERDICT"], page_size=1000
                    ),
                )
                for bucket in page.buckets
                if bucket.verdict == verify_pb2.VERDICT_UNSPECIFIED
            },
            await self._judge(key_strings),
        )

    async def repeat(self, seen: Seen) -> int:
        """Repeat what was not answered and is safe to repeat, twice; how many calls that were.

        A repeated Create or Rotate answers one key string, a repeated batch says whether it was there before.
        """
        changes = [life for life in self._load.lives if life.open and life.open.is_repeatable]
        batches = [source for source in self._load.sources if source.open]
        recorded = [self._load.was_recorded(source, seen) for source in batches]
        await at_once(
            *(self._repeat(life) for life in changes),
            *(self._report(source, was_recorded=was) for source, was in zip(batches, recorded, strict=True)),
        )
        return len(changes) + len(batches)

    async def _repeat(self, life: Planned) -> None:
        """Repeat the change that was not answered. With its etag an Update that was made cannot be made again."""
        call = life.calls[-1]
        answers = []
        for _ in range(2):
            with refused_with(grpc.StatusCode.ABORTED) as has_changed_before:
                answers.append(await persist(send, self._operator, call, life.key))
            if has_changed_before and life.key and call.method == "Update":
                answers.append(Answer(key_of(await persist(self._operator.get, life.key.id))))
        assert answers[0] == answers[1]
        call.answer = answers[0]

    async def _report(self, source: Source, *, was_recorded: bool) -> None:
        """Repeat the batch that was not answered."""
        number = len(source.batches)
        records = self._load.records(source, number)
        answers = [await persist(report, self._operator, source, number, records) for _ in range(2)]
        assert answers[0].duplicate >= was_recorded
        assert answers[1].duplicate
        source.batches[-1].is_acknowledged = True

    async def _judge(self, key_strings: Sequence[str]) -> dict[str, Judged]:
        """What Verify says to key strings."""
        found = {}
        for begin in range(0, len(key_strings), 500):
            some = key_strings[begin : begin + 500]
            batch = verify_pb2.VerifyBatchRequest(requests=[{"key_string": each} for each in some])
            answer = await self._operator.call(self._operator.keys.VerifyBatch, batch)
            for key_string, each in zip(some, answer.responses, strict=True):
                verdict = verify_pb2.Verdict.Name(each.verdict).removeprefix("VERDICT_")
                found[key_string] = Judged(verdict, each.key_id, each.secret_id)
        return found

    async def _pages(self, method: Callable[..., Any], request: Any) -> list[Any]:
        """All pages of a list."""
        pages = [await self._operator.call(method, request)]
        while pages[-1].next_page_token:
            request.page_token = pages[-1].next_page_token
            pages.append(await self._operator.call(method, request))
        return pages


@contextlib.contextmanager
def refused_with(*codes: grpc.StatusCode) -> Iterator[list[Refused]]:
    """A call that may be refused like this; any other refusal is a failure. What happened is in the list."""
    happened = list[Refused]()
    try:
        yield happened
    except Refused as refused:
        if refused.code not in codes:
            raise
        happened.append(refused)


async def persist(call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Make a call that is safe to repeat until it is answered: a busy machine may need several."""
    async with asyncio.timeout(START_SECONDS_MAX):
        while True:
            with refused_with(*UNANSWERED):
                return await call(*arguments)
            await asyncio.sleep(0.5)


async def at_once(*calls: Coroutine[Any, Any, None]) -> None:
    """Make all calls, some at once."""
    some = asyncio.Semaphore(20)

    async def make(call: Coroutine[Any, Any, None]) -> None:
        async with some:
            await call

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(make(call))


def kill(victim: Any) -> None:
    """Kill a process, if it is still there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.kill()


def event_of(event: audit_service_pb2.AuditEvent) -> Event:
    """An audit event of a key."""
    service, _, method = event.method.partition("/")
    assert service == "keysvc.v1.KeyService"
    secret_id = event.secret_id
    if method == "Create":
        (secret,) = event.after["secrets"]
        secret_id = secret["id"]
    return Event(event.reason, method, event.key_id, secret_id)


def tally_of(records: Sequence[usage_pb2.UsageRecord]) -> Tally:
    """What records add to the totals."""
    count = {outcome: sum(each.count for each in records if each.outcome == outcome) for outcome in (1, 2)}
    return Tally(
        success_count=count[usage_pb2.OUTCOME_SUCCESS],
        failure_count=count[usage_pb2.OUTCOME_FAILURE],
        units=sum(each.units for each in records),
    )
