"""Messages of KeyService, but for Verify."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from keysvc.core.address import RANGES_MAX, parse_range, range_text
from keysvc.core.errors import NotBuilt
from keysvc.core.key import (
    DISPLAY_NAME_CHARACTERS_MAX,
    OWNER_CHARACTERS_MAX,
    TAG_CHARACTERS_MAX,
    TAGS_MAX,
    WORKSPACES_MAX,
    Key,
    Revocation,
    Secret,
    State,
)
from keysvc.core.keystring import Environment, parse_secret_id
from keysvc.core.listing import KeyFilter
from keysvc.core.scope import SCOPES_MAX, parse_grant
from keysvc.core.workspace import parse_role, parse_workspace_name
from keysvc.rpc.fields import Fields
from keysvc.rpc.translate.pages import read_page
from keysvc.rpc.translate.receipts import read_asked, read_reason
from keysvc.rpc.translate.times import timestamp
from keysvc.service.confirming import ChangeRequest
from keysvc.service.issuing import NewKey
from keysvc.service.minting import RequestClaim
from keysvc.service.reading import Page, PageRequest
from keysvc.service.rotating import OVERLAP_DEFAULT, OVERLAP_MAX, Rotation
from keysvc.service.updating import KeyUpdate
from keysvc.v1 import key_pb2, key_service_pb2

ENVIRONMENTS: Final = {
    Environment.LIVE: key_pb2.ENVIRONMENT_LIVE,
    Environment.TEST: key_pb2.ENVIRONMENT_TEST,
}
_STATES: Final = {
    State.ACTIVE: key_pb2.Key.STATE_ACTIVE,
    State.SUSPENDED: key_pb2.Key.STATE_SUSPENDED,
    State.REVOKING: key_pb2.Key.STATE_REVOKING,
    State.REVOKED: key_pb2.Key.STATE_REVOKED,
    State.EXPIRED: key_pb2.Key.STATE_EXPIRED,
}
_ENVIRONMENT_OF: Final = {message: value for value, message in ENVIRONMENTS.items()}
_STATE_OF: Final = {message: value for value, message in _STATES.items()}


def read_environment(fields: Fields, environment: key_pb2.Environment.ValueType) -> Environment | None:
    """An environment; unspecified is None."""
    if environment not in _ENVIRONMENT_OF and environment != key_pb2.ENVIRONMENT_UNSPECIFIED:
        fields.bad("environment", "must be ENVIRONMENT_LIVE or ENVIRONMENT_TEST")
    return _ENVIRONMENT_OF.get(environment)


def read_create(request: key_service_pb2.CreateRequest) -> NewKey:
    """What a key shall be. Raises nothing: what is wrong is told when the workspace is known, all at once."""
    fields = Fields()
    environment = read_environment(fields, request.environment)
    if request.environment == key_pb2.ENVIRONMENT_UNSPECIFIED:
        fields.bad("environment", "must be ENVIRONMENT_LIVE or ENVIRONMENT_TEST")
    return NewKey(
        workspace=fields.read("workspace", request.workspace, parse_workspace_name, ""),
        display_name=fields.text(
            "display_name", request.display_name, characters_max=DISPLAY_NAME_CHARACTERS_MAX, required=True
        ),
        environment=environment or Environment.TEST,
        owner=fields.text("owner", request.owner, characters_max=OWNER_CHARACTERS_MAX),
        scopes=fields.each("scopes", request.scopes, parse_grant, SCOPES_MAX),
        role=fields.optional("role", request.role, parse_role) or "",
        ip_allowlist=_read_ip_allowlist(fields, request.ip_allowlist),
        expire_time=fields.time("expire_time", request),
        ttl=fields.span("ttl", request),
        metadata=fields.metadata("metadata", request.metadata),
        tags=fields.each("tags", request.tags, _parse_tag, TAGS_MAX),
        workspaces=fields.each("workspaces", request.workspaces, parse_workspace_name, WORKSPACES_MAX),
        claim=_read_claim(fields, request),
        reason=read_reason(fields, request.reason),
        asked_scopes=tuple(request.scopes),
        violations=fields.violations,
    )


def _read_claim(
    fields: Fields, request: key_service_pb2.CreateRequest | key_service_pb2.RotateRequest
) -> RequestClaim | None:
    """The request id, and what a repeat must ask for again."""
    if not request.request_id:
        return None
    body = type(request).FromString(request.SerializeToString())
    body.ClearField("request_id")
    return RequestClaim(
        fields.random_uuid("request_id", request.request_id), body.SerializeToString(deterministic=True)
    )


_SETTABLE: Final[Mapping[str, Callable[[Fields, key_pb2.Key], Any]]] = {
    "display_name": lambda fields, key: fields.text(
        "display_name", key.display_name, characters_max=DISPLAY_NAME_CHARACTERS_MAX, required=True
    ),
    "owner": lambda fields, key: fields.text("owner", key.owner, characters_max=OWNER_CHARACTERS_MAX),
    "metadata": lambda fields, key: fields.metadata("metadata", key.metadata),
    "tags": lambda fields, key: fields.each("tags", key.tags, _parse_tag, TAGS_MAX),
    "scopes": lambda fields, key: fields.each("scopes", key.scopes, parse_grant, SCOPES_MAX),
    "role": lambda fields, key: fields.optional("role", key.role, parse_role) or "",
    "ip_allowlist": lambda fields, key: _read_ip_allowlist(fields, key.ip_allowlist),
    "expire_time": lambda fields, key: fields.time("expire_time", key),
    "workspaces": lambda fields, key: fields.each("workspaces", key.workspaces, parse_workspace_name, WORKSPACES_MAX),
}
"""How each field that can be changed is read."""


def read_update(request: key_service_pb2.UpdateRequest) -> KeyUpdate:
    """What shall change. Raises nothing but for the id: the rest is told when the workspace is known, all at once."""
    whole = Fields()
    fields = Fields("key.", whole.violations)
    key_id = fields.uuid("id", request.key.id)
    values = whole.masked(request.update_mask, _SETTABLE, lambda read: read(fields, request.key))
    change = read_asked(whole, request)
    if any(each.field in {"key.id", "update_mask"} for each in whole.violations):
        whole.done()
    return KeyUpdate(key_id, values, request.key.etag, change, tuple(request.key.scopes), whole.violations)


def _read_ip_allowlist(fields: Fields, texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(range_text, fields.each("ip_allowlist", texts, parse_range, RANGES_MAX)))


def _parse_tag(text: str) -> str:
    """A tag: 1 to 64 characters without control characters."""
    # Shorter than a key string, so there cannot be one in it.
    if not 1 <= len(text) <= TAG_CHARACTERS_MAX or not text.isprintable():
        raise ValueError(f"must have 1 to {TAG_CHARACTERS_MAX} printable characters")
    return text


def read_get(request: key_service_pb2.GetRequest) -> UUID:
    """The key's id."""
    fields = Fields()
    key_id = fields.uuid("key_id", request.key_id)
    fields.done()
    return key_id


