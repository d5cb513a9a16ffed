"""Subjects: what an answer depends on, as clients that remember it are told.

They are named by opaque ids, so that a caller which is limited to some workspaces learns nothing of changes elsewhere
but that there are any. All servers of a deployment give the same ids, since clients move between them.
"""

from hashlib import blake2b
from typing import Final
from uuid import UUID

_BYTES: Final = 12
_PURPOSE: Final = b"subject"


def subject_id(tag_key: bytes, id_: UUID) -> str:
    """The opaque id of a key or workspace.

    Parameters:
        tag_key: the deployment's tag key.
    """
    return blake2b(id_.bytes, digest_size=_BYTES, key=tag_key[:64], person=_PURPOSE).hexdigest()
