"""What an update may change: only what is given is changed."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

from google.protobuf.field_mask_pb2 import FieldMask

from keysvc.v1 import key_pb2, key_service_pb2, workspace_service_pb2
from keysvc_client.values import several, to_duration, to_timestamp


class KeyChanges(TypedDict, total=False):
    """New values for a key; what is empty or None is cleared.

    Parameters:
        display_name: 1 to 128 characters.
        owner: a person, team or service account.
        metadata: all of it.
        tags: all of them.
        scopes: all that is granted besides the role.
        role: a named set of grants.
        ip_allowlist: addresses and ranges, all of them; empty: the key may be used from everywhere.
        expire_time: when it ends; None: never.
        workspaces: of a key of `keysvc/system`: those that the caller may work in, all of them; empty: in every one.
    """

    display_name: str
    owner: str
    metadata: Mapping[str, str]
    tags: Iterable[str]
    scopes: Iterable[str]
    role: str
    ip_allowlist: Iterable[str]
    expire_time: datetime | None
    workspaces: Iterable[str]


class WorkspaceChanges(TypedDict, total=False):
    """New values for a workspace; what is empty or None is cleared.

    Parameters:
        display_name: at most 128 characters.
        allowed_scopes: all that its keys can ever grant; empty: everything.
        roles: scopes by name, all that there are besides the built-in ones.
        default_ttl: lifetime of keys that are created without an expiry; None: `max_ttl`.
        max_ttl: longest lifetime of a new key; None: unlimited.
        key_limit: how many keys that are not revoked it may have; None: unlimited.
    """

    display_name: str
    allowed_scopes: Iterable[str]
    roles: Mapping[str, Iterable[str]]
    default_ttl: timedelta | None
    max_ttl: timedelta | None
    key_limit: int | None


def update_key(key_id: str, etag: str, changes: Mapping[str, Any]) -> key_service_pb2.UpdateRequest:
    """The request that makes the changes."""
    _check(changes, KeyChanges)
    key = key_pb2.Key(id=key_id, etag=etag, **_fields(changes))
    return key_service_pb2.UpdateRequest(key=key, update_mask=FieldMask(paths=list(changes)))


def update_workspace(name: str, etag: str, changes: Mapping[str, Any]) -> workspace_service_pb2.UpdateWorkspaceRequest:
    """The request that makes the changes."""
    _check(changes, WorkspaceChanges)
    workspace = workspace_message(name, etag, changes)
    return workspace_service_pb2.UpdateWorkspaceRequest(workspace=workspace, update_mask=FieldMask(paths=list(changes)))


def workspace_message(name: str, etag: str, values: Mapping[str, Any]) -> workspace_service_pb2.Workspace:
    """A workspace with some of its fields."""
    return workspace_service_pb2.Workspace(name=name, etag=etag, **_fields(values))


def _check(changes: Mapping[str, Any], known: type[KeyChanges] | type[WorkspaceChanges]) -> None:
    """Refuse what cannot be changed, as Python does, and an update of nothing."""
    if unknown := sorted(changes.keys() - known.__annotations__.keys()):
        raise TypeError(f"an update cannot change {', '.join(unknown)}, but {', '.join(known.__annotations__)}")
    if not changes:
        raise ValueError("an update must change something")


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values as messages take them."""
    return {name: _value(name, value) for name, value in values.items()}


def _value(name: str, value: Any) -> Any:  # noqa: ANN401 (of any field)
    if isinstance(value, datetime):
        return to_timestamp(value, name)
    if isinstance(value, timedelta):
        return to_duration(value)
    if name == "roles":
        return [workspace_service_pb2.Role(name=role, scopes=scopes) for role, scopes in value.items()]
    return several(name, value) if name in {"tags", "scopes", "ip_allowlist", "workspaces", "allowed_scopes"} else value
