"""Addresses of servers on real sockets."""

import socket

import pytest

from keysvc.rpc.address import check_address, held_address


def listener(address: str, *, shares: bool) -> socket.socket:
    """Listen as a server of gRPC does."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        listening.bind((host.strip("[]"), int(port)))
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_held_address_is_for_those_who_share_it(host: str) -> None:
    """Port 0 becomes a free one; several may listen there, one after the other and at once; nobody else may."""
    with held_address(f"{host}:0") as address:
        assert not address.endswith(":0")
        place = address.replace("localhost", "127.0.0.1")
        for _ in range(2):
            with listener(place, shares=True), listener(place, shares=True), pytest.raises(OSError, match="in use"):
                listener(place, shares=False)
    check_address(address)


def test_nobody_takes_a_held_address_while_no_worker_listens() -> None:
    """Neither a server with one process, nor one with several, nor any other; and no connection gets stuck there."""
    with held_address("127.0.0.1:0") as address:
        with pytest.raises(OSError, match="in use"):
            check_address(address)
        with pytest.raises(OSError, match="in use"), held_address(address):
            pass
        with pytest.raises(OSError, match="in use"):
            listener(address, shares=False)
        host, _, port = address.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)
    check_address(address)


@pytest.mark.parametrize("shares", [False, True])
def test_an_address_that_somebody_has_is_not_held(shares: bool) -> None:
    """Also if that one would share it: that is for processes of one server only."""
    with held_address("127.0.0.1:0") as free:
        pass
    with listener(free, shares=shares):
        with pytest.raises(OSError, match="in use"):
            check_address(free)
        with pytest.raises(OSError, match="in use"), held_address(free):
            pass


def test_connections_that_ended_lately_do_not_matter() -> None:
    """A server that is started again right away gets its port."""
    with held_address("127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        with listener(address, shares=True) as server, socket.create_connection((host, int(port))) as client:
            accepted, _ = server.accept()
            accepted.close()  # first, so that this end remembers the connection for a while
            assert client.recv(1) == b""
    with held_address(address), listener(address, shares=True):
        pass
    check_address(address)
