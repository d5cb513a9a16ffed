"""Fills a database with keys, by SQL: through the service a million would take an hour.

Key number 1 is the oldest. The oldest keys differ from the rest on purpose: a list begins at the newest, so what only
old keys have is the worst to look for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5
from secrets import token_bytes
from typing import Final
from uuid import UUID

import psycopg

from keysvc.core.keystring import Environment, KeyString, mint
from keysvc.core.pepper import Peppers

KEYS_MIN: Final = 200

MINTED_MAX: Final = 400_000
"""At most so many keys have key strings that verify; of the others there are only rows."""

_SCATTER: Final = 7919
"""Keys that were created one after the other are of different workspaces."""

_WORKSPACES: Final = """
INSERT INTO workspace (id, name, display_name, suspended, allowed_scopes, roles, create_time, update_time, version, seq)
SELECT md5('workspace ' || n)::uuid, 'bench/w' || n, 'Workspace ' || n, false, '{}', '{"auditor": ["audit.read"]}',
       now() - interval '1 year', now() - interval '1 year', 1, 0
  FROM generate_series(0, %(workspaces)s - 1) n
"""

_KEYS: Final = """
INSERT INTO key (id, workspace_id, display_name, environment, owner, scopes, role, ip_allowlist, metadata, tags,
                 workspaces, creator, create_time, update_time, expire_time, suspended, revoke_time, revoke_reason,
                 version, seq)
SELECT md5('key ' || n)::uuid,
       md5('workspace ' || (n::bigint * %(scatter)s) %% %(workspaces)s)::uuid,
       CASE WHEN old THEN 'legacy' WHEN n %% 2 = 0 THEN 'even' ELSE 'odd' END || ' service ' || n,
       CASE WHEN n %% 5 = 0 THEN 'test' ELSE 'live' END,
       CASE WHEN n <= 5 THEN 'rare-owner' WHEN old THEN 'old-owner' ELSE 'owner-' || n %% (%(keys)s / 50) END,
       '{pdf.read,pdf.write,invoices.read}',
       CASE WHEN old THEN 'auditor' WHEN n %% 10 < 3 THEN 'viewer' WHEN n %% 10 < 5 THEN 'editor' ELSE '' END,
       %(ip_allowlist)s,
       jsonb_build_object('cost_center', 'cc-' || n %% 300, 'ticket', 'OPS-' || n)
           || CASE WHEN %(note_characters)s > 0 THEN jsonb_build_object('note', repeat('x', %(note_characters)s))
                   ELSE '{}' END,
       CASE WHEN n <= 5 THEN '{rare}' WHEN old THEN '{legacy}' ELSE '{}' END::text[]
           || ARRAY[CASE WHEN n %% 2 = 0 THEN 'even' ELSE 'odd' END, 'team-' || n %% 2000],
       '{}', 'bootstrap', created, created,
       CASE WHEN n %% 4 = 1 THEN created + interval '90 days' END,
       n %% 500 = 7,
       CASE WHEN n %% 4 = 3 AND n < %(keys)s * 0.6 THEN created + interval '30 days' END,
       '', 1, 0
  FROM (SELECT n, now() - (%(keys)s - n + 1) * interval '365 days' / %(keys)s AS created, n <= %(keys)s / 10 AS old
          FROM generate_series(1, %(keys)s) n) numbers
 ORDER BY n
"""

_SECRETS: Final = """
INSERT INTO secret (id, key_id, hint, pepper, digest, create_time, revoke_reason, seq)
SELECT coalesce(minted.id, made), key.id, coalesce(minted.hint, 'sk_' || key.environment || '_1' || left(made, 7)),
       %(pepper)s, coalesce(minted.digest, sha256(made::bytea)), key.create_time, '', 0
  FROM generate_series(1, %(keys)s) numbers (n)
  JOIN key ON key.id = md5('key ' || n)::uuid
  LEFT JOIN minted ON number = n
 CROSS JOIN LATERAL (
       SELECT translate(left(encode(sha256(('secret ' || n)::bytea), 'base64'), 15), '+/', 'aZ') AS made
       ) texts
 ORDER BY n
"""

_ACTIVITY: Final = """
INSERT INTO key_activity
SELECT id, CASE WHEN owner = 'old-owner' OR owner = 'rare-owner' THEN create_time ELSE now() END FROM key
    ON CONFLICT DO NOTHING
