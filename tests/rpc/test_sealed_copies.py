"""Sealed copies as they are kept: everything that is kept, and everything that the server knows, does not open one."""

import hmac
from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from cryptography.exceptions import InvalidTag
from psycopg import sql
from psycopg.rows import dict_row

from keysvc.core.key import SealedCopy
from keysvc.service.sealing import Sealing
from tests.deployment import Deployment, request_id


def everything(url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        tables = connection.execute("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return {
            table["name"]: connection.execute(
                sql.SQL("SELECT * FROM {}").format(sql.Identifier(table["name"]))
            ).fetchall()
            for table in tables
        }


def guesses(values: Iterable[Any]) -> set[str]:
    """What the request id might be if it were one of these values, or made from one of them."""
    found = {""}
    for value in values:
        found.add(str(value))
        if isinstance(value, bytes):
            found |= {value.hex(), *(str(UUID(bytes=value[at : at + 16])) for at in range(len(value) - 15))}
        elif isinstance(value, dict):
            found |= guesses(value.values())
        elif isinstance(value, list):
            found |= guesses(value)
    return found | {each.upper() for each in found}


@pytest.mark.parametrize("method", ["Create", "Rotate"])
async def test_a_dump_with_all_keys_of_the_server_does_not_open_it(deployment: Deployment, method: str) -> None:
    """Not with peppers, tag key, claim, audit, nor anything else that is kept; with the request id it opens."""
    operator = await deployment.client()
    await operator.create_workspace()
    wanted = request_id()
    made = await operator.create(**({"request_id": wanted} if method == "Create" else {}))
    if method == "Rotate":
        made = await operator.rotate(made.key.id, request_id=wanted)  # type: ignore[assignment]

    tables = everything(deployment.database_url)
    (row,) = tables["request"]
    (caller,) = {event["actor"] for event in tables["audit_event"] if event["key_id"] == row["key_id"]}
    tag_key = tables["tag_key"][0]["key"]
    peppers = deployment.settings.peppers
    assert peppers
    sealing = Sealing(peppers)

    def scope(guess: str) -> bytes:
        return f"{caller}\0keysvc.v1.KeyService/{method}\0{guess}".encode()

    def opened(request: bytes) -> str | None:
        try:
            return sealing.open(SealedCopy(row["sealed_pepper"], row["sealed"]), request, row["secret_id"]).reveal()
        except InvalidTag:
            return None

    kept = [value for rows in tables.values() for each in rows for value in each.values()]
    known = guesses([*kept, *peppers._keys.values(), *(uuid4() for _ in range(100))])
    assert {str(row["key_id"]), row["secret_id"], row["digest"].hex()} <= known
    assert [guess for guess in known if opened(scope(guess))] == []
    assert not any(map(opened, (row["digest"], row["body_digest"], row["sealed"], tag_key, b"")))
    assert wanted not in known

    # The guesses were of the right form: so the digest was made, and so it opens.
    assert hmac.digest(tag_key, scope(wanted), "sha256") == row["digest"]
    assert opened(scope(wanted)) == made.key_string
