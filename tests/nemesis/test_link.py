"""The links of the nemesis do what they say, and only while they are told to."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import inf

import psycopg
import pytest

from tests.nemesis.link import Link


@pytest.fixture
def connect(link: Link) -> Iterator[Callable[..., psycopg.Connection]]:
    """Opens connections through it."""
    with ExitStack() as stack:

        def open_connection(application: str = "keysvc") -> psycopg.Connection:
            connection = psycopg.connect(link.url(), autocommit=True, application_name=application, connect_timeout=5)
            stack.callback(connection.close)
            return connection

        yield open_connection


def seconds_of(connection: psycopg.Connection) -> float:
    """How long a statement takes."""
    began = time.monotonic()
    connection.execute("SELECT 1")
    return time.monotonic() - began


def test_what_is_frozen_goes_on_when_it_thaws(link: Link, connect: Callable[[], psycopg.Connection]) -> None:
    """Nothing is lost, and nothing came through in between."""
    connection = connect()
    assert seconds_of(connection) < 0.5
    link.freeze()
    threading.Timer(0.5, link.thaw).start()
    assert seconds_of(connection) >= 0.4


def test_a_delay_is_of_one_direction_and_of_one_application(
    link: Link, connect: Callable[..., psycopg.Connection]
) -> None:
    """Others are as quick as before."""
    slow, quick = connect("keysvc lease"), connect("keysvc verify")
    link.delay(0.3, 0.2, application="keysvc lease")
    assert seconds_of(slow) >= 0.5
    assert seconds_of(quick) < 0.3
    link.delay()
    assert seconds_of(slow) < 0.3


def test_an_infinite_delay_ends_with_the_next(link: Link, connect: Callable[[], psycopg.Connection]) -> None:
    """What was held back goes on, and counts as carried from then on."""
    connection = connect()
    link.delay(inf)
    before = link.carried["keysvc"]
    timer = threading.Timer(0.5, link.delay)
    timer.start()
    assert link.carried["keysvc"] == before
    assert seconds_of(connection) >= 0.4
    assert link.carried["keysvc"] > before
    timer.join()


def test_a_half_closed_connection_is_silent(link: Link, connect: Callable[[], psycopg.Connection]) -> None:
    """PostgreSQL ends its session; the other end hears nothing, until the connection is cut."""
    connection, observer = connect(), connect()
    pid = connection.info.backend_pid
    link.half_close()
    observer = connect()
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    deadline = time.monotonic() + 10
    while observer.execute(query, (pid,)).fetchone() != (0,):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    threading.Timer(0.5, link.cut).start()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    assert time.monotonic() - began >= 0.4


def test_a_cut_connection_is_lost_at_once(link: Link, connect: Callable[[], psycopg.Connection]) -> None:
    """The next one is good again."""
    connection = connect()
    link.cut()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    assert seconds_of(connect()) < 0.5
