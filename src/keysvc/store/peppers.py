"""Fingerprints of the peppers that this database's digests were made under."""

from dataclasses import dataclass, field

from sqlalchemy import exists, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.store.database import Database
from keysvc.store.schema import key, pepper, secret, tag_key


@dataclass(frozen=True, slots=True)
class DeploymentKeys:
    """What the database says about keys that are the deployment's, not one server's.

    Parameters:
        tag_key: the key of the tags of key strings.
        signing: fingerprint of the pepper that new digests are made under.
        needed: fingerprints of the peppers that secrets which may still be accepted need.
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
        living = exists().where(
            secret.c.pepper == pepper.c.fingerprint,
            secret.c.revoke_time.is_(None),
            key.c.id == secret.c.key_id,
            key.c.revoke_time.is_(None),
        )
        return DeploymentKeys(
            tag_key=(await connection.execute(select(tag_key.c.key))).scalar_one(),
            signing=(await connection.execute(select(pepper.c.fingerprint).where(pepper.c.signing))).scalar_one(),
            needed=frozenset((await connection.execute(select(pepper.c.fingerprint).where(living))).scalars()),
        )

    return await database.run(work, commit=True)


async def has_pepper(database: Database) -> bool:
    """Whether digests were made, or may have been, so that there is a pepper to be missed."""

    async def work(connection: AsyncConnection) -> bool:
        return (await connection.execute(select(exists().where(pepper.c.signing)))).scalar_one()

    return await database.read(work)
