"""For tests of services that use keysvc: a keysvc in memory. Needs `keysvc-client[testing]`."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from keysvc_client._async.client import AsyncKeysvcClient
from keysvc_client._sync.client import KeysvcClient
from keysvc_client.errors import AlreadyExists
from keysvc_client.values import EnvironmentWord

try:
    from keysvc.fake.server import FakeServer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: install keysvc-client[testing]", name=error.name) from error

__all__ = ["WORKSPACE", "FakeKeysvc"]

WORKSPACE = "acme-corp/sales"
"""Where keys are created if a test does not say it."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FakeKeysvc:
    """A keysvc in memory, for the tests of one process. It starts in milliseconds and forgets everything at its end.

    It is the server itself (its checks, its verdicts, its errors), but for the database and for what needs several
    processes. It listens at `address` on this machine, so that whatever speaks the contract can call it: both clients,
    middleware, the bare stubs, other languages.

    What it covers: KeyService, WorkspaceService and AuditService, permissions and workspaces of callers, receipts,
    repeats, pages. What it does not cover raises `Unimplemented` with the name of the call: `usage.record` and
    `usage.query`, lists of idle keys, and leases (`lease=True` is the same as without). Answers always have the basis
    DATABASE, key records count no usage, and there is no TLS, no health service and no reflection.

        with FakeKeysvc() as keysvc:
            key_string = keysvc.create_key(scopes=["pdf.read"])
            assert keysvc.client().verify(key_string).valid

    The methods below do what tests want most, as an operator; `operator` is a client that can do everything else.
    They block for about a millisecond, in tests of asyncio too.

    Parameters:
        clock: the time, with a time zone; None: that of this machine. `advance` moves it forward either way.
    """

    def __init__(self, *, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or _utc_now
        self._ahead = timedelta()
        self._server = FakeServer(self.now)
        self._clients: list[KeysvcClient] = []
        self.operator: KeysvcClient = self._client(self.operator_key)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End it, and close the synchronous clients that it gave. Whoever calls it afterwards finds nobody there."""
        for client in self._clients:
            client.close()
        self._server.close()

    @property
    def address(self) -> str:
        """Where it listens: the `target` of a client."""
        return self._server.address

    @property
    def operator_key(self) -> str:
        """Key string of an operator."""
        return self._server.operator_key

    def now(self) -> datetime:
        """Its time."""
        return self._clock() + self._ahead

    def advance(self, by: timedelta) -> None:
        """Let time go by: keys expire, secrets retire.

        Raises:
            ValueError: time does not go back.
        """
        if by < timedelta():
            raise ValueError("by must not be negative")
        self._ahead += by

    def go_down(self) -> None:
        """Refuse every call as a keysvc that cannot answer: `Unavailable`, without the pauses of retries."""
        self._server.is_down = True

    def come_back(self) -> None:
        """Answer again, with everything that there was."""
        self._server.is_down = False

    def client(self, *, api_key: str | None = None, **arguments: Any) -> KeysvcClient:  # noqa: ANN401 (of the client)
        """A client, closed together with this.

        Parameters:
            api_key: key string of the caller, such as `create_caller` gives; None: one that may verify.
            arguments: more for `KeysvcClient`.
        """
        return self._client(api_key or self.create_caller(), **arguments)

    def async_client(self, *, api_key: str | None = None, **arguments: Any) -> AsyncKeysvcClient:  # noqa: ANN401 (as above)
        """As `client`, for asyncio: close it, or use it as a context manager."""
        return AsyncKeysvcClient(self.address, api_key=api_key or self.create_caller(), tls=False, **arguments)

    def create_caller(self, permissions: Iterable[str] = ("verify",), *, workspaces: Iterable[str] = ()) -> str:
        """Create a caller of keysvc; its key string.

        Parameters:
            workspaces: where it may work; empty: everywhere.
        """
        created = self.operator.keys.create(
            workspace="keysvc/system",
            display_name="a caller",
            environment="live",
            scopes=permissions,
            workspaces=workspaces,
        )
        return created.key_string

    def create_key(
        self,
        *,
        workspace: str = WORKSPACE,
        display_name: str = "a key",
        environment: EnvironmentWord = "live",
        **fields: Any,  # noqa: ANN401 (of the method)
    ) -> str:
        """Create a key, and its workspace unless there is one; its key string.

        Parameters:
            fields: more for `keys.create`: scopes, role, owner, ip_allowlist, expire_time, ttl, metadata, tags.
        """
        with suppress(AlreadyExists):
            self.operator.workspaces.create(workspace)
        created = self.operator.keys.create(
            workspace=workspace, display_name=display_name, environment=environment, **fields
        )
        return created.key_string

    def key_id(self, key_string: str) -> str:
        """The id of the key that a key string is of.

        Raises:
            ValueError: of none.
        """
        key_id = self.operator.verify(key_string).key_id
        if not key_id:
            raise ValueError("this is no key string of this keysvc")
        return key_id

    def revoke(self, key_string: str) -> None:
        """Revoke a key for ever."""
        self.operator.keys.revoke(self.key_id(key_string))

    def suspend(self, key_string: str) -> None:
        """Refuse a key until `resume`."""
        self.operator.keys.suspend(self.key_id(key_string))

    def resume(self, key_string: str) -> None:
        """End a suspension."""
        self.operator.keys.resume(self.key_id(key_string))

    def rotate(self, key_string: str, *, overlap: timedelta | None = None) -> str:
        """Mint a second secret for a key; its key string.

        Parameters:
            overlap: how long the old one goes on; None: a day.
        """
        return self.operator.keys.rotate(self.key_id(key_string), overlap=overlap).key_string

    def expire(self, key_string: str) -> None:
        """Let a key have expired by now; time goes on by a moment."""
        moment = timedelta(seconds=1)
        self.operator.keys.update(self.key_id(key_string), expire_time=self.now() + moment)
        self.advance(moment)

    def _client(self, api_key: str, **arguments: Any) -> KeysvcClient:  # noqa: ANN401 (as above)
        client = KeysvcClient(self.address, api_key=api_key, tls=False, **arguments)
        self._clients.append(client)
        return client
