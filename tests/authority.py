"""Certificates for tests, made by OpenSSL."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

NEEDS_OPENSSL = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="there is no openssl to make certificates with"
)


class Authority(NamedTuple):
    """Who signs certificates: a certificate and its key in a folder."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        """Its certificate, for those who trust it."""
        return self.folder / f"{self.name}.pem"

    @classmethod
    def create(cls, folder: Path, name: str) -> "Authority":
        """Make one."""
        authority = cls(folder, name)
        openssl("req", "-x509", "-new", *new_key(folder, name), "-out", authority.certificate, "-subj", f"/CN={name}")
        return authority

    def sign(self, name: str, *, names: str = "IP:127.0.0.1", common_name: str = "") -> tuple[Path, Path]:
        """Make a certificate for the holder of a new key; both. ``names``: alternative ones; empty: none."""
        request, certificate = self.folder / f"{name}.csr", self.folder / f"{name}.pem"
        openssl("req", "-new", *new_key(self.folder, name), "-out", request, "-subj", f"/CN={common_name or name}")
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n" if names else "")
        signer = ("-CA", self.certificate, "-CAkey", self.folder / f"{self.name}.key", "-CAcreateserial")
        openssl("x509", "-req", "-in", request, "-out", certificate, "-extfile", extensions, *signer)
        return certificate, self.folder / f"{name}.key"


def new_key(folder: Path, name: str) -> tuple[str | Path, ...]:
    """The options that make a key."""
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", folder / f"{name}.key"


def openssl(*arguments: str | Path) -> None:
    """Run OpenSSL."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=20)
