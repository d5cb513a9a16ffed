"""How outcomes are reported: once each, off the path of requests, in bounded memory."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from keysvc.v1.usage_pb2 import Outcome, RecordUsageRequest, RecordUsageResponse
from keysvc_client import KeysvcClient, Verdict, Verification
from keysvc_client import reporting as module
from keysvc_client.channels import ATTEMPTS_MAX
from keysvc_client.counting import SLOTS, Counting, Kind
from keysvc_client.middleware.outcomes import Outcomes, Tally
from tests.cli.peer import Peer, Refusal
from tests.deployment import Client, Deployment, eventually
from tests.process.running import environment, until

KEY = Verification(Verdict.VALID, key_id="a-key", secret_id="a-secret")


@pytest.fixture
def outcomes(peer: Peer) -> Iterator[Outcomes]:
    """Of a service whose keysvc is the peer."""
    with KeysvcClient(peer.address, api_key="sk_live_anything") as client:
        found = Outcomes(client._connection)
        yield found
        found.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports come more often."""
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.02)


def batches(peer: Peer) -> list[RecordUsageRequest]:
    """What the peer was told."""
    return peer.requests["RecordUsage"]


def test_equal_outcomes_are_one_record(peer: Peer, outcomes: Outcomes) -> None:
    """With how many they are; closing sends them, without a verdict, so that no Verify is counted twice."""
    peer.answers("RecordUsage", RecordUsageResponse(accepted=2))
    for _ in range(3):
        outcomes.add(KEY, 200, is_success=True)
    outcomes.add(KEY, 404, is_success=False)
    outcomes.close()
    [batch] = batches(peer)
    assert batch.batch_seq == 1
    assert [(each.key_id, each.secret_id, each.outcome, each.status_code, each.count) for each in batch.records] == [
        ("a-key", "a-secret", Outcome.OUTCOME_SUCCESS, 200, 3),
        ("a-key", "a-secret", Outcome.OUTCOME_FAILURE, 404, 1),
    ]
    assert not any(each.verdict for each in batch.records)


def test_a_batch_is_sent_until_it_is_answered(
    peer: Peer, outcomes: Outcomes, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    """As it was, under its number, before any other; the log says once that reports wait."""
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "away", "UNAVAILABLE", retry=timedelta(seconds=1))
    peer.answers("RecordUsage", *[away] * (2 * ATTEMPTS_MAX), RecordUsageResponse(), RecordUsageResponse())
    outcomes.add(KEY, 200, is_success=True)
    until(lambda: len(batches(peer)) == 2)
    outcomes.add(KEY, 500, is_success=False)
    until(lambda: len(batches(peer)) == 2 * ATTEMPTS_MAX + 2)
    outcomes.close()
    told = [(each.batch_seq, [record.status_code for record in each.records]) for each in batches(peer)]
    assert told == [(1, [200])] * (2 * ATTEMPTS_MAX + 1) + [(2, [500])]
    assert len({each.source_id for each in batches(peer)}) == 1
    assert caplog.text.count("usage waits") == 1


def test_a_batch_that_will_never_be_taken_holds_nothing_up(
    peer: Peer, outcomes: Outcomes, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    """What the service has no number for is sent anew, as of a source of its own; the log tells what was refused."""
    gap = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "there is a gap", "BATCH_GAP")
    bad = RecordUsageResponse(failures=[RecordUsageResponse.Failure(index=0, message="key_id must be a UUID")])
    peer.answers("RecordUsage", gap, RecordUsageResponse(), bad, RecordUsageResponse())
    outcomes.add(KEY, 200, is_success=True)
    until(lambda: len(batches(peer)) == 2)
    outcomes.add(KEY, 201, is_success=True)
    until(lambda: len(batches(peer)) == 3)
    outcomes.add(KEY, 202, is_success=True)
    outcomes.close()
    told = batches(peer)
    assert [[record.status_code for record in each.records] for each in told] == [[200], [200], [201], [202]]
    assert [each.batch_seq for each in told] == [1, 1, 1, 2]
    assert len({each.source_id for each in told[:3]}) == 3
    assert "there is a gap" in caplog.text
    assert "key_id must be a UUID" in caplog.text


def test_many_keys_are_several_batches(peer: Peer, outcomes: Outcomes) -> None:
    """Of no more records than the contract allows."""
    peer.answers("RecordUsage", *[RecordUsageResponse()] * 3)
    for number in range(2 * SLOTS + 500):
        outcomes.add(Verification(Verdict.VALID, key_id=str(number)), 200, is_success=True)
    outcomes.close()
    assert [(each.batch_seq, len(each.records)) for each in batches(peer)] == [(1, SLOTS), (2, SLOTS), (3, 500)]


def test_what_waits_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """What is too much is told in the log, and nothing else of it kept."""
    tally = Tally(Counting(kinds_max=2))
    kinds = [Kind(key_id, "a-secret", "", "SUCCESS", 200) for key_id in "ababcd"]
    for kind in kinds:
        tally.add(kind)
    (sheet,) = tally.take()
    assert [(count.kind, count.number) for count in sheet] == [(kinds[0], 2), (kinds[1], 2)]
    assert "usage lost: 2 requests" in caplog.text
    tally.add(kinds[0])
    assert [[count.number for count in sheet] for sheet in tally.take()] == [[1]]
    assert tally.take() == []


def test_what_is_lost_is_told(peer: Peer, outcomes: Outcomes, caplog: pytest.LogCaptureFixture) -> None:
    """When a process ends while keysvc is away."""
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "away", "UNAVAILABLE")
    peer.answers("RecordUsage", *[away] * ATTEMPTS_MAX)
    outcomes.add(KEY, 200, is_success=True)
    outcomes.add(KEY, 200, is_success=True)
    outcomes.close()
    assert "usage lost: keysvc cannot be told of 2 requests" in caplog.text


def test_it_begins_anew_after_it_was_closed(peer: Peer, outcomes: Outcomes) -> None:
    """As an application does whose life is over, and begins again in the same process."""
    peer.answers("RecordUsage", RecordUsageResponse(), RecordUsageResponse())
    for _ in range(2):
        outcomes.add(KEY, 200, is_success=True)
        outcomes.close()
        outcomes.close()
    assert [each.batch_seq for each in batches(peer)] == [1, 1]
    assert len({each.source_id for each in batches(peer)}) == 2


PROGRAM = """
    import os, sys
    from keysvc_client import KeysvcClient, Verdict, Verification
    from keysvc_client.middleware.outcomes import Outcomes

    client = KeysvcClient()
    outcomes = Outcomes(client._connection)
    if os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    outcomes.add(client.verify(sys.argv[1]), 200, is_success=True)
"""


async def test_the_end_of_a_process_reports_the_rest(deployment: Deployment, operator: Client) -> None:
    """In the process that has served, such as a worker that was forked; nobody needs to close anything."""
    created = await operator.create()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(PROGRAM), created.key_string],
        env=environment(KEYSVC_ADDRESS=deployment.address, KEYSVC_API_KEY=deployment.operator_key),
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    with KeysvcClient(deployment.address, api_key=deployment.operator_key) as client:

        async def counted() -> Any:
            found = await asyncio.to_thread(list, client.usage.query(key_id=created.key.id))
            return [each.success_count for each in found if each.verify_count]

        assert await eventually(counted) == [1]
