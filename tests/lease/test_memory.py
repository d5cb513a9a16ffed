"""What a holder remembers, and what it forgets when something changes."""

import gc
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.address import parse_range
from keysvc.core.verdict import Record
from keysvc.lease.memory import PROFILE_BYTES, RECORD_BYTES, Memory, _each
from tests.records import HOME, KEY_ID, record

OTHER_KEY = UUID(int=7)
SUSPENDED_HOME = replace(HOME, suspended=True, changed_seq=5)


def room(records: int, profiles: int = 1) -> int:
    """What so many records without content take."""
    return records * RECORD_BYTES + profiles * PROFILE_BYTES


def shown(answer: Record | None) -> tuple[object, ...]:
    """What can be seen of a record."""
    assert answer is not None
    return (answer.home, answer.key_id, answer.secret_id, answer.about)


def found(memory: Memory, mark: bytes) -> Record:
    """What is remembered for a mark."""
    answer = memory.find(mark)
    assert answer is not None
    return answer


def test_what_is_remembered_is_found_again() -> None:
    """By its mark, and by no other."""
    memory = Memory()
    memory.remember(b"a", record(about=b"team-a"))
    assert found(memory, b"a").about == b"team-a"
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
    assert found(memory, b"a").profile.may("pdf.read")
    memory.drop("workspaces", [HOME.id])
    memory.remember(b"b", record(key_id=OTHER_KEY, home=replace(HOME, roles={"clerk": ("csv.read",)})))
    assert not found(memory, b"a").profile.may("pdf.read")
    assert found(memory, b"a").profile.may("csv.read")


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
    memory = Memory(bytes_max=room(1), refusals_max=4)
    memory.remember(b"a", record())
    for number in range(100):
        memory.remember_refusal(bytes([number]))
    assert memory.find(b"a") is not None
    assert [memory.is_refused(bytes([number])) for number in (95, 98, 99)] == [False, True, True]
    assert sum(memory.is_refused(bytes([number])) for number in range(100)) <= 4


def test_what_is_used_stays() -> None:
    """What was found since the generations changed outlives what was not; what is bounded stays so."""
    memory = Memory(bytes_max=room(4))
    for number in range(1, 6):
        memory.remember(bytes([number]), record(key_id=UUID(int=number)))
    assert memory.find(b"\1") is None
    memory.find(b"\2")
    for number in range(6, 9):
        memory.remember(bytes([number]), record(key_id=UUID(int=number)))
    assert [number for number in range(1, 9) if memory.find(bytes([number]))] == [2, 6, 7, 8]
    assert len(memory) == 4


def test_what_is_large_takes_more_room() -> None:
    """Memory is bounded in bytes: two small records go for a large one."""
    memory = Memory(bytes_max=room(3))
    for number in range(1, 4):
        memory.remember(bytes([number]), record(key_id=UUID(int=number)))
    memory.remember(b"large", record(key_id=OTHER_KEY, about=bytes(RECORD_BYTES)))
    assert [number for number in range(1, 4) if memory.find(bytes([number]))] == [3]
    assert memory.find(b"large") is not None
    assert memory.bytes_used == room(3)


def test_what_is_larger_than_all_room_is_remembered_alone() -> None:
    """Otherwise it would be looked up at each call."""
    memory = Memory(bytes_max=room(1))
    memory.remember(b"a", record())
    memory.remember(b"b", record(key_id=OTHER_KEY, about=bytes(RECORD_BYTES)))
    assert memory.find(b"a") is None
    assert memory.find(b"b") is not None


def test_keys_that_are_alike_share_their_profile() -> None:
    """What they may do takes room once, and is gone with the last of them."""
    memory = Memory()
    for number in range(1, 4):
        memory.remember(bytes([number]), record(key_id=UUID(int=number), scopes=("pdf.read",)))
    assert found(memory, b"\1").profile is found(memory, b"\3").profile
    assert memory.bytes_used == room(3)
    memory.remember(b"d", record(key_id=OTHER_KEY, scopes=("pdf.write",)))
    assert found(memory, b"d").profile.may("pdf.write")
    assert not found(memory, b"\1").profile.may("pdf.write")
    assert memory.bytes_used == room(4, profiles=2)
    memory.drop("keys", [OTHER_KEY, *(UUID(int=number) for number in range(1, 4))])
    assert memory.bytes_used == 0


