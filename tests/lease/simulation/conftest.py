"""What goes wrong in a simulation goes wrong on purpose, thousands of times: the log says nothing of it."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _silence() -> Iterator[None]:
    """Log nothing."""
    logger = logging.getLogger("keysvc")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)
