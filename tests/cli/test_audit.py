import json
from datetime import UTC, datetime, timedelta

from keysvc.v1.audit_service_pb2 import ListAuditEventsRequest, ListAuditEventsResponse
from tests.cli.conftest import Run
from tests.cli.peer import Peer
from tests.cli.sample import KEY_ID, OTHER_KEY_ID, event


def test_list_sends_every_filter(peer: Peer, run: Run) -> None:
    """An RPC can be named without its package."""
    peer.answers("ListAuditEvents", ListAuditEventsResponse())
    run(
        *("audit", "list", "--workspace", "a/b", "--key-id", KEY_ID, "--actor", "bootstrap"),
        *("--method", "KeyService/Revoke", "--start-time", "2027-01-30", "--end-time", "2027-01-31T00:00:00Z"),
        *("--page-size", "7", "--page-token", "t"),
    )
    expected = ListAuditEventsRequest(
        workspace="a/b",
        page_size=7,
        page_token="t",
        filter=ListAuditEventsRequest.Filter(key_id=KEY_ID, actor="bootstrap", method="keysvc.v1.KeyService/Revoke"),
    )
    expected.filter.start_time.FromJsonString("2027-01-30T00:00:00Z")
    expected.filter.end_time.FromJsonString("2027-01-31T00:00:00Z")
    assert peer.requests["ListAuditEvents"] == [expected]


def test_a_distance_reaches_back(peer: Peer, run: Run) -> None:
    """`--start-time 24h`: what happened since yesterday."""
    peer.answers("ListAuditEvents", ListAuditEventsResponse())
    before = datetime.now(UTC)
    run("audit", "list", "--start-time", "24h", "--method", "keysvc.v1.KeyService/Revoke")
    sent = peer.requests["ListAuditEvents"][0].filter
    assert before <= sent.start_time.ToDatetime(UTC) + timedelta(hours=24) <= datetime.now(UTC)
    assert not sent.HasField("end_time")
    assert sent.method == "keysvc.v1.KeyService/Revoke"


def test_in_a_pipe_an_event_is_a_line(peer: Peer, run: Run) -> None:
    """With everything, for grep."""
    peer.answers("ListAuditEvents", ListAuditEventsResponse(events=[event(reason="leaked"), event()]))
    _, first, second = run("audit", "list").out.splitlines()
    for part in ("KeyService/Suspend", KEY_ID, OTHER_KEY_ID, "10.1.2.3", "leaked", "state: active → suspended"):
        assert part in first
    assert "leaked" not in second


def test_on_a_screen_an_event_is_a_few_lines_of_at_most_80_characters(peer: Peer, run: Run) -> None:
    """Two ids do not fit beside each other there."""
    peer.answers("ListAuditEvents", ListAuditEventsResponse(events=[event(), event()]))
    out = run("audit", "list", columns=80).out
    assert out.count(f"actor   {OTHER_KEY_ID}".split()[1]) == 2
    assert all(len(plain(line)) <= 80 for line in out.splitlines())


def test_of_a_creation_only_what_came_to_be_is_shown(peer: Peer, run: Run) -> None:
    """There was nothing before."""
    created = event(method="keysvc.v1.KeyService/Create")
    created.ClearField("before")
    created.after.Clear()
    created.after.update({"display_name": "x", "scopes": ["a", "b"], "limit": 5})
    peer.answers("ListAuditEvents", ListAuditEventsResponse(events=[created]))
    assert 'display_name: x; limit: 5; scopes: ["a", "b"]' in run("audit", "list").out


def test_quiet_and_json(peer: Peer, run: Run) -> None:
    """Ids, or the answer."""
    peer.answers("ListAuditEvents", *[ListAuditEventsResponse(events=[event()])] * 2)
    assert run("audit", "list", "-q").out == f"{event().id}\n"
    assert json.loads(run("audit", "list", "--json").out)["events"][0]["after"] == {"state": "suspended"}


def plain(line: str) -> str:
    """A line without its colours."""
    while "\x1b[" in line:
        before, _, rest = line.partition("\x1b[")
        line = before + rest.partition("m")[2]
    return line
