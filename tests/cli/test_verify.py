import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable

import grpc
import pytest

from keysvc.v1 import key_pb2, verify_pb2
from keysvc.v1.verify_pb2 import VerifyRequest, VerifyResponse
from tests.cli.conftest import Run
from tests.cli.peer import Peer, Refusal
from tests.cli.sample import KEY_ID, KEY_STRING, REVISION, SECRET_ID, from_now

VALID = VerifyResponse(
    verdict=verify_pb2.VERDICT_VALID,
    key_id=KEY_ID,
    secret_id=SECRET_ID,
    workspace="acme-corp/sales",
    environment=key_pb2.ENVIRONMENT_LIVE,
    scopes=["pdf.read"],
    metadata={"plan": "gold"},
    retire_time=from_now(hours=5),
    revision=REVISION,
    basis=verify_pb2.BASIS_DATABASE,
    message="the key is valid",
)
REFUSED = VerifyResponse(
    verdict=verify_pb2.VERDICT_INSUFFICIENT_SCOPE,
    key_id=KEY_ID,
    missing_scopes=["pdf.write"],
    message="The key does not grant pdf.write.",
)


def test_verify_sends_every_field_of_the_contract(peer: Peer, run: Run) -> None:
    """The key string from standard input, without the line break that `echo` adds."""
    peer.answers("Verify", VALID)
    run(
        *("verify", "--workspace", "a/b", "--env", "live", "--scope", "pdf.read", "--scope", "pdf.write"),
        *("--source-ip", "10.0.0.1", "--resource", "/pdf", "--request-id", "trace", "--at-least", REVISION),
        stdin=f"{KEY_STRING}\n".encode(),
    )
    assert peer.requests["Verify"] == [
        VerifyRequest(
            key_string=KEY_STRING,
            workspace="a/b",
            environment=key_pb2.ENVIRONMENT_LIVE,
            required_scopes=["pdf.read", "pdf.write"],
            source_ip="10.0.0.1",
            resource="/pdf",
            request_id="trace",
            consistency=verify_pb2.Consistency(at_least=REVISION),
        )
    ]


def test_strong_reads_the_database(peer: Peer, run: Run) -> None:
    """It is one of the levels, and leaves no room for another."""
    peer.answers("Verify", VALID, VALID)
    run("verify", "--strong", stdin=b"x")
    run("verify", stdin=b"x")
    strong, leased = peer.requests["Verify"]
    assert strong.consistency.WhichOneof("level") == "strong"
    assert not leased.HasField("consistency")
    assert run("verify", "--strong", "--at-least", REVISION, stdin=b"x").code == 2


@pytest.mark.parametrize(
    ("stdin", "key_string"),
    [(b"x", "x"), (b"x\n", "x"), (b"x\r\n", "x"), (b"x\n\n", "x\n"), (b" x ", " x "), ("ü\n".encode(), "ü")],
)
def test_only_one_line_break_is_taken_away(peer: Peer, run: Run, stdin: bytes, key_string: str) -> None:
    """Everything else is the service's to judge."""
    peer.answers("Verify", VALID)
    run("verify", stdin=stdin)
    assert peer.requests["Verify"][0].key_string == key_string


@pytest.mark.parametrize(
    ("stdin", "why"),
    [(b"", "No key string was given"), (b"\n", "No key string"), (b"\xff", "is no text"), (b"x" * 70_000, "too long")],
)
def test_without_a_key_string_nobody_is_asked(peer: Peer, run: Run, stdin: bytes, why: str) -> None:
    """Bad input, said as such."""
    result = run("verify", stdin=stdin)
    assert result.code == 1
    assert why in result.err
    assert not peer.requests


