import json
import re
import threading
from datetime import timedelta

import grpc
import pytest

from keysvc.cli.report import spell
from keysvc.v1.key_service_pb2 import GetResponse, RevokeResponse
from tests.cli.conftest import Run
from tests.cli.peer import Peer, Refusal
from tests.cli.sample import KEY_ID, KEY_STRING, key

CREATE = ("keys", "create", "--workspace", "acme-corp/sales", "--name", "PDF export", "--env", "live")
BAD = Refusal(
    grpc.StatusCode.INVALID_ARGUMENT,
    "2 fields cannot be used.",
    "INVALID_ARGUMENT",
    {"ip_allowlist[1]": "must be an address or a range", "expire_time": "must be in the future"},
)
AWAY = Refusal(
    grpc.StatusCode.UNAVAILABLE, "The database cannot be reached.", "UNAVAILABLE", retry=timedelta(seconds=1.5)
)


def test_every_bad_field_has_a_line_in_the_words_of_the_command_line(peer: Peer, run: Run) -> None:
    """Nobody has to know the contract to repair a command."""
    peer.answers("Create", BAD)
    result = run(*CREATE)
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        "error: INVALID_ARGUMENT: 2 fields cannot be used.",
        "  --ip (2nd): must be an address or a range",
        "  --expires: must be in the future",
    ]


def test_a_message_that_repeats_its_fields_is_shortened(peer: Peer, run: Run) -> None:
    """Each is said once."""
    peer.answers(
        "Create",
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "owner: is too long", violations={"owner": "is too long"}),
    )
    assert run(*CREATE).err == "error: INVALID_ARGUMENT: these values cannot be used.\n  --owner: is too long\n"


def test_errors_are_json_for_machines(peer: Peer, run: Run) -> None:
    """With the fields as the contract calls them; standard output stays empty."""
    peer.answers("Create", BAD, AWAY)
    result = run(*CREATE, "--json")
    assert result.out == ""
    assert json.loads(result.err) == {
        "error": {
            "code": "INVALID_ARGUMENT",
            "message": "2 fields cannot be used.",
            "reason": "INVALID_ARGUMENT",
            "fieldViolations": [
                {"field": "ip_allowlist[1]", "description": "must be an address or a range"},
                {"field": "expire_time", "description": "must be in the future"},
            ],
        }
    }
    assert json.loads(run(*CREATE, "--json").err)["error"]["retryDelay"] == "1.5s"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("keys", "nonsense"), 2), (("keys", "create"), 2), (("verify",), 1), (("keys", "get", "x", "--address", "x"), 2)],
)
def test_errors_of_this_side_are_json_too(run: Run, arguments: tuple[str, ...], code: int) -> None:
    """A machine reads one form only."""
    result = run(*arguments, "--json")
    assert result.code == code
    assert json.loads(result.err)["error"]["code"] == ("USAGE" if code == 2 else "INPUT")


def test_a_service_that_cannot_say_is_told_from_one_that_refuses(peer: Peer, run: Run) -> None:
    """Exit code 4, when to try again, and what became of the change."""
    peer.answers("Revoke", AWAY)
    peer.answers("Get", AWAY)
    assert run("keys", "revoke", KEY_ID).err.splitlines() == [
        f"error: {KEY_ID}: UNAVAILABLE: The database cannot be reached.",
        "Try again in 1.5 s.",
        "Nobody knows whether the change was made. Repeat the command: that is safe, and settles it.",
    ]
    result = run("keys", "get", KEY_ID)
    assert result.code == 4
    assert "Nobody knows" not in result.err


def test_a_creation_that_nobody_knows_of_is_repeated_by_its_request_id(peer: Peer, run: Run) -> None:
    """The command made one for the call and names it: a repeat without it might make a second key."""
    peer.answers("Create", AWAY, AWAY, AWAY)
    made = [re.search(r"with --request-id ([0-9a-f-]{36}):", run(*CREATE).err) for _ in range(2)]
    assert len({found[1] for found in made if found}) == 2
    assert f"with --request-id {KEY_ID}:" in run(*CREATE, "--request-id", KEY_ID).err


