"""Workspaces as people see them."""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from rich.table import Table
from rich.text import Text

from keysvc.cli.contract import word
from keysvc.cli.output import Column, Output, coloured
from keysvc.cli.values import format_duration
from keysvc.v1.workspace_service_pb2 import Workspace

_COLUMNS = (
    Column("Workspace"),
    Column("Name", folds=True),
    Column("State"),
    Column("Key limit", rank=2),
    Column("Max TTL", rank=3),
    Column("Allowed scopes", rank=4, folds=True),
    Column("Created", rank=1),
)


def workspace_state_word(workspace: Workspace) -> str:
    """`active` or `suspended`."""
    return word(Workspace.State.DESCRIPTOR, workspace.state).lower()


def workspace_list(workspaces: Iterable[Workspace], output: Output) -> Table:
    """A line for each workspace."""
    return output.table(
        _COLUMNS,
        [
            (
                workspace.name,
                workspace.display_name,
                coloured(workspace_state_word(workspace)),
                _key_limit(workspace),
                _ttl(workspace.max_ttl) if workspace.HasField("max_ttl") else "",
                ", ".join(workspace.allowed_scopes),
                output.brief_time(workspace.create_time),
            )
            for workspace in workspaces
        ],
    )


def workspace_rows(workspace: Workspace, output: Output) -> list[tuple[str, str | Text]]:
    """All that is known of a workspace, for `Output.details`."""
    roles = [f"{role.name}: {', '.join(role.scopes)}" for role in workspace.roles]
    return [
        ("workspace", workspace.name),
        ("name", workspace.display_name),
        ("state", coloured(workspace_state_word(workspace))),
        ("allowed scopes", ", ".join(workspace.allowed_scopes) or "all"),
        *(("" if at else "roles", role) for at, role in enumerate(roles)),
        ("default TTL", _ttl(workspace.default_ttl) if workspace.HasField("default_ttl") else ""),
        ("max TTL", _ttl(workspace.max_ttl) if workspace.HasField("max_ttl") else ""),
        ("key limit", _key_limit(workspace)),
        ("created", output.time(workspace.create_time)),
        ("changed", output.time(workspace.update_time) if workspace.update_time != workspace.create_time else ""),
        ("etag", workspace.etag),
    ]


def _key_limit(workspace: Workspace) -> str:
    """How many keys it may have; empty: as many as it likes."""
    return str(workspace.key_limit) if workspace.HasField("key_limit") else ""


def _ttl(duration: Duration) -> str:
    """A lifetime."""
    return format_duration(duration.ToTimedelta())
