"""Whom a request is from."""

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Final

from keysvc.core.scope import grants_cover
from keysvc_client.middleware.refusals import FORBIDDEN, Refusal, Refusals
from keysvc_client.values import Environment
from keysvc_client.verification import Verification

UNIDENTIFIED: Final = "no key was verified for this request: is the middleware there, and the path not public?"

_FORBIDDEN: Final = Refusals("authorization", "api").by_status[FORBIDDEN]


class Principal:
    """Whom a request is from: the key that it presented, which is valid.

    Parameters:
        verification: what keysvc has answered.
        request_id: of the request; in its answer and in the log too.
        forbidden: how the request is refused if its route needs more than the key has.
    """

    __slots__ = ("forbidden", "request_id", "verification")

    def __init__(self, verification: Verification, request_id: str = "", forbidden: Refusal = _FORBIDDEN) -> None:
        self.verification: Final = verification
        self.request_id: Final = request_id
        self.forbidden: Final = forbidden

    def __repr__(self) -> str:
        """The key, and its workspace."""
        return f"Principal({self.key_id!r}, workspace={self.workspace!r})"

    def grants(self, *scopes: str) -> bool:
        """Whether the key has all of these scopes."""
        granted = self.verification.scopes
        return all(grants_cover(granted, scope) for scope in scopes)

    @property
    def key_id(self) -> str:
        """The key."""
        return self.verification.key_id

    @property
    def secret_id(self) -> str:
        """Which secret of the key was presented."""
        return self.verification.secret_id

    @property
    def workspace(self) -> str:
        """The tenant, whose data the request may touch."""
        return self.verification.workspace

    @property
    def environment(self) -> Environment | None:
        """Of the key."""
        return self.verification.environment

    @property
    def owner(self) -> str:
        """Of the key."""
        return self.verification.owner

    @property
    def scopes(self) -> tuple[str, ...]:
        """What is granted in effect: plain scopes and patterns such as `pdf.*`. `grants` knows what they mean."""
        return self.verification.scopes

    @property
    def role(self) -> str:
        """Of the key."""
        return self.verification.role

    @property
    def metadata(self) -> Mapping[str, str]:
        """Of the key; it cannot be changed."""
        return self.verification.metadata

    @property
    def expire_time(self) -> datetime | None:
        """When the key expires; None: never."""
        return self.verification.expire_time

    @property
    def retire_time(self) -> datetime | None:
        """When the presented secret retires; None: it does not."""
        return self.verification.retire_time

    # What Starlette expects of `request.user`.

    @property
    def is_authenticated(self) -> bool:
        """Yes: otherwise there is no principal."""
        return True

    @property
    def display_name(self) -> str:
        """The owner of the key, or the key."""
        return self.owner or self.key_id

    @property
    def identity(self) -> str:
        """The key."""
        return self.key_id


principal_of_this_request: Final[ContextVar[Principal | None]] = ContextVar("keysvc_principal", default=None)


def current_principal() -> Principal:
    """Whom the request is from that is being served, in whatever framework.

    Raises:
        LookupError: nobody, since no middleware has verified a key for it.
    """
    principal = principal_of_this_request.get()
    if principal is None:
        raise LookupError(UNIDENTIFIED)
    return principal
