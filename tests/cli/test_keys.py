import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest

from keysvc.v1 import key_pb2, receipt_pb2
from keysvc.v1.key_pb2 import Secret
from keysvc.v1.key_service_pb2 import (
    CancelRotationRequest,
    CancelRotationResponse,
    CreateRequest,
    CreateResponse,
    GetResponse,
    ListRequest,
    ListResponse,
    ResumeResponse,
    RevokeRequest,
    RevokeResponse,
    RotateRequest,
    RotateResponse,
    SuspendRequest,
    SuspendResponse,
)
from tests.cli.conftest import API_KEY, Run
from tests.cli.peer import Peer, Refusal
from tests.cli.sample import KEY_ID, KEY_STRING, OTHER_KEY_ID, REVISION, SECRET_ID, duration, from_now, key, receipt

CREATE = ("keys", "create", "--workspace", "acme-corp/sales", "--name", "PDF export", "--env", "live")
NOT_FOUND = Refusal(grpc.StatusCode.NOT_FOUND, "There is no such key.", "NOT_FOUND")


def test_create_sends_every_field_of_the_contract(peer: Peer, run: Run) -> None:
    """As it was typed, in the contract's units."""
    peer.answers("Create", CreateResponse(key=key(), key_string=KEY_STRING))
    result = run(
        *CREATE,
        *("--owner", "team", "--scope", "pdf.read", "--scope", "*.write", "--role", "viewer"),
        *("--ip", "10.0.0.0/8", "--ip", "2001:db8::1", "--ttl", "1d12h"),
        *("--metadata", "plan=gold", "--metadata", "empty=", "--tag", "ci", "--tag", "x"),
        *("--request-id", "0198a6c2-7b3e-7c4d-9a1e-00000000aaaa", "--limit-to", "a/b", "--reason", "wanted"),
    )
    assert result.code == 0
    assert peer.requests["Create"] == [
        CreateRequest(
            workspace="acme-corp/sales",
            display_name="PDF export",
            environment=key_pb2.ENVIRONMENT_LIVE,
            owner="team",
            scopes=["pdf.read", "*.write"],
            role="viewer",
            ip_allowlist=["10.0.0.0/8", "2001:db8::1"],
            ttl=duration(hours=36),
            metadata={"plan": "gold", "empty": ""},
            tags=["ci", "x"],
            request_id="0198a6c2-7b3e-7c4d-9a1e-00000000aaaa",
            workspaces=["a/b"],
            reason="wanted",
        )
    ]


def test_create_with_a_time_and_without_any_end(peer: Peer, run: Run) -> None:
    """Without, it is the workspace's policy that counts: the field is absent."""
    peer.answers("Create", *[CreateResponse(key=key(), key_string=KEY_STRING)] * 2)
    run(*CREATE, "--expires", "2027-01-31T00:00:00Z")
    run(*CREATE)
    timed, endless = peer.requests["Create"]
    assert timed.expire_time.ToJsonString() == "2027-01-31T00:00:00Z"
    assert endless.WhichOneof("expiry") is None
    assert run(*CREATE, "--ttl", "1d", "--expires", "2027-01-31").code == 2


def test_create_prints_the_key_string_once_and_whole(peer: Peer, run: Run) -> None:
    """On one line, in 80 columns, marked as shown only now."""
    peer.answers("Create", CreateResponse(key=key(), key_string=KEY_STRING))
    out = run(*CREATE, columns=80).out
    assert out.splitlines()[:3] == ["The key string, shown only now:", "", f"  {KEY_STRING}"]
    assert out.count(KEY_STRING) == 1
    assert KEY_ID in out


def test_create_quietly_prints_the_key_string_alone(peer: Peer, run: Run) -> None:
    """`KEY=$(keysvc keys create … -q)`."""
    peer.answers("Create", CreateResponse(key=key(), key_string=KEY_STRING))
    result = run(*CREATE, "-q")
    assert (result.code, result.out, result.err) == (0, f"{KEY_STRING}\n", "")


