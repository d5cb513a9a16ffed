"""A revoker that has read who the members are before its change was committed: once and for all."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from keysvc.lease.news import Census
from keysvc.leasing import Parts
from keysvc.store.leases import Registry
from tests.nemesis.serving import serve


class Early(Registry):
    """Knows only those whom it has met at first."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._met: frozenset[UUID] | None = None

    async def count(self, limit_seconds: float) -> Census:
        """Count those."""
        census = await super().count(limit_seconds)
        if self._met is None:
            self._met = frozenset(member.id for member in census.members)
        return replace(census, members=[member for member in census.members if member.id in self._met])


serve(Parts(registry=Early))
