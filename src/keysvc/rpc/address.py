"""The address of a server: whether anybody else listens there, and how several processes share it."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias, cast

_Address: TypeAlias = tuple[str, int, *tuple[int, ...]]


def check_address(listen: str) -> None:
    """Raise ``OSError`` if nobody can listen there: before anything is built, and with the reason, which gRPC hides.

    Parameters:
        listen: ``host:port``.
    """
    for family, address in _resolve(listen):
        _probe(family, address).close()


@contextmanager
def held_address(listen: str) -> Iterator[str]:
    """Hold an address for processes of ours that listen there with SO_REUSEPORT; ``host:port``, never port 0.

    No connection comes to the sockets that hold it: they do not listen. Whoever looks with ``check_address``, or wants
    to hold it too, is refused for as long as they are open, also while none of our processes listens. There is no
    moment in between: the address is held before the probe, which listens, lets go.

    Parameters:
        listen: ``host:port``.

    Raises:
        OSError: nobody can listen there.
    """
    host, _, port = listen.rpartition(":")
    with ExitStack() as stack:
        for family, (name, wanted, *rest) in _resolve(listen):
            # With port 0 the first address takes a free one, the others must have the same.
            with _probe(family, (name, wanted or int(port), *rest)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                # Beside connections that have ended lately; but then not beside others who ask for the same.
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                holder.bind(probe.getsockname())
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
                port = str(probe.getsockname()[1])
        yield f"{host}:{port}"


def _resolve(listen: str) -> Iterable[tuple[socket.AddressFamily, _Address]]:
    """The socket addresses behind ``host:port``, each once."""
    host, _, port = listen.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Without repetitions; and the annotation knows of addresses that are none of IP.
    return dict.fromkeys((family, cast("_Address", address)) for family, _, _, _, address in found)


def _probe(family: socket.AddressFamily, address: _Address) -> socket.socket:
    """A socket that listens, alone; raises ``OSError``."""
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
    except OSError:
        probe.close()
        raise
    return probe
