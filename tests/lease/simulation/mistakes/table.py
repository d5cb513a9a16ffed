"""All mistakes, by name."""

from typing import Final

from tests.lease.simulation.mistakes.holding import HOLDING
from tests.lease.simulation.mistakes.membership import MEMBERSHIP
from tests.lease.simulation.mistakes.mistake import Mistake
from tests.lease.simulation.mistakes.waiting import WAITING

MISTAKES: Final[dict[str, Mistake]] = {mistake.name: mistake for mistake in (*HOLDING, *MEMBERSHIP, *WAITING)}
