"""Usage: every Verify is counted, every reported batch once, and the totals say how fresh they are."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from keysvc.core.pepper import Peppers
from keysvc.v1 import key_pb2, usage_pb2, usage_service_pb2, verify_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused, eventually

Group = usage_service_pb2.QueryUsageRequest.Group
Bucket = tuple[str, str, str, str, int]


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


async def query(client: Client, **fields: Any) -> usage_service_pb2.QueryUsageResponse:
    """Totals of usage."""
    return await client.call(client.usage.QueryUsage, usage_service_pb2.QueryUsageRequest(**fields))


async def used(client: Client, key_id: str, total: int) -> key_pb2.Key:
    """A key, when it has been judged so often as far as its server has written."""

    async def check() -> key_pb2.Key | None:
        key = await client.get(key_id)
        assert key.usage_total <= total
        return key if key.usage_total == total else None

    return await eventually(check)


async def await_usage_time(client: Client, key: key_pb2.Key) -> None:
    """Wait until counts are said to be complete up to the last use: what came after that time may be in them before."""

    async def check() -> bool:
        return (await client.get(key.id)).usage_time.ToDatetime() >= key.last_used_time.ToDatetime()

    await eventually(check)


def told(buckets: Iterable[usage_pb2.UsageBucket]) -> list[Bucket]:
    """Buckets of Verifies in short: workspace, key, secret, verdict, count."""
    return [
        (
            each.workspace,
            each.key_id,
            each.secret_id,
            verify_pb2.Verdict.Name(each.verdict).removeprefix("VERDICT_"),
            each.verify_count,
        )
        for each in buckets
    ]


def record(key: key_pb2.Key, **fields: Any) -> usage_pb2.UsageRecord:
    """One success with the key's first secret, or something else."""
    given = {"key_id": key.id, "secret_id": key.secrets[0].id, "outcome": usage_pb2.OUTCOME_SUCCESS} | fields
    return usage_pb2.UsageRecord(**given)


async def send(
    client: Client, seq: int, *records: usage_pb2.UsageRecord, source: str = "reporter"
) -> usage_pb2.RecordUsageResponse:
    """Send a batch."""
    request = usage_pb2.RecordUsageRequest(source_id=source, batch_seq=seq, records=records)
    return await client.call(client.keys.RecordUsage, request)


async def reported(client: Client, key_id: str) -> tuple[int, int, int]:
    """Successes, failures and units that were reported of a key."""
    (bucket,) = (await query(client, key_id=key_id)).buckets or [usage_pb2.UsageBucket()]
    return bucket.success_count, bucket.failure_count, bucket.units


async def refusal(attempt: Any) -> Refused:
    """How a call was refused."""
    with pytest.raises(Refused) as refused:
        await attempt
    return refused.value


async def test_verifies_are_counted_for_key_and_secret(operator: Client) -> None:
    """Both secrets of a rotation have counts of their own, so that one sees when traffic has moved."""
    created = await operator.create()
    assert (created.key.usage_total, created.key.HasField("last_used_time")) == (0, False)
    await asyncio.gather(*(operator.verify(created.key_string) for _ in range(30)))
    rotated = await operator.rotate(created.key.id)
    await asyncio.gather(*(operator.verify(rotated.key_string) for _ in range(12)))
    key = await used(operator, created.key.id, 42)
    assert [secret.usage_total for secret in key.secrets] == [30, 12]
    first, second = (secret.last_used_time.ToDatetime() for secret in key.secrets)
    assert created.key.create_time.ToDatetime() < first < second
    assert key.last_used_time.ToDatetime() == second
    await await_usage_time(operator, key)
    (listed,) = (await operator.list(workspace=WORKSPACE)).keys
    assert (listed.usage_total, listed.last_used_time) == (42, key.last_used_time)


async def test_a_refusal_counts_and_is_no_use(operator: Client) -> None:
    """Refusals are in the total; last used is when the key was last accepted."""
    created = await operator.create()
    await operator.verify(created.key_string, required_scopes=["pdf.read"])
    await operator.revoke(created.key.id)
    await operator.verify(created.key_string)
    key = await used(operator, created.key.id, 2)
    assert not key.HasField("last_used_time")
    buckets = (await query(operator, key_id=key.id, groups=[Group.GROUP_VERDICT])).buckets
    assert told(buckets) == [(WORKSPACE, "", "", "INSUFFICIENT_SCOPE", 1), (WORKSPACE, "", "", "REVOKED", 1)]


