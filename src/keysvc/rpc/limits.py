"""How much a server takes from whoever can connect, before anything is known of the caller.

Most of it is kept by gRPC itself, by options whose names it does not check: a test shows what each one does.
"""

import resource
from dataclasses import dataclass, field
from typing import Final

MESSAGE_BYTES_MAX: Final = 1 << 20
"""Of a request, unpacked too. A batch of 1 000 with usual texts has 160 KB."""

METADATA_BYTES_MAX: Final = 16 << 10
"""For a key of 100 bytes, and whatever tracing and proxies add."""

STREAMS_MAX: Final = 1_000
"""Calls under way on one connection.

More than a sound client has: gRPC's server refuses half of what goes beyond (REFUSED_STREAM, as it counts a call for
longer than its client does), and gRPC's clients tell their callers UNAVAILABLE. No more than gRPC lets wait before its
server begins to cancel calls by chance, those of other connections too.
"""

CALLS_MAX: Final = 10_000
"""Calls under way in one process, of about 20 KB each while they wait for their request.

Far above what a sound load needs (a process answers so many in a second), as the limit also refuses calls of others.
"""

FILES_KEPT: Final = 200
"""Of those that the system lets a process open, kept from connections: PostgreSQL, certificates and logs need some."""

CONNECTIONS_MAX: Final = 1_000_000
"""Where the system has no limit."""

HANDSHAKE_SECONDS_MAX: Final = 10
"""From the connection to the end of TLS and the first HTTP/2 settings; gRPC would wait for 120."""

PING_SECONDS_MIN: Final = 10
"""Between the pings of a client: no library sends them faster, and gRPC's own 300 would punish common settings."""

PING_STRIKES_MAX: Final = 2
"""Pings that may come sooner, as one does after a pause; with the next one the connection is closed."""

KEEPALIVE_SECONDS: Final = 60
"""So often a connection without traffic is asked whether anybody is there; gRPC would ask after 2 hours."""

KEEPALIVE_SECONDS_MAX: Final = 20
"""For the answer. It takes as long as that for whoever is gone, or reads nothing, to be forgotten."""

CONNECTION_SECONDS_MAX: Final = 600
"""Age of a connection, give or take a tenth by chance: so that connections spread again over servers that come."""

CONNECTION_GRACE_SECONDS: Final = 30
"""For calls under way on a connection that has reached its age; more than any call but a stream may take."""

CONNECTION_IDLE_SECONDS_MAX: Final = 300
"""Without a call. A client connects again when it needs to."""


def most_connections() -> int:
    """How many connections leave enough of the files that this process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if files == resource.RLIM_INFINITY else max(1, files - FILES_KEPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server; what each is for stands at its default."""

    message_bytes_max: int = MESSAGE_BYTES_MAX
    metadata_bytes_max: int = METADATA_BYTES_MAX
    streams_max: int = STREAMS_MAX
    calls_max: int = CALLS_MAX
    connections_max: int = field(default_factory=most_connections)
    handshake_seconds_max: float = HANDSHAKE_SECONDS_MAX
    ping_seconds_min: float = PING_SECONDS_MIN
    ping_strikes_max: int = PING_STRIKES_MAX
    keepalive_seconds: float = KEEPALIVE_SECONDS
    keepalive_seconds_max: float = KEEPALIVE_SECONDS_MAX
    connection_seconds_max: float = CONNECTION_SECONDS_MAX
    connection_grace_seconds: float = CONNECTION_GRACE_SECONDS
    connection_idle_seconds_max: float = CONNECTION_IDLE_SECONDS_MAX

    def options(self) -> list[tuple[str, int]]:
        """The same as gRPC wants it, but for ``calls_max``, which is an argument of its server."""
        return [
            ("grpc.max_receive_message_length", self.message_bytes_max),
            # Between the two gRPC refuses by chance, the more often the larger it is: nobody could make sense of that.
            ("grpc.max_metadata_size", self.metadata_bytes_max),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes_max),
            ("grpc.max_concurrent_streams", self.streams_max),
            ("grpc.max_allowed_incoming_connections", self.connections_max),
            ("grpc.server_handshake_timeout_ms", _milliseconds(self.handshake_seconds_max)),
            ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(self.ping_seconds_min)),
            ("grpc.http2.max_ping_strikes", self.ping_strikes_max),
            # On both sides: clients may ping between calls, which proxies and long-lived clients do, and so do we.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive_seconds)),
            # For every ping, also those that measure the connection; `grpc.keepalive_timeout_ms` changes nothing.
            ("grpc.http2.ping_timeout_ms", _milliseconds(self.keepalive_seconds_max)),
            ("grpc.max_connection_age_ms", _milliseconds(self.connection_seconds_max)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(self.connection_grace_seconds)),
            ("grpc.max_connection_idle_ms", _milliseconds(self.connection_idle_seconds_max)),
        ]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
