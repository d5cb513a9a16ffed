import asyncio
import re
from pathlib import Path

import pytest

from tests.deployment import Deployment
from tests.guides.guide import GUIDES, problems
from tests.process.running import Serving, short_folder

pytestmark = pytest.mark.timeout(180)  # some twenty commands, each a process of its own


def test_the_first_integration_from_an_empty_machine(tmp_path: Path) -> None:
    """With the operator key that a server prints on its terminal when it starts for the first time."""
    with short_folder() as folder, Serving("--data-dir", folder / "data", terminal=True) as server:
        address = server.ready()
        pasted = re.search(r"export KEYSVC_API_KEY=(\S+)", server.out)
        assert pasted, server.out
        found = problems(GUIDES / "first-integration.md", tmp_path, address, pasted[1])
    assert not found, "\n\n".join(found)


@pytest.mark.parametrize("name", ["rotation", "leaked-key", "protect-a-grpc-service"])
async def test_a_guide_does_what_it_says(deployment: Deployment, tmp_path: Path, name: str) -> None:
    """Every block as it is written."""
    guide = GUIDES / f"{name}.md"
    found = await asyncio.to_thread(problems, guide, tmp_path, deployment.address, deployment.operator_key)
    assert not found, "\n\n".join(found)