async def test_totals_by_key_secret_and_verdict(operator: Client) -> None:
    """Each group keeps apart what it names; workspaces are always kept apart."""
    await operator.create_workspace("acme-corp/support")
    sales, support = await operator.create(), await operator.create(workspace="acme-corp/support")
    for _ in range(3):
        await operator.verify(sales.key_string)
    await operator.verify(support.key_string, required_scopes=["x"])
    await used(operator, sales.key.id, 3)
    await used(operator, support.key.id, 1)
    secret, other = sales.key.secrets[0].id, support.key.secrets[0].id
    by = {
        (): [(WORKSPACE, "", "", "UNSPECIFIED", 3), ("acme-corp/support", "", "", "UNSPECIFIED", 1)],
        (Group.GROUP_KEY,): [
            (WORKSPACE, sales.key.id, "", "UNSPECIFIED", 3),
            ("acme-corp/support", support.key.id, "", "UNSPECIFIED", 1),
        ],
        (Group.GROUP_SECRET, Group.GROUP_VERDICT): [
            (WORKSPACE, sales.key.id, secret, "VALID", 3),
            ("acme-corp/support", support.key.id, other, "INSUFFICIENT_SCOPE", 1),
        ],
    }
    for groups, expected in by.items():
        answer = await query(operator, groups=groups)
        assert [each for each in told(answer.buckets) if each[0].startswith("acme")] == expected
        assert answer.HasField("usage_time")
        assert told((await query(operator, groups=groups, workspace=WORKSPACE)).buckets) == expected[:1]


async def test_pages_of_totals_are_walked_to_the_end(operator: Client) -> None:
    """All buckets come, once each, in order."""
    created = [await operator.create() for _ in range(5)]
    for each in created:
        await operator.verify(each.key_string)
        await operator.verify(each.key_string, required_scopes=["x"])
    for each in created:
        await used(operator, each.key.id, 2)
    groups = [Group.GROUP_KEY, Group.GROUP_VERDICT]
    seen: list[Bucket] = []
    page = await query(operator, workspace=WORKSPACE, groups=groups, page_size=3)
    while page.next_page_token:
        assert len(page.buckets) == 3
        seen += told(page.buckets)
        token = page.next_page_token
        page = await query(operator, workspace=WORKSPACE, groups=groups, page_size=3, page_token=token)
    seen += told(page.buckets)
    assert len(seen) == 10
    assert seen == sorted(seen, key=lambda each: (each[1], each[3] != "INSUFFICIENT_SCOPE"))
    assert set(seen) == {
        (WORKSPACE, each.key.id, "", verdict, 1) for each in created for verdict in ("VALID", "INSUFFICIENT_SCOPE")
    }
    bad = await refusal(query(operator, workspace=WORKSPACE, page_token=token))
    assert set(bad.violations) == {"page_token"}


async def test_what_proves_no_key_is_counted_for_nobody(deployment: Deployment, operator: Client) -> None:
    """Malformed and unknown key strings are counted without workspace, and only for those who may see everything."""
    limited = await deployment.caller("verify", "usage.read", workspaces=[WORKSPACE])
    await operator.create_workspace("acme-corp/support")
    foreign = await operator.create(workspace="acme-corp/support")
    assert await limited.verdict(foreign.key_string) == "NOT_FOUND"
    assert await operator.verdict("no key") == "MALFORMED"

    async def unproved() -> list[Bucket] | None:
        buckets = [each for each in (await query(operator, groups=[Group.GROUP_VERDICT])).buckets if not each.workspace]
        return told(buckets) if len(buckets) == 2 else None

    assert await eventually(unproved) == [("", "", "", "MALFORMED", 1), ("", "", "", "NOT_FOUND", 1)]
    assert (await operator.get(foreign.key.id)).usage_total == 0
    assert not (await query(limited)).buckets
    assert (await refusal(query(limited, key_id=foreign.key.id))).code.name == "NOT_FOUND"
    assert (await refusal(query(limited, workspace="acme-corp/support"))).code.name == "NOT_FOUND"
    elsewhere = query(operator, key_id=foreign.key.id, workspace=WORKSPACE)
    assert (await refusal(elsewhere)).code.name == "NOT_FOUND", "never used is something else"


async def test_callers_keys_are_counted_too(deployment: Deployment, operator: Client) -> None:
    """Each call is a Verify of its caller's key: one sees which caller keys are still in use."""
    created = await operator.create(workspace="keysvc/system", scopes=["verify"])
    caller = await deployment.client(created.key_string)
    for _ in range(3):
        await caller.verify("no key")
    assert (await used(operator, created.key.id, 3)).HasField("last_used_time")


async def test_a_clean_stop_loses_nothing(database_url: str, peppers: Peppers) -> None:
    """What was verified just before a server stops is in the totals that the next one tells; and it says that."""
    async with AsyncExitStack() as stack:
        deployment = await Deployment.open(stack, database_url, peppers)
        operator = await deployment.client()
        await operator.create_workspace()
        created = await operator.create()
        await asyncio.gather(*(operator.verify(created.key_string) for _ in range(200)))
    async with AsyncExitStack() as stack:
        after = await Deployment.open(stack, database_url, peppers, deployment.operator_key)
        assert (await (await after.client()).get(created.key.id)).usage_total == 200