def test_the_exit_code_tells_a_good_key_from_a_refused_one_and_from_no_judgement(peer: Peer, run: Run) -> None:
    """`if keysvc verify …; then` serves only with a judgement."""
    peer.answers("Verify", VALID, REFUSED, Refusal(grpc.StatusCode.PERMISSION_DENIED, "no"))
    assert [run("verify", "-q", stdin=b"x").code for _ in range(3)] == [0, 3, 1]


def test_a_good_key_is_shown_with_all_that_it_grants(peer: Peer, run: Run) -> None:
    """And when its secret retires."""
    peer.answers("Verify", VALID)
    lines = run("verify", stdin=b"x").out.splitlines()
    assert lines[0] == "VALID"
    assert "workspace  acme-corp/sales, live" in lines
    assert "scopes     pdf.read" in lines
    assert "metadata   plan=gold" in lines
    assert f"revision   {REVISION}, from the database" in lines
    assert any(line.startswith("retires") and line.endswith("(in 5 hours)") for line in lines)


def test_a_refusal_says_why_and_what_is_missing(peer: Peer, run: Run) -> None:
    """On standard output: it is an answer."""
    peer.answers("Verify", REFUSED, REFUSED, REFUSED)
    assert run("verify", stdin=b"x").out.splitlines() == [
        "INSUFFICIENT_SCOPE",
        "why      The key does not grant pdf.write.",
        "missing  pdf.write",
        f"key      {KEY_ID}",
    ]
    assert run("verify", "-q", stdin=b"x").out == "INSUFFICIENT_SCOPE\n"
    assert json.loads(run("verify", "--json", stdin=b"x").out)["verdict"] == "VERDICT_INSUFFICIENT_SCOPE"


def test_a_verdict_that_is_newer_than_this_program_is_a_refusal(peer: Peer, run: Run) -> None:
    """Only VALID is VALID."""
    answer = VerifyResponse()
    answer.MergeFromString(b"\x08\x63")  # verdict: 99
    peer.answers("Verify", answer)
    result = run("verify", "-q", stdin=b"x")
    assert (result.code, result.out) == (3, "99\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", KEY_STRING),
        ("keys", "revoke", KEY_STRING),
        ("keys", "list", "--hint-prefix", KEY_STRING),
        ("keys", "list", f"--name-prefix={KEY_STRING[:40]}"),
    ],
)
def test_a_key_string_on_the_command_line_is_refused_and_not_repeated(
    peer: Peer, run: Run, arguments: tuple[str, ...]
) -> None:
    """It has been seen there; at least the way to its key is told."""
    for form in ([], ["--json"]):
        result = run(*arguments, *form, stdin=b"x")
        assert result.code == 2
        assert "keysvc keys list --hint-prefix sk_live_11A2b3C4" in result.err
        assert KEY_STRING[:30] not in result.out + result.err
    assert not peer.requests


def test_on_a_terminal_the_key_string_is_asked_for_and_not_shown(peer: Peer, run: Run) -> None:
    """Typed at a prompt, nothing of it stays on the screen."""
    peer.answers("Verify", VALID)
    screen, code = on_a_terminal([sys.executable, "-m", "keysvc", "verify", "-q"], b"Key string: ", KEY_STRING)
    assert code == 0
    assert peer.requests["Verify"][0].key_string == KEY_STRING
    assert screen.split() == [b"Key", b"string:", b"VALID"]


def on_a_terminal(command: list[str], prompt: bytes, typed: str) -> tuple[bytes, int]:
    """Run a command on a terminal, type a line after its prompt, and return all that the screen shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        screen = read_until(ours, lambda seen: prompt in seen)
        os.write(ours, typed.encode() + b"\n")
        screen += read_until(ours, lambda _: False)
        code = process.wait()
    os.close(ours)
    return screen, code


def read_until(terminal: int, done: Callable[[bytes], bool]) -> bytes:
    """Read until that is seen, or the other side has closed."""
    seen = b""
    while not done(seen):
        try:
            more = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other side is gone
            more = b""
        if not more:
            break
        seen += more
    return seen