def test_create_as_json_is_the_answer_as_grpcurl_prints_it(peer: Peer, run: Run) -> None:
    """The proto3 JSON mapping."""
    peer.answers("Create", CreateResponse(key=key(), key_string=KEY_STRING))
    document = json.loads(run(*CREATE, "--json").out)
    assert document["keyString"] == KEY_STRING
    assert document["key"]["displayName"] == "PDF export"
    assert document["key"]["environment"] == "ENVIRONMENT_LIVE"


def test_every_call_says_who_calls_by_when_and_under_which_id(peer: Peer, run: Run) -> None:
    """The deadline is that of --timeout, the id another one each time."""
    peer.answers("Get", *[GetResponse(key=key())] * 2)
    run("keys", "get", KEY_ID, "--timeout", "1m")
    run("keys", "get", KEY_ID)
    first, second = peer.metadata
    assert first["authorization"] == f"Bearer {API_KEY}"
    assert first["x-request-id"] != second["x-request-id"]
    assert 50 < peer.deadlines[0] < 70
    assert 5 < peer.deadlines[1] < 15


def test_get_shows_a_key_and_what_has_happened_to_it(peer: Peer, run: Run) -> None:
    """What it grants, how long, and why it is gone."""
    revocation = key_pb2.Revocation(time=from_now(hours=-3), reason="leaked")
    revoked = key(
        state=key_pb2.Key.STATE_REVOKED,
        revocation=revocation,
        expire_time=from_now(days=29),
        metadata={"plan": "gold"},
        ip_allowlist=["10.0.0.0/8"],
    )
    peer.answers("Get", GetResponse(key=revoked), GetResponse(key=revoked))
    lines = [line.split(maxsplit=1) for line in run("keys", "get", KEY_ID).out.splitlines() if line]
    shown = {line[0]: line[1] for line in lines}
    assert shown["state"] == "revoked"
    assert shown["revoked"].endswith("(3 hours ago): leaked")
    assert shown["expires"].endswith("(in 29 days)")
    assert shown["metadata"] == "plan=gold"
    assert shown["addresses"] == "10.0.0.0/8"
    assert shown[SECRET_ID].startswith("sk_live_11A2b3C4…")
    assert run("keys", "get", KEY_ID, "-q").out == "revoked\n"


@pytest.mark.parametrize("option", ["--workspace", "--owner", "--tag", "--role", "--hint-prefix", "--name-prefix"])
def test_an_empty_condition_is_not_for_all(run: Run, option: str) -> None:
    """It is that of a variable that is not set, and what is listed may be about to be revoked."""
    result = run("keys", "list", option, "", "-q")
    assert (result.code, result.out) == (2, "")
    assert f"{option}" in result.err
    assert "must not be empty" in result.err


def test_list_sends_every_filter_that_is_built(peer: Peer, run: Run) -> None:
    """All that the contract has."""
    peer.answers("List", ListResponse())
    run(
        *("keys", "list", "--workspace", "a/b", "--page-size", "7", "--page-token", "t", "--state", "suspended"),
        *("--env", "test", "--owner", "o", "--tag", "ci", "--role", "admin", "--hint-prefix", "sk_live_1a1b"),
        *("--name-prefix", "PDF", "--expire-before", "2027-01-31", "--idle-since", "2026-12-01"),
    )
    expected = ListRequest(
        workspace="a/b",
        page_size=7,
        page_token="t",
        filter=ListRequest.Filter(
            state=key_pb2.Key.STATE_SUSPENDED,
            environment=key_pb2.ENVIRONMENT_TEST,
            owner="o",
            tag="ci",
            role="admin",
            hint_prefix="sk_live_1a1b",
            display_name_prefix="PDF",
        ),
    )
    expected.filter.expire_before.FromJsonString("2027-01-31T00:00:00Z")
    expected.filter.idle_since.FromJsonString("2026-12-01T00:00:00Z")
    assert peer.requests["List"] == [expected]


def test_idle_for_30_days_is_since_30_days_ago(peer: Peer, run: Run) -> None:
    """A distance looks back here, and ahead for an expiry."""
    peer.answers("List", ListResponse())
    before = datetime.now(UTC)
    run("keys", "list", "--idle-since", "30d")
    sent = peer.requests["List"][0].filter.idle_since.ToDatetime(UTC)
    assert before <= sent + timedelta(days=30) <= datetime.now(UTC)