async def test_two_servers_count_together(database_url: str, peppers: Peppers) -> None:
    """The totals are those of all servers, and as fresh as the slowest of them."""
    async with AsyncExitStack() as stack:
        first = await Deployment.open(stack, database_url, peppers)
        second = await Deployment.open(stack, database_url, peppers, first.operator_key)
        clients = [await first.client(), await second.client()]
        await clients[0].create_workspace()
        created = await clients[0].create()
        await asyncio.gather(*(client.verify(created.key_string) for client in clients for _ in range(25)))
        key = await used(clients[1], created.key.id, 50)
        await await_usage_time(clients[1], key)


async def test_idle_keys_are_found(operator: Client) -> None:
    """idle_since finds keys that were neither accepted nor created since; a refusal is no use."""
    idle, refused, busy = [await operator.create() for _ in range(3)]
    since = busy.key.create_time
    since.FromNanoseconds(since.ToNanoseconds() + 1000)
    await operator.verify(refused.key_string, required_scopes=["x"])
    await operator.verify(busy.key_string)
    await used(operator, refused.key.id, 1)
    await used(operator, busy.key.id, 1)
    young = await operator.create()
    found = [key.id for key in (await operator.list(workspace=WORKSPACE, idle_since=since)).keys]
    assert found == [refused.key.id, idle.key.id]
    assert young.key.id not in found
    assert not (await operator.list(workspace=WORKSPACE, idle_since=idle.key.create_time)).keys


async def test_the_time_of_activity_follows(operator: Client, database_url: str) -> None:
    """By which idle keys are looked for: seldom, since that is dear, but no more than a minute behind."""
    created = await operator.create()
    behind = "UPDATE key_activity SET active_time = active_time - interval '2 minutes'"
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert connection.execute(behind).rowcount > 1, "there are others"
        await operator.verify(created.key_string)
        await used(operator, created.key.id, 1)
        query = "SELECT key_id::text FROM key_activity WHERE active_time > now() - interval '1 minute'"
        assert (created.key.id,) in connection.execute(query).fetchall()


async def test_a_report_is_counted_once(operator: Client) -> None:
    """However often, and however concurrently, a batch is sent."""
    key = (await operator.create()).key
    batch = record(key, count=5, units=50), record(key, outcome=usage_pb2.OUTCOME_FAILURE), record(key)
    answers = await asyncio.gather(*(send(operator, 1, *batch) for _ in range(20)))
    assert [answer.accepted for answer in answers] == [3] * 20
    assert sum(not answer.duplicate for answer in answers) == 1
    assert await reported(operator, key.id) == (6, 1, 50)
    await send(operator, 2, record(key, units=1))
    assert (await send(operator, 1, *batch)).duplicate
    assert await reported(operator, key.id) == (7, 1, 51)
    assert (await operator.get(key.id)).usage_total == 0, "only Verifies are in it"


async def test_whichever_server_gets_it_counts_a_batch_once(database_url: str, peppers: Peppers) -> None:
    """Two servers get all batches, each of them twice."""
    async with AsyncExitStack() as stack:
        first = await Deployment.open(stack, database_url, peppers)
        second = await Deployment.open(stack, database_url, peppers, first.operator_key)
        clients = [await first.client(), await second.client()]
        await clients[0].create_workspace()
        key = (await clients[0].create()).key

        async def deliver(client: Client) -> None:
            for seq in range(1, 21):
                await send(client, seq, record(key, units=seq))

        await asyncio.gather(*(deliver(client) for client in clients * 2))
        assert await reported(clients[0], key.id) == (20, 0, sum(range(21)))


async def test_a_gap_is_refused_with_the_number_expected(operator: Client) -> None:
    """A batch that came before its predecessor would be lost sight of: it is refused, and says what is missing."""
    key = (await operator.create()).key
    for seq, expected in ((2, "1"), (1, None), (3, "2"), (2, None)):
        if expected is None:
            await send(operator, seq, record(key))
        else:
            refused = await refusal(send(operator, seq, record(key)))
            assert (refused.code.name, refused.metadata) == ("FAILED_PRECONDITION", {"expected_batch_seq": expected})
    assert await reported(operator, key.id) == (2, 0, 0)


async def test_another_batch_under_a_used_number_is_refused(operator: Client) -> None:
    """A source that forgot its number would otherwise lose what it sends, as a duplicate."""
    key = (await operator.create()).key
    await send(operator, 1, record(key))
    refused = await refusal(send(operator, 1, record(key, units=1)))
    assert (refused.code.name, refused.metadata) == ("FAILED_PRECONDITION", {"expected_batch_seq": "2"})
    assert await reported(operator, key.id) == (1, 0, 0)