def test_the_garbage_collector_leaves_records_out() -> None:
    """A collection looks at all that may be part of a cycle: with many keys that would stop the process for long."""
    memory = Memory()
    for number in range(1, 100):
        end = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(days=number)
        values = {"ip_allowlist": [parse_range("10.0.0.0/8")], "scopes": ("pdf.read",), "expire_time": end}
        memory.remember(bytes([number]), record(key_id=UUID(int=number), about=bytes(300), **values))
    gc.collect()
    assert not any(gc.is_tracked(entry) for entry in memory._young.values())


def test_an_evicted_secret_leaves_the_other_one_of_its_key() -> None:
    """A later change of the key still finds it."""
    memory = Memory(bytes_max=room(2))
    for mark in (b"a", b"b"):
        memory.remember(mark, record())
    memory.remember(b"c", record(key_id=OTHER_KEY))
    assert memory.find(b"a") is None
    memory.drop("keys", [KEY_ID])
    assert memory.find(b"b") is None
    assert memory.find(b"c") is not None


def test_what_is_remembered_again_is_replaced() -> None:
    """It takes no more room, and a change still finds it."""
    memory = Memory(bytes_max=room(3))
    memory.remember(b"a", record(about=b"before"))
    memory.remember(b"b", record(key_id=OTHER_KEY))
    memory.remember(b"a", record(about=b"after "))
    assert found(memory, b"a").about == b"after "
    assert len(memory) == 2
    memory.drop("keys", [KEY_ID])
    assert memory.find(b"a") is None
    assert len(memory) == 1
    memory.drop("keys", [KEY_ID])
    assert memory.find(b"b") is not None


def test_what_was_not_answered_was_not_used() -> None:
    """A key whose workspace has changed is as good as gone."""
    memory = Memory(bytes_max=room(3, profiles=2))
    other = replace(HOME, id=UUID(int=9), name="acme-corp/other")
    memory.remember(b"a", record())
    for mark, key_id in ((b"b", 7), (b"c", 8), (b"d", 9)):
        memory.remember(mark, record(key_id=UUID(int=key_id), home=other))
        if mark == b"c":
            memory.drop("workspaces", [HOME.id])
    assert memory.find(b"a") is None
    assert [memory.find(mark) is not None for mark in (b"b", b"c", b"d")] == [True, True, True]


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
    held = found(memory, b"a")
    memory.flush()
    memory.remember(b"a", record(home=SUSPENDED_HOME))
    assert held.home == HOME
    assert found(memory, b"a").home == SUSPENDED_HOME
    memory.drop("workspaces", [HOME.id])
    assert held.home == HOME
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
def test_it_never_answers_by_what_has_changed(steps: list[tuple[str, int]], records: int) -> None:
    """Whatever is remembered, found and dropped, in whichever order: it is the present state, or nothing."""
    memory = Memory(bytes_max=room(records, profiles=2))
    versions: Counter[tuple[str, int]] = Counter()

    def present(number: int) -> Record:
        key = number // 2
        home = replace(HOMES[key % 2], changed_seq=versions["workspaces", key % 2])
        return record(key_id=KEY_IDS[key], secret_id=str(number), home=home, about=str(versions["keys", key]).encode())

    for name, number in steps:
        if name == "remember":
            memory.remember(bytes([number]), present(number))
            assert shown(memory.find(bytes([number]))) == shown(present(number))
        elif name == "find":
            answer = memory.find(bytes([number]))
            assert answer is None or shown(answer) == shown(present(number))
        else:
            versions[name, number] += 1
            subjects = {"keys": KEY_IDS, "workspaces": [home.id for home in HOMES]}.get(name)
            memory.drop(name, [subjects[number]] if subjects else [])
        assert len(memory) <= records + 2
        assert memory.bytes_used <= room(records, profiles=2)
        marks = [mark for of_key in memory._marks.values() for mark in _each(of_key)]
        assert sorted(marks) == sorted([*memory._young, *memory._old])
        assert memory.bytes_used == sum(
            RECORD_BYTES + len(entry[3]) for entry in (*memory._young.values(), *memory._old.values())
        ) + PROFILE_BYTES * len(memory._shared)
