"""Revoke, timed, with its receipts: the calls that other topics make and look at."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from bench.deployment import Served
from bench.generator import GRPC_OK, Loop, WrongAnswersError
from bench.result import percentile
from bench.seeding import Minted
from bench.session import CALL_SECONDS_MAX, Session, body, metadata_of
from keysvc.v1 import key_service_pb2, receipt_pb2

if TYPE_CHECKING:
    from keysvc.v1.key_service_pb2_grpc import KeyServiceAsyncStub


@dataclass(slots=True)
class Revocations:
    """Revocations of keys, and what their receipts say.

    Parameters:
        keys: that are revoked by now.
        seconds: that each call took, from when it was due.
        paths: of the receipts; PENDING for those that are not complete.
        failures: statuses of calls that had no answer, so that nothing is known of their keys.
    """

    session: Session
    stub: "KeyServiceAsyncStub"
    keys: list[Minted] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    async def revoke(self, key: Minted, due: float | None = None) -> None:
        """Revoke one key.

        Parameters:
            due: by ``time.monotonic``; None: now.
        """
        began = time.monotonic() if due is None else due
        request = key_service_pb2.RevokeRequest(key_id=str(key.key_id), reason="bench")
        metadata = metadata_of(self.session.operator)
        try:
            answer = await self.stub.Revoke(request, metadata=metadata, timeout=CALL_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            self.failures[error.code().name] += 1
            return
        self.seconds.append(time.monotonic() - began)
        self.keys.append(key)
        complete = answer.receipt.state == receipt_pb2.Receipt.STATE_COMPLETE
        path = receipt_pb2.Receipt.Path.Name(answer.receipt.path).removeprefix("PATH_")
        self.paths[path if complete else "PENDING"] += 1

    async def revoke_each(self, keys: Sequence[Minted]) -> None:
        """Revoke keys, one after the other."""
        for key in keys:
            await self.revoke(key)

    async def revoke_at(self, keys: Sequence[Minted], per_second: float, enough: asyncio.Event) -> None:
        """Revoke keys at a rate, however long each takes, until it is enough or there are no more keys."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, key in enumerate(keys):
                due = began + number / per_second
                await asyncio.sleep(max(due - time.monotonic(), 0))
                if enough.is_set():
                    return
                group.create_task(self.revoke(key, due))

    async def check(self, served: Sequence[Served]) -> int:
        """See that no server accepts any of the keys; how many answers say so.

        Raises:
            WrongAnswersError: one does.
        """
        bodies = [body(key.key_string) for key in self.keys]
        total = 0
        for each in served if bodies else ():
            answers = await self.session.generator.run([each.address], bodies, Loop(requests=len(bodies)))
            refused = {"REVOKED", "REVOKING"}
            if any(kind.status != GRPC_OK or kind.verdict not in refused for kind in answers.kinds):
                raise WrongAnswersError(f"of revoked keys {', '.join(map(str, answers.kinds))}")
            total += answers.answered
        return total

    def figures(self, skipped: int = 0) -> dict[str, float | int | None]:
        """Times in milliseconds, and receipts.

        Parameters:
            skipped: the first so many are left out of the times.
        """
        times = [1000 * each for each in self.seconds[skipped:]]
        return {
            "revocations": len(self.seconds),
            "revoke_failed": self.failures.total(),
            "revoke_p50": percentile(times, 0.5) if times else None,
            "revoke_p99": percentile(times, 0.99) if times else None,
            "revoke_max": max(times) if times else None,
            "ack": self.paths["ACK"],
            "timer": self.paths["TIMER"],
            "pending": self.paths["PENDING"],
        }
