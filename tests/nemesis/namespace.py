"""A network namespace with a way to PostgreSQL that can swallow everything, as a broken network does."""

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

from tests.nemesis.cluster import Site

MISSING_ROOT = "network namespaces need root"
MISSING_IP = "there is no `ip` to make network namespaces with"


def why_not() -> str:
    """Why there can be no namespace here; empty: there can."""
    if os.geteuid() != 0:
        return MISSING_ROOT
    if shutil.which("ip") is None:
        return MISSING_IP
    name = f"kn{secrets.token_hex(4)}"
    done = _ip("netns", "add", name, check=False)
    if done.returncode:
        return f"`ip netns add` fails here: {done.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


@dataclass
class Apart:
    """A namespace for a server, and another one for a router on the way to it.

    The server is reached at one address, and reaches PostgreSQL at another one: the router can swallow what goes there.
    """

    token: str = field(default_factory=lambda: secrets.token_hex(3))
    number: int = field(default_factory=lambda: secrets.randbelow(250))

    @property
    def _router(self) -> str:
        return f"kn{self.token}r"

    @property
    def _place(self) -> str:
        return f"kn{self.token}s"

    def _address(self, last: int) -> str:
        return f"10.217.{self.number}.{last}"

    def open(self) -> None:
        """Make it."""
        ours, near, far, theirs = (f"kn{self.token}{each}" for each in "abcd")
        for name in (self._router, self._place):
            _ip("netns", "add", name)
        _ip("link", "add", ours, "type", "veth", "peer", "name", near, "netns", self._router)
        _ip("link", "add", far, "netns", self._router, "type", "veth", "peer", "name", theirs, "netns", self._place)
        _ip("address", "add", f"{self._address(1)}/30", "dev", ours)
        _ip("address", "add", f"{self._address(9)}/32", "dev", ours)
        _ip("link", "set", ours, "up")
        _ip("route", "add", f"{self._address(4)}/30", "via", self._address(2))
        self._in(self._router, "address", "add", f"{self._address(2)}/30", "dev", near)
        self._in(self._router, "address", "add", f"{self._address(5)}/30", "dev", far)
        for interface in (near, far):
            self._in(self._router, "link", "set", interface, "up")
        self._in(self._router, "route", "add", self._address(9), "via", self._address(1))
        _run("ip", "netns", "exec", self._router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._in(self._place, "address", "add", f"{self._address(6)}/30", "dev", theirs)
        for interface in (theirs, "lo"):
            self._in(self._place, "link", "set", interface, "up")
        self._in(self._place, "route", "add", "default", "via", self._address(5))

    def close(self) -> None:
        """Remove it; its interfaces and routes go with it."""
        for name in (self._place, self._router):
            _ip("netns", "del", name, check=False)
        _ip("link", "del", f"kn{self.token}a", check=False)

    def site(self, name: str) -> Site:
        """How to start a server in it."""
        program = ("ip", "netns", "exec", self._place, sys.executable, "-m", "keysvc")
        return Site(name, True, program, host=self._address(6), link_host=self._address(9))

    def swallow(self) -> None:
        """Let everything that goes to PostgreSQL disappear without a word."""
        self._in(self._router, "route", "replace", "blackhole", self._address(9))

    def restore(self) -> None:
        """Let it arrive again."""
        self._in(self._router, "route", "replace", self._address(9), "via", self._address(1))

    def _in(self, namespace: str, *words: str) -> None:
        _ip("-netns", namespace, *words)


def _ip(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return _run("ip", *words, check=check)


def _run(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=20)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done
