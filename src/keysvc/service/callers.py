"""Callers: who calls our RPCs, and what they may do and grant.

A caller is a key of ``keysvc/system``; its permissions are its scopes. Without a key, it is a name of its certificate
that the operators of the server gave permissions to.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from keysvc.core.address import Address
from keysvc.core.audit import Stamp
from keysvc.core.certificate import Certificate
from keysvc.core.certificate_callers import AmbiguousCertificateError, CertificateCallers
from keysvc.core.errors import NotFound, PermissionDenied, Unauthenticated
from keysvc.core.key import Key, State
from keysvc.core.keystring import KeyString
from keysvc.core.permission import Permission
from keysvc.core.scope import granted, grants_cover
from keysvc.core.verdict import Presentation, Profile, Record, Verdict
from keysvc.core.workspace import SYSTEM_WORKSPACE
from keysvc.lease.holder import Footing
from keysvc.service.verifying import Unknown, Verifying

FOREIGN_TOLD_MAX: Final = 10

_BEARER: Final = "Bearer "

CERTIFICATE_PREFIX: Final = "tls:"
"""Before the name of a caller without a key: neither a key id nor ``bootstrap`` begins like this."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Parameters:
        name: key id of the caller's key, ``tls:`` and the name of its certificate, or ``bootstrap``.
        grants: its permissions, and what else it may grant.
        workspaces: where it may work; empty: everywhere.
    """

    name: str
    grants: tuple[str, ...]
    workspaces: tuple[str, ...] = ()

    def may(self, permission: Permission) -> bool:
        """Whether it has a permission; an operator has all."""
        return _may(self.grants, permission)

    def sees(self, workspace: str) -> bool:
        """Whether it is allowed to know of a workspace."""
        return not self.workspaces or workspace in self.workspaces

    def check_sees(self, workspace: str) -> None:
        """Raise ``NotFound`` for a workspace that it is not allowed to know of."""
        if not self.sees(workspace):
            raise workspace_not_found(workspace)

    def check_operator(self, workspace: str) -> None:
        """Raise ``PermissionDenied`` unless it may change what belongs to this workspace."""
        # A limited operator could otherwise make itself another one without limits.
        if workspace == SYSTEM_WORKSPACE and (self.workspaces or not self.may(Permission.OPERATOR)):
            raise PermissionDenied(f"only an operator that is not limited changes {SYSTEM_WORKSPACE} and its keys")

    def check_holds(self, grants: Iterable[str]) -> None:
        """Raise ``PermissionDenied`` for grants that it does not hold itself."""
        if self.may(Permission.OPERATOR):
            return
        foreign = [grant for grant in grants if not grants_cover(self.grants, grant)]
        if foreign:
            told = ", ".join(foreign[:FOREIGN_TOLD_MAX])
            more = f" and {len(foreign) - FOREIGN_TOLD_MAX} more" if len(foreign) > FOREIGN_TOLD_MAX else ""
            raise PermissionDenied(f"a caller cannot grant what it does not hold: {told}{more}")


@lru_cache(maxsize=1024)
def _may(grants: tuple[str, ...], permission: Permission) -> bool:
    """Whether grants give a permission. Remembered: it is asked in every call."""
    return grants_cover(grants, permission) or grants_cover(grants, Permission.OPERATOR)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an RPC.

    Parameters:
        method: such as ``keysvc.v1.KeyService/Revoke``.
        request_id: the call's ``x-request-id``.
        source_ip: address of the caller; empty: not from the network.
        time_left: in how many seconds the caller stops waiting; None: never.
    """

    caller: Caller
    method: str
    request_id: str
    source_ip: str
    time_left: Callable[[], float | None] = lambda: None

    def stamp(self, reason: str = "") -> Stamp:
        """What the audit event of a change made by this call says."""
        return Stamp(uuid4(), self.caller.name, self.method, self.request_id, self.source_ip, reason)


class Recalled(NamedTuple):
    """A caller whose key is remembered.

    Parameters:
        record: of its key.
        ends_at: until then it need not be judged again, if nothing changes.
    """

    caller: Caller
    record: Record
    ends_at: datetime