"""

_USAGE: Final = """
INSERT INTO usage_total
SELECT workspace.name, key.id, secret.id, 'valid', 1000, 0, 0, 0, now()
  FROM key JOIN workspace ON workspace.id = workspace_id JOIN secret ON secret.key_id = key.id
    ON CONFLICT DO NOTHING
"""

_EVENTS: Final = """
INSERT INTO audit_event (id, time, actor, method, workspace, key_id, after, reason, request_id, source_ip)
SELECT md5('event ' || n)::uuid, key.create_time, 'bootstrap', 'keysvc.v1.KeyService/Create', workspace.name, key.id,
       jsonb_build_object('display_name', key.display_name, 'owner', key.owner, 'tags', to_jsonb(key.tags)), '',
       md5('request ' || n), '127.0.0.1'
  FROM generate_series(1, %(keys)s) n
  JOIN key ON key.id = md5('key ' || n)::uuid
  JOIN workspace ON workspace.id = key.workspace_id
 ORDER BY n
"""


def key_id(number: int) -> UUID:
    """The id of a key, as the statements make it."""
    return UUID(md5(f"key {number}".encode(), usedforsecurity=False).hexdigest())


def workspace_name(number: int) -> str:
    """The name of a workspace, numbered from 0."""
    return f"bench/w{number}"


def workspace_of(key: int, workspaces: int) -> str:
    """The name of the workspace that a key was loaded into, as the statements choose it."""
    return workspace_name(key * _SCATTER % workspaces)


@dataclass(frozen=True, slots=True)
class Minted:
    """A key that verifies.

    Parameters:
        number: of the key.
    """

    number: int
    key_string: KeyString

    @property
    def key_id(self) -> UUID:
        """Its id."""
        return key_id(self.number)


@dataclass(frozen=True, slots=True)
class Size:
    """What is loaded.

    Parameters:
        keys: how many; at least ``KEYS_MIN``.
        workspaces: over how many they are spread.
        minted_max: how many of them, at most, have a key string.
        ip_allowlist: of all.
        note_characters: of a value in the metadata of all.
    """

    keys: int
    workspaces: int
    minted_max: int = MINTED_MAX
    ip_allowlist: tuple[str, ...] = ()
    note_characters: int = 0


def seed(url: str, admin_url: str, peppers: Peppers, size: Size) -> list[Minted]:
    """Fill a migrated database; the keys that verify, spread over all of them, oldest first.

    Parameters:
        url: of the database, which has no keys yet but callers.
        admin_url: of the same, as its superuser.
        peppers: of the deployment, the newest first.
    """
    values = {
        "keys": size.keys,
        "workspaces": size.workspaces,
        "scatter": _SCATTER,
        "pepper": peppers.fingerprints[0],
        "ip_allowlist": list(size.ip_allowlist),
        "note_characters": size.note_characters,
    }
    with psycopg.connect(admin_url, autocommit=True) as whole:
        # Or checkpoints follow each other, and each page is written to the log again after every one.
        whole.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
        whole.execute("SELECT pg_reload_conf()")
        with psycopg.connect(url) as connection:
            minted = list(_mint(connection, peppers, size))
            with connection.cursor() as cursor:
                for statement in (_WORKSPACES, _KEYS, _SECRETS, _ACTIVITY, _USAGE, _EVENTS):
                    cursor.execute(statement, values)
        whole.execute("ALTER SYSTEM RESET max_wal_size")
        whole.execute("SELECT pg_reload_conf()")
    return minted


def tidy(url: str, admin_url: str) -> None:
    """Have PostgreSQL do now what it would do by and by, while something is measured."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def _mint(connection: psycopg.Connection, peppers: Peppers, size: Size) -> Iterator[Minted]:
    """Mint secrets for keys that are still good, into a temporary table."""
    row = connection.execute("SELECT key FROM tag_key").fetchone()
    if row is None:
        raise RuntimeError("the database has not been migrated")
    connection.execute("CREATE TEMPORARY TABLE minted (number integer PRIMARY KEY, id text, hint text, digest bytea)")
    # Of those neither suspended, revoked nor expired: the ones whose environment is live.
    good = [number for number in range(2, size.keys + 1, 2) if number % 10]
    count = min(size.minted_max, len(good))
    with connection.cursor().copy("COPY minted (number, id, hint, digest) FROM STDIN") as copy:
        for number in (good[place * len(good) // count] for place in range(count)):
            new = mint(Environment.LIVE, row[0], token_bytes)
            copy.write_row((number, new.id, new.hint, peppers.digest(new.key_string, peppers.fingerprints[0])))
            yield Minted(number, new.key_string)
