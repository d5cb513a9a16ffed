"""TLS and certificates of clients, on a real port, as the command line sees them."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.process.running import Serving, copy_of, refusal, run, short_folder

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make certificates with"),
    pytest.mark.timeout(180),  # on a busy machine each of many processes takes its time
]


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

    def sign(self, name: str, *, names: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """Make a certificate for the holder of a new key; both."""
        request, certificate = self.folder / f"{name}.csr", self.folder / f"{name}.pem"
        openssl("req", "-new", *new_key(self.folder, name), "-out", request, "-subj", f"/CN={name}")
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n")
        signer = ("-CA", self.certificate, "-CAkey", self.folder / f"{self.name}.key", "-CAcreateserial")
        openssl("x509", "-req", "-in", request, "-out", certificate, "-extfile", extensions, *signer)
        return certificate, self.folder / f"{name}.key"


def new_key(folder: Path, name: str) -> tuple[str | Path, ...]:
    """The options that make a key."""
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", folder / f"{name}.key"


def openssl(*arguments: str | Path) -> None:
    """Run OpenSSL."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=20)


class Certificates(NamedTuple):
    """Two authorities, and what they have signed, for this machine and for clients."""

    authority: Authority
    client_authority: Authority
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    foreign_client: tuple[Path, Path]


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    """Certificates for this machine, and for clients of both authorities."""
    with short_folder() as folder:
        authority, client_authority = Authority.create(folder, "authority"), Authority.create(folder, "clients")
        yield Certificates(
            authority,
            client_authority,
            server=authority.sign("server"),
            client=client_authority.sign("client", names="DNS:client"),
            foreign_client=authority.sign("foreign", names="DNS:client"),
        )


class Deployed(NamedTuple):
    """A database with an operator, for servers of any kind."""

    variables: dict[str, str]
    operator_key: str


@pytest.fixture(scope="module")
def deployed(server_url: str, template_database: str) -> Iterator[Deployed]:
    """The same database for all servers of this module: TLS changes nothing in it."""
    with copy_of(server_url, template_database) as url:
        variables = {"KEYSVC_DATABASE_URL": url, "KEYSVC_PEPPERS": secrets.token_hex(32)}
        bootstrap = run("bootstrap", **variables)
        assert bootstrap.returncode == 0, bootstrap.stderr
        yield Deployed(variables, bootstrap.stdout.strip())


def pair(certificate: Path, key: Path) -> tuple[str, ...]:
    """The options of a server for a certificate."""
    return "--tls-cert", str(certificate), "--tls-key", str(key)


def presenting(certificate: tuple[Path, Path] | None) -> tuple[str | Path, ...]:
    """The options of a client for its certificate."""
    return () if certificate is None else ("--tls-client-cert", certificate[0], "--tls-client-key", certificate[1])


def keys_list(address: str, deployed: Deployed, *options: str | Path) -> "subprocess.CompletedProcess[str]":
    """Call the server by the command line; never a traceback."""
    arguments = ("keys", "list", "--address", address, "--timeout", "5s", *options)
    done = run(*arguments, KEYSVC_API_KEY=deployed.operator_key)
    assert "Traceback" not in done.stderr
    assert deployed.operator_key not in done.stdout + done.stderr
    return done


def test_tls_is_spoken_and_nothing_else(certificates: Certificates, deployed: Deployed) -> None:
    """With the right authority the command line works; otherwise a sentence says what to do."""
    with Serving(*pair(*certificates.server), **deployed.variables) as server:
        address = server.ready()
        assert "(TLS)" in server.out
        trusting = keys_list(address, deployed, "--tls-ca", certificates.authority.certificate)
        assert trusting.returncode == 0, trusting.stderr

        for options, sentence in {
            (): "--tls-ca",
            ("--tls",): "not trusted",
            ("--tls-ca", certificates.client_authority.certificate): "not trusted",
        }.items():
            refused = keys_list(address, deployed, *options)
            assert refused.returncode == 4
            assert sentence in refused.stderr
        elsewhere = keys_list(
            address.replace("127.0.0.1", "localhost"), deployed, "--tls-ca", certificates.authority.certificate
        )
        assert elsewhere.returncode == 4, "a certificate for one name is not believed under another"
        assert "another name" in elsewhere.stderr
        server.stop()


def test_certificates_of_clients_are_required_and_honoured(certificates: Certificates, deployed: Deployed) -> None:
    """With a client authority nobody gets as far as a call without a certificate that it has signed.

    Beyond loopback too, where TLS makes --allow-plaintext unnecessary.
    """
    options = (*pair(*certificates.server), "--tls-client-ca", certificates.client_authority.certificate)
    with Serving(*options, listen="0.0.0.0:0", **deployed.variables) as server:
        address = server.ready().replace("0.0.0.0", "127.0.0.1")
        trust = ("--tls-ca", certificates.authority.certificate)
        for certificate, code in ((certificates.client, 0), (certificates.foreign_client, 4), (None, 4)):
            done = keys_list(address, deployed, *trust, *presenting(certificate))
            assert done.returncode == code, done.stderr
            if certificate is None:
                assert "--tls-client-cert" in done.stderr
        no_caller = run("keys", "list", *trust, *presenting(certificates.client), KEYSVC_ADDRESS=address)
        assert no_caller.returncode == 1, "a certificate is no permission"
        assert "UNAUTHENTICATED" in no_caller.stderr
        server.stop()


@pytest.mark.parametrize("wrong", ["no-certificate", "no-private-key", "not-a-pair", "no-client-ca"])
def test_files_that_are_no_certificates_are_named(certificates: Certificates, deployed: Deployed, wrong: str) -> None:
    """A start with unusable files names the options, not the port, and shows nothing of a private key."""
    (certificate, key), (_, other_key) = certificates.server, certificates.client
    options, named = {
        "no-certificate": (pair(key, key), "KEYSVC_TLS_CERT"),
        "no-private-key": (pair(certificate, certificate), "KEYSVC_TLS_KEY"),
        "not-a-pair": (pair(certificate, other_key), "KEYSVC_TLS_KEY"),
        "no-client-ca": ((*pair(certificate, key), "--tls-client-ca", str(key)), "KEYSVC_TLS_CLIENT_CA"),
    }[wrong]
    refused = run("serve", "--listen", "127.0.0.1:0", *options, **deployed.variables)
    assert refused.returncode == 1
    assert key.read_text().splitlines()[1] not in refused.stderr
    reason = refusal(refused.stderr)
    assert named in reason
    assert "KEYSVC_LISTEN" not in reason