class Callers:
    """Authenticates callers.

    Parameters:
        verifying: judges their keys.
        certificates: those that need no key; None: everybody needs one.
    """

    def __init__(self, verifying: Verifying, certificates: CertificateCallers | None = None) -> None:
        self._verifying = verifying
        self._certificates = certificates

    def replace_certificates(self, certificates: CertificateCallers) -> None:
        """Let others do without a key, from the next call on."""
        self._certificates = certificates

    def identify(self, certificate: Certificate | None) -> Caller:
        """The caller of a call without ``authorization`` metadata.

        Parameters:
            certificate: that the client has proved to hold.

        Raises:
            Unauthenticated: it has none, or none that names a caller; what its certificate lacks is told, since whoever
                has one is no stranger.
        """
        if self._certificates is None or certificate is None:
            raise _no_caller()
        try:
            found = self._certificates.find(certificate)
        except AmbiguousCertificateError:
            raise Unauthenticated("the certificate has the names of several callers, so it is none of them") from None
        if found is None:
            raise Unauthenticated(
                f"no name of the certificate is a caller, and there is no key of {SYSTEM_WORKSPACE} "
                "as metadata authorization: Bearer …"
            )
        return Caller(f"{CERTIFICATE_PREFIX}{found.name}", found.grants, found.workspaces)

    async def authenticate(self, authorization: str | None, source_ip: Address | None) -> Caller:
        """The caller that a value of ``authorization`` metadata proves.

        Raises:
            Unauthenticated: it proves none; the reason is not told.
            Unavailable: it could not be judged.
        """
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            key_string = KeyString(text.strip())
            answer = await self._verifying.verify(Presentation(key_string, SYSTEM_WORKSPACE, source_ip=source_ip))
            if answer.verdict is Verdict.VALID and answer.record is not None:
                return _caller(answer.record.key_id, answer.record.profile)
        raise _no_caller()

    def recall(self, authorization: str, footing: Footing) -> Recalled | None:
        """As ``authenticate``, from memory and not counted yet; None: not without knowing more.

        Parameters:
            footing: of just now.
        """
        if not authorization.startswith(_BEARER):
            return None
        key_string = KeyString(authorization[len(_BEARER) :])
        mark, derived = self._verifying.mark(key_string.reveal()), self._verifying.memory.derived
        recalled: Recalled | None = derived.get(mark)
        if recalled is not None and footing.at < recalled.ends_at:
            return recalled
        answer = self._verifying.recall(Presentation(key_string, SYSTEM_WORKSPACE), (), footing)
        if isinstance(answer, Unknown) or answer.verdict is not Verdict.VALID or answer.record is None:
            return None
        record = answer.record
        recalled = Recalled(_caller(record.key_id, record.profile), record, record.ends_at)
        derived[mark] = recalled
        return recalled


@lru_cache(maxsize=1024)
def _caller(key_id: int, profile: Profile) -> Caller:
    """The caller that a key is of."""
    return Caller(str(UUID(int=key_id)), profile.grants, profile.workspaces)


def _no_caller() -> Unauthenticated:
    """Nobody that we know; the same answer for everybody."""
    return Unauthenticated(f"a caller must send a valid key of {SYSTEM_WORKSPACE} as metadata authorization: Bearer …")


def is_usable_operator(key: Key) -> bool:
    """Whether a caller key can be used to administer everything."""
    return (
        key.is_caller
        and key.state is State.ACTIVE
        and not key.workspaces
        and grants_cover(granted(key.role, key.scopes, {}), Permission.OPERATOR)
        and any(secret.state(key.at) is State.ACTIVE for secret in key.secrets)
    )


def workspace_not_found(name: str) -> NotFound:
    """No such workspace, or none that the caller may know of: the same answer."""
    return NotFound(f"workspace {name} not found", workspace=name)


def key_not_found(key_id: UUID) -> NotFound:
    """No such key, or none that the caller may know of: the same answer."""
    return NotFound(f"key {key_id} not found", key_id=str(key_id))
