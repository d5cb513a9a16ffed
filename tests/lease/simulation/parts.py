"""What a process of a simulation is made of: the real thing, unless somebody hands over something else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keysvc.lease.barrier import Promotions
from keysvc.lease.holder import Holder
from keysvc.lease.memory import Memory
from keysvc.lease.sessions import Sessions
from keysvc.lease.terms import Terms
from keysvc.service.confirming import Confirming
from keysvc.service.renewing import Renewing
from keysvc.service.waiting import Waiting
from keysvc.store.lookups import Lookups
from tests.lease.simulation.changes import TwinChanges
from tests.lease.twin import TwinMembership, TwinRegistry


@dataclass(frozen=True)
class Parts:
    """Replaced one by one by mistakes, which the simulation must then find."""

    terms: Callable[..., Terms] = Terms
    memory: Callable[..., Memory] = Memory
    holder: Callable[..., Holder] = Holder
    sessions: Callable[..., Sessions] = Sessions
    membership: Callable[..., TwinMembership] = TwinMembership
    registry: Callable[..., TwinRegistry] = TwinRegistry
    renewing: Callable[..., Renewing] = Renewing
    promotions: Callable[..., Promotions] = Promotions
    waiting: Callable[..., Waiting] = Waiting
    confirming: Callable[..., Confirming] = Confirming
    changes: Callable[..., TwinChanges] = TwinChanges
    lookups: Callable[..., Lookups] = Lookups
    asynchronous: frozenset[str] = frozenset()
    """Statements whose commits the database does not make durable at once."""


REAL: Any = Parts()
