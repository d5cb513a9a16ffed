import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from keysvc.cli.connection import CLIENT_VARIABLES, Connection, ConnectionOptions
from keysvc.cli.failure import ExitCode, Failure
from keysvc.v1.workspace_service_pb2 import GetWorkspaceResponse
from tests.cli.conftest import API_KEY, Run
from tests.cli.peer import Peer, add_services
from tests.cli.sample import workspace

# Of localhost, signed by itself: authority, server and client at once.
CERTIFICATE = Path(__file__).parent / "tls" / "certificate.pem"
KEY = Path(__file__).parent / "tls" / "key.pem"


def options(**given: Any) -> ConnectionOptions:
    """What was said on the command line."""
    nothing: dict[str, Any] = dict.fromkeys(("address", "api_key_file", "tls_ca", "tls_client_cert", "tls_client_key"))
    nothing |= {"timeout": timedelta(seconds=10), "tls": False, "allow_plaintext": False}
    return ConnectionOptions(**(nothing | given))


def connect(environment: dict[str, str] | None = None, **given: Any) -> Connection:
    """A connection of a caller with a key."""
    return Connection.from_options(options(**given), {"KEYSVC_API_KEY": API_KEY} | (environment or {}))


def test_options_come_before_the_environment_and_that_before_the_default() -> None:
    """Without anything: this machine, the usual port, 10 seconds."""
    connection = connect()
    assert (connection.address, connection.timeout_seconds, connection.tls) == ("127.0.0.1:50051", 10, None)
    assert connect({"KEYSVC_ADDRESS": "127.0.0.1:2"}).address == "127.0.0.1:2"
    assert connect({"KEYSVC_ADDRESS": "127.0.0.1:2"}, address="127.0.0.1:3").address == "127.0.0.1:3"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.8.7:1", "localhost:1", "[::1]:1", "unix:/run/keysvc.sock"])
def test_this_machine_is_called_in_clear(address: str) -> None:
    """Nobody else can listen there."""
    connection = connect(address=address)
    assert connection.tls is None
    assert connection.loopback


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1:1", "keysvc.example:1", "127.0.0.1.example.com:1", "localhost.example:1", "0.0.0.0:1", "[::]:1"],
)
def test_another_machine_is_not_called_in_clear(address: str) -> None:
    """The caller's key would cross the network; whoever says that is fine gets it."""
    with pytest.raises(Failure, match="would cross the network in clear") as failure:
        connect(address=address)
    assert failure.value.exit_code is ExitCode.USAGE
    assert connect(address=address, allow_plaintext=True).tls is None
    assert connect({"KEYSVC_ALLOW_PLAINTEXT": "true"}, address=address).tls is None
    assert connect(address=address, tls=True).tls is not None