async def test_a_source_belongs_to_the_caller_that_first_used_it(deployment: Deployment, operator: Client) -> None:
    """Nobody can make another caller's batches look like duplicates."""
    key = (await operator.create()).key
    other = await deployment.caller("usage.write")
    await send(operator, 1, record(key))
    for seq in (1, 2, 7):
        assert (await refusal(send(other, seq, record(key)))).code.name == "PERMISSION_DENIED"
    await send(other, 1, record(key), source="another")


POISON: dict[str, tuple[dict[str, Any], str]] = {
    "no-key": ({"key_id": ""}, "key_id"),
    "an-unknown-key": ({"key_id": "01234567-89ab-4cde-8f01-23456789abcd"}, "secret_id"),
    "no-secret": ({"secret_id": ""}, "secret_id"),
    "an-unknown-secret": ({"secret_id": "A" * 15}, "secret_id"),
    "no-outcome": ({"outcome": 0}, "outcome"),
    "an-unknown-outcome": ({"outcome": 99}, "outcome"),
    "a-negative-count": ({"count": -1}, "count"),
    "too-many": ({"count": 1_000_001}, "count"),
    "negative-units": ({"units": -5}, "units"),
    "too-many-units": ({"units": 10**12 + 1}, "units"),
    "no-address": ({"source_ip": "nowhere"}, "source_ip"),
    "a-long-resource": ({"resource": "x" * 129}, "resource"),
    "a-long-request-id": ({"request_id": "x" * 129}, "request_id"),
    "no-status": ({"status_code": -1}, "status_code"),
    "no-time": ({"occur_time": {"nanos": -1}}, "occur_time"),
}


async def test_poison_is_rejected_one_by_one(operator: Client) -> None:
    """Each bad record is told with its field; the others are kept, and the source goes on."""
    key = (await operator.create()).key
    records = [record(key, **fields) for fields, _ in POISON.values()]
    mixed = [each for poison in records for each in (poison, record(key))]
    answer = await send(operator, 1, *mixed)
    assert answer.accepted == len(POISON)
    assert [failure.index for failure in answer.failures] == list(range(0, 2 * len(POISON), 2))
    for failure, (_, field) in zip(answer.failures, POISON.values(), strict=True):
        assert failure.message.startswith(f"{field}: must"), failure.message
    again = await send(operator, 1, *mixed)
    assert (again.duplicate, again.accepted, again.failures) == (True, answer.accepted, answer.failures)
    only_poison = await send(operator, 2, records[0])
    assert (only_poison.accepted, only_poison.duplicate) == (0, False)
    await send(operator, 3, record(key))
    assert await reported(operator, key.id) == (len(POISON) + 1, 0, 0)


async def test_a_secret_of_another_key_is_poison(deployment: Deployment, operator: Client) -> None:
    """Usage is never put to a key that it is not of, nor to one that the caller may not know of."""
    key, other = (await operator.create()).key, (await operator.create()).key
    await operator.create_workspace("acme-corp/support")
    foreign = (await operator.create(workspace="acme-corp/support")).key
    limited = await deployment.caller("usage.write", workspaces=[WORKSPACE])
    answer = await send(limited, 1, record(key, secret_id=other.secrets[0].id), record(foreign), record(key))
    assert [failure.index for failure in answer.failures] == [0, 1]
    assert len({failure.message for failure in answer.failures}) == 1, "existing or not is not told"
    assert await reported(operator, key.id) == (1, 0, 0)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("source_id", ""),
        ("source_id", "x" * 129),
        ("source_id", "new\nline"),
        ("batch_seq", 0),
        ("batch_seq", 2**63),
        ("records", 0),
        ("records", 1001),
    ],
    ids=repr,
)
async def test_a_bad_batch_is_refused_whole(operator: Client, field: str, bad: Any) -> None:
    """Without source, number or records there is nothing to keep."""
    key = (await operator.create()).key
    good: dict[str, Any] = {"source_id": "s", "batch_seq": 1, "records": 1}
    fields = good | {field: bad}
    request = usage_pb2.RecordUsageRequest(**fields | {"records": [record(key)] * fields["records"]})
    refused = await refusal(operator.call(operator.keys.RecordUsage, request))
    assert (refused.code.name, set(refused.violations)) == ("INVALID_ARGUMENT", {field})


async def test_units_never_overflow(operator: Client) -> None:
    """The largest batches one after the other stop at what the answer can say, instead of failing."""
    key = (await operator.create()).key
    for seq in range(1, 13):
        await send(operator, seq, *[record(key, units=10**12)] * 1000)
    assert await reported(operator, key.id) == (12_000, 0, 12 * 10**15)
