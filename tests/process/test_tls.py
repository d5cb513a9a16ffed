"""TLS and certificates of clients, on a real port, as the command line sees them."""

import secrets
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.authority import NEEDS_OPENSSL, Authority
from tests.process.running import Serving, copy_of, refusal, run, short_folder, until

pytestmark = [
    NEEDS_OPENSSL,
    pytest.mark.timeout(180),  # on a busy machine each of many processes takes its time
]


class Certificates(NamedTuple):
    """Two authorities, and what they have signed, for this machine and for clients."""

    authority: Authority
    client_authority: Authority
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    foreign_client: tuple[Path, Path]
    named_client: tuple[Path, Path]


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
            named_client=client_authority.sign("named", names="URI:spiffe://acme/reports"),
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


def served(address: str) -> str:
    """The certificate that a server shows to a new connection."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


def replace(file: Path, text: str) -> None:
    """Put a file in the place of another one, at once, as tools for certificates do."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_files_are_used_again_when_they_change(certificates: Certificates, deployed: Deployed, tmp_path: Path) -> None:
    """New connections get a new certificate, calls the new callers; bad files are told once and change nothing."""
    files = cert, key, client_ca = [tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem")]
    originals = (*certificates.server, certificates.client_authority.certificate)
    for file, source in zip(files, originals, strict=True):
        file.write_text(source.read_text())
    callers = tmp_path / "callers.toml"
    names = '[callers."spiffe://acme/reports"]\npermissions = ["keys.read"]\n'
    callers.write_text(names.replace("reports", "nobody"))
    options = (*pair(cert, key), "--tls-client-ca", client_ca, "--tls-callers", callers)
    with Serving(*options, **deployed.variables) as server:
        address = server.ready()
        trust = ("--tls-ca", certificates.authority.certificate)
        call = ("keys", "list", "--address", address, "--timeout", "5s", *trust)
        refused = run(*call, *presenting(certificates.named_client))
        assert refused.returncode == 1
        assert "UNAUTHENTICATED" in refused.stderr

        replace(callers, names)
        until(lambda: run(*call, *presenting(certificates.named_client), "-q").returncode == 0, pause=0.2)
        replace(callers, names.replace("keys.read", "keys.raed"))
        until(lambda: "keys.raed" in server.err)
        assert run(*call, *presenting(certificates.named_client)).returncode == 0, "the last good ones stay"

        new_cert, new_key = certificates.authority.sign("renewed")
        before = served(address)
        replace(cert, new_cert.read_text())
        until(lambda: "--tls-key" in server.err)
        assert served(address) == before, "a certificate without its key is not used"
        replace(key, new_key.read_text())
        until(lambda: served(address) != before, pause=0.1)
        assert served(address).split() == new_cert.read_text().split()
        assert keys_list(address, deployed, *trust, *presenting(certificates.client)).returncode == 0

        replace(client_ca, certificates.authority.certificate.read_text())
        foreign = presenting(certificates.foreign_client)
        until(lambda: keys_list(address, deployed, *trust, *foreign).returncode == 0, pause=0.2)
        assert keys_list(address, deployed, *trust, *presenting(certificates.client)).returncode == 4
        server.stop()
        unused = [line for line in server.log if line["event"] == "changed files not used"]
        assert [line["files"] for line in unused] == [str(callers), f"{cert}, {key}, {client_ca}"]
        assert all(line["level"] == "error" for line in unused)
        assert len([line for line in server.log if line["event"] == "changed files used"]) == 3


def test_a_bad_file_of_callers_refuses_the_start(
    certificates: Certificates, deployed: Deployed, tmp_path: Path
) -> None:
    """Before anything is built, with the entry."""
    callers = tmp_path / "callers.toml"
    callers.write_text('[callers."a"]\npermissions = ["verfy"]\n')
    options = (*pair(*certificates.server), "--tls-client-ca", certificates.client_authority.certificate)
    variables = {**deployed.variables, "KEYSVC_TLS_CALLERS": str(callers)}
    refused = run("serve", "--listen", "127.0.0.1:0", *options, **variables)
    assert refused.returncode == 1
    assert f"{callers} [callers.\"a\"] permissions: 'verfy' is no permission" in refusal(refused.stderr)