def test_without_an_answer_in_time_the_command_ends(peer: Peer, run: Run) -> None:
    """Exit code 4, naming address and time."""
    released = threading.Event()

    def never(_: object, context: grpc.ServicerContext) -> RevokeResponse:
        context.add_callback(released.set)
        released.wait()
        return RevokeResponse()

    peer.answers("Revoke", never)
    result = run("keys", "revoke", KEY_ID, "--timeout", "1s")
    assert result.code == 4
    assert f"DEADLINE_EXCEEDED: no answer from {peer.address} within 1 s." in result.err
    assert "Repeat the command" in result.err


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:1", "nothing listens there"), ("unix:/nonexistent", "cannot be reached")],
)
def test_a_service_that_is_not_there_is_named(run: Run, address: str, why: str) -> None:
    """Nothing was sent, so nothing needs to be looked at."""
    result = run("keys", "revoke", KEY_ID, "--address", address)
    assert result.code == 4
    assert why in result.err
    assert "Nobody knows" not in result.err


def test_a_fault_of_the_service_leads_to_its_logs(peer: Peer, run: Run) -> None:
    """By the id that the call was sent with."""
    peer.answers("Get", Refusal(grpc.StatusCode.INTERNAL, "Something went wrong."))
    result = run("keys", "get", KEY_ID)
    request_id = peer.metadata[0]["x-request-id"]
    assert result.err.endswith(f"The service's logs know this call as {request_id!s}.\n")


def test_broken_details_do_not_hide_the_error(peer: Peer, run: Run) -> None:
    """They are somebody's bytes."""

    def broken(_: object, context: grpc.ServicerContext) -> GetResponse:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such key")

    peer.answers("Get", broken)
    assert run("keys", "get", KEY_ID).err == "error: NOT_FOUND: no such key\n"


def test_an_error_repeats_no_key_string_and_steers_no_terminal(peer: Peer, run: Run) -> None:
    """Whatever a service quotes."""
    hostile = f"you sent {KEY_STRING}\x1b]0;x\x07\nerror: all keys were revoked"
    for form in ([], ["--json"]):
        peer.answers("Get", Refusal(grpc.StatusCode.INTERNAL, "odd", violations={f"x\x1b[2J{KEY_STRING}": hostile}))
        err = run("keys", "get", KEY_ID, *form).err
        assert KEY_STRING not in err
        assert "sk_live_11A2b3C4…" in err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", err)
        assert "\nerror: all" not in err


def test_colour_is_for_terminals_only(peer: Peer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for those who want it."""
    assert "\x1b[1;31merror:" in run("keys", "get", KEY_ID, "--timeout", "0s", columns=80).err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in run("keys", "get", KEY_ID, "--timeout", "0s", columns=80).err


def test_a_mistake_of_this_program_is_a_sentence(peer: Peer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, and nothing of what the error says: it could quote a key string."""

    def fail(*_: object) -> None:
        raise ValueError(KEY_STRING)

    monkeypatch.setattr("keysvc.cli.keys.key_rows", fail)
    peer.answers("Get", GetResponse(key=key()))
    result = run("keys", "get", KEY_ID)
    assert result.code == 1
    assert re.fullmatch(
        r"error: INTERNAL: this is a mistake in keysvc: ValueError in test_report\.py, line \d+\. Please report it\.\n",
        result.err,
    )


@pytest.mark.parametrize(
    ("field", "spelling"),
    [
        ("ip_allowlist[1]", "--ip (2nd)"),
        ("scopes[0]", "--scope (1st)"),
        ("tags[2]", "--tag (3rd)"),
        ("tags[10]", "--tag (11th)"),
        ("tags[21]", "--tag (22nd)"),
        ("metadata[plan]", "--metadata (plan)"),
        ("display_name", "--name"),
        ("request_id", "--request-id"),
        ("workspace", "--workspace"),
        ("workspaces[0]", "--limit-to (1st)"),
        ("workspace.name", "NAME"),
        ("workspace.display_name", "--display-name"),
        ("workspace.roles[0].scopes[2]", "--role (1st).scopes[2]"),
        ("filter.hint_prefix", "--hint-prefix"),
        ("filter.display_name_prefix", "--name-prefix"),
        ("filter.key_id", "--key-id"),
        ("consistency.at_least", "--at-least"),
        ("key_id", "KEY_ID"),
        ("Strange Field!", "Strange Field!"),
    ],
)
def test_a_field_is_spelled_as_its_option(field: str, spelling: str) -> None:
    """Places in a list count from one."""
    assert spell(field) == spelling
