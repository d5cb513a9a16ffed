"""Schedules for trials: each lets the moment come at which a mistake can be seen. Without one nothing is wrong."""

import asyncio
import signal
from typing import Final

import psycopg

from tests.nemesis.cluster import LEASE_SECONDS, Site
from tests.nemesis.link import BARRIERS, LOOK_UPS, RENEWALS, WAKE_UPS
from tests.nemesis.trial import TERMS, Schedule, Trial, hold, linked

LOOK_AGAIN_SECONDS: Final = 0.4
"""So long everybody is still asked after the last change."""


async def revocations(trial: Trial) -> None:
    """Keys are revoked one shortly after the other, and nothing goes wrong."""
    keys = await trial.known(count=4)
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(trial.revoke(trial.a, key))
            await asyncio.sleep(LEASE_SECONDS / 4)
    await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def suspended_workspace(trial: Trial) -> None:
    """A workspace is suspended."""
    await trial.known()
    await trial.asker.change(trial.caller(trial.a), "SuspendWorkspace", trial.workspace)
    await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def holder_cut_off(trial: Trial) -> None:
    """The answers to renewals are slow, and then no renewal comes through any more; wake-ups do."""
    (key,) = await trial.known()
    linked(trial.d).delay(0, LEASE_SECONDS / 4, application=RENEWALS)
    await asyncio.sleep(LEASE_SECONDS / 2)
    await trial.known()  # so it still has a lease
    await hold(trial.d, back=LEASE_SECONDS / 4)
    await trial.revoke(trial.a, key)
    await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def others_cut_off(trial: Trial) -> None:
    """Somebody else's renewals do not come through any more, and then a key is revoked."""
    (key,) = await trial.known()
    await hold(trial.b)
    await trial.revoke(trial.d, key)
    await asyncio.sleep(LEASE_SECONDS)


async def others_cut_off_for_a_while(trial: Trial) -> None:
    """The same, but the key is revoked only after half of the lease."""
    (key,) = await trial.known()
    await hold(trial.b)
    await asyncio.sleep(LEASE_SECONDS / 2)
    await trial.revoke(trial.d, key)
    await asyncio.sleep(LEASE_SECONDS)


async def late_look_up(trial: Trial) -> None:
    """A look-up is slow: the key is revoked, and everybody knows it, before its result comes."""
    await trial.known()  # the caller among them
    key = await trial.create()
    link = linked(trial.d)
    link.delay(0, 0.5, application=LOOK_UPS)
    sent = asyncio.create_task(link.until_carried(LOOK_UPS))
    await asyncio.sleep(0)  # it has begun
    looking = asyncio.create_task(trial.verify(trial.d, key))
    await sent
    await trial.revoke(trial.a, key)
    await looking
    link.delay()
    for _ in range(5):
        await trial.verify(trial.d, key)


async def joined_since(trial: Trial) -> None:
    """A server joins that the revoker has not met before, and is slow to hear."""
    (key,) = await trial.known()
    await trial.revoke(trial.d, key)
    (joined,) = trial.cluster.launch(Site("e", is_linked=True, variables=TERMS))
    try:
        await asyncio.to_thread(joined.await_ready)
        (key,) = await trial.known()
        linked(joined).delay(LEASE_SECONDS / 4, application=RENEWALS)
        await trial.revoke(trial.d, key)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    finally:
        await asyncio.to_thread(trial.cluster.remove, joined)


async def collected(trial: Trial) -> None:
    """The server stands still until it counts as dead, and goes on; wake-ups are lost."""
    missed, key = await trial.known(count=2)
    linked(trial.d).delay(back=float("inf"), application=WAKE_UPS)
    pid = str(trial.d.pid)
    trial.d.signal(signal.SIGSTOP)
    try:
        await trial.revoke(trial.a, missed)
        async with asyncio.timeout(20):
            while await asyncio.to_thread(_has_row, trial.cluster.url, pid):  # noqa: ASYNC110 (nobody would tell)
                await asyncio.sleep(0.05)
    finally:
        trial.d.signal(signal.SIGCONT)
    await trial.prime(key, trial.d)
    await trial.revoke(trial.a, key)
    await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def impatient_callers(trial: Trial) -> None:
    """All members acknowledge, one of them late, and the time of some callers is over just then.

    A receipt named a time that had passed, at which one server did not know yet.
    """
    keys = await trial.known(count=8)
    linked(trial.b).delay(LEASE_SECONDS / 4, application=RENEWALS)
    linked(trial.d).delay(back=LEASE_SECONDS / 5, application=BARRIERS)
    async with asyncio.TaskGroup() as group:
        for number, key in enumerate(keys):
            group.create_task(trial.revoke(trial.d, key, seconds=(0.7 + 0.08 * number) * LEASE_SECONDS))
    await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def leaving(trial: Trial) -> None:
    """The server is asked to stop, and a key is revoked while it does."""
    (key,) = await trial.known()
    trial.d.signal(signal.SIGTERM)
    await asyncio.sleep(0.15)
    await trial.revoke(trial.a, key)
    await asyncio.sleep(LOOK_AGAIN_SECONDS)


SCHEDULES: Final[tuple[Schedule, ...]] = (
    revocations,
    suspended_workspace,
    holder_cut_off,
    others_cut_off,
    others_cut_off_for_a_while,
    late_look_up,
    joined_since,
    collected,
    impatient_callers,
    leaving,
)
"""All of them; after the last one the server is gone."""

SHOWN: Final[dict[str, Schedule]] = {
    "acknowledges_unapplied": revocations,
    "collects_early": others_cut_off_for_a_while,
    "counts_before_commit": joined_since,
    "counts_from_receipt": holder_cut_off,
    "extends_first": revocations,
    "final_at_once": others_cut_off,
    "ignores_lost_row": collected,
    "keeps_workspaces": suspended_workspace,
    "lease_before_row": revocations,
    "outlives_its_lease": holder_cut_off,
    "push_is_lease": holder_cut_off,
    "remembers_unchecked": late_look_up,
    "row_first": leaving,
    "slow_clock": holder_cut_off,
    "waits_too_short": others_cut_off,
}
"""The schedule that shows each mistake."""


def _has_row(url: str, pid: str) -> bool:
    """Whether a server is a member."""
    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT FROM lease_member WHERE split_part(host, '/', 2) = %s"
        return connection.execute(query, (pid,)).fetchone() is not None
