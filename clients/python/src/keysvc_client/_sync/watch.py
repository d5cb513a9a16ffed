"""Work in flight is told when its key is revoked."""

from time import sleep
from collections.abc import Callable
from typing import Final, Protocol

from keysvc_client.errors import KeysvcError
from keysvc_client.leasing.answers import boottime
from keysvc_client.verification import Verification

LOOK_SECONDS: Final = 0.2
"""So often it is looked whether a key is still good. That asks memory, unless something has changed."""

ASK_SECONDS: Final = 2.0
"""The same while there is no lease, so that it asks the service."""


class _Ask(Protocol):
    def __call__(self) -> Verification:
        """What the service answers now."""
        ...


class Watch:
    """Looks whether what was presented would still be VALID; made by `KeysvcClient.watch`.

    Parameters:
        find: the answer from memory, not counted; None: there is none.
        ask: the service, which counts it.
    """

    def __init__(self, find: Callable[[], Verification | None], ask: _Ask) -> None:
        self._find = find
        self._ask = ask

    def refusal(self) -> Verification | None:
        """How it would be refused now; None: it is still VALID. From memory, unless something of it has changed.

        Raises:
            KeysvcError: no judgement was made.
        """
        answer = self._find()
        if answer is None:
            answer = self._ask()
        return None if answer.valid else answer

    def wait(self, timeout: float | None = None) -> Verification | None:
        """Wait until it would be refused, and say how; None: it was not, for so many seconds.

        A change is noticed within a quarter of a second after it is true here. While no judgement is made, as during an
        outage, the wait goes on.
        """
        ends_at = float("inf") if timeout is None else boottime() + timeout
        while True:
            try:
                refusal = self.refusal()
            except KeysvcError:
                refusal = None
            left = ends_at - boottime()
            if refusal is not None or left <= 0:
                return refusal
            sleep(min(ASK_SECONDS if self._find() is None else LOOK_SECONDS, left))
