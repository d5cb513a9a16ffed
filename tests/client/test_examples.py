"""The examples of the READMEs, with the library and with the generated stubs alone: they run, and their types hold."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keysvc_client.testing import FakeKeysvc
from tests.process.running import environment

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

EXAMPLES = {
    f"{readme.removesuffix('.md')}-{number}": text
    for readme in ("README.md", "clients/python/README.md")
    for number, text in enumerate(BLOCK.findall((ROOT / readme).read_text()), 1)
}

BEFORE = """import grpc
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub
from keysvc.v1.verify_pb2 import VERDICT_VALID, VerifyRequest

caller_key: str = {caller!r}
presented: str = {presented!r}

"""
"""What the examples have from elsewhere; the shorter ones say in comments where their names are from."""

NOT_IN_THE_BASE = (
    "structlog",
    "cryptography",
    "google.rpc",
    "sqlalchemy",
    "psycopg",
    "alembic",
    "typer",
    "rich",
    "uvloop",
)
NOT_IN_THE_FAKE = ("sqlalchemy", "psycopg", "alembic", "typer", "rich", "uvloop", "grpc_health", "grpc_reflection")


def run_without(modules: tuple[str, ...], code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python as where some modules are not installed."""
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n"
    command = [sys.executable, "-W", "error", "-c", blocked + code]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=50, check=False)


def test_there_are_examples_of_both() -> None:
    """With the library and with the stubs, in both READMEs."""
    assert len(EXAMPLES) == 4
    assert sum("KeysvcClient" in text for text in EXAMPLES.values()) == 2
    assert sum("KeyServiceStub" in text for text in EXAMPLES.values()) == 2


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_says(name: str) -> None:
    """A key that may read is valid, and nothing else is needed than what the base install brings."""
    with FakeKeysvc() as fake:
        presented = fake.create_key(scopes=["pdf.read"])
        before = BEFORE.format(caller=fake.create_caller(), presented=presented)
        code = before + EXAMPLES[name].replace("127.0.0.1:50051", fake.address)
        after = "\nprint('found', verification.valid if 'verification' in dir() else answer.verdict == 1)\n"
        ran = run_without(NOT_IN_THE_BASE, code + after)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "found True", ran.stdout


@pytest.mark.timeout(180)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_the_types_of_the_examples_hold(tmp_path: Path) -> None:
    """As a reader sees them who checks types strictly; and a mistake in one is seen."""
    files = {
        name.replace("/", "_").replace("-", "_"): BEFORE.format(caller="", presented="") + text
        for name, text in EXAMPLES.items()
    }
    files["mistake"] = BEFORE.format(caller="", presented="") + "VerifyRequest(key_strin=presented)\n"
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", "."]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    errors = [line for line in ran.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, ran.stdout + ran.stderr
    assert errors[0].startswith("mistake.py:")
    assert "key_strin" in errors[0]


def test_the_stubs_are_usable_alone() -> None:
    """All of them load with grpcio and protobuf, and load nothing else of keysvc."""
    names = sorted(path.stem for path in (ROOT / "src/keysvc/v1").glob("*_pb2*.py"))
    code = "".join(f"import keysvc.v1.{name}\n" for name in names)
    code += "assert {n for n in sys.modules if n.startswith('keysvc')} <= "
    code += f"{ {'keysvc', 'keysvc.v1', *(f'keysvc.v1.{name}' for name in names)}!r}\n"
    ran = run_without(NOT_IN_THE_BASE, code)
    assert ran.returncode == 0, ran.stderr
    assert len(names) > 10


def test_the_fake_needs_no_server() -> None:
    """It runs with what `keysvc-client[testing]` brings: no database, no command line, nothing of either."""
    code = "from keysvc_client.testing import FakeKeysvc\n"
    code += "with FakeKeysvc() as fake: assert fake.client().verify(fake.create_key()).valid\n"
    ran = run_without(NOT_IN_THE_FAKE, code)
    assert ran.returncode == 0, ran.stderr
    missing = run_without(("cryptography",), code)
    assert "install keysvc-client[testing]" in missing.stderr
