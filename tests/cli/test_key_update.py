import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from keysvc.v1 import receipt_pb2
from keysvc.v1.key_pb2 import Key
from keysvc.v1.key_service_pb2 import GetResponse, UpdateRequest, UpdateResponse
from tests.cli.conftest import Run
from tests.cli.peer import Peer, Refusal
from tests.cli.sample import KEY_ID, REVISION, key, receipt

UPDATE = ("keys", "update", KEY_ID)
CHANGED = Refusal(grpc.StatusCode.ABORTED, "the key has changed since: read it again", "ETAG_MISMATCH")
AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "The database cannot be reached.", "UNAVAILABLE")


def updated(**fields: object) -> UpdateResponse:
    """The answer to an update."""
    return UpdateResponse(key=key(**fields), receipt=receipt())


def test_update_sends_every_field_of_the_contract_and_names_it(peer: Peer, run: Run) -> None:
    """All that Update can set; one call, without reading first."""
    peer.answers("Update", updated())
    result = run(
        *UPDATE,
        *("--name", "PDF", "--owner", "team", "--role", "viewer", "--scope", "pdf.read", "--scope", "*.write"),
        *("--ip", "10.0.0.0/8", "--tag", "ci", "--tag", "x", "--metadata", "plan=gold", "--metadata", "empty="),
        *("--expires", "2027-01-31", "--limit-to", "a/b", "--etag", "e", "--reason", "why", "--wait", "commit"),
    )
    assert result.code == 0
    expected = UpdateRequest(
        key=Key(
            id=KEY_ID,
            display_name="PDF",
            owner="team",
            role="viewer",
            scopes=["pdf.read", "*.write"],
            ip_allowlist=["10.0.0.0/8"],
            tags=["ci", "x"],
            metadata={"plan": "gold", "empty": ""},
            workspaces=["a/b"],
            etag="e",
        ),
        reason="why",
        wait=receipt_pb2.WAIT_COMMIT,
    )
    expected.key.expire_time.FromJsonString("2027-01-31T00:00:00Z")
    expected.update_mask.paths.extend(
        [
            *("display_name", "expire_time", "ip_allowlist", "metadata"),
            *("owner", "role", "scopes", "tags", "workspaces"),
        ]
    )
    assert peer.requests == {"Update": [expected]}


def test_only_what_is_given_is_named(peer: Peer, run: Run) -> None:
    """What is not named stays; an empty owner is one that was given."""
    peer.answers("Update", updated(), updated())
    run(*UPDATE, "--owner", "")
    run(*UPDATE, "--ttl", "90d")
    owner, end = peer.requests["Update"]
    assert (owner.key, owner.update_mask.paths) == (Key(id=KEY_ID), ["owner"])
    assert end.update_mask.paths == ["expire_time"]
    distance = end.key.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < distance <= timedelta(days=90)


@pytest.mark.parametrize(
    ("word", "path", "meaning"),
    [
        ("owner", "owner", "owner      none"),
        ("role", "role", "role       none"),
        ("scopes", "scopes", "scopes     none"),
        ("ips", "ip_allowlist", "addresses  everywhere"),
        ("tags", "tags", "tags       none"),
        ("metadata", "metadata", "metadata   none"),
        ("expiry", "expire_time", "expires    never"),
        ("limit-to", "workspaces", "limited to  nothing: all workspaces"),
    ],
)
def test_every_field_but_the_name_can_be_cleared(peer: Peer, run: Run, word: str, path: str, meaning: str) -> None:
    """Named and empty; what that means is said, since for some it means more."""
    response = updated()
    response.key.ClearField(path)
    peer.answers("Update", response)
    assert meaning in run(*UPDATE, "--clear", word).out.splitlines()
    assert peer.requests["Update"][0].key == Key(id=KEY_ID)
    assert peer.requests["Update"][0].update_mask.paths == [path]


