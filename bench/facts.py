"""What the figures are of: machine, versions, commit."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg

_CPUINFO: Final = Path("/proc/cpuinfo")


def facts(url: str) -> dict[str, Any]:
    """What the figures are of.

    Parameters:
        url: of the database.
    """
    with psycopg.connect(url) as connection:
        version = connection.info.parameter_status("server_version")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _told(["git", "describe", "--always", "--dirty", "--abbrev=12"]),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs{_model()}",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "grpcio": importlib.metadata.version("grpcio"),
        "protobuf": importlib.metadata.version("protobuf"),
        "postgresql": version,
        "go": _told(["go", "env", "GOVERSION"]),
    }


def _told(command: list[str]) -> str:
    """What a program prints."""
    try:
        done = subprocess.run(  # noqa: S603 (fixed commands)
            command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _model() -> str:
    """The processors' name, where the system tells it."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    return next((f" ({line.partition(':')[2].strip()})" for line in lines if line.startswith("model name")), "")
