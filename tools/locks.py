"""The locks under requirements/: `write` resolves them, `check` tells whether their inputs have changed since.

Every lock records the SHA-256 of exactly what the resolver was given, so `check` needs no resolver and no network.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

FOLDER = Path("requirements")
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())
PYTHON = PROJECT["project"]["requires-python"].removeprefix(">=")
OPTIONS = ("--universal", "--python-version", PYTHON, "--generate-hashes", "--no-annotate")
MARK = "# inputs sha256: "

BUILD = tuple(PROJECT["build-system"]["requires"])
BASE = tuple(PROJECT["project"]["dependencies"])
EXTRAS = {extra: tuple(needs) for extra, needs in PROJECT["project"]["optional-dependencies"].items()}


def wanted(name: str) -> tuple[str, ...]:
    """The lines of requirements/NAME.in that are not comments."""
    lines = (FOLDER / f"{name}.in").read_text().splitlines()
    return tuple(line for raw in lines if (line := raw.partition("#")[0].strip()))


SERVER = (*BASE, *EXTRAS["server"], *wanted("pins"))
ANY_GRPCIO = tuple(need for need in EXTRAS["server"] if not need.startswith("grpcio>="))
RUN = (*SERVER, *EXTRAS["embedded"], *BUILD)

# `dev` holds all others but these and is resolved first: they take its versions.
ALONE = frozenset({"proto", "newest", "oldest"})
LOCKS = {
    "dev": (*RUN, *wanted("dev")),
    "run": RUN,
    "server": SERVER,
    "build": BUILD,
    "bench": wanted("bench"),
    "proto": wanted("proto"),
    # Without the pins.
    "oldest": (*ANY_GRPCIO, *EXTRAS["embedded"], *BUILD, *wanted("newest"), *wanted("oldest")),
    "newest": (*BASE, *EXTRAS["server"], *EXTRAS["embedded"], *BUILD, *wanted("newest")),
}


def digest(name: str) -> str:
    """SHA-256, in hex, of the options and requirements that the lock is resolved from."""
    return hashlib.sha256("\n".join((*OPTIONS, *LOCKS[name])).encode()).hexdigest()


def write(name: str, *, upgrade: bool) -> None:
    """Resolve one lock, keeping the versions it has unless `upgrade`."""
    lock = FOLDER / f"{name}.txt"
    command = ["uv", "pip", "compile", "-", "--quiet", "--no-config", *OPTIONS, "--output-file", str(lock)]
    command += ["--custom-compile-command", "make lock"]
    if name not in {"dev", *ALONE}:
        command += ["--constraint", str(FOLDER / "dev.txt")]
    if upgrade:
        command += ["--upgrade"]
    subprocess.run(command, input="\n".join(LOCKS[name]), text=True, check=True)
    lock.write_text(f"{MARK}{digest(name)}\n{lock.read_text()}")
    print(f"   {lock}")


def stale(name: str) -> bool:
    """Whether the lock is missing or was made from other inputs than today's."""
    lock = FOLDER / f"{name}.txt"
    return not lock.exists() or not lock.read_text().startswith(f"{MARK}{digest(name)}\n")


def main() -> int:
    """Do what the command line says; 1 if a lock is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["write", "check"])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if arguments.action == "write":
        for name in LOCKS:
            write(name, upgrade=arguments.upgrade)
        return 0
    if found := [name for name in LOCKS if stale(name)]:
        print(f"Out of date: {', '.join(f'requirements/{name}.txt' for name in found)}. Run `make lock`.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
