"""The report of the nemesis: figures that are right, and nothing that goes unnoticed."""

from collections import Counter

import pytest

from tests.nemesis.checking import Violation
from tests.nemesis.report import entry, facts, good_ones, is_good, page, shortcomings
from tests.nemesis.result import Result
from tests.nemesis.server_faults import Nothing, Stopped
from tests.nemesis.workers import WorkerKilled


def result(**more: object) -> Result:
    """A good one."""
    fields: dict[str, object] = {
        "rounds": 1,
        "faults": 1,
        "keys": 100,
        "revocations": 100,
        "during": 80,
        "begun_during": 70,
        "met": 1,
        "primed": 300,
        "probed": 300,
        "probe_seconds": [0.002, 0.004],
        "unacknowledged": 10,
        "paths": Counter(ACK=90, TIMER=10),
        "revoke_seconds": [each / 1000 for each in range(1, 101)],
    }
    return Result(**(fields | more))  # type: ignore[arg-type]


def test_a_page_tells_what_was_found() -> None:
    """A row for each fault, with what took how long; a fault that was skipped says why."""
    found = {**facts(), **entry(Stopped, result(), 7.0), "seed": 5}
    assert is_good(found)
    assert (found["p50_ms"], found["p99_ms"], found["max_ms"], found["probe_p50_ms"]) == (50.5, 99.0, 100.0, 3.0)
    skipped = {"name": "network blackholed", "skipped": "network namespaces need root"}
    text = page({"seed": 5, "faults": [found, skipped]})
    assert "| stopped | 100 | 80 |" in text
    assert "\nseed 5;" in text
    assert "**network blackholed**: skipped: network namespaces need root" in text
    assert "Wrong" not in text


def test_what_is_wrong_is_shown() -> None:
    """Violations, runs that prove nothing, and runs that ended early."""
    wrong = entry(Stopped, result(violations=[Violation("S", "a VALID too late")]), 7.0)
    nothing = entry(Nothing, result(met=0, primed=0), 7.0)
    failed = {"name": "killed", "failure": "TimeoutError: "}
    assert [*map(is_good, (wrong, nothing, failed))] == [False] * 3
    text = page({"seed": 5, "faults": [facts() | wrong, facts() | nothing, failed]})
    for told in ("S: a VALID too late", "nothing was revoked", "a server did not know a key", "TimeoutError"):
        assert told in text


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"faults": 0}, "nothing went wrong"),
        ({"rounds": 2}, "nothing was revoked while it did in 1 rounds"),
        ({"paths": Counter(ACK=100)}, "nobody was waited for"),
        ({"unacknowledged": 0}, "nobody was waited for"),
        ({"primed": 299}, "a server did not know a key before it was revoked"),
        ({"unprobed": 1}, "1 questions after a revocation are missing"),
        ({"probed": 0}, "0 questions after a revocation are missing"),
    ],
)
def test_what_proves_nothing_is_a_shortcoming(wrong: dict[str, object], text: str) -> None:
    """A fault that did not happen or met nothing, a key that was not known everywhere, a server that was not asked."""
    assert shortcomings(Stopped, result()) == []
    assert shortcomings(Stopped, result(**wrong)) == [text]


NAMES = [f"h/{pid}" for pid in range(1, 6)]


def of_workers(**more: object) -> Result:
    """A good result of five, one of which was killed."""
    fields: dict[str, object] = {
        "primed": 400,
        "workers": Counter(NAMES),
        "known": Counter(dict.fromkeys(NAMES, 100)),
        "probes": Counter({(name, basis): 7 for name in NAMES for basis in ("MEMORY", "DATABASE")}),
        "gone_seconds": [0.05],
        "away_paths": Counter(ACK=1234, TIMER=1),
    }
    return result(**(fields | more))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"primed": 399}, "a server did not know a key before it was revoked"),
        ({"faults": 2}, "5 workers had leases, not 6"),
        ({"probes": of_workers().probes - Counter({("h/2", "MEMORY"): 7, ("h/2", "DATABASE"): 7})}, "h/2 was never"),
        ({"known": of_workers().known - Counter({"h/2": 100})}, "h/2 knew no key"),
        ({"workers": Counter([*NAMES[2:], *"xyz"])}, "h/1 had no lease"),
    ],
)
def test_a_worker_that_was_left_out_is_a_shortcoming(wrong: dict[str, object], text: str) -> None:
    """One that was not asked, that knew nothing before, or that nobody knows."""
    assert shortcomings(WorkerKilled, of_workers()) == []
    assert any(text in each for each in shortcomings(WorkerKilled, of_workers(**wrong)))


def test_a_page_tells_what_each_worker_answered() -> None:
    """By process and basis, without the machine's name; and how changes went on without the one that was killed."""
    text = page({"seed": 5, "faults": [facts() | entry(WorkerKilled, of_workers(), 7.0)]})
    assert "| worker killed | 5 | 100 | 14 | 7 | 7 |" in text
    assert "after at most 50.0 ms." in text
    assert "in its place: ACK 1,234, TIMER 1.\n" in text
    assert "h/5" not in text
    assert "## The workers" not in page({"seed": 5, "faults": [facts() | entry(Stopped, result(), 7.0)]})


def test_a_run_goes_on_with_what_is_missing() -> None:
    """What an earlier run has found is kept if it was good, of the same commit, and left to the same chance."""
    good = {"seed": 5, **facts(), **entry(Stopped, result(), 7.0)}
    others = [
        good | {"name": "killed", "commit": "another"},
        good | {"name": "none", "seed": 6},
        good | {"name": "quiet", "violations": 1},
        {"seed": 5, **facts(), "name": "clock rate", "failure": "TimeoutError: "},
    ]
    assert good_ones([good, *others], 5) == {"stopped": good}


def test_results_add_up() -> None:
    """Those of several rounds are one."""
    total = Result()
    total.add(result())
    total.add(result(violations=[Violation("A", "")], at_once=9))
    assert (total.rounds, total.revocations, total.paths["ACK"], len(total.revoke_seconds)) == (2, 200, 180, 200)
    assert len(total.violations) == 1
    assert total.at_once == 9
