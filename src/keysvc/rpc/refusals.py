"""The log of refusals.

Only those of proved secrets are logged: anybody can make others, and could fill the log with them. But a service that
goes on with a revoked key could do that too, so of each secret each verdict is logged once a minute. Usage counts all.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

import structlog

from keysvc.core.verdict import Verdict
from keysvc.service.callers import Caller
from keysvc.service.verifying import Answer

AGAIN_SECONDS: Final = 60.0

REMEMBERED_MAX: Final = 10_000
"""When so many have been logged all are forgotten, and may be logged again."""

_log = structlog.get_logger("keysvc.verify")


class Refusals:
    """Knows which refusals have been logged.

    Parameters:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[tuple[str, Verdict], float] = {}

    def find(self, answers: Iterable[Answer]) -> list[Answer]:
        """Those of some answers that are to be logged, now."""
        return [each for each in answers if each.verdict is not Verdict.VALID and self._is_due(each)]

    def _is_due(self, answer: Answer) -> bool:
        """Whether a refusal is to be logged; if it is, the same one is not for a while."""
        if answer.record is None:
            return False
        name, now = (answer.record.secret_id, answer.verdict), self._clock()
        if now < self._logged.get(name, -math.inf) + AGAIN_SECONDS:
            return False
        if len(self._logged) >= REMEMBERED_MAX:
            self._logged.clear()
        self._logged[name] = now
        return True


def log_refusals(answers: Iterable[Answer], caller: Caller) -> None:
    """Log some refusals of proved secrets."""
    for answer in answers:
        if answer.record is not None:
            _log.info(
                "key refused",
                verdict=answer.verdict.name,
                key_id=str(UUID(int=answer.record.key_id)),
                workspace=answer.record.home.name,
                caller=caller.name,
            )
