"""What was asked of keysvc, what it answered, and when: all of it on one clock, that of whoever asked.

Times are seconds. The call began at ``invoke`` at the earliest and was answered at ``returned`` at the latest, which is
infinite where nobody knows what became of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple, Self

from keysvc.v1 import key_pb2, receipt_pb2, verify_pb2

REFUSING = frozenset({"REVOKING", "REVOKED"})
"""What a revoked secret is told to be; the second one is final."""


class Revision(NamedTuple):
    """A position in the log of changes."""

    epoch: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """What receipts and answers tell, which is opaque to everybody else."""
        epoch, _, seq = text.partition(".")
        return cls(epoch, int(seq))


class Question(NamedTuple):
    """What Verify was asked of a secret."""

    secret_id: str
    scopes: tuple[str, ...] = ()
    source_ip: str = ""


class Answer(NamedTuple):
    """What Verify said.

    Parameters:
        server: its name, and which of its lives it was: one that was started again remembers nothing. Of workers, which
            share an address, the process that the answer names.
        revision: None where the answer told none.
        level: `leased`, `at_least` or `strong`.
        at_least: with the second of these.
    """

    server: str
    question: Question
    invoke: float
    returned: float
    verdict: str
    revision: Revision | None
    basis: str = "MEMORY"
    level: str = "leased"
    at_least: Revision | None = None


@dataclass(frozen=True)
class Receipt:
    """What somebody got who changed something.

    Parameters:
        path: `ACK`, `TIMER`, or empty where the change was not complete.
        effective_by: of a change that was not: when it will be.
    """

    revision: Revision
    path: str = "ACK"
    effective_by: float | None = None
    unacknowledged: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: receipt_pb2.Receipt, wall: float) -> Self:
        """Read a message.

        Parameters:
            wall: what to add to times of this clock to get those that people know.
        """
        is_complete = message.state == receipt_pb2.Receipt.STATE_COMPLETE
        path = receipt_pb2.Receipt.Path.Name(message.path).removeprefix("PATH_")
        return cls(
            Revision.parse(message.revision),
            path if is_complete else "",
            None if is_complete else message.effective_by.ToNanoseconds() / 1e9 - wall,
            tuple(message.unacknowledged),
        )


@dataclass
class Change:
    """A call that changes something.

    Parameters:
        label: its reason, which no other call has: the audit event of the change tells it again.
        method: such as `Revoke`.
        key_id: empty: the workspace is changed.
        wanted: the fields of the request that matter here.
        returned: infinite, and no receipt: the change was made or not, or will be.
        refusal: the error that says that nothing was changed.
    """

    label: str
    server: str
    method: str
    workspace: str
    key_id: str
    wanted: Mapping[str, Any]
    invoke: float
    returned: float = inf
    receipt: Receipt | None = None
    refusal: str = ""

    @property
    def promised(self) -> tuple[float, Revision] | None:
        """From when on everybody answers with the change, and its revision; None: nobody said so."""
        if self.receipt is None:
            return None
        since = self.returned if self.receipt.effective_by is None else self.receipt.effective_by
        return since, self.receipt.revision


class Told(NamedTuple):
    """What Get, List or the answer to a change said of a secret: its own state, or its key's if that is revoked."""

    server: str
    secret_id: str
    invoke: float
    returned: float
    state: str


class Event(NamedTuple):
    """An audit event of a change.

    Parameters:
        label: the reason.
        revision: None: nothing that Verify depends on was changed.
    """

    label: str
    method: str
    workspace: str
    key_id: str
    secret_id: str
    revision: Revision | None


@dataclass(frozen=True)
class Key:
    """A key as it was created, with its first secret."""

    id: str
    workspace: str
    secret_id: str
    scopes: tuple[str, ...] = ()


@dataclass
class History:
    """All of it.

    Parameters:
        keys: by id.
        owners: the key of each secret that was ever presented.
        events: None where nobody has looked.
    """

    keys: dict[str, Key] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    events: list[Event] | None = None

    def secrets_of(self, key_id: str) -> list[str]:
        """The secrets of a key that were ever presented, the oldest first."""
        return [secret_id for secret_id, owner in self.owners.items() if owner == key_id]

    def ended_by(self, change: Change) -> list[str]:
        """The secrets that a revocation ends."""
        if secret_id := change.wanted.get("secret_id"):
            return [secret_id]
        return self.secrets_of(change.key_id)


def verdict_of(message: verify_pb2.VerifyResponse) -> str:
    """Such as `VALID`."""
    return verify_pb2.Verdict.Name(message.verdict).removeprefix("VERDICT_")


def basis_of(message: verify_pb2.VerifyResponse) -> str:
    """Such as `MEMORY`."""
    return verify_pb2.Basis.Name(message.basis).removeprefix("BASIS_")


def states_of(key: key_pb2.Key) -> Mapping[str, str]:
    """What a key says of each of its secrets."""
    whole = key_pb2.Key.State.Name(key.state).removeprefix("STATE_")
    return {
        secret.id: whole if whole in REFUSING else key_pb2.Key.State.Name(secret.state).removeprefix("STATE_")
        for secret in key.secrets
    }
