"""gRPC channels as the library opens them: spread, kept alive, and with retries where they are safe."""

import json
import os
from functools import cache
from threading import Lock
from typing import Final, Protocol, TypeAlias
from weakref import WeakSet

import grpc
import grpc.aio

from keysvc_client.connection import Connection
from keysvc_client.methods import METHODS

Channel: TypeAlias = grpc.Channel
AsyncChannel: TypeAlias = grpc.aio.Channel

ANSWER_BYTES_MAX: Final = 64 << 20
"""A page of 1000 keys with everything at its limit is 12 MiB, a batch of answers 5; gRPC's default is 4."""

PING_SECONDS: Final = 20
"""So often a connection is asked whether anybody is there; keysvc allows every 10 s."""

PING_SECONDS_MAX: Final = 5
"""For the answer. After both together a server that is gone without a word is not asked any more."""

ATTEMPTS_MAX: Final = 4
RETRIES: Final = {
    "maxAttempts": ATTEMPTS_MAX,
    # Each is multiplied by chance, 0.8 to 1.2.
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 3,
    # A server that stops ends calls under way with CANCELLED. Whoever cancels a call here has ended it for good.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
"""Of methods that are safe to repeat, within the deadline of the call."""

RETRY_THROTTLING: Final = {"maxTokens": 200, "tokenRatio": 0.1}
"""A failure costs one, a success brings a tenth; from half of it down nothing is sent again. So clients do not multiply
the load of a service that is down, while those of one server that stops can all go to another."""

RECONNECT_MS: Final = {
    "grpc.min_reconnect_backoff_ms": 5_000,  # for one attempt; gRPC would give it 20 s
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,  # between attempts; gRPC would wait for up to 120 s
}
"""How a server that is away is tried again."""

_ONE_SERVER: Final = json.dumps({"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": True}}]})

opening: Final = Lock()
"""Held while a client opens or closes its channel. A fork waits for it, so that no child finds it taken."""

os.register_at_fork(before=opening.acquire, after_in_parent=opening.release, after_in_child=opening.release)

_FORK_SUPPORT: Final = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower()
"""What gRPC does in the children of a process that has used it. It looks at this when it is imported."""

FORKS_USED: Final = _FORK_SUPPORT in {"1", "true", "yes"}
"""Channels that were opened before go on. Otherwise others can be opened, unless gRPC was told to do nothing at all."""

_users: Final[set[int]] = set()
"""This process, if it has opened a channel, and those that it was forked from."""


class Working(Protocol):
    """What calls keysvc in threads of its own."""

    def pause(self) -> None:
        """Return when no call is under way, and begin none."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...


_working: Final[WeakSet[Working]] = WeakSet()
_paused: Final[list[Working]] = []
_forking: Final = Lock()
"""Held during a fork: several threads may want one at once."""


def pause_at_forks(working: Working) -> None:
    """Have no call of these threads under way when the process is forked: gRPC could hang in the child otherwise.

    Call it once a channel is open, while holding `opening`.
    """
    _register_at_fork()
    _working.add(working)


@cache
def _register_at_fork() -> None:
    """After gRPC, which has done so with the first channel: what is registered last goes first."""
    os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_forget_in_child)


def _pause() -> None:
    _forking.acquire()
    with opening:
        _paused.extend(_working)
    for working in _paused:
        working.pause()


def _resume() -> None:
    while _paused:
        _paused.pop().resume()
    _forking.release()


def _forget_in_child() -> None:
    """The threads are not there, and may have left any lock taken: what they worked for stays as it is."""
    _paused.clear()
    _working.clear()
    _forking.release()


abandoned: Final[list[object]] = []
"""What a parent process has opened: it stays, since the end of a channel could close the parent's connection."""


def leave_to_parent(opened: object) -> None:
    """Leave channels to the parent process that has used them.

    Raises:
        RuntimeError: gRPC would hang in this process, whatever the deadline.
    """
    if not FORKS_USED:
        raise RuntimeError(_USED_BEFORE)
    abandoned.append(opened)


_USED_BEFORE: Final = (
    "a client was used before this process was forked: gRPC needs GRPC_ENABLE_FORK_SUPPORT=1 for that, in the "
    "environment before it is imported; or use clients in the child processes alone"
)


def _must_not_hang() -> None:
    if _FORK_SUPPORT and not FORKS_USED and _users - {os.getpid()}:
        raise RuntimeError(_USED_BEFORE)
    _users.add(os.getpid())


def open_channel(connection: Connection) -> Channel:
    """A channel; nothing is sent yet."""
    _must_not_hang()
    credentials = _credentials(connection)
    if credentials is None:
        return grpc.insecure_channel(connection.target, _options(connection))
    return grpc.secure_channel(connection.target, credentials, _options(connection))


def open_async_channel(connection: Connection) -> AsyncChannel:
    """A channel of the running event loop; nothing is sent yet."""
    _must_not_hang()
    credentials = _credentials(connection)
    if credentials is None:
        return grpc.aio.insecure_channel(connection.target, _options(connection))
    return grpc.aio.secure_channel(connection.target, credentials, _options(connection))


def open_lease_channel(connection: Connection) -> Channel:
    """A channel to one of the servers, by chance, and not to all in turn; nothing is sent yet."""
    credentials, options = _credentials(connection), _options(connection, _ONE_SERVER)
    if credentials is None:
        return grpc.insecure_channel(connection.target, options)
    return grpc.secure_channel(connection.target, credentials, options)


def _credentials(connection: Connection) -> grpc.ChannelCredentials | None:
    if (tls := connection.tls) is None:
        return None
    return grpc.ssl_channel_credentials(tls.roots, tls.key, tls.certificate)


def service_config() -> str:
    """How gRPC spreads calls and repeats them, as JSON: https://github.com/grpc/grpc/blob/master/doc/service_config.md."""
    repeatable = [{"service": each.service, "method": each.name} for each in METHODS if each.repeatable]
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [{"name": repeatable, "retryPolicy": RETRIES}],
            "retryThrottling": RETRY_THROTTLING,
        }
    )


def _options(connection: Connection, config: str | None = None) -> list[tuple[str, int | str]]:
    """What gRPC is told. It does not check the names: tests show what they do."""
    name = connection.tls and connection.tls.server_name
    return [
        ("grpc.service_config", config or service_config()),
        ("grpc.service_config_disable_resolution", 1),  # nobody changes it by a record in the DNS
        ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
        ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", PING_SECONDS_MAX * 1000),  # of the network alone; for the answer to a ping:
        ("grpc.http2.ping_timeout_ms", PING_SECONDS_MAX * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Connections of its own, so that two clients are two, and a child process uses none of its parent's.
        ("grpc.use_local_subchannel_pool", 1),
        # An HTTP proxy may carry TLS. A call to this machine has no business there, least of all in clear.
        ("grpc.enable_http_proxy", 0 if connection.loopback else 1),
        *RECONNECT_MS.items(),
        *([("grpc.default_authority", name)] if name else []),
    ]
