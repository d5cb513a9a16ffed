"""The statements of the lease protocol: PostgreSQL's, and those of the twin that simulations use."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keysvc.core.revision import Revision
from keysvc.lease.news import SUBJECTS_MAX, Census, Log, Member, News
from keysvc.lease.sessions import Place
from tests.store.lease_tables import RealTables, Tables, TwinTables

A, B = UUID(int=0xA), UUID(int=0xB)
KEYS = [UUID(int=1), UUID(int=2)]
LIMIT_SECONDS = 20.0


@pytest.fixture(params=["postgresql", "twin"])
async def tables(request: pytest.FixtureRequest) -> AsyncIterator[Tables]:
    """Each of them."""
    if request.param == "twin":
        yield TwinTables()
        return
    real = RealTables(request.getfixturevalue("database_url"))
    yield real
    await real.close()


async def join(tables: Tables, member_id: UUID = A, *instead_of: UUID, lease_ms: int = 3000) -> Log:
    """A member that may join."""
    log = await tables.membership.join(member_id, host="one", lease_ms=lease_ms, instead_of=instead_of)
    assert log is not None
    return log


async def count(tables: Tables) -> Census:
    """All members."""
    return await tables.registry.count(LIMIT_SECONDS)


async def rows(tables: Tables) -> list[Member]:
    """All members, in order."""
    return sorted((await count(tables)).members, key=lambda member: member.id)


def told(news: News | None) -> list[tuple[str, list[UUID]]] | None:
    """The changes of some news."""
    assert news is not None
    return None if news.changes is None else [(change.kind, list(change.subject_ids)) for change in news.changes]


async def test_a_member_has_applied_what_there_is_when_it_joins(tables: Tables) -> None:
    """Its row acknowledges the log's last change, and it is told of the same one."""
    await tables.change()
    log = await join(tables, lease_ms=2500)
    assert log.seq == 1
    census = await count(tables)
    assert census.members == [Member(A, "one", applied=1, beat=0, lease_ms=2500)]
    assert (census.log.epoch, census.log.timeline, census.log.seq) == (log.epoch, log.timeline, 1)
    assert census.log.at >= log.at


async def test_no_lease_is_longer_than_allowed(tables: Tables) -> None:
    """The longest one may be had; with a longer one nobody becomes a member, and earlier rows go all the same."""
    assert (await count(tables)).lease_ms_max == 3000
    await join(tables, A, lease_ms=3000)
    assert await tables.membership.join(B, host="two", lease_ms=3001, instead_of=[A]) is None
    assert await rows(tables) == []


async def test_a_member_replaces_its_earlier_rows(tables: Tables) -> None:
    """Those that are there, and those that never came to be."""
    await join(tables, A)
    await join(tables, B, A, uuid4())
    assert [member.id for member in await rows(tables)] == [B]


async def test_a_join_waits_for_a_change_that_is_under_way(tables: Tables) -> None:
    """So it acknowledges that; it could not have known of it, and whoever made it would not know of the member."""
    async with tables.changing() as seq:
        joining = asyncio.create_task(join(tables))
        await asyncio.sleep(0.05)
        assert not joining.done()
        assert (await count(tables)).members == []
    assert (await joining).seq == seq
    assert [member.applied for member in await rows(tables)] == [seq]


async def test_a_renewal_acknowledges_and_brings_what_is_new(tables: Tables) -> None:
    """In the order of revisions; the row says what was acknowledged, and not what was brought."""
    log = await join(tables)
    await tables.change("keys", KEYS)
    await tables.change("workspaces", KEYS[:1], restrictive=False)
    await tables.change("refusals", restrictive=False)
    news = await tables.membership.renew(A, log, log.seq, None)
    assert told(news) == [("keys", KEYS), ("workspaces", KEYS[:1]), ("refusals", [])]
    assert news is not None
    assert (news.log.epoch, news.log.timeline, news.log.seq) == (log.epoch, log.timeline, 3)
    assert news.log.at >= log.at
    assert await rows(tables) == [Member(A, "one", applied=0, beat=1, lease_ms=3000)]
    assert told(await tables.membership.renew(A, replace(log, seq=2), 2, {})) == [("refusals", [])]
    assert told(await tables.membership.renew(A, news.log, news.log.seq, None)) == []
    assert await rows(tables) == [Member(A, "one", applied=3, beat=3, lease_ms=3000)]


@pytest.mark.parametrize(
    "other",
    [{"epoch": UUID(int=9)}, {"timeline": "0000000F"}, {"timeline": ""}, {"seq": 2}],
    ids=["epoch", "timeline", "no timeline", "beyond the clock"],
)
async def test_a_renewal_acknowledges_nothing_of_another_log(tables: Tables, other: dict[str, Any]) -> None:
    """Its number would mean another change there: the row stays as it is."""
    log = await join(tables)
    await tables.change()
    assert await tables.membership.renew(A, replace(log, **other), log.seq, None) is None
    assert await rows(tables) == [Member(A, "one", applied=0, beat=0, lease_ms=3000)]


