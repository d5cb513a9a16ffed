"""A server, and where the tools find the key of its operator."""

from pathlib import Path

import pytest

from tests.deployment import Deployment


@pytest.fixture
def header(deployment: Deployment, tmp_path: Path) -> Path:
    """A file with the header of an operator's calls."""
    header = tmp_path / "header"
    header.touch(mode=0o600)
    header.write_text(f"authorization: Bearer {deployment.operator_key}\n")
    return header
