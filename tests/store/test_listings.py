"""Pages of keys: complete, in order, and bounded in the work that they take."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core.key import Key, State
from keysvc.core.keystring import Environment
from keysvc.core.listing import KeyFilter, Position
from keysvc.store import schema
from keysvc.store.database import Database
from keysvc.store.listings import Listings

NOW = datetime.now(UTC)
WORKSPACES = ("acme-corp/a", "acme-corp/b", "acme-corp/c")
OWNERS = ("team", "team-a", "", "Ünïcode")
ROLES = ("", "viewer", "editor")
TAGS = ("x", "y", "z", "o'clock", "{a,b}")
NAMES = ("a key", "a_key", "A key", "100%", "\\", "é", "é-2", "zz\U0010ffff", "zz\U0010ffffa", "\ud7ff", "\ue000", "~")
HINTS = ("sk_live_1aaaaaaa", "sk_live_1aaaaabb", "sk_live_1AAAAAAA", "sk_test_1aaaaaaa", "acme_test_1zzzzzzz")
ACTIVE = {name: NOW - timedelta(days=days) for days, name in enumerate(NAMES)}
"""When a key was last active, by its name."""
PREFIXES = (*NAMES, "a", "100", "z", "zz", "\U0010ffff", "nothing")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A new database, and one connection, so that its plans become generic ones."""
    database = Database(database_url, limit_seconds=20, connections_max=1)
    yield database
    await database.close()