def used(**fields: Any) -> key_pb2.Key:
    """A key in a rotation whose traffic has begun to move."""
    old, new = key().secrets[0], key().secrets[0]
    old.MergeFrom(Secret(usage_total=12_345, last_used_time=from_now(days=-2), retire_time=from_now(hours=24)))
    new.MergeFrom(Secret(id="NEW", usage_total=7, last_used_time=from_now(minutes=-3)))
    shown = key(usage_total=12_352, last_used_time=from_now(minutes=-3), usage_time=from_now(seconds=-2), **fields)
    del shown.secrets[:]
    shown.secrets.extend([old, new])
    return shown


def test_get_shows_how_much_and_when_a_key_and_each_secret_was_used(peer: Peer, run: Run) -> None:
    """How to see in a rotation that traffic has moved, in 80 columns; and how fresh that is."""
    peer.answers("Get", GetResponse(key=used()))
    lines = plain(run("keys", "get", KEY_ID, columns=80).out).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "verified     12,352 times" in lines
    assert [line for line in lines if line.startswith("last used") and line.endswith("(3 min ago)")]
    assert [line for line in lines if line.startswith("as of") and line.endswith("(2 s ago)")]
    header, old, new = (re.split(" {2,}", line.strip()) for line in lines[-3:])
    assert header == ["Secret", "Hint", "State", "Retires", "Verified", "Last used"]
    assert old == [SECRET_ID, "sk_live_11A2b3C4…", "active", "in 24 hours", "12,345", "2 days ago"]
    assert new == ["NEW", "sk_live_11A2b3C4…", "active", "7", "3 min ago"]


def test_where_nobody_counts_a_key_is_not_said_to_be_unused(peer: Peer, run: Run) -> None:
    """Not known is not never."""
    counted = key(usage_time=from_now(seconds=-2))
    peer.answers("Get", GetResponse(key=key()), GetResponse(key=counted))
    out = run("keys", "get", KEY_ID).out
    assert "used         not known: no server is counting\n" in out
    assert "never" not in out.replace("expires      never", "")
    assert "last used    never\n" in run("keys", "get", KEY_ID).out


@pytest.mark.parametrize("columns", [80, 120])
def test_list_shows_when_keys_were_last_used(peer: Peer, run: Run, columns: int) -> None:
    """Of idle keys before anything else, also where there is little room."""
    unused = key(id=OTHER_KEY_ID, usage_time=from_now(seconds=-9))
    peer.answers("List", *[ListResponse(keys=[used(), unused])] * 2)
    idle = run("keys", "list", "--idle-since", "1m", columns=columns)
    header, *lines = plain(idle.out).splitlines()
    assert "Last used" in header
    assert all(len(line) <= columns for line in lines)
    assert [line.split("  ")[-1].strip() for line in lines if line.startswith("0198")] == (
        ["3 min ago", "never"] if columns == 80 else ["12,352", "0"]
    )
    assert re.fullmatch(r"Usage as of .* \(9 s ago\)\.\n", plain(idle.err))
    all_keys = run("keys", "list", columns=columns)
    assert ("Last used" in all_keys.out) == (columns == 120) == ("Usage as of" in all_keys.err)