async def test_a_renewal_finds_no_row_of_somebody_who_is_no_member(tables: Tables) -> None:
    """Neither before it has joined, nor after its row is gone."""
    log = await join(tables)
    assert await tables.membership.renew(B, log, log.seq, None) is None
    await tables.membership.leave([A, B])
    assert await tables.membership.renew(A, log, log.seq, None) is None
    assert await rows(tables) == []


async def test_a_fetch_brings_news_and_leaves_no_trace(tables: Tables) -> None:
    """It is for everybody, and no member's row moves."""
    assert told(await tables.membership.fetch(0)) == []
    await join(tables)
    await tables.change("keys", KEYS)
    news = await tables.membership.fetch(0)
    assert (told(news), news.log.seq) == ([("keys", KEYS)], 1)
    assert told(await tables.membership.fetch(1)) == []
    assert [(member.applied, member.beat) for member in await rows(tables)] == [(0, 0)]


async def test_who_is_behind_the_log_is_told_so(tables: Tables) -> None:
    """Exactly those who would miss a change that is gone from it."""
    log = await join(tables)
    for _ in range(3):
        await tables.change("keys", KEYS)
    await tables.registry.mark_final([1, 2])
    await tables.trim()
    assert told(await tables.membership.fetch(1)) is None
    assert told(await tables.membership.renew(A, log, log.seq, None)) is None
    assert told(await tables.membership.fetch(2)) == [("keys", KEYS)]
    await tables.trim()
    assert told(await tables.membership.fetch(2)) == [("keys", KEYS)]


async def test_the_log_begins_after_the_last_change_that_is_gone(tables: Tables) -> None:
    """Also if an earlier one is still there."""
    for _ in range(3):
        await tables.change()
    await tables.registry.mark_final([1, 3])
    await tables.trim()
    assert told(await tables.membership.fetch(2)) is None
    assert told(await tables.membership.fetch(3)) == []


async def test_a_change_that_is_there_is_found(tables: Tables) -> None:
    """Until it is removed from the log. When another server has taken over, a barrier ends with an error otherwise."""
    before = (await count(tables)).log
    await tables.change()
    await tables.change()
    after = (await count(tables)).log

    async def found(*seqs: int) -> list[bool]:
        return [await tables.registry.has_change(Revision(before.epoch, seq), after.at) for seq in seqs]

    assert await found(0, 1, 2, 3) == [False, True, True, False]
    assert not await tables.registry.has_change(Revision(before.epoch, 1), before.at)
    await tables.registry.mark_final([1])
    await tables.trim()
    assert await found(1, 2) == [False, True]


async def test_too_many_changes_are_not_brought(tables: Tables) -> None:
    """As many as may be dropped are, and one more is told of only."""
    await tables.change_often(SUBJECTS_MAX + 1)
    assert len(told(await tables.membership.fetch(1)) or ()) == SUBJECTS_MAX
    news = await tables.membership.fetch(0)
    assert (told(news), news.log.seq) == (None, SUBJECTS_MAX + 1)


async def test_a_row_is_collected_only_as_it_was_seen(tables: Tables) -> None:
    """A member that has renewed since stays."""
    log = await join(tables)
    (seen,) = await rows(tables)
    await tables.membership.renew(A, log, log.seq, None)
    await tables.registry.collect(seen)
    (seen,) = await rows(tables)
    assert seen.beat == 1
    await tables.registry.collect(replace(seen, id=B))
    await tables.registry.collect(seen)
    assert await rows(tables) == []


async def test_a_census_tells_of_another_connection(tables: Tables) -> None:
    """Whoever watches beats must begin anew then, and only then."""
    first, second = await count(tables), await count(tables)
    assert first.session == second.session
    await tables.reconnect()
    assert (await count(tables)).session != first.session


async def test_changes_are_open_until_they_are_marked(tables: Tables) -> None:
    """Restrictive ones alone, and not at once: whoever has made one waits for it most likely."""
    for restrictive in (True, False, True):
        await tables.change(restrictive=restrictive)
    assert list(await tables.registry.find_open()) == []
    await tables.age()
    assert list(await tables.registry.find_open()) == [1, 3]
    for _ in range(2):
        await tables.registry.mark_final([2, 3, 4])
        assert list(await tables.registry.find_open()) == [1]


async def test_another_epoch_is_another_log(tables: Tables) -> None:
    """Members of the old one acknowledge nothing in it."""
    log = await join(tables)
    await tables.begin_epoch()
    assert await tables.membership.renew(A, log, log.seq, None) is None
    again = await join(tables, B, A)
    assert again.epoch != log.epoch
    assert told(await tables.membership.renew(B, again, again.seq, None)) == []


async def test_wake_ups_are_heard(tables: Tables) -> None:
    """By whoever listens, with the revision."""
    heard = asyncio.Queue[int]()
    await tables.listen(heard.put_nowait)
    async with asyncio.timeout(LIMIT_SECONDS):
        while heard.empty():
            await tables.registry.wake(7)
            await asyncio.sleep(0.02)
    assert await heard.get() == 7


