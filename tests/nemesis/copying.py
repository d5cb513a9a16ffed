"""Makes many keys of one, by SQL: that of each Create, one after the other, takes longer than what a round is about.

A copy differs from the key, which the product has created, in nothing but its ids and its key string. Whether it is as
good is seen when every server says that it is VALID.
"""

from secrets import token_bytes
from typing import Final
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb

from keysvc.core.keystring import Environment, mint
from keysvc.core.pepper import Peppers
from tests.nemesis.history import Key

# Whatever columns there are, they are copied.
_COPIES: Final = tuple(
    f"INSERT INTO {table} SELECT (jsonb_populate_record({table}, new)).*"
    f" FROM {table}, jsonb_array_elements(%(new)s) new WHERE {table}.{column} = %(original)s"
    for table, column in (("key", "id"), ("secret", "key_id"), ("key_activity", "key_id"))
)


def copies(url: str, pepper: str, original: Key, count: int) -> list[tuple[Key, str]]:
    """Copies of a key that has one secret, and their key strings.

    Parameters:
        url: of the database.
        pepper: that its secret was signed with.
        original: which the product has created.
    """
    peppers = Peppers.parse(pepper)
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT key FROM tag_key").fetchone()
        assert row is not None
        made, keys, secrets = list[tuple[Key, str]](), list[dict[str, str]](), list[dict[str, str]]()
        for _ in range(count):
            minted, key_id = mint(Environment.LIVE, row[0], token_bytes), str(uuid4())
            digest = peppers.digest(minted.key_string, peppers.fingerprints[0])
            keys.append({"id": key_id, "key_id": key_id})
            secrets.append({"id": minted.id, "key_id": key_id, "hint": minted.hint, "digest": f"\\x{digest.hex()}"})
            made.append((Key(key_id, original.workspace, minted.id, original.scopes), minted.key_string.reveal()))
        for statement, new in zip(_COPIES, (keys, secrets, keys), strict=True):
            connection.execute(statement, {"new": Jsonb(new), "original": original.id})
    return made