@pytest.mark.parametrize(
    "address", ["keysvc", "http://x:1", "x:0", "x:65536", ":1", "x:1,y:2", "dns:///x:1", "unix:", "::1:5"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """Nearly everything would be resolved, to somewhere."""
    with pytest.raises(Failure, match="is no address"):
        connect(address=address)


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """A file that the command line names wins; two answers in the environment are none."""
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert connect().api_key == API_KEY
    assert connect(api_key_file=file).api_key == "from-file"
    assert connect({"KEYSVC_API_KEY": "", "KEYSVC_API_KEY_FILE": str(file)}).api_key == "from-file"
    with pytest.raises(Failure, match="both set"):
        connect({"KEYSVC_API_KEY_FILE": str(file)})


@pytest.mark.parametrize("content", [b"", b"two words", b"sk\xc3\xa9", b"\xff\xfe", b"a\x00b"])
def test_a_file_without_a_key_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    """It may hold another secret."""
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(Failure, match="is no key string") as failure:
        connect(api_key_file=file)
    assert "words" not in failure.value.message
    with pytest.raises(Failure, match="cannot be read: No such file"):
        connect(api_key_file=tmp_path / "absent")


def test_somebody_must_be_calling() -> None:
    """Without a key only a certificate says who."""
    with pytest.raises(Failure, match="Who is calling"):
        connect({"KEYSVC_API_KEY": ""})
    assert connect({"KEYSVC_API_KEY": ""}, tls_client_cert=CERTIFICATE, tls_client_key=KEY).api_key is None


def test_tls_files_are_read_before_the_call(tmp_path: Path) -> None:
    """The call would only say that it cannot connect."""
    junk = tmp_path / "junk"
    junk.write_text("junk")
    tls = connect(tls_ca=CERTIFICATE, tls_client_cert=CERTIFICATE, tls_client_key=KEY).tls
    assert tls is not None
    assert (tls.roots, tls.certificate, tls.key) == (
        CERTIFICATE.read_bytes(),
        CERTIFICATE.read_bytes(),
        KEY.read_bytes(),
    )
    with pytest.raises(Failure, match="holds no certificates in PEM"):
        connect(tls_ca=junk)
    with pytest.raises(Failure, match="no certificate and its key"):
        connect(tls_client_cert=CERTIFICATE, tls_client_key=junk)
    with pytest.raises(Failure, match="belong together"):
        connect(tls_client_cert=CERTIFICATE)
    with pytest.raises(Failure, match="KEYSVC_TLS must be true or false, not maybe"):
        connect({"KEYSVC_TLS": "maybe"})


def test_a_connection_does_not_show_its_keys() -> None:
    """In a traceback, for example."""
    connection = connect(tls_client_cert=CERTIFICATE, tls_client_key=KEY)
    assert API_KEY not in repr(connection)
    assert "PRIVATE" not in repr(connection.tls)


def test_every_variable_that_is_read_is_known() -> None:
    """The server refuses to start with a variable that nobody knows."""
    read = set()

    class Environment(Mapping[str, str]):
        def __getitem__(self, name: str) -> str:
            read.add(name)
            return {"KEYSVC_API_KEY": API_KEY}[name]

        def __iter__(self) -> Iterator[str]:
            raise NotImplementedError

        def __len__(self) -> int:
            raise NotImplementedError

    Connection.from_options(options(), Environment())
    assert read == set(CLIENT_VARIABLES)


@pytest.fixture(params=[False, True], ids=["tls", "mtls"])
def tls_peer(request: pytest.FixtureRequest, peer: Peer) -> Iterator[Peer]:
    """A peer that speaks TLS, and may want a certificate."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    add_services(peer, server)
    pair = [(KEY.read_bytes(), CERTIFICATE.read_bytes())]
    credentials = grpc.ssl_server_credentials(pair, CERTIFICATE.read_bytes(), require_client_auth=request.param)
    peer.address = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    yield peer
    server.stop(0).wait()


def test_a_call_over_tls(tls_peer: Peer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By options and by environment; the system's own authorities do not know this server."""
    tls_peer.answers("GetWorkspace", *[GetWorkspaceResponse(workspace=workspace())] * 2)
    call = ("workspaces", "get", "acme-corp/sales", "-q", "--address", tls_peer.address)
    pair = ("--tls-client-cert", str(CERTIFICATE), "--tls-client-key", str(KEY))
    assert run(*call, "--tls-ca", str(CERTIFICATE), *pair).out == "active\n"

    monkeypatch.setenv("KEYSVC_TLS_CA", str(CERTIFICATE))
    monkeypatch.setenv("KEYSVC_TLS_CLIENT_CERT", str(CERTIFICATE))
    monkeypatch.setenv("KEYSVC_TLS_CLIENT_KEY", str(KEY))
    assert run(*call).out == "active\n"

    monkeypatch.delenv("KEYSVC_TLS_CA")
    result = run(*call, "--tls")
    assert result.code == ExitCode.UNAVAILABLE
    assert "its certificate is not trusted" in result.err


def test_tls_where_there_is_none_and_the_other_way_round(tls_peer: Peer, run: Run, peer: Peer) -> None:
    """Each says what to do about it."""
    secure = run("workspaces", "get", "a/b", "--address", tls_peer.address)
    assert secure.code == ExitCode.UNAVAILABLE
    assert "If it speaks TLS: --tls-ca or --tls." in secure.err


def test_a_server_in_clear_is_named_as_such(peer: Peer, run: Run) -> None:
    """With TLS wanted, and not spoken there."""
    result = run("workspaces", "get", "a/b", "--tls-ca", str(CERTIFICATE))
    assert result.code == ExitCode.UNAVAILABLE
    assert result.err == f"error: UNAVAILABLE: {peer.address} cannot be reached: it does not speak TLS.\n"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    peer: Peer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would see the key in clear."""
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    peer.answers("GetWorkspace", GetWorkspaceResponse(workspace=workspace()))
    assert run("workspaces", "get", "a/b", "-q").out == "active\n"
    assert "KEYSVC_ADDRESS" in os.environ