def test_what_was_changed_is_printed_with_the_receipt(peer: Peer, run: Run) -> None:
    """And nothing else of the key but what tells which it is."""
    answer = updated(owner="team", metadata={"a": "1", "b": "2"}, tags=["ci"])
    peer.answers("Update", answer, answer, answer)
    assert run(*UPDATE, "--owner", "team", "--metadata", "a=1", "--metadata", "b=2").out.splitlines() == [
        f"Updated key {KEY_ID}",
        "name       PDF export",
        "workspace  acme-corp/sales, live",
        "state      active",
        "owner      team",
        "metadata   a=1",
        "           b=2",
        "receipt    COMPLETE, waited 3 ms",
        f"revision   {REVISION}",
    ]
    assert run(*UPDATE, "--owner", "team", "-q").out == "COMPLETE\n"
    assert json.loads(run(*UPDATE, "--owner", "team", "--json").out)["key"]["owner"] == "team"


def test_a_single_value_is_changed_in_what_is_there(peer: Peer, run: Run) -> None:
    """Read, changed, written back with the etag; the order stays, new ones come last, what is there is not doubled."""
    before = key(
        scopes=["a", "b"], tags=["x", "y"], ip_allowlist=["10.0.0.7", "10.1.0.0/16"], metadata={"p": "1", "q": "2"}
    )
    before.scopes[:] = ["a", "b"]
    before.etag = "7"
    peer.answers("Get", GetResponse(key=before))
    peer.answers("Update", updated())
    result = run(
        *(*UPDATE, "--add-scope", "c", "--add-scope", "a", "--remove-scope", "b", "--add-tag", "z"),
        *("--remove-tag", "x", "--remove-ip", "10.0.0.7/32", "--add-ip", "2001:db8::/32", "--add-metadata", "p=3"),
        *("--remove-metadata", "q", "--owner", "team", "--reason", "why"),
    )
    assert result.code == 0
    sent = peer.requests["Update"][0]
    assert sent == UpdateRequest(
        key=Key(
            id=KEY_ID,
            owner="team",
            scopes=["a", "c"],
            tags=["y", "z"],
            ip_allowlist=["10.1.0.0/16", "2001:db8::/32"],
            metadata={"p": "3"},
            etag="7",
        ),
        update_mask=sent.update_mask,
        reason="why",
    )
    assert sent.update_mask.paths == ["ip_allowlist", "metadata", "owner", "scopes", "tags"]


def test_somebody_who_was_faster_is_no_reason_to_give_up(peer: Peer, run: Run) -> None:
    """The key is read again, and the change made to what it has become."""
    peer.answers("Get", GetResponse(key=key(etag="1")), GetResponse(key=key(etag="2", scopes=["new"])))
    peer.answers("Update", CHANGED, updated())
    assert run(*UPDATE, "--add-scope", "mine").code == 0
    first, second = peer.requests["Update"]
    assert (first.key.etag, list(first.key.scopes)) == ("1", ["pdf.read", "mine"])
    assert (second.key.etag, list(second.key.scopes)) == ("2", ["pdf.read", "new", "mine"])


def test_somebody_who_is_always_faster_is(peer: Peer, run: Run) -> None:
    """A bounded number of attempts, and then a word about it."""
    peer.answers("Get", *[GetResponse(key=key(etag="1"))] * 9)
    peer.answers("Update", *[CHANGED] * 9)
    result = run(*UPDATE, "--add-scope", "mine")
    assert result.code == 1
    assert result.err.endswith("Somebody else was faster 5 times. Nothing was changed: try again later.\n")
    assert len(peer.requests["Update"]) == 5