def _rows(chance: random.Random, ids: dict[str, UUID]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of keys, many of them created at the same time, and of their secrets."""
    keys: list[dict[str, Any]] = []
    secrets: list[dict[str, Any]] = []
    common = {"scopes": [], "ip_allowlist": [], "metadata": {}, "workspaces": [], "creator": "bootstrap"}
    for _ in range(120):
        created = NOW - timedelta(days=chance.randrange(30))
        values = {
            "id": UUID(int=chance.getrandbits(128)),
            "workspace_id": ids[chance.choice(WORKSPACES)],
            "display_name": chance.choice(NAMES),
            "environment": chance.choice(tuple(Environment)),
            "owner": chance.choice(OWNERS),
            "role": chance.choice(ROLES),
            "tags": chance.sample(TAGS, chance.randrange(3)),
            "create_time": created,
            "update_time": created,
            "expire_time": chance.choice((None, NOW + timedelta(days=chance.choice((-2, -1, 1, 2))))),
            "suspended": chance.random() < 0.2,
            "revoke_time": created if chance.random() < 0.2 else None,
            "revoke_reason": "",
            "version": 1,
            "seq": 0,
        }
        keys.append(common | values)
        secrets += (
            {
                "id": f"{len(keys):05}{n:010}",
                "key_id": values["id"],
                "hint": chance.choice(HINTS),
                "pepper": b"pepper",
                "digest": b"",
                "create_time": created + timedelta(seconds=n),
                "revoke_reason": "",
                "seq": 0,
            }
            for n in range(chance.randint(1, 2))
        )
    return keys, secrets


async def _fill(database: Database, chance: random.Random) -> list[Key]:
    """Insert keys; all of them, newest first."""
    ids = {name: UUID(int=chance.getrandbits(128)) for name in WORKSPACES}
    keys, secrets = _rows(chance, ids)
    tenant = {"display_name": "", "suspended": False, "allowed_scopes": [], "roles": {}, "version": 1, "seq": 0}
    times = {"create_time": NOW, "update_time": NOW}

    async def work(connection: AsyncConnection, _attempt: int) -> None:
        workspaces = [{"id": workspace_id, "name": name} | tenant | times for name, workspace_id in ids.items()]
        await connection.execute(insert(schema.workspace), workspaces)
        pepper = {"fingerprint": b"pepper", "signing": True, "create_time": NOW}
        await connection.execute(insert(schema.pepper), [pepper])
        await connection.execute(insert(schema.key), keys)
        await connection.execute(insert(schema.secret), secrets)
        activity = [{"key_id": row["id"], "active_time": ACTIVE[row["display_name"]]} for row in keys]
        await connection.execute(insert(schema.key_activity), activity)

    await database.run(work, commit=True)
    found = await asyncio.gather(*(Listings(database).find_key(row["id"]) for row in keys))
    return sorted((key for key in found if key), key=lambda key: (key.create_time, key.id), reverse=True)


def _admits(asked: KeyFilter, key: Key) -> bool:
    """The filter in Python."""
    return (
        (asked.workspaces is None or key.workspace in asked.workspaces)
        and asked.state in {None, key.state}
        and asked.environment in {None, key.environment}
        and asked.owner in {None, key.owner}
        and (asked.tag is None or asked.tag in key.tags)
        and asked.role in {None, key.role}
        and (asked.hint_prefix is None or any(each.hint.startswith(asked.hint_prefix) for each in key.secrets))
        and (asked.display_name_prefix is None or key.display_name.startswith(asked.display_name_prefix))
        and (asked.idle_since is None or ACTIVE[key.display_name] < asked.idle_since)
        and (asked.expire_before is None or (key.expire_time is not None and key.expire_time < asked.expire_before))
    )


def _filters(chance: random.Random) -> Iterator[KeyFilter]:
    """Each value of each condition alone, then several conditions together."""
    values: dict[str, list[Any]] = {
        "workspaces": [(name,) for name in WORKSPACES] + [WORKSPACES[:2], ("no/such",), ("no/such", WORKSPACES[0])],
        "state": list(State),
        "environment": list(Environment),
        "owner": [owner for owner in (*OWNERS, "nobody") if owner],
        "tag": [*TAGS, "nothing"],
        "role": [role for role in (*ROLES, "nothing") if role],
        "hint_prefix": [*HINTS, "sk_", "sk_live_1a", "nothing", "%"],
        "display_name_prefix": list(PREFIXES),
        "idle_since": [NOW - timedelta(days=days) for days in (-1, 0, 5, 11, 20)],
        "expire_before": [NOW + timedelta(days=days) for days in (-3, -1, 0, 2, 3)],
    }
    assert values.keys() == {field.name for field in fields(KeyFilter)}
    yield KeyFilter()
    for name, choices in values.items():
        yield from (KeyFilter(**{name: value}) for value in choices)
    for _ in range(60):
        names = chance.sample(list(values), chance.randint(2, 4))
        yield KeyFilter(**{name: chance.choice(values[name]) for name in names})


async def test_pages_have_every_key_once(database: Database) -> None:
    """Under every filter, page size and bound, all pages together are exactly what the filter admits, newest first."""
    chance = random.Random(7)
    keys = await _fill(database, chance)
    for asked in _filters(chance):
        few, examined_max = chance.choice([(0, 11), (0, 10_000), (5, 40), (1000, 11)])
        listings = Listings(database, few=few, examined_max=examined_max)
        limit = chance.choice([1, 10, 1000] if examined_max > 11 else [10, 1000])
        seen: list[UUID] = []
        after: Position | None = None
        for page in count():
            listed = await listings.list_keys(asked, after, limit)
            assert len(listed.keys) <= limit
            seen += [key.id for key in listed.keys]
            if listed.more_after is None:
                break
            assert after is None or (listed.more_after.time, listed.more_after.id) < (after.time, after.id)
            assert page < len(keys)
            after = listed.more_after
        expected = [key for key in keys if _admits(asked, key)]
        assert seen == [key.id for key in expected], (asked, few, examined_max, limit)


async def test_a_page_is_as_full_as_its_bound_allows(database: Database) -> None:
    """Short pages come only from the bound: without it there is nothing to follow, and a list of few needs no bound."""
    keys = await _fill(database, random.Random(8))
    for listings in (Listings(database), Listings(database, examined_max=1)):
        asked = KeyFilter(owner="team", environment=Environment.TEST, display_name_prefix="a")
        listed = await listings.list_keys(asked, None, 100)
        assert [key.id for key in listed.keys] == [key.id for key in keys if _admits(asked, key)]
        assert listed.more_after is None


async def test_a_page_examines_no_more_than_its_bound(database: Database) -> None:
    """Where nothing is found, a page is empty and goes on where it stopped examining; the last one ends the list."""
    keys = await _fill(database, random.Random(9))
    listings = Listings(database, few=0, examined_max=40)
    ends: list[Position | None] = []
    after: Position | None = None
    never = KeyFilter(environment=Environment.LIVE, expire_before=NOW, state=State.ACTIVE)
    while True:
        listed = await listings.list_keys(never, after, 10)
        assert listed.keys == ()
        ends.append(listed.more_after)
        if (after := listed.more_after) is None:
            break
    places = [keys[n - 1] for n in (40, 80, 120)]
    assert ends == [*(Position(key.create_time, key.id) for key in places), None]


_MANY = """
INSERT INTO workspace (id, name, display_name, suspended, allowed_scopes, roles, create_time, update_time, version, seq)
SELECT md5('w' || n)::uuid, 'many/w' || n, '', false, '{}', '{}', now(), now(), 1, 0 FROM generate_series(1, 5) n;
INSERT INTO pepper VALUES ('pepper', true, now());
INSERT INTO key (id, workspace_id, display_name, environment, owner, scopes, role, ip_allowlist, metadata, tags,
                 workspaces, creator, create_time, update_time, expire_time, suspended, revoke_time, revoke_reason,
                 version, seq)
SELECT md5('k' || n)::uuid, md5('w' || CASE WHEN n < 2000 THEN 5 ELSE 1 + n % 4 END)::uuid,
       CASE WHEN n < 2000 THEN 'old ' ELSE 'new ' END || n, CASE WHEN n < 2000 THEN 'test' ELSE 'live' END,
       CASE WHEN n < 2000 THEN 'old' ELSE 'new' END, '{}', CASE WHEN n < 2000 THEN 'old' ELSE '' END, '{}', '{}',
       ARRAY[CASE WHEN n < 2000 THEN 'old' ELSE 'new' END, 'tag-' || n % 1000], '{}', '',
       now() - (6000 - n) * '1 s'::interval, now(),
       CASE WHEN n < 2000 THEN now() - '1 day'::interval END, n % 100 = 1, CASE WHEN n % 10 = 2 THEN now() END,
       '', 1, 0
  FROM generate_series(1, 5000) n;
INSERT INTO secret (id, key_id, hint, pepper, digest, create_time, revoke_reason, seq)
SELECT md5('s' || n), md5('k' || n)::uuid, CASE WHEN n < 2000 THEN 'sk_test_1old' ELSE 'sk_live_1new' END || n,
       'pepper', '', now(), '', 0
  FROM generate_series(1, 5000) n;
INSERT INTO key_activity
SELECT id, CASE WHEN create_time < now() - 4000 * '1 s'::interval THEN create_time ELSE now() END FROM key;
INSERT INTO usage_total
SELECT workspace.name, key.id, secret.id, verdict, 1, 0, 0, 0, now()
  FROM key JOIN workspace ON workspace.id = workspace_id JOIN secret ON secret.key_id = key.id
 CROSS JOIN unnest(ARRAY['valid', 'expired', '']) verdict
"""

_PAGES = 4
READ = ("key", "secret", "key_activity", "usage_total")

HARD = [
    KeyFilter(),
    KeyFilter(workspaces=("many/w5",)),
    KeyFilter(workspaces=("many/w1", "many/w5")),
    KeyFilter(workspaces=("many/w1",), role="old"),
    KeyFilter(environment=Environment.TEST),
    KeyFilter(owner="old"),
    KeyFilter(owner="new", role="old"),
    KeyFilter(owner="nobody"),
    KeyFilter(tag="old"),
    KeyFilter(tag="tag-7"),
    KeyFilter(tag="old", display_name_prefix="new"),
    KeyFilter(role="old"),
    KeyFilter(hint_prefix="sk_test_1old"),
    KeyFilter(hint_prefix="sk_test_1old77"),
    KeyFilter(display_name_prefix="old"),
    KeyFilter(expire_before=NOW),
    KeyFilter(expire_before=NOW, owner="new"),
    KeyFilter(idle_since=NOW - timedelta(seconds=4000)),
    KeyFilter(idle_since=NOW - timedelta(seconds=5900)),
    KeyFilter(idle_since=NOW - timedelta(seconds=5960)),
    *(KeyFilter(state=state) for state in State),
    KeyFilter(state=State.SUSPENDED, tag="old"),
]


async def _read_so_far(database: Database) -> int:
    """How many entries of tables and indexes lists have read."""
    query = """
        SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname = ANY(:tables))
             + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = ANY(:tables)) AS read
    """

    async def work(connection: AsyncConnection, _attempt: int) -> int:
        return int((await connection.execute(text(query), {"tables": list(READ)})).one().read)

    # What a session has read is told with its next transaction.
    flush = text("SELECT pg_stat_force_next_flush()")
    await database.run(lambda connection, _attempt: connection.execute(flush), commit=False)
    return await database.run(work, commit=False)


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("analyzed", ["never", "before", "after"])
async def test_no_plan_reads_more_than_the_bounds(
    database_url: str, database: Database, plan: str, analyzed: str
) -> None:
    """Whatever the planner knows of 5000 keys, a page reads hundreds: what is asked for lies among the oldest."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        if connection.info.server_version < 150_000:
            pytest.skip("PostgreSQL 14 does not tell in time what was read")
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET plan_cache_mode = {}").format(name, sql.Literal(plan)))
        for table in READ:
            connection.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(sql.Identifier(table)))
        if analyzed == "before":
            connection.execute("ANALYZE")
        connection.execute(_MANY.replace("now()", f"'{NOW}'::timestamptz"))
        if analyzed == "after":
            connection.execute("ANALYZE")
        connection.execute("SELECT pg_stat_force_next_flush()")  # what loading has read is not the lists' doing
    listings = Listings(database, few=50, examined_max=100)
    for asked in HARD:
        before = await _read_so_far(database)
        listed = await listings.list_keys(asked, None, 10)
        for _ in range(_PAGES - 1):
            listed = await listings.list_keys(asked, listed.more_after, 10)
        # The conditions counted; keys examined, and where they end, with secret or activity each; for each key of a
        # page its secrets, and of each of them key, workspace and usage.
        bound = 3 * 51 + 100 + 100 + 100 + 10 * (1 + 2 * 5)
        if asked.tag in {"old", "new"}:
            bound += 3000
        assert await _read_so_far(database) - before <= _PAGES * bound, asked
