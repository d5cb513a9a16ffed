"""All other changes of a round: those of keys that live on, and of their workspace."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any, Final

from tests.nemesis.asking import Asker
from tests.nemesis.callers import Callers
from tests.nemesis.cluster import now
from tests.nemesis.history import Change, Key
from tests.nemesis.probing import ADDRESSES, SCOPES, Probing

CHANGES_OF_KEY: Final = 12
"""A key is changed so often, then another one is."""

LIST_SECONDS: Final = 0.5
"""Pauses between two lists."""


class Changing:
    """Changes keys and a workspace in all ways that there are.

    Parameters:
        asker: writes down what is answered.
        callers: who is asked.
        probing: asks everybody about what was changed.
        chance: decides on the changes.
        workspace: of the keys.
    """

    def __init__(self, asker: Asker, callers: Callers, probing: Probing, chance: random.Random, workspace: str) -> None:
        self._asker = asker
        self._callers = callers
        self._probing = probing
        self._chance = chance
        self._workspace = workspace
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let what has begun be the last."""
        self._stopping.set()

    async def change_keys(self) -> None:
        """Change a key, and then another one."""
        watched = self._probing.changing
        while not self._stopping.is_set():
            key = await self._callers.persist(lambda caller: self._asker.create(caller, self._workspace, SCOPES[:1]))
            watched.append(key.secret_id)
            living = [key.secret_id]
            for _ in range(CHANGES_OF_KEY):
                if self._stopping.is_set() or not living:
                    break
                method, wanted = self._chance.choice([*self._key_changes(living)])
                change = await self._change(method, key, wanted)
                if method in {"Rotate", "CancelRotation"} and not change.refusal:
                    if change.receipt is None:
                        break
                    known = self._asker.history.secrets_of(key.id)
                    living = known[-1:] if method == "Rotate" and not wanted["overlap"] else known[-2:]
                    watched += [each for each in living if each not in watched]
                await self._probing.change(change, living)
                await asyncio.sleep(self._chance.uniform(0.0, 0.1))
            watched[:] = [each for each in watched if each not in living]

    async def _change(self, method: str, key: Key, wanted: dict[str, Any]) -> Change:
        return await self._asker.change(self._callers.anybody(), method, key.workspace, key.id, **wanted)

    def _key_changes(self, living: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Changes of a key, and what is wanted of them."""
        for _ in range(3):
            yield "Suspend", {}
            yield "Resume", {}
        for scopes in (SCOPES, SCOPES, SCOPES[:1], SCOPES[1:]):
            yield "Update", {"scopes": scopes}
        for addresses in ((), ADDRESSES[:1], ADDRESSES):
            yield "Update", {"ip_allowlist": addresses}
        yield "Update", {"expire_time": now() + self._chance.uniform(0.5, 2.0)}
        yield "Update", {"expire_time": None}
        yield "Rotate", {"overlap": 0}
        yield "Rotate", {"overlap": 3600}
        yield "CancelRotation", {}
        if len(living) > 1:
            yield "Revoke", {"secret_id": living[0]}

    async def change_workspace(self) -> None:
        """Suspend and resume the workspace, and let it allow less and more."""
        while not self._stopping.is_set():
            for method, wanted in (
                ("UpdateWorkspace", {"allowed_scopes": SCOPES[:1]}),
                ("UpdateWorkspace", {"allowed_scopes": ()}),
                ("SuspendWorkspace", {}),
                ("ResumeWorkspace", {}),
            ):
                change = await self._asker.change(self._callers.anybody(), method, self._workspace, **wanted)
                await self._probing.change(change, self._probing.changing[-3:])
                await asyncio.sleep(self._chance.uniform(0.0, 0.5))

    async def list_keys(self, workspace: str) -> None:
        """Ask all the time what List says of a workspace."""
        while not self._stopping.is_set():
            await self._asker.list_keys(self._callers.anybody(), workspace)
            await asyncio.sleep(LIST_SECONDS)
