"""What a holder remembers, and what it forgets when something changes."""

from dataclasses import replace
from uuid import UUID

import pytest

from keysvc.core.verdict import Record
from keysvc.lease.memory import Memory
from tests.records import HOME, KEY_ID, record

OTHER_KEY = UUID(int=7)
SUSPENDED_HOME = replace(HOME, suspended=True, changed_seq=5)


def found(memory: Memory, mark: bytes) -> Record:
    """What is remembered for a mark."""
    answer = memory.find(mark)
    assert answer is not None
    return answer


def test_what_is_remembered_is_found_again() -> None:
    """By its mark, and by no other."""
    memory = Memory()
    memory.remember(b"a", record(owner="team-a"))
    assert found(memory, b"a").owner == "team-a"
    assert memory.find(b"b") is None
    assert len(memory) == 1


def test_a_change_of_a_key_drops_all_its_secrets_and_no_other_key() -> None:
    """Both secrets of a rotation go."""
    memory = Memory()
    memory.remember(b"old", record(secret_id="old"))
    memory.remember(b"new", record(secret_id="new"))
    memory.remember(b"other", record(key_id=OTHER_KEY))
    memory.drop("keys", [KEY_ID, UUID(int=99)])
    assert [memory.find(mark) is None for mark in (b"old", b"new", b"other")] == [True, True, False]
    memory.remember(b"old", record(secret_id="old"))
    memory.drop("keys", [KEY_ID])
    assert memory.find(b"old") is None


def test_a_change_of_a_workspace_hides_its_keys_until_one_is_read_again() -> None:
    """None answers by the old state; one look-up is enough for all, and they answer by the new state."""
    memory = Memory()
    for mark, key_id in ((b"a", KEY_ID), (b"b", OTHER_KEY)):
        memory.remember(mark, record(key_id=key_id))
    memory.drop("workspaces", [HOME.id])
    assert memory.find(b"a") is memory.find(b"b") is None
    memory.remember(b"a", record(home=SUSPENDED_HOME))
    assert found(memory, b"b").home.suspended
    assert found(memory, b"a").home is found(memory, b"b").home


def test_roles_are_looked_up_again_when_the_workspace_has_changed() -> None:
    """What a key may do follows its workspace's roles."""
    memory = Memory()
    memory.remember(b"a", record(role="clerk", home=replace(HOME, roles={"clerk": ("pdf.read",)})))
    assert found(memory, b"a").may("pdf.read")
    memory.drop("workspaces", [HOME.id])
    memory.remember(b"b", record(key_id=OTHER_KEY, home=replace(HOME, roles={"clerk": ("csv.read",)})))
    assert not found(memory, b"a").may("pdf.read")
    assert found(memory, b"a").may("csv.read")


@pytest.mark.parametrize("kind", ["all", "a kind of a later version"])
def test_everything_is_forgotten(kind: str) -> None:
    """For a change of everything, and for one that this version does not understand."""
    memory = Memory()
    memory.remember(b"a", record())
    memory.remember_refusal(b"b")
    memory.drop(kind, [])
    assert memory.find(b"a") is None
    assert not memory.is_refused(b"b")
    assert len(memory) == 0


def test_refusals_are_dropped_alone() -> None:
    """An import can make a key of what was none; what is remembered of keys stays."""
    memory = Memory()
    memory.remember(b"a", record())
    memory.remember_refusal(b"b")
    memory.drop("refusals", [])
    assert not memory.is_refused(b"b")
    assert memory.find(b"a") is not None


def test_refusals_evict_no_keys() -> None:
    """A flood of them only evicts the oldest of themselves."""
    memory = Memory(records_max=1, refusals_max=2)
    memory.remember(b"a", record())
    for number in range(100):
        memory.remember_refusal(bytes([number]))
    assert memory.find(b"a") is not None
    assert [memory.is_refused(bytes([number])) for number in (97, 98, 99)] == [False, True, True]


def test_what_is_used_stays() -> None:
    """Of those that were not found since they were last in turn the oldest goes; what is bounded stays so."""
    memory = Memory(records_max=2)
    memory.remember(b"a", record(key_id=UUID(int=11)))
    memory.remember(b"b", record(key_id=UUID(int=12)))
    memory.find(b"a")
    memory.remember(b"c", record(key_id=UUID(int=13)))
    assert [memory.find(mark) is not None for mark in (b"a", b"b", b"c")] == [True, False, True]
    assert len(memory) == 2


def test_an_evicted_secret_leaves_the_other_one_of_its_key() -> None:
    """A later change of the key still finds it."""
    memory = Memory(records_max=2)
    for mark in (b"a", b"b"):
        memory.remember(mark, record())
    memory.remember(b"c", record(key_id=OTHER_KEY))
    assert memory.find(b"a") is None
    memory.drop("keys", [KEY_ID])
    assert memory.find(b"b") is None
    assert memory.find(b"c") is not None