def read_list(request: key_service_pb2.ListRequest) -> tuple[str | None, KeyFilter, PageRequest]:
    """Workspace, filter and page."""
    if request.filter.rotation_overdue:
        raise NotBuilt("filter.rotation_overdue is not built yet")
    fields = Fields()
    workspace = fields.optional("workspace", request.workspace, parse_workspace_name)
    page = read_page(fields, request)
    asked = Fields("filter.", fields.violations)
    if request.filter.state not in (key_pb2.Key.STATE_UNSPECIFIED, *_STATE_OF):
        asked.bad("state", "must be a state of a key")
    key_filter = KeyFilter(
        state=_STATE_OF.get(request.filter.state),
        environment=read_environment(asked, request.filter.environment),
        owner=asked.text("owner", request.filter.owner, characters_max=OWNER_CHARACTERS_MAX) or None,
        tag=asked.optional("tag", request.filter.tag, _parse_tag),
        role=asked.optional("role", request.filter.role, parse_role),
        hint_prefix=_read_hint_prefix(asked, request.filter.hint_prefix),
        display_name_prefix=asked.text(
            "display_name_prefix", request.filter.display_name_prefix, characters_max=DISPLAY_NAME_CHARACTERS_MAX
        )
        or None,
        expire_before=asked.time("expire_before", request.filter),
        idle_since=asked.time("idle_since", request.filter),
    )
    fields.done()
    return workspace, key_filter, page


