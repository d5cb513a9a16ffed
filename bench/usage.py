"""RecordUsage: how many records per second become durable."""

import asyncio
import time
from typing import Final
from uuid import uuid4

import grpc
import psycopg

from bench.deployment import Served
from bench.generator import WrongAnswersError
from bench.result import Column, Row, Topic, percentile
from bench.session import CALL_SECONDS_MAX, Session, metadata_of
from keysvc.v1 import usage_pb2

BATCH: Final = 1_000
SOURCES: Final = 4
DIFFERENT_KEYS: Final = (1, 100, 1_000)
RECORDS_PER_SECOND_MIN: Final = 50_000.0

_RECORD_USAGE: Final = "/keysvc.v1.KeyService/RecordUsage"

COLUMNS: Final = (
    Column("per_second", "records per second"),
    Column("p50_ms", "batch p50 ms", ".1f"),
    Column("p99_ms", "batch p99 ms", ".1f"),
    Column("server_us", "CPU µs server, a record", ".1f"),
    Column("database_us", "CPU µs PostgreSQL", ".1f"),
    Column("records", "records"),
)


async def measure(session: Session) -> Topic:
    """Batches from several sources, for few and for many different keys."""
    topic = Topic(
        "usage",
        "RecordUsage",
        f"{SOURCES} sources at once, each of which sends its next batch of {BATCH:,} records when the last is durable "
        "(fsync and synchronous_commit on).",
        COLUMNS,
    )
    with session.serve() as served:
        for different in DIFFERENT_KEYS:
            before = _recorded(session)
            row = await _row(session, served, different)
            recorded = _recorded(session) - before
            if recorded != row.figures["records"]:
                raise WrongAnswersError(f"{row.figures['records']} records were acknowledged, {recorded} were counted")
            topic.rows.append(row)
    total = sum(row.figures["records"] or 0 for row in topic.rows)
    topic.checks.append(f"the totals grew by exactly the {total:,} records that were acknowledged")
    return topic


async def _row(session: Session, served: Served, different: int) -> Row:
    records = _records(session, different)
    ends = time.monotonic() + session.effort.usage_seconds
    seconds: list[float] = []

    async def send(channel: grpc.aio.Channel) -> None:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_RECORD_USAGE)
        source, number = str(uuid4()), 0
        while time.monotonic() < ends:
            number += 1
            # Messages one after the other are one message, so the records are serialized only once.
            head = usage_pb2.RecordUsageRequest(source_id=source, batch_seq=number).SerializeToString()
            began = time.monotonic()
            raw = await call(head + records, metadata=metadata_of(session.operator), timeout=CALL_SECONDS_MAX)
            seconds.append(time.monotonic() - began)
            answer = usage_pb2.RecordUsageResponse.FromString(raw)
            if answer.accepted != BATCH or answer.duplicate or answer.failures:
                raise WrongAnswersError(f"of a batch of {BATCH} records {answer.accepted} were accepted")

    began, server, database = time.monotonic(), served.server_seconds(), served.database_seconds()
    async with grpc.aio.insecure_channel(served.address) as channel:
        await asyncio.gather(*(send(channel) for _ in range(SOURCES)))
    rate = len(seconds) * BATCH / (time.monotonic() - began)
    total = len(seconds) * BATCH
    return Row(
        f"{different:,} different {'key' if different == 1 else 'keys'} in a batch",
        {
            "per_second": rate,
            "p50_ms": percentile(seconds, 0.5) * 1000,
            "p99_ms": percentile(seconds, 0.99) * 1000,
            "server_us": (served.server_seconds() - server) / total * 1e6,
            "database_us": (served.database_seconds() - database) / total * 1e6,
            "records": total,
        },
        target=f"at least {RECORDS_PER_SECOND_MIN:,.0f}/s",
        holds=rate >= RECORDS_PER_SECOND_MIN,
    )


def _records(session: Session, different: int) -> bytes:
    """The records of a batch, serialized."""
    with psycopg.connect(session.deployment.url) as connection:
        secrets = connection.execute(
            "SELECT key_id::text, id FROM secret ORDER BY id LIMIT %s", (different,)
        ).fetchall()
    batch = usage_pb2.RecordUsageRequest()
    for number in range(BATCH):
        key_id, secret_id = secrets[number % len(secrets)]
        batch.records.add(
            key_id=key_id,
            secret_id=secret_id,
            outcome=usage_pb2.OUTCOME_SUCCESS,
            status_code=200,
            resource="GET /v1/documents/{id}",
            units=3,
            source_ip="203.0.113.7",
        )
    return batch.SerializeToString()


def _recorded(session: Session) -> int:
    with psycopg.connect(session.deployment.url) as connection:
        row = connection.execute("SELECT sum(success_count) FROM usage_total").fetchone()
    return int(row[0] or 0) if row else 0