def test_who_gives_an_etag_means_it(peer: Peer, run: Run) -> None:
    """No other version is changed instead."""
    peer.answers("Get", GetResponse(key=key(etag="2")))
    peer.answers("Update", CHANGED, CHANGED)
    assert run(*UPDATE, "--add-scope", "mine", "--etag", "1").code == 1
    assert run(*UPDATE, "--scope", "mine", "--etag", "1").code == 1
    assert [request.key.etag for request in peer.requests["Update"]] == ["1", "1"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("--remove-scope", "pdf.write"), "The key has no scope pdf.write: it has pdf.read."),
        (("--remove-tag", "ci"), "The key has no tag ci: it has none."),
        (("--remove-metadata", "plan"), "The key has no metadata plan: it has none."),
        (("--remove-ip", "10.0.0.7"), "The key has no address 10.0.0.7: it has none."),
        (("--add-ip", "10.0.0.7"), "The key is accepted from everywhere. Then it would be from 10.0.0.7 alone"),
    ],
)
def test_a_single_value_that_is_not_as_somebody_believes_changes_nothing(
    peer: Peer, run: Run, change: tuple[str, ...], why: str
) -> None:
    """Above all: to take away a scope that a pattern grants would look as if it were gone."""
    peer.answers("Get", GetResponse(key=key()))
    result = run(*UPDATE, *change)
    assert (result.code, result.out) == (1, "")
    assert why in result.err
    assert "Update" not in peer.requests


def test_the_last_address_is_not_taken_away_in_passing(peer: Peer, run: Run) -> None:
    """A key without any is accepted from everywhere; a last one can be replaced."""
    peer.answers("Get", *[GetResponse(key=key(ip_allowlist=["10.0.0.7"]))] * 2)
    peer.answers("Update", updated())
    result = run(*UPDATE, "--remove-ip", "10.0.0.7")
    assert result.code == 1
    assert "if that is meant, say --clear ips" in result.err
    assert run(*UPDATE, "--remove-ip", "10.0.0.7", "--add-ip", "10.0.0.8").code == 0
    assert list(peer.requests["Update"][0].key.ip_allowlist) == ["10.0.0.8"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "nothing to change"),
        (("--reason", "why"), "nothing to change"),
        (("--owner", "x", "--clear", "owner"), "owner cannot be set and cleared at once"),
        (("--scope", "x", "--add-scope", "y"), "scopes cannot be set and changed by single values at once"),
        (("--clear", "ips", "--remove-ip", "::1"), "ips cannot be cleared and changed by single values at once"),
        (("--ttl", "1d", "--expires", "2027-01-31"), "--ttl and --expires"),
        (("--clear", "name"), "'name' is not one of"),
        (("--add-metadata", "x"), "must look like NAME=VALUE"),
        (("--metadata", "a=1", "--metadata", "a=2"), "a is given twice"),
    ],
)
def test_an_update_that_makes_no_sense_is_not_sent(peer: Peer, run: Run, arguments: tuple[str, ...], why: str) -> None:
    """Wrong usage."""
    result = run(*UPDATE, *arguments)
    assert result.code == 2
    assert why in result.err
    assert not peer.requests


def test_when_nobody_knows_whether_it_happened_the_right_advice_is_given(peer: Peer, run: Run) -> None:
    """To set a value again is safe; with an etag, or to take one away, a repeat of a success looks like a failure."""
    peer.answers("Get", GetResponse(key=key()))
    peer.answers("Update", AWAY, AWAY, AWAY)
    assert "Repeat the command: that is safe" in run(*UPDATE, "--owner", "x").err
    look = f"Look: keysvc keys get {KEY_ID}\n"
    assert run(*UPDATE, "--owner", "x", "--etag", "1").err.endswith(look)
    assert run(*UPDATE, "--remove-scope", "pdf.read").err.endswith(look)


def test_a_bad_field_is_spelled_as_its_option(peer: Peer, run: Run) -> None:
    """As in create."""
    bad = {"key.ip_allowlist[0]": "must be an address", "key.display_name": "is too long", "key.id": "must be a UUID"}
    peer.answers("Update", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "3 fields cannot be used.", violations=bad))
    assert run(*UPDATE, "--ip", "x").err.splitlines()[1:] == [
        "  --ip (1st): must be an address",
        "  --name: is too long",
        "  KEY_ID: must be a UUID",
    ]
