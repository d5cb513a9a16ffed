"""The tests of the server itself, with the fake: what they find as `deployment` is one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

import pytest

from keysvc.settings import Settings
from keysvc_client.testing import FakeKeysvc
from tests.client.conftest import _bare_environment, client, connect, kind, operator
from tests.deployment import Deployment

__all__ = ["_bare_environment", "client", "connect", "kind", "operator"]
"""Fixtures of the client library's tests."""


def the_tests_of(module: ModuleType, *without: str) -> dict[str, Any]:
    """The tests of a module and their fixtures.

    Parameters:
        without: tests that ask for more than the fake covers.
    """
    found = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    for name in without:
        del found[name]
    assert any(name.startswith("test_") for name in found)
    return found


@pytest.fixture
def fake() -> Iterator[FakeKeysvc]:
    """A fake."""
    with FakeKeysvc() as fake:
        yield fake


@pytest.fixture
async def deployment(fake: FakeKeysvc) -> AsyncIterator[Deployment]:
    """The fake, as tests know a server."""
    settings = Settings(needs_peppers=False)
    async with AsyncExitStack() as stack:
        yield Deployment(stack, settings, fake.address, fake.operator_key)