# Both together ------------------------------------------------------------------------------------------------------

MEMBERS = st.integers(0, 2)
SEQS = st.integers(0, 5)
OPERATIONS = st.one_of(
    st.tuples(
        st.just("join"),
        MEMBERS,
        st.sampled_from([1000, 3000, 3001]),
        st.lists(MEMBERS, max_size=2),
        st.none() | st.tuples(SEQS, st.booleans()),
    ),
    st.tuples(st.just("announce"), MEMBERS),
    st.tuples(st.just("remove"), MEMBERS, MEMBERS, st.booleans()),
    st.tuples(st.just("renew"), MEMBERS, SEQS),
    st.tuples(st.just("fetch"), SEQS),
    st.tuples(st.just("leave"), st.lists(MEMBERS, max_size=2)),
    st.tuples(st.just("collect"), MEMBERS, st.integers(0, 2)),
    st.tuples(st.just("change"), st.sampled_from(["keys", "workspaces", "all"]), st.booleans()),
    st.tuples(st.just("mark_final"), st.lists(SEQS, max_size=3)),
    st.tuples(st.sampled_from(["trim", "find_open"])),
    st.tuples(st.just("has_change"), SEQS),
)


async def answers(  # noqa: C901, PLR0912 (one case for each)
    tables: Tables, operations: Sequence[tuple[Any, ...]]
) -> list[object]:
    """What is answered to each operation, and what members there are then, but for times and epochs."""
    await tables.clear()
    log = (await count(tables)).log
    found: list[object] = []
    for name, *values in operations:
        match name, values:
            case "join", [member, lease_ms, earlier, reported]:
                instead_of = [UUID(int=each) for each in earlier if each != member]
                await tables.membership.leave([UUID(int=member)])  # no id is used twice
                place = reported and Place(log.epoch if reported[1] else uuid4(), log.timeline, reported[0])
                answer: Any = await tables.membership.join(
                    UUID(int=member), host="one", lease_ms=lease_ms, instead_of=instead_of, acknowledged=place
                )
                answer = answer and answer.seq
            case "announce", [member]:
                answer = await tables.membership.announce(UUID(int=member))
            case "remove", [first, last, granting]:
                answer = await tables.remove(UUID(int=first), UUID(int=last), granting=granting)
            case "renew", [member, seq]:
                news = await tables.membership.renew(UUID(int=member), replace(log, seq=seq), seq, None)
                answer = news and (news.log.seq, told(news))
            case "fetch", [seq]:
                news = await tables.membership.fetch(seq)
                answer = news.log.seq, told(news)
            case "leave", [members]:
                answer = await tables.membership.leave([UUID(int=each) for each in members])
            case "collect", [member, beat]:
                answer = await tables.registry.collect(Member(UUID(int=member), "one", 0, beat, 3000))
            case "change", [kind, restrictive]:
                answer = await tables.change(kind, KEYS, restrictive=restrictive)
            case "mark_final", [seqs]:
                answer = await tables.registry.mark_final(seqs)
            case "find_open", []:
                await tables.age()
                answer = list(await tables.registry.find_open())
            case "has_change", [seq]:
                answer = await tables.registry.has_change(Revision(log.epoch, seq), log.at + timedelta(hours=1))
            case _:
                answer = await tables.trim()
        census = await count(tables)
        found.append((answer, census.log.seq, census.lease_ms_max, await rows(tables)))
    return found


@pytest.mark.timeout(1800)  # for the long profile
def test_the_twin_answers_as_postgresql_does(database_url: str) -> None:
    """Whatever it is asked, in whichever order."""
    with asyncio.Runner() as runner:
        real, twin = RealTables(database_url), TwinTables()

        @settings(suppress_health_check=list(HealthCheck))
        @given(st.lists(OPERATIONS, max_size=15))
        def compare(operations: list[tuple[Any, ...]]) -> None:
            assert runner.run(answers(twin, operations)) == runner.run(answers(real, operations))

        try:
            compare()
        finally:
            runner.run(real.close())


async def test_members_are_removed_by_a_range_of_ids(tables: Tables) -> None:
    """Both ends belong to it, and nobody beside it is touched."""
    for number in range(9, 15):
        await join(tables, UUID(int=number))
    await tables.remove(UUID(int=10), UUID(int=13), granting=False)
    assert {member.id.int for member in await rows(tables)} == {9, 14}


async def test_a_member_that_grants_leases_stays_until_these_have_ended(tables: Tables) -> None:
    """Whether it has said so itself, or has joined again while clients had leases from it."""
    log = await join(tables)
    assert await tables.membership.announce(A)
    place = Place(log.epoch, log.timeline, log.seq)
    assert await tables.membership.join(B, host="one", lease_ms=3000, instead_of=(), acknowledged=place)
    await tables.remove(A, B, granting=False)
    assert [member.id for member in await rows(tables)] == [A, B]
    await tables.remove(A, B, granting=True)
    assert not await rows(tables)
    assert not await tables.membership.announce(A)
