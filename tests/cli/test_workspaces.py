import json

import grpc
import pytest

from keysvc.v1 import receipt_pb2
from keysvc.v1.workspace_service_pb2 import (
    CreateWorkspaceRequest,
    CreateWorkspaceResponse,
    GetWorkspaceRequest,
    GetWorkspaceResponse,
    ListWorkspacesRequest,
    ListWorkspacesResponse,
    ResumeWorkspaceResponse,
    Role,
    SuspendWorkspaceRequest,
    SuspendWorkspaceResponse,
    UpdateWorkspaceResponse,
    Workspace,
)
from tests.cli.conftest import Run
from tests.cli.peer import Peer, Refusal
from tests.cli.sample import duration, receipt, workspace

NAME = "acme-corp/sales"
EVERYTHING = (
    *("--display-name", "Sales", "--allowed-scope", "pdf.*", "--allowed-scope", "read"),
    *("--role", "clerk=pdf.read,pdf.write", "--role", "boss=*"),
    *("--default-ttl", "90d", "--max-ttl", "365d", "--key-limit", "0", "--reason", "why"),
)
EVERYTHING_SENT = Workspace(
    name=NAME,
    display_name="Sales",
    allowed_scopes=["pdf.*", "read"],
    roles=[Role(name="clerk", scopes=["pdf.read", "pdf.write"]), Role(name="boss", scopes=["*"])],
    default_ttl=duration(days=90),
    max_ttl=duration(days=365),
    key_limit=0,
)


def test_create_sends_every_field_of_the_contract(peer: Peer, run: Run) -> None:
    """A limit of 0 is a limit; none at all is something else."""
    peer.answers("CreateWorkspace", *[CreateWorkspaceResponse(workspace=workspace())] * 2)
    assert run("workspaces", "create", NAME, *EVERYTHING).code == 0
    assert run("workspaces", "create", NAME, "-q").out == f"{NAME}\n"
    assert peer.requests["CreateWorkspace"] == [
        CreateWorkspaceRequest(workspace=EVERYTHING_SENT, reason="why"),
        CreateWorkspaceRequest(workspace=Workspace(name=NAME)),
    ]


def test_get_shows_a_workspace(peer: Peer, run: Run) -> None:
    """What its keys can grant, and for how long."""
    shown = workspace(roles=EVERYTHING_SENT.roles, max_ttl=duration(days=365), key_limit=50)
    peer.answers("GetWorkspace", *[GetWorkspaceResponse(workspace=shown)] * 3)
    lines = run("workspaces", "get", NAME).out.splitlines()
    assert peer.requests["GetWorkspace"] == [GetWorkspaceRequest(name=NAME)]
    assert "allowed scopes  all" in lines
    assert lines[lines.index("roles           clerk: pdf.read, pdf.write") + 1] == "                boss: *"
    assert "max TTL         365d" in lines
    assert "key limit       50" in lines
    assert run("workspaces", "get", NAME, "-q").out == "active\n"
    assert json.loads(run("workspaces", "get", NAME, "--json").out)["workspace"]["maxTtl"] == "31536000s"


def test_list_prints_names(peer: Peer, run: Run) -> None:
    """Of one organization, or of all."""
    names = ["acme-corp/hr", "acme-corp/sales"]
    page = ListWorkspacesResponse(workspaces=[workspace(name=name) for name in names])
    peer.answers("ListWorkspaces", page, page)
    assert run("workspaces", "list", "-q", "--organization", "acme-corp", "--page-size", "9").out.split() == names
    assert [line.split()[:2] for line in run("workspaces", "list").out.splitlines()[1:]] == [
        [n, "active"] for n in names
    ]
    assert peer.requests["ListWorkspaces"][0] == ListWorkspacesRequest(organization="acme-corp", page_size=9)


def test_update_names_what_is_given_and_nothing_else(peer: Peer, run: Run) -> None:
    """What is not named stays as it is."""
    peer.answers("UpdateWorkspace", *[UpdateWorkspaceResponse(workspace=workspace(), receipt=receipt())] * 3)
    assert run("workspaces", "update", NAME, *EVERYTHING, "--etag", "e", "--wait", "commit").code == 0
    run("workspaces", "update", NAME, "--key-limit", "5")
    run("workspaces", "update", NAME, "--clear", "max-ttl", "--clear", "allowed-scopes", "--display-name", "")
    everything, limit, cleared = peer.requests["UpdateWorkspace"]
    sent = Workspace(etag="e")
    sent.MergeFrom(EVERYTHING_SENT)
    assert everything.workspace == sent
    assert everything.wait == receipt_pb2.WAIT_COMMIT
    assert everything.reason == "why"
    assert everything.update_mask.paths == [
        *("allowed_scopes", "default_ttl", "display_name", "key_limit", "max_ttl", "roles")
    ]
    assert (limit.workspace, limit.update_mask.paths) == (Workspace(name=NAME, key_limit=5), ["key_limit"])
    assert cleared.workspace == Workspace(name=NAME)
    assert cleared.update_mask.paths == ["allowed_scopes", "display_name", "max_ttl"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "nothing to change"),
        (("--key-limit", "5", "--clear", "key-limit"), "key-limit cannot be set and cleared"),
        (("--clear", "state"), "'state' is not one of"),
        (("--role", "clerk=a", "--role", "clerk=b"), "clerk is given twice"),
        (("--role", "clerk"), "must look like NAME=VALUE"),
    ],
)
def test_an_update_that_makes_no_sense_is_not_sent(peer: Peer, run: Run, arguments: tuple[str, ...], why: str) -> None:
    """Wrong usage."""
    result = run("workspaces", "update", NAME, *arguments)
    assert result.code == 2
    assert why in result.err
    assert not peer.requests


def test_suspend_and_resume_print_the_receipt(peer: Peer, run: Run) -> None:
    """Since when it is true everywhere."""
    suspended = workspace(state=Workspace.STATE_SUSPENDED)
    peer.answers("SuspendWorkspace", SuspendWorkspaceResponse(workspace=suspended, receipt=receipt()))
    peer.answers("ResumeWorkspace", ResumeWorkspaceResponse(workspace=workspace(), receipt=receipt()))
    out = run("workspaces", "suspend", NAME, "--reason", "unpaid", "--wait", "barrier").out
    assert out.startswith(f"Suspended workspace {NAME}\n")
    assert "state           suspended\n" in out
    assert "receipt         COMPLETE, waited 3 ms\n" in out
    assert peer.requests["SuspendWorkspace"] == [
        SuspendWorkspaceRequest(name=NAME, reason="unpaid", wait=receipt_pb2.WAIT_BARRIER)
    ]
    assert run("workspaces", "resume", NAME, "-q").out == "COMPLETE\n"


def test_when_nobody_knows_whether_it_happened_the_right_advice_is_given(peer: Peer, run: Run) -> None:
    """Repeating a creation says that it exists, repeating with an etag that it has changed: look instead."""
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "The database cannot be reached.", "UNAVAILABLE")
    peer.answers("CreateWorkspace", away)
    peer.answers("UpdateWorkspace", away, away)
    look = f"Look: keysvc workspaces get {NAME}\n"
    assert run("workspaces", "create", NAME).err.endswith(look)
    assert run("workspaces", "update", NAME, "--key-limit", "1", "--etag", "e").err.endswith(look)
    assert "Repeat the command: that is safe" in run("workspaces", "update", NAME, "--key-limit", "1").err
