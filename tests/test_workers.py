import io

import pytest

from keysvc.core.pepper import Peppers
from keysvc.leasing import Worker
from keysvc.settings import Settings
from keysvc.worker import Job
from keysvc.workers import PAUSE_SECONDS_MAX, SETTLED_SECONDS, Backoff

PEPPER = bytes(range(32))


def test_pauses_double_up_to_five_seconds() -> None:
    """A worker that dies as soon as it is started costs little."""
    backoff = Backoff()
    assert [backoff.after(0.0) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_worker_that_has_served_for_a_while_comes_back_at_once() -> None:
    """What was before is forgotten then, and not after a shorter time."""
    backoff = Backoff(PAUSE_SECONDS_MAX)
    assert backoff.after(SETTLED_SECONDS - 0.1) == PAUSE_SECONDS_MAX
    assert [backoff.after(SETTLED_SECONDS), backoff.after(0.0)] == [0.1, 0.2]


def test_the_ids_of_a_worker_are_its_own() -> None:
    """All that it makes are in its range and differ; another life of the same worker has another range."""
    worker, next_life = Worker(1), Worker(1)
    first, last = worker.member_ids
    ids = [worker.new_member_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(first <= each <= last for each in ids)
    assert not any(first <= next_life.new_member_id() <= last for _ in range(1000))
    assert {each.version for each in ids} == {4}


def test_a_job_arrives_as_it_was_sent() -> None:
    """Whole, with its secrets; and what comes after it stays in the pipe."""
    settings = Settings(database_url="postgresql://keysvc@h/d", peppers=Peppers([PEPPER]), connections=7)
    job = Job(settings, Worker(3))
    stream = io.BytesIO(job.pack() + b"more")
    received = Job.unpack(stream)
    assert received is not None
    assert (received.worker, received.settings.database_url) == (job.worker, settings.database_url)
    assert received.settings.connections == 7
    assert received.settings.peppers is not None
    assert received.settings.peppers.fingerprints == Peppers([PEPPER]).fingerprints
    assert stream.read() == b"more"


@pytest.mark.parametrize("length", [0, 3, 4, 50])
def test_half_a_job_is_none(length: int) -> None:
    """The supervisor has died while it sent it."""
    packed = Job(Settings(), Worker(1)).pack()
    assert Job.unpack(io.BytesIO(packed[:length])) is None


def test_a_job_shows_no_secret() -> None:
    """Neither in a log nor in a traceback."""
    job = Job(Settings(database_url="postgresql://u:hunter2@h/d", peppers=Peppers([PEPPER])), Worker(1))
    assert "hunter2" not in repr(job)
    assert PEPPER.hex() not in repr(job)
    assert str(job.worker.token) not in repr(job)