def _read_hint_prefix(fields: Fields, text: str) -> str | None:
    """The beginning of a hint. A longer text may be a whole key string, which does not belong here."""
    hint_characters_max = 32
    prefix = fields.text("hint_prefix", text.removesuffix("…"), characters_max=hint_characters_max)
    if text == "…":
        fields.bad("hint_prefix", "must begin with more than …")
    return prefix or None


def read_rotate(request: key_service_pb2.RotateRequest) -> Rotation:
    """What a rotation shall be."""
    fields = Fields()
    rotation = Rotation(
        fields.uuid("key_id", request.key_id),
        fields.overlap("overlap", request, OVERLAP_DEFAULT, OVERLAP_MAX),
        _read_claim(fields, request),
        read_asked(fields, request),
    )
    fields.done()
    return rotation


def read_change(
    request: key_service_pb2.SuspendRequest | key_service_pb2.ResumeRequest | key_service_pb2.CancelRotationRequest,
) -> tuple[UUID, ChangeRequest]:
    """The key's id, and what is said of every change."""
    fields = Fields()
    key_id = fields.uuid("key_id", request.key_id)
    asked = read_asked(fields, request)
    fields.done()
    return key_id, asked


def read_revoke(request: key_service_pb2.RevokeRequest) -> tuple[UUID, str | None, ChangeRequest]:
    """The key's id, the secret's, and what is said of every change."""
    fields = Fields()
    key_id = fields.uuid("key_id", request.key_id)
    secret_id = fields.optional("secret_id", request.secret_id, parse_secret_id)
    asked = read_asked(fields, request)
    fields.done()
    return key_id, secret_id, asked


def key_message(key: Key) -> key_pb2.Key:
    """A key."""
    return key_pb2.Key(
        id=str(key.id),
        workspace=key.workspace,
        display_name=key.display_name,
        environment=ENVIRONMENTS[key.environment],
        owner=key.owner,
        scopes=key.scopes,
        role=key.role,
        ip_allowlist=key.ip_allowlist,
        metadata=key.metadata,
        tags=key.tags,
        state=_STATES[key.state],
        create_time=timestamp(key.create_time),
        creator=key.creator,
        expire_time=timestamp(key.expire_time),
        etag=str(key.version),
        secrets=[_secret_message(secret, key) for secret in key.secrets],
        workspaces=key.workspaces,
        update_time=timestamp(key.update_time),
        revocation=_revocation_message(key.revocation),
        last_used_time=timestamp(key.last_used_time),
        usage_total=key.usage_total,
        usage_time=timestamp(key.usage_time),
    )


def _secret_message(secret: Secret, key: Key) -> key_pb2.Secret:
    """A secret, as of the time when its key was read."""
    return key_pb2.Secret(
        id=secret.id,
        hint=f"{secret.hint}…",
        create_time=timestamp(secret.create_time),
        retire_time=timestamp(secret.retire_time),
        state=_STATES[secret.state(key.at)],
        revocation=_revocation_message(secret.revocation),
        last_used_time=timestamp(secret.last_used_time),
        usage_total=secret.usage_total,
    )


def _revocation_message(revocation: Revocation | None) -> key_pb2.Revocation | None:
    if revocation is None:
        return None
    return key_pb2.Revocation(time=timestamp(revocation.time), reason=revocation.reason)


def list_message(page: Page[Key]) -> key_service_pb2.ListResponse:
    """A page of keys."""
    return key_service_pb2.ListResponse(keys=map(key_message, page.items), next_page_token=page.next_token)
