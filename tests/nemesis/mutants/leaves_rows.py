"""A supervisor that leaves the rows of a worker which has ended to the collector."""

from typing import Any

from keysvc import workers
from tests.nemesis.serving import serve


async def leave(*_: Any, **_how: Any) -> None:
    """Remove nothing."""


workers.remove_members = leave
serve()
