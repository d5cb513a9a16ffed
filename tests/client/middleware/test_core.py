"""What middleware decides, without any framework."""

import subprocess
import sys
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc_client import ConfigurationError, Policy, Principal, Unavailable, Verdict, Verification, asgi, wsgi
from keysvc_client.details import read_details, retry_details
from keysvc_client.middleware.gate import Gate, Headers, Question, request_id_of
from keysvc_client.middleware.refusals import Refusal, Refusals
from keysvc_client.middleware.rpc import peer_address

STATUSES = {
    Verdict.IP_NOT_ALLOWED: (403, "PERMISSION_DENIED"),
    Verdict.INSUFFICIENT_SCOPE: (403, "PERMISSION_DENIED"),
    Verdict.RATE_LIMITED: (429, "RESOURCE_EXHAUSTED"),
    Verdict.QUOTA_EXCEEDED: (429, "RESOURCE_EXHAUSTED"),
}
"""Of refusals; all others say that a good key is needed."""

FRAMEWORKS = {"django", "fastapi", "flask", "starlette", "uvicorn", "werkzeug"}


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_an_answer(verdict: Verdict) -> None:
    """And only one of them serves a request."""
    judged = Gate(Policy()).judged(Verification(verdict), "trace-1")
    assert isinstance(judged, Principal) is (verdict is Verdict.VALID)
    if isinstance(judged, Refusal):
        assert (judged.status, judged.code.name) == STATUSES.get(verdict, (401, "UNAUTHENTICATED"))


@pytest.mark.parametrize(("said", "answered"), [(None, "1"), (0.2, "1"), (2.1, "3"), (1e9, "3600")])
def test_what_nobody_has_judged_may_be_tried_again(said: float | None, answered: str) -> None:
    """When keysvc says, in whole seconds, and within reason."""
    error = Unavailable("away", code=grpc.StatusCode.UNAVAILABLE, retry_after_seconds=said)
    refusal = Gate(Policy()).unjudged(error, "trace-1")
    assert (refusal.status, dict(refusal.headers)["retry-after"]) == (503, answered)


def test_retry_details_are_read_as_they_were_written() -> None:
    """By the library itself; a test over gRPC reads them with Google's package."""
    details = retry_details(grpc.StatusCode.UNAVAILABLE, "away", 1.5)
    assert read_details([("grpc-status-details-bin", details)]).retry_after_seconds == 1.5


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3), st.text())
def test_whatever_headers_come_is_asked_or_refused(
    keys: list[str], request_ids: list[str], forwarded: list[str], peer: str
) -> None:
    """Nothing is an exception, and what is asked can be sent."""
    for policy in (Policy(trusted_proxies=1), Policy(header="x-api-key")):
        request_id = request_id_of(request_ids)
        assert 1 <= len(request_id) <= 128
        question = Gate(policy).question(Headers(keys, request_ids, forwarded), (), peer, request_id)
        if isinstance(question, Question):
            assert len(keys) == 1
            assert question.key_string.isascii()
            assert " " not in question.key_string
        else:
            assert question.status == 401


@pytest.mark.parametrize(
    ("peer", "source_ip"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:1234", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:1234", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("testclient", None),
        ("", None),
        (None, None),
    ],
)
def test_addresses_are_told_as_keysvc_takes_them(peer: str | None, source_ip: str | None) -> None:
    """What is none is not told, so that it cannot refuse the whole question."""
    question = Gate(Policy()).question(Headers(["Bearer x"], [], []), (), peer, "trace-1")
    assert isinstance(question, Question)
    assert question.source_ip == source_ip


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:1234", "192.0.2.7"),
        ("ipv6:%5B2001:db8::1%5D:1234", "2001:db8::1"),
        ("ipv6:[::1]:5", "::1"),
        ("unix:", None),
        ("", None),
    ],
)
def test_peers_of_grpc_are_addresses(peer: str, address: str | None) -> None:
    """But for those that have none."""
    assert peer_address(peer) == address


def test_a_principal_knows_what_patterns_grant() -> None:
    """As keysvc does; no scopes are always granted."""
    principal = Principal(Verification(Verdict.VALID, scopes=("pdf.*", "*.read"), key_id="a-key", owner="team-a"))
    assert principal.grants("pdf.write", "mail.read")
    assert not principal.grants("pdf.write", "mail.write")
    assert principal.grants()
    assert (principal.display_name, principal.identity, principal.is_authenticated) == ("team-a", "a-key", True)


def test_a_refusal_says_nothing_of_why() -> None:
    """Its body is made of its status alone."""
    made = Refusals("authorization", "api").by_status
    assert {status: refusal.body for status, refusal in made.items()} == {
        401: b'{"detail": "Unauthorized"}',
        403: b'{"detail": "Forbidden"}',
        429: b'{"detail": "Too Many Requests"}',
        503: b'{"detail": "Service Unavailable"}',
    }
    assert {status for status, refusal in made.items() if "retry-after" in dict(refusal.headers)} == {429, 503}
    assert {status for status, refusal in made.items() if "www-authenticate" in dict(refusal.headers)} == {401, 403}


def test_a_refusal_of_head_has_no_body() -> None:
    """What would be one belongs to the next answer on the connection; servers of ASGI see to that themselves."""
    client: Any = type("Client", (), {"_connection": None, "_spool_dir": None})()
    started: list[Any] = []
    middleware = wsgi.KeysvcMiddleware(lambda *_: [], client)
    for method, body in (("HEAD", []), ("GET", [b'{"detail": "Unauthorized"}'])):
        assert middleware({"REQUEST_METHOD": method}, lambda *start: started.append(start)) == body
    assert [status for status, _ in started] == ["401 Unauthorized"] * 2


async def test_what_is_neither_request_nor_socket_is_not_served() -> None:
    """A kind that ASGI may have one day does not get past."""

    async def app(*_: Any) -> None:
        raise AssertionError

    client: Any = type("Client", (), {"_connection": None, "_spool_dir": None})()
    with pytest.raises(ValueError, match="webtransport"):
        await asgi.KeysvcMiddleware(app, client)({"type": "webtransport"}, app, app)


def test_the_library_loads_no_framework() -> None:
    """Nor does its middleware for ASGI, WSGI and gRPC."""
    program = (
        "import sys, keysvc_client, keysvc_client.asgi, keysvc_client.wsgi, keysvc_client.grpc\n"
        f"print(sorted({FRAMEWORKS} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        ({"read_scope": "pdf.read"}, "write_scope"),
        ({"required_scopes": "pdf.read"}, "several"),
        ({"required_scopes": ["pdf.*"]}, "pdf"),
        ({"public": "/health"}, "several"),
        ({"header": "x api"}, "header"),
        ({"trusted_proxies": -1}, "trusted_proxies"),
        ({"environment": "prod"}, "environment"),
        ({"realm": 'a"b'}, "realm"),
    ],
)
def test_what_is_no_policy_is_told_at_once(policy: dict[str, Any], word: str) -> None:
    """And not when a request comes."""
    with pytest.raises(ConfigurationError, match=word):
        Policy(**policy)
