"""Fingerprints of the peppers that this database's digests were made under."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import bindparam, exists, func, select, true, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core.pepper import Proof
from keysvc.store.database import Database
from keysvc.store.schema import key, pepper, secret, tag_key

_SIGNING: Final = select(pepper.c.fingerprint).where(pepper.c.signing)

_LIVING: Final = (
    select(true())
    .select_from(secret.join(key))
    .where(secret.c.pepper == pepper.c.fingerprint, secret.c.revoke_time.is_(None), key.c.revoke_time.is_(None))
    .limit(1)
    .scalar_subquery()
)
"""One is enough. As a value and not with EXISTS, which would be planned as a join that reads all secrets."""

_NEEDED: Final = select(pepper.c.fingerprint).where(~pepper.c.signing, pepper.c.retire_time.is_(None), _LIVING)


@dataclass(frozen=True, slots=True)
class DeploymentKeys:
    """What the database says about keys that are the deployment's, not one server's.

    Parameters:
        tag_key: the key of the tags of key strings.
        signing: fingerprint of the pepper that new digests are made under.
        needed: fingerprints of that one, and of the others that secrets need which may still be accepted.
    """

    tag_key: bytes = field(repr=False)
    signing: bytes
    needed: frozenset[bytes]


async def read_deployment_keys(database: Database, newest: bytes) -> DeploymentKeys:
    """Read them; in a new database the server's newest pepper becomes the one that signs.

    Parameters:
        newest: fingerprint of the server's newest pepper.
    """

    async def work(connection: AsyncConnection, _attempt: int) -> DeploymentKeys:
        # One pepper signs, says an index: where there is one, this conflicts and does nothing.
        first = upsert(pepper).values(fingerprint=newest, signing=True, create_time=func.now())
        await connection.execute(first.on_conflict_do_nothing())
        signing = (await connection.execute(_SIGNING)).scalar_one()
        return DeploymentKeys(
            tag_key=(await connection.execute(select(tag_key.c.key))).scalar_one(),
            signing=signing,
            needed=frozenset({signing, *(await connection.execute(_NEEDED)).scalars()}),
        )

    return await database.run(work, commit=True)


class PepperStore:
    """Fingerprints, and the digests under them.

    Parameters:
        database: where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_signing(self) -> bytes:
        """The fingerprint of the pepper that signs."""

        async def work(connection: AsyncConnection) -> bytes:
            signing: bytes = (await connection.execute(_SIGNING)).scalar_one()
            return signing

        return await self._database.read(work)

    async def rehash(self, wanted: Mapping[str, tuple[bytes, Proof]]) -> None:
        """Replace the proofs of secrets that are still under the given pepper."""
        statement = (
            update(secret)
            .where(secret.c.id == bindparam("secret_id"), secret.c.pepper == bindparam("old"))
            .values(pepper=bindparam("new"), digest=bindparam("new_digest"))
        )
        rows = [
            {"secret_id": secret_id, "old": old, "new": proof.pepper, "new_digest": proof.digest}
            for secret_id, (old, proof) in sorted(wanted.items())
        ]

        async def work(connection: AsyncConnection, _attempt: int) -> None:
            await connection.execute(statement, rows)

        await self._database.run(work, commit=True)


async def has_pepper(database: Database) -> bool:
    """Whether digests were made, or may have been, so that there is a pepper to be missed."""

    async def work(connection: AsyncConnection) -> bool:
        return (await connection.execute(select(exists().where(pepper.c.signing)))).scalar_one()

    return await database.read(work)
