"""What a holder remembers, and what it forgets when something changes."""

from collections import Counter
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_what_is_remembered_again_is_replaced() -> None:
    """It takes no more room, and a change still finds it."""
    memory = Memory(records_max=2)
    memory.remember(b"a", record(owner="before"))
    memory.remember(b"b", record(key_id=OTHER_KEY))
    memory.remember(b"a", record(owner="after"))
    assert found(memory, b"a").owner == "after"
    assert len(memory) == 2
    memory.drop("keys", [KEY_ID])
    assert memory.find(b"a") is None
    assert len(memory) == 1
    memory.drop("keys", [KEY_ID])
    assert memory.find(b"b") is not None


def test_where_everything_was_used_the_oldest_goes() -> None:
    """Everybody gets a second chance, and only one."""
    memory = Memory(records_max=2)
    for number in (1, 2):
        memory.remember(bytes([number]), record(key_id=UUID(int=number)))
        memory.find(bytes([number]))
    memory.remember(b"c", record(key_id=UUID(int=3)))
    assert [memory.find(mark) is not None for mark in (b"\1", b"\2", b"c")] == [False, True, True]


def test_what_was_not_found_was_not_used() -> None:
    """A key whose workspace has changed is as good as gone."""
    memory = Memory(records_max=2)
    memory.remember(b"a", record())
    memory.drop("workspaces", [HOME.id])
    assert memory.find(b"a") is None
    other = replace(HOME, id=UUID(int=9), name="acme-corp/other")
    memory.remember(b"b", record(key_id=OTHER_KEY, home=other))
    memory.remember(b"c", record(key_id=UUID(int=8), home=other))
    memory.remember(b"d", record(key_id=KEY_ID))
    assert memory.find(b"b") is None
    assert memory.find(b"c") is not None


def test_a_change_of_a_workspace_drops_no_keys_and_no_other_workspace() -> None:
    """However many keys it has: they stay, and are only not answered."""
    memory = Memory()
    other = replace(HOME, id=UUID(int=9), name="acme-corp/other")
    memory.remember(b"a", record())
    memory.remember(b"b", record(key_id=OTHER_KEY, home=other))
    memory.drop("workspaces", [HOME.id, UUID(int=99)])
    assert len(memory) == 2
    assert memory.find(b"a") is None
    assert found(memory, b"b").home == other


def test_a_workspace_that_is_known_is_the_one_that_is_answered() -> None:
    """All of its records have one state, whichever they came with."""
    memory = Memory()
    memory.remember(b"a", record())
    memory.remember(b"b", record(key_id=OTHER_KEY, home=replace(HOME)))
    assert found(memory, b"a").home is found(memory, b"b").home


def test_a_workspace_that_no_record_refers_to_is_forgotten() -> None:
    """Its next state is the one it is read with."""
    memory = Memory()
    memory.remember(b"a", record())
    memory.drop("workspaces", [HOME.id])
    memory.drop("keys", [KEY_ID])
    memory.remember(b"a", record(home=SUSPENDED_HOME))
    assert found(memory, b"a").home == SUSPENDED_HOME


def test_what_was_found_before_a_flush_is_none_of_the_memory_s_any_more() -> None:
    """A verification under way may still hold it; what is remembered afterwards has a state of its own."""
    memory = Memory()
    memory.remember(b"a", record())
    held = memory._entries[b"a"]
    memory.flush()
    memory.remember(b"a", record(home=SUSPENDED_HOME))
    assert held.home.record == HOME
    assert found(memory, b"a").home == SUSPENDED_HOME
    memory.drop("workspaces", [HOME.id])
    assert held.home.record == HOME
    assert memory.find(b"a") is None


def test_a_refusal_that_is_remembered_again_stays_one() -> None:
    """It is forgotten like the others."""
    memory = Memory()
    for _ in range(2):
        memory.remember_refusal(b"a")
    assert memory.is_refused(b"a")
    memory.drop("refusals", [])
    assert not memory.is_refused(b"a")


KEY_IDS = [UUID(int=20 + number) for number in range(3)]
HOMES = [replace(HOME, id=UUID(int=30 + number), name=f"acme-corp/w{number}") for number in range(2)]
STEPS = st.one_of(
    st.tuples(st.just("remember"), st.integers(0, 5)),
    st.tuples(st.just("find"), st.integers(0, 5)),
    st.tuples(st.just("keys"), st.integers(0, 2)),
    st.tuples(st.just("workspaces"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["all", "refusals"]), st.just(0)),
)


@given(st.lists(STEPS, max_size=40), st.integers(1, 6))
def test_it_never_answers_by_what_has_changed(steps: list[tuple[str, int]], records_max: int) -> None:
    """Whatever is remembered, found and dropped, in whichever order: it is the present state, or nothing."""
    memory = Memory(records_max=records_max)
    versions: Counter[tuple[str, int]] = Counter()

    def present(number: int) -> Record:
        key = number // 2
        home = replace(HOMES[key % 2], changed_seq=versions["workspaces", key % 2])
        return record(key_id=KEY_IDS[key], secret_id=str(number), home=home, owner=str(versions["keys", key]))

    for name, number in steps:
        if name == "remember":
            memory.remember(bytes([number]), present(number))
            assert memory.find(bytes([number])) == present(number)
        elif name == "find":
            answer = memory.find(bytes([number]))
            assert answer is None or answer == present(number)
        else:
            versions[name, number] += 1
            subjects = {"keys": KEY_IDS, "workspaces": [home.id for home in HOMES]}.get(name)
            memory.drop(name, [subjects[number]] if subjects else [])
        assert len(memory) <= records_max
        marks = [mark for of_key in memory._of_key.values() for mark in of_key]
        assert sorted(marks) == sorted(memory._entries)
        assert all(memory._of_key.values())
