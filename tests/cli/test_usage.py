import json
import re
from typing import Any

import pytest

from keysvc.v1 import verify_pb2
from keysvc.v1.usage_pb2 import UsageBucket
from keysvc.v1.usage_service_pb2 import QueryUsageRequest, QueryUsageResponse
from tests.cli.conftest import Run
from tests.cli.peer import Peer
from tests.cli.sample import KEY_ID, OTHER_KEY_ID, SECRET_ID, from_now

BUCKETS = [
    UsageBucket(workspace="", verdict=verify_pb2.VERDICT_NOT_FOUND, verify_count=12),
    UsageBucket(
        workspace="acme-corp/sales",
        key_id=KEY_ID,
        secret_id=SECRET_ID,
        success_count=12_000,
        failure_count=5,
        units=123_456,
    ),
    UsageBucket(
        workspace="acme-corp/sales",
        key_id=KEY_ID,
        secret_id=SECRET_ID,
        verdict=verify_pb2.VERDICT_VALID,
        verify_count=1_234_567,
    ),
    UsageBucket(
        workspace="acme-corp/sales",
        key_id=OTHER_KEY_ID,
        secret_id="9z",
        verdict=verify_pb2.VERDICT_REVOKED,
        verify_count=3,
    ),
]


def answer(**fields: Any) -> QueryUsageResponse:
    """An answer, two seconds old."""
    return QueryUsageResponse(**({"buckets": BUCKETS, "usage_time": from_now(seconds=-2)} | fields))


def test_usage_sends_every_field_that_is_built(peer: Peer, run: Run) -> None:
    """What to keep apart may be repeated, or separated by commas."""
    peer.answers("QueryUsage", *[answer()] * 2)
    run(
        *("usage", "--workspace", "a/b", "--key-id", KEY_ID, "--by", "verdict,key", "--by", "secret", "--by", "key"),
        *("--page-size", "7", "--page-token", "t"),
    )
    run("usage")
    assert peer.requests["QueryUsage"] == [
        QueryUsageRequest(
            workspace="a/b",
            key_id=KEY_ID,
            groups=[
                QueryUsageRequest.GROUP_KEY,
                QueryUsageRequest.GROUP_SECRET,
                QueryUsageRequest.GROUP_VERDICT,
            ],
            page_size=7,
            page_token="t",
        ),
        QueryUsageRequest(),
    ]


def test_what_cannot_be_kept_apart_is_not_asked_for(peer: Peer, run: Run) -> None:
    """Wrong usage."""
    result = run("usage", "--by", "key,colour")
    assert result.code == 2
    assert "--by: 'colour' is not one of key, secret, verdict." in result.err
    assert not peer.requests


def test_in_a_pipe_each_count_is_a_line_of_plain_numbers(peer: Peer, run: Run) -> None:
    """For awk: as many words in each, whatever is known."""
    peer.answers("QueryUsage", answer())
    lines = run("usage", "--by", "key,secret,verdict").out.splitlines()
    assert [re.split(" {2,}", line) for line in (lines[0], lines[2], lines[3])] == [
        ["Workspace", "Key", "Secret", "Verdict", "Verified", "Succeeded", "Failed", "Units"],
        ["acme-corp/sales", KEY_ID, SECRET_ID, "(recorded work)", "0", "12000", "5", "123456"],
        ["acme-corp/sales", KEY_ID, SECRET_ID, "VALID", "1234567", "0", "0", "0"],
    ]
    assert lines[1].split()[-5:] == ["NOT_FOUND", "12", "0", "0", "0"]


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_screen_counts_are_a_tree_with_numbers_below_each_other(peer: Peer, run: Run, columns: int) -> None:
    """Two ids do not fit beside each other there; every line fits."""
    peer.answers("QueryUsage", answer())
    out = re.sub(r"\x1b\[[0-9;]*m", "", run("usage", "--by", "key,secret,verdict", columns=columns).out)
    assert out.splitlines() == [
        "Workspace / Key / Secret / Verdict       Verified  Succeeded  Failed    Units",
        "(no known key)",
        "  NOT_FOUND                                    12          0       0        0",
        "acme-corp/sales",
        f"  {KEY_ID}",
        f"    {SECRET_ID}",
        "      (recorded work)                           0     12,000       5  123,456",
        "      VALID                             1,234,567          0       0        0",
        f"  {OTHER_KEY_ID}",
        "    9z",
        "      REVOKED                                   3          0       0        0",
    ]


def test_what_nobody_records_takes_no_room(peer: Peer, run: Run) -> None:
    """Without groups: a line for each workspace."""
    buckets = [UsageBucket(workspace="a/b", verify_count=7), UsageBucket(workspace="a/c", verify_count=1234)]
    peer.answers("QueryUsage", answer(buckets=buckets))
    out = re.sub(r"\x1b\[[0-9;]*m", "", run("usage", columns=80).out)
    assert out.splitlines() == ["Workspace  Verified", "a/b               7", "a/c           1,234"]


def test_it_is_said_how_fresh_the_counts_are(peer: Peer, run: Run) -> None:
    """Beside the list, also where it is empty; of several pages as fresh as the first one."""
    peer.answers("QueryUsage", answer(), answer(buckets=[]), answer(usage_time=None))
    assert re.fullmatch(r"Usage as of \S+ \S+ UTC \(2 s ago\)\.\n", run("usage").err)
    assert re.fullmatch(r"Nothing found\.\nUsage as of .*\n", run("usage").err)
    assert run("usage").err == "No server is counting: what was used since is not known.\n"
    peer.answers("QueryUsage", answer(next_page_token="2", usage_time=from_now(seconds=-30)), answer())
    assert "(30 s ago)" in run("usage", "--all").err


def test_quiet_is_what_was_asked_for_and_the_number_of_verifications(peer: Peer, run: Run) -> None:
    """`$(keysvc usage --key-id … -q)` is a number."""
    peer.answers("QueryUsage", answer(buckets=[UsageBucket(workspace="a/b", verify_count=7)]), answer())
    result = run("usage", "-q")
    assert (result.out, result.err) == ("7\n", "")
    assert run("usage", "-q", "--by", "secret,verdict").out.splitlines() == [
        "- NOT_FOUND 12",
        f"{SECRET_ID} (recorded work) 0",
        f"{SECRET_ID} VALID 1234567",
        "9z REVOKED 3",
    ]


def test_json_is_the_answer(peer: Peer, run: Run) -> None:
    """All pages in one."""
    peer.answers("QueryUsage", answer(next_page_token="2"), answer(buckets=BUCKETS[:1]))
    document = json.loads(run("usage", "--all", "--json").out)
    assert len(document["buckets"]) == len(BUCKETS) + 1
    assert document["buckets"][2]["verifyCount"] == "1234567"
    assert "usageTime" in document
    assert "nextPageToken" not in document
