"""Fixtures of pytest for services that use keysvc: a fake in memory, and a real server.

pytest loads this in every run, so nothing else is loaded before a test asks for a fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from keysvc_client import KeysvcClient
    from keysvc_client.testing import FakeKeysvc
    from pytest_keysvc.server import KeysvcServer


@pytest.fixture
def fake_keysvc() -> "Iterator[FakeKeysvc]":
    """A new keysvc in memory for each test. Needs `keysvc-client[testing]`."""
    from keysvc_client.testing import FakeKeysvc  # noqa: PLC0415 (only for those who want it)

    with FakeKeysvc() as fake:
        yield fake


@pytest.fixture(scope="session")
def keysvc_server() -> "Iterator[KeysvcServer]":
    """A real keysvc on a PostgreSQL of its own, one for all tests. Needs `keysvc[server,embedded]`."""
    from pytest_keysvc.server import serving  # noqa: PLC0415 (as above)

    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def keysvc_operator(keysvc_server: "KeysvcServer") -> "Iterator[KeysvcClient]":
    """A client of `keysvc_server` that may do everything."""
    from keysvc_client import KeysvcClient  # noqa: PLC0415 (as above)

    with KeysvcClient(keysvc_server.address, api_key=keysvc_server.operator_key, tls=False) as client:
        yield client


@pytest.fixture(scope="session")
def keysvc_client(keysvc_server: "KeysvcServer", keysvc_operator: "KeysvcClient") -> "Iterator[KeysvcClient]":
    """A client of `keysvc_server` that may verify."""
    from keysvc_client import KeysvcClient  # noqa: PLC0415 (as above)

    caller = keysvc_operator.keys.create(
        workspace="keysvc/system", display_name="a caller", environment="live", scopes=["verify"]
    )
    with KeysvcClient(keysvc_server.address, api_key=caller.key_string, tls=False) as client:
        yield client
