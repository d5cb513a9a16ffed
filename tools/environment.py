"""Make a virtual environment, or say in one sentence why it cannot be made or used.

The Makefile runs this with whatever `python3` there is, so it keeps to what Python 3.6 understands.
"""

import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
PROBE = "import sys, pip; print(*sys.version_info[:2])"


def fault_of_this_python() -> str:
    """Why the Python that runs this cannot make an environment; empty if it can."""
    if sys.version_info[:2] < OLDEST:
        found = "{}.{}".format(*sys.version_info)
        return f"keysvc needs Python 3.11 or newer, and {sys.executable} is {found}: try `make PYTHON=python3.11 …`."
    try:
        import ensurepip  # noqa: F401, PLC0415  Debian ships it apart
    except ImportError:
        return f"{sys.executable} cannot make virtual environments: on Debian and Ubuntu, install python3-venv."
    return ""


def fault_of(folder: Path) -> str:
    """Why the environment in the folder cannot be used; empty if it can."""
    cure = "run `make clean`, then try again."
    try:
        probed = subprocess.check_output([str(folder / "bin/python"), "-c", PROBE], stderr=subprocess.DEVNULL)
        script = (folder / "bin/pip").read_text(encoding="utf-8")
    except (OSError, subprocess.CalledProcessError):
        return f"{folder} is broken (its Python or its pip is gone): {cure}"
    if tuple(map(int, probed.split())) < OLDEST:
        return f"{folder} holds Python {'.'.join(probed.decode().split())}, too old for keysvc: {cure}"
    if str(Path.cwd() / folder) not in script:
        return f"{folder} was made in another place and still points there: {cure}"
    return ""


def make(folder: Path) -> str:
    """Make an environment in the folder; why it could not be made, empty if it was."""
    fault = fault_of_this_python()
    if fault:
        return fault
    print(f"Making {folder} with Python {sys.version.split()[0]} …", flush=True)
    if subprocess.call([sys.executable, "-m", "venv", str(folder)]):
        shutil.rmtree(str(folder), ignore_errors=True)
        return f"{sys.executable} could not make {folder}; its reason is above."
    return ""


if __name__ == "__main__":
    wanted = Path(sys.argv[1])
    sys.exit((fault_of(wanted) if wanted.exists() else make(wanted)) or 0)