def plain(text: str) -> str:
    """A text without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_list_prints_a_page_and_says_that_there_are_more(peer: Peer, run: Run) -> None:
    """Beside the list: whoever reads it from a pipe gets nothing else."""
    peer.answers("List", *[ListResponse(keys=[key()], next_page_token="next")] * 2)
    result = run("keys", "list", "-q")
    assert (result.out, result.err) == (f"{KEY_ID}\n", "There are more: --all, or --page-token next\n")
    assert json.loads(run("keys", "list", "--json").out)["nextPageToken"] == "next"


@pytest.mark.parametrize("form", ["-q", "--json", None])
def test_list_all_follows_the_pages(peer: Peer, run: Run, form: str | None) -> None:
    """To the end, in one list."""
    pages = [
        ListResponse(keys=[key(id=f"id-{number}")], next_page_token="" if number == 3 else str(number))
        for number in (1, 2, 3)
    ]
    peer.answers("List", *pages)
    result = run("keys", "list", "--all", *([form] if form else []))
    assert [request.page_token for request in peer.requests["List"]] == ["", "1", "2"]
    assert result.err == ""
    if form == "--json":
        document = json.loads(result.out)
        assert [each["id"] for each in document["keys"]] == ["id-1", "id-2", "id-3"]
        assert "nextPageToken" not in document
    else:
        assert [line.split()[0] for line in result.out.splitlines()][-3:] == ["id-1", "id-2", "id-3"]


def test_a_list_that_breaks_off_is_no_list(peer: Peer, run: Run) -> None:
    """Half a list looks like a whole one."""
    peer.answers("List", ListResponse(keys=[key()], next_page_token="1"), NOT_FOUND)
    for form in ([], ["--json"]):
        result = run("keys", "list", "--all", *form)
        assert (result.code, result.out) == (1, "")
        peer.answers("List", ListResponse(keys=[key()], next_page_token="1"), NOT_FOUND)


def test_an_empty_list_is_empty(peer: Peer, run: Run) -> None:
    """Nothing on standard output, a word beside it."""
    peer.answers("List", *[ListResponse()] * 3)
    result = run("keys", "list")
    assert (result.code, result.out, result.err) == (0, "", "Nothing found.\n")
    assert run("keys", "list", "-q").out == ""
    assert json.loads(run("keys", "list", "--json").out) == {}


def test_revoke_prints_what_it_did_and_the_receipt(peer: Peer, run: Run) -> None:
    """What an operator writes into the incident: revision, state, waiting."""
    peer.answers("Revoke", RevokeResponse(key=key(state=key_pb2.Key.STATE_REVOKED), receipt=receipt()))
    result = run("keys", "revoke", KEY_ID, "--reason", "leaked", "--wait", "barrier")
    assert peer.requests["Revoke"] == [RevokeRequest(key_id=KEY_ID, reason="leaked", wait=receipt_pb2.WAIT_BARRIER)]
    assert result.code == 0
    assert result.out.splitlines() == [
        f"Revoked key {KEY_ID}",
        "name       PDF export",
        "workspace  acme-corp/sales, live",
        "state      revoked",
        "receipt    COMPLETE, waited 3 ms",
        f"revision   {REVISION}",
    ]


def test_revoke_says_until_when_it_may_not_be_true_everywhere(peer: Peer, run: Run) -> None:
    """And whose answer is missing."""
    pending = receipt(
        state=receipt_pb2.Receipt.STATE_PENDING, effective_by=from_now(seconds=125), unacknowledged=["host-a", "host-b"]
    )
    peer.answers("Revoke", *[RevokeResponse(key=key(), receipt=pending)] * 2)
    out = run("keys", "revoke", KEY_ID, "--wait", "commit").out
    assert "receipt          PENDING" in out
    assert "(in 2 min)" in out
    assert "no answer from   host-a, host-b" in out
    assert run("keys", "revoke", KEY_ID, "-q").out == "PENDING\n"


def test_revoke_one_secret(peer: Peer, run: Run) -> None:
    """Of one key only; without a living secret the key is as good as gone, which is said."""
    left = key()
    left.secrets[0].state = key_pb2.Key.STATE_REVOKED
    peer.answers("Revoke", RevokeResponse(key=left, receipt=receipt()))
    out = run("keys", "revoke", KEY_ID, "--secret", SECRET_ID).out
    assert peer.requests["Revoke"][0].secret_id == SECRET_ID
    assert out.startswith(f"Revoked secret {SECRET_ID} of key {KEY_ID}\n")
    assert "state      active, but no secret of it is" in out
    assert run("keys", "revoke", KEY_ID, OTHER_KEY_ID, "--secret", SECRET_ID).code == 2
    assert len(peer.requests["Revoke"]) == 1


def test_of_several_keys_each_outcome_is_told(peer: Peer, run: Run) -> None:
    """One failure stops none of the others, and decides the exit code."""
    peer.answers(
        "Revoke", RevokeResponse(key=key(), receipt=receipt()), NOT_FOUND, RevokeResponse(key=key(), receipt=receipt())
    )
    result = run("keys", "revoke", KEY_ID, "unknown", OTHER_KEY_ID)
    assert result.code == 1
    assert result.out.count("Revoked key") == 2
    assert result.err == "error: unknown: NOT_FOUND: There is no such key.\n"


def test_of_several_keys_each_answer_is_a_document(peer: Peer, run: Run) -> None:
    """And each failure, on the other stream."""
    peer.answers("Revoke", RevokeResponse(key=key(), receipt=receipt()), NOT_FOUND)
    result = run("keys", "revoke", KEY_ID, "unknown", "--json")
    assert json.loads(result.out)["receipt"]["state"] == "STATE_COMPLETE"
    assert json.loads(result.err)["error"] == {
        "code": "NOT_FOUND",
        "message": "There is no such key.",
        "subject": "unknown",
        "reason": "NOT_FOUND",
    }


def test_a_service_that_went_away_decides_over_a_refusal(peer: Peer, run: Run) -> None:
    """Repeating helps against one of the two."""
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "no database", retry=timedelta(seconds=1))
    peer.answers("Suspend", away, NOT_FOUND)
    assert run("keys", "suspend", KEY_ID, OTHER_KEY_ID).code == 4


def test_suspend_and_resume(peer: Peer, run: Run) -> None:
    """With reason and wait, several at once."""
    suspended = key(state=key_pb2.Key.STATE_SUSPENDED)
    peer.answers("Suspend", *[SuspendResponse(key=suspended, receipt=receipt())] * 2)
    peer.answers("Resume", ResumeResponse(key=key(), receipt=receipt()))
    result = run("keys", "suspend", KEY_ID, OTHER_KEY_ID, "--reason", "why", "--wait", "commit", "-q")
    assert result.out == "COMPLETE\nCOMPLETE\n"
    assert peer.requests["Suspend"] == [
        SuspendRequest(key_id=key_id, reason="why", wait=receipt_pb2.WAIT_COMMIT) for key_id in (KEY_ID, OTHER_KEY_ID)
    ]
    out = run("keys", "resume", KEY_ID).out
    assert out.startswith(f"Resumed key {KEY_ID}\n")
    assert "state      active\n" in out


def test_rotate_sends_what_was_said_and_prints_the_new_key_string_once(peer: Peer, run: Run) -> None:
    """The overlap in people's words; `--now` is none; the string on one line, marked as shown only now."""
    peer.answers("Rotate", *(RotateResponse(key=key(), key_string=KEY_STRING, receipt=receipt()) for _ in range(3)))
    result = run("keys", "rotate", KEY_ID, "--overlap", "1d12h", "--reason", "yearly", columns=80)
    assert result.code == 0
    assert result.out.splitlines()[:3] == ["The new key string, shown only now:", "", f"  {KEY_STRING}"]
    assert result.out.count(KEY_STRING) == 1
    assert run("keys", "rotate", KEY_ID, "--now", "-q").out == f"{KEY_STRING}\n"
    assert run("keys", "rotate", KEY_ID, "-q").code == 0
    first, second, third = peer.requests["Rotate"]
    assert len({UUID(request.request_id) for request in (first, second, third)}) == 3
    for request in (first, second, third):
        request.ClearField("request_id")
    assert first == RotateRequest(key_id=KEY_ID, overlap=duration(hours=36), reason="yearly", wait=first.wait)
    assert (second.HasField("overlap"), second.overlap.ToSeconds()) == (True, 0)
    assert not third.HasField("overlap")
    assert run("keys", "rotate", KEY_ID, "--now", "--overlap", "1d").code == 2


def test_cancel_rotation_prints_the_secrets_that_are_left(peer: Peer, run: Run) -> None:
    """With the receipt: since when the new one is refused everywhere."""
    peer.answers("CancelRotation", *[CancelRotationResponse(key=key(), receipt=receipt())] * 2)
    out = run("keys", "cancel-rotation", KEY_ID, "--reason", "too early", "--wait", "commit").out
    assert peer.requests["CancelRotation"] == [
        CancelRotationRequest(key_id=KEY_ID, reason="too early", wait=receipt_pb2.WAIT_COMMIT)
    ]
    assert out.startswith(f"Key {KEY_ID} is not being rotated any more\n\nSecret ")
    assert f"\n{SECRET_ID}  " in out
    assert "receipt   COMPLETE, waited 3 ms\n" in out
    assert run("keys", "cancel-rotation", KEY_ID, "-q").out == "COMPLETE\n"
