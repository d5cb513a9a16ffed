"""Keys: created, watched, rotated, suspended and revoked."""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Unpack

from keysvc.v1.key_pb2 import Key
from keysvc.v1.key_service_pb2 import (
    CancelRotationRequest,
    CancelRotationResponse,
    CreateRequest,
    CreateResponse,
    GetRequest,
    ListRequest,
    ResumeRequest,
    ResumeResponse,
    RevokeRequest,
    RevokeResponse,
    RotateRequest,
    RotateResponse,
    SuspendRequest,
    SuspendResponse,
    UpdateResponse,
)
from keysvc_client import methods
from keysvc_client._async.calls import AsyncCalls
from keysvc_client.changes import KeyChanges, update_key
from keysvc_client.values import (
    EnvironmentWord,
    KeyStateWord,
    WaitWord,
    environment_value,
    key_state_value,
    new_request_id,
    several,
    to_duration,
    to_timestamp,
    wait_value,
)


class AsyncKeys:
    """The calls that manage keys. What they answer are the messages of the contract, ``keysvc.v1``.

    Of all of them: `reason` is for the audit event; `wait` is what a change waits for (`barrier`, the default: until no
    server answers by the state before it; `commit`: until it is durable); `timeout` is the deadline in seconds, None:
    that of the client. They raise `KeysvcError`, and `ValueError` or `TypeError` for what cannot be sent.
    """

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def create(
        self,
        *,
        workspace: str,
        display_name: str,
        environment: EnvironmentWord,
        owner: str = "",
        scopes: Iterable[str] = (),
        role: str = "",
        ip_allowlist: Iterable[str] = (),
        expire_time: datetime | None = None,
        ttl: timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Iterable[str] = (),
        workspaces: Iterable[str] = (),
        reason: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> CreateResponse:
        """Create a key. The answer shows its key string, this once.

        Permission `keys.write`; the caller must hold whatever it grants. Repeated by itself where keysvc is not
        available: that mints no second key.

        Parameters:
            workspace: that it is bound to for ever.
            display_name: for people, 1 to 128 characters.
            environment: live or test.
            owner: a person, team or service account.
            scopes, role: what it grants.
            ip_allowlist: addresses and ranges from which it is accepted; empty: from everywhere.
            expire_time, ttl: when it ends, or after how long; neither: as the workspace says. Not both.
            metadata: that `verify` answers.
            tags: words to list keys by.
            workspaces: of a key of `keysvc/system`: those that the caller may work in; empty: in every one.
            request_id: a random UUID of your own, to repeat the whole call with if it raises `Unavailable`: within 10
                minutes that answers the same key and key string. None: a new one.

        Raises:
            InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, FailedPrecondition: see the contract.
        """
        if expire_time is not None and ttl is not None:
            raise ValueError("expire_time and ttl are both given: leave one of them out")
        request = CreateRequest(
            workspace=workspace,
            display_name=display_name,
            environment=environment_value(environment),
            owner=owner,
            scopes=several("scopes", scopes),
            role=role,
            ip_allowlist=several("ip_allowlist", ip_allowlist),
            expire_time=to_timestamp(expire_time, "expire_time"),
            ttl=to_duration(ttl),
            metadata=metadata,
            tags=several("tags", tags),
            workspaces=several("workspaces", workspaces),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return await self._calls.call(methods.CREATE, request, timeout)

    async def get(self, key_id: str, *, timeout: float | None = None) -> Key:
        """Get a key.

        Permission `keys.read`. Repeated by itself where keysvc is not available.

        Raises:
            NotFound: there is none, or the caller may not know of it.
        """
        return (await self._calls.call(methods.GET, GetRequest(key_id=key_id), timeout)).key

    def list(
        self,
        *,
        workspace: str | None = None,
        state: KeyStateWord | None = None,
        environment: EnvironmentWord | None = None,
        owner: str = "",
        tag: str = "",
        role: str = "",
        hint_prefix: str = "",
        display_name_prefix: str = "",
        expire_before: datetime | None = None,
        idle_since: datetime | None = None,
        rotation_overdue: bool = False,
        page_size: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Key]:
        """List keys, newest first: all of them, page by page as they are asked for.

        Permission `keys.read`. Repeated by itself where keysvc is not available.

        Parameters:
            workspace: only of this one; None: of all that the caller may see.
            state, environment, owner, tag, role: only with exactly this.
            hint_prefix: only with a secret whose hint begins so.
            display_name_prefix: only with a name that begins so.
            expire_before: only those that expire before.
            idle_since: only those that were not accepted since, nor created.
            rotation_overdue: only those whose secret is too old.
            page_size: keys in one call, at most 1000; None: 50.
            timeout: of each page.

        Raises:
            InvalidArgument, NotFound: see the contract; with the first page.
        """
        request = ListRequest(
            workspace=workspace or "",
            page_size=page_size or 0,
            filter=ListRequest.Filter(
                state=key_state_value(state),
                environment=environment_value(environment),
                owner=owner,
                tag=tag,
                role=role,
                hint_prefix=hint_prefix,
                display_name_prefix=display_name_prefix,
                expire_before=to_timestamp(expire_before, "expire_before"),
                idle_since=to_timestamp(idle_since, "idle_since"),
                rotation_overdue=rotation_overdue,
            ),
        )
        return self._calls.items(methods.LIST, request, lambda page: page.keys, timeout)

    async def update(
        self,
        key_id: str,
        *,
        etag: str = "",
        reason: str = "",
        wait: WaitWord | None = None,
        timeout: float | None = None,
        **changes: Unpack[KeyChanges],
    ) -> UpdateResponse:
        """Change what is given, and nothing else: see `KeyChanges` for what can be.

        Permission `keys.write`; the caller must hold whatever it grants anew. Never repeated by itself.

        Parameters:
            etag: of the key as it was read: only if it has not changed since.

        Raises:
            Aborted: it has changed since: read it again.
            InvalidArgument, NotFound, PermissionDenied, FailedPrecondition: see the contract.
        """
        request = update_key(key_id, etag, changes)
        request.reason, request.wait = reason, wait_value(wait)
        return await self._calls.call(methods.UPDATE, request, timeout)

    async def rotate(
        self,
        key_id: str,
        *,
        overlap: timedelta | None = None,
        reason: str = "",
        wait: WaitWord | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> RotateResponse:
        """Mint a second secret for the key. The answer shows its key string, this once; the old one goes on meanwhile.

        Permission `keys.write`. Repeated by itself where keysvc is not available: that mints no second secret.

        Parameters:
            overlap: how long the old secret goes on, 0 to 30 days; None: 24 hours.
            request_id: as in `create`.

        Raises:
            InvalidArgument, NotFound, PermissionDenied, FailedPrecondition: see the contract.
        """
        request = RotateRequest(
            key_id=key_id,
            overlap=to_duration(overlap),
            reason=reason,
            wait=wait_value(wait),
            request_id=request_id or new_request_id(),
        )
        return await self._calls.call(methods.ROTATE, request, timeout)

    async def cancel_rotation(
        self, key_id: str, *, reason: str = "", wait: WaitWord | None = None, timeout: float | None = None
    ) -> CancelRotationResponse:
        """Go back: revoke the newer of two secrets. A key with one stays as it is.

        Permission `keys.write`. Repeated by itself where keysvc is not available.

        Raises:
            NotFound, FailedPrecondition: see the contract.
        """
        request = CancelRotationRequest(key_id=key_id, reason=reason, wait=wait_value(wait))
        return await self._calls.call(methods.CANCEL_ROTATION, request, timeout)

    async def suspend(
        self, key_id: str, *, reason: str = "", wait: WaitWord | None = None, timeout: float | None = None
    ) -> SuspendResponse:
        """Refuse the key until `resume`.

        Permission `keys.write`. Repeated by itself where keysvc is not available.

        Raises:
            NotFound, FailedPrecondition: see the contract.
        """
        request = SuspendRequest(key_id=key_id, reason=reason, wait=wait_value(wait))
        return await self._calls.call(methods.SUSPEND, request, timeout)

    async def resume(
        self, key_id: str, *, reason: str = "", wait: WaitWord | None = None, timeout: float | None = None
    ) -> ResumeResponse:
        """End a suspension.

        Permission `keys.write`. Repeated by itself where keysvc is not available.

        Raises:
            NotFound, FailedPrecondition: see the contract.
        """
        request = ResumeRequest(key_id=key_id, reason=reason, wait=wait_value(wait))
        return await self._calls.call(methods.RESUME, request, timeout)

    async def revoke(
        self,
        key_id: str,
        *,
        secret_id: str = "",
        reason: str = "",
        wait: WaitWord | None = None,
        timeout: float | None = None,
    ) -> RevokeResponse:
        """Revoke a key, or one secret of it, for ever. With a complete receipt nobody accepts it from then on.

        Permission `keys.revoke`. Repeated by itself where keysvc is not available.

        Parameters:
            secret_id: only this one; empty: the whole key.

        Raises:
            NotFound, FailedPrecondition: see the contract.
        """
        request = RevokeRequest(key_id=key_id, secret_id=secret_id, reason=reason, wait=wait_value(wait))
        return await self._calls.call(methods.REVOKE, request, timeout)
