"""Where clients call, whom they trust there, and as whom they call."""

import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from keysvc.cli.connection import CLIENT_VARIABLES
from keysvc.core.pepper import Peppers
from keysvc_client import AsyncKeysvcClient, ConfigurationError, KeysvcClient, Unauthenticated, Unavailable, Verdict
from keysvc_client.connection import VARIABLES, Arguments, Connection
from keysvc_client.credentials import LOOK_SECONDS, KeyFile
from tests.authority import NEEDS_OPENSSL, Authority
from tests.cli.peer import Peer
from tests.client.conftest import AnyClient, Connect, call
from tests.deployment import Client, Deployment, eventually

# Of localhost, signed by itself.
CERTIFICATE = Path(__file__).parents[1] / "cli" / "tls" / "certificate.pem"
KEY = CERTIFICATE.with_name("key.pem")


def connection(variables: dict[str, str] | None = None, **given: Any) -> Connection:
    """The connection of a caller with a key."""
    return Connection.of(Arguments(**given), {"KEYSVC_API_KEY": "the-key"} | (variables or {}))


def key_of(made: Connection) -> str:
    """The key that it calls with."""
    assert made.api_key is not None
    return made.api_key().reveal()


def test_the_variables_are_those_of_the_command() -> None:
    """What a shell has for `keysvc` serves a program too."""
    assert VARIABLES == CLIENT_VARIABLES


def test_arguments_come_before_variables_and_those_before_the_default(tmp_path: Path) -> None:
    """For the target, the key and TLS."""
    assert connection().target == "127.0.0.1:50051"
    assert connection({"KEYSVC_ADDRESS": "127.0.0.1:2"}).target == "127.0.0.1:2"
    assert connection({"KEYSVC_ADDRESS": "127.0.0.1:2"}, target="127.0.0.1:3").target == "127.0.0.1:3"
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert key_of(connection()) == "the-key"
    assert key_of(connection(api_key="given")) == "given"
    assert key_of(connection(api_key_file=file)) == "from-file"
    assert key_of(connection({"KEYSVC_API_KEY": "", "KEYSVC_API_KEY_FILE": str(file)})) == "from-file"
    assert connection().tls is None
    secure = connection({"KEYSVC_TLS": "yes"}).tls
    assert secure == connection(tls=True).tls
    assert secure is not None
    assert connection({"KEYSVC_TLS": "yes", "KEYSVC_TLS_CA": str(CERTIFICATE)}, tls=False).tls is None


@pytest.mark.parametrize(
    "target",
    [
        *("127.0.0.1:1", "127.9.8.7:1", "localhost:1", "[::1]:1", "unix:/run/keysvc.sock", "dns:///localhost:1"),
        *("ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1"),
    ],
)
def test_this_machine_is_called_in_clear(target: str) -> None:
    """Nobody else can listen there."""
    made = connection(target=target)
    assert (made.loopback, made.tls) == (True, None)


@pytest.mark.parametrize(
    "target",
    [
        *("10.0.0.1:1", "keysvc.example:1", "dns:///keysvc.example:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "[::]:1"),
        *("127.0.0.1.example.com:1", "0.0.0.0:1", "ipv6:[2001:db8::1]:1"),
    ],
)
def test_another_machine_is_not_called_in_clear(target: str) -> None:
    """The caller's key would cross the network; whoever says that is fine gets it."""
    with pytest.raises(ConfigurationError, match=r"in clear: set tls_ca \(KEYSVC_TLS_CA\)"):
        connection(target=target)
    assert connection(target=target, allow_plaintext=True).tls is None
    assert connection({"KEYSVC_ALLOW_PLAINTEXT": "true"}, target=target).tls is None
    with pytest.raises(ConfigurationError, match="in clear"):
        connection({"KEYSVC_ALLOW_PLAINTEXT": "true"}, target=target, allow_plaintext=False)
    assert connection(target=target, tls=True, tls_server_name="keysvc.example").tls is not None


@pytest.mark.parametrize(
    "target",
    [
        *(
            "",
            "keysvc",
            "http://x:1",
            "x:0",
            "x:65536",
            ":1",
            "x:1,y:2",
            "dns:x:1",
            "dns://8.8.8.8/x:1",
            "unix:",
            "::1:5",
        ),
        *("ipv4:x:1", "ipv4:[::1]:1", "ipv4:127.0.0.1:1,", "ipv6:127.0.0.1:1", "xds:///x:1"),
    ],
)
def test_what_is_no_target_is_refused(target: str) -> None:
    """Nearly everything would be resolved, to somewhere."""
    with pytest.raises(ConfigurationError, match=r"^target is no target"):
        connection(target=target)


@pytest.mark.parametrize(
    ("variables", "given", "words"),
    [
        ({"KEYSVC_ADDRESS": "nowhere"}, {}, "KEYSVC_ADDRESS is no target"),
        ({"KEYSVC_TLS": "perhaps"}, {}, "KEYSVC_TLS must be true or false"),
        ({"KEYSVC_API_KEY_FILE": "file"}, {}, "KEYSVC_API_KEY and KEYSVC_API_KEY_FILE are both set"),
        ({"KEYSVC_API_KEY": "two words"}, {}, "KEYSVC_API_KEY holds no key string"),
        ({"KEYSVC_API_KEY": ""}, {}, r"nobody is calling: set api_key \(KEYSVC_API_KEY\)"),
        ({}, {"api_key": "é"}, "api_key holds no key string"),
        ({}, {"api_key": "a", "api_key_file": "b"}, "api_key and api_key_file are both given"),
        ({}, {"api_key_file": "/nowhere/key"}, r"/nowhere/key \(api_key_file\) cannot be read: No such file"),
        ({"KEYSVC_TLS_CA": "/nowhere/ca"}, {}, r"/nowhere/ca \(KEYSVC_TLS_CA\) cannot be read"),
        ({}, {"tls_ca": KEY}, r"key.pem \(tls_ca\) holds no certificates"),
        ({}, {"tls_client_cert": CERTIFICATE}, "a certificate and its key belong together"),
        ({}, {"tls_client_cert": CERTIFICATE, "tls_client_key": CERTIFICATE}, "are no certificate and its key"),
        ({}, {"tls_ca": CERTIFICATE, "tls": False}, "tls is False, but more is given for TLS"),
        ({}, {"target": "ipv4:10.0.0.1:1,10.0.0.2:1", "tls": True}, "several addresses: set tls_server_name"),
    ],
)
def test_what_makes_no_connection_is_named(variables: dict[str, str], given: dict[str, Any], words: str) -> None:
    """By the argument or the variable to change; a key is not shown."""
    with pytest.raises(ConfigurationError, match=words) as raised:
        connection(variables, **given)
    assert "two words" not in str(raised.value)


@pytest.mark.parametrize("given", [{"timeout": 0}, {"verify_timeout": -1}, {"timeout": float("inf")}])
def test_every_call_has_a_deadline(kind: type[AnyClient], given: dict[str, float]) -> None:
    """The client cannot be told to wait for ever, or not at all."""
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be more than 0, and finite"):
        kind("127.0.0.1:1", api_key="key", **given)  # type: ignore[arg-type]


def test_a_file_is_looked_at_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once a second at most. What cannot be a key changes nothing, and is told once."""
    file, now = tmp_path / "key", [0.0]
    file.write_text("one\n")
    key = KeyFile(file, "api_key_file", lambda: now[0])
    file.write_text("two\n")
    assert key().reveal() == "one"
    now[0] += LOOK_SECONDS
    assert key().reveal() == "two"
    for text in ("", "half a", "half a"):
        file.write_text(text)
        now[0] += LOOK_SECONDS
        assert key().reveal() == "two"
    file.unlink()
    now[0] += LOOK_SECONDS
    assert key().reveal() == "two"
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"the API key of before is used on: {file} (api_key_file) holds no key string"
    )
    file.write_text("three\n")
    now[0] += LOOK_SECONDS
    assert key().reveal() == "three"


async def test_a_rotated_key_is_taken_up(
    connect: Connect, deployment: Deployment, operator: Client, tmp_path: Path
) -> None:
    """The caller's key is rotated, written into the file, and the old secret revoked: the client goes on."""
    created = await operator.create(workspace="keysvc/system", scopes=["verify"])
    file = tmp_path / "caller.key"
    file.write_text(created.key_string)
    client = connect(deployment.address, api_key_file=file)
    assert (await call(client.verify, "nonsense")).verdict is Verdict.MALFORMED
    rotated = await operator.rotate(created.key.id)
    new = tmp_path / "new.key"
    new.write_text(rotated.key_string)
    new.replace(file)
    await operator.revoke(created.key.id, secret_id=created.key.secrets[0].id)

    async def taken_up() -> bool:
        try:
            return (await call(client.verify, "nonsense")).verdict is Verdict.MALFORMED
        except Unauthenticated:
            return False

    await eventually(taken_up)


async def test_the_environment_is_enough(
    kind: type[AnyClient], deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without arguments, as a context manager."""
    monkeypatch.setenv("KEYSVC_ADDRESS", deployment.address)
    monkeypatch.setenv("KEYSVC_API_KEY", deployment.operator_key)
    made = kind()
    if isinstance(made, AsyncKeysvcClient):
        async with made as client:
            assert (await client.verify("nonsense")).verdict is Verdict.MALFORMED
    else:
        with made as blocking:
            assert (await call(blocking.verify, "nonsense")).verdict is Verdict.MALFORMED
    with pytest.raises(RuntimeError, match="closed"):
        await call(made.verify, "nonsense")


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    client: AnyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would see the key in clear."""
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert (await call(client.verify, "nonsense")).verdict is Verdict.MALFORMED
    assert os.environ["http_proxy"]


async def test_threads_share_a_client(deployment: Deployment) -> None:
    """From the first call on, which all of them make at once; there is one channel."""
    count = 16
    start = threading.Barrier(count)
    with KeysvcClient(deployment.address, api_key=deployment.operator_key, verify_timeout=30) as client:

        def verify() -> tuple[Verdict, int]:
            start.wait()
            verdict = client.verify("nonsense").verdict
            assert client._calls._opened is not None
            return verdict, id(client._calls._opened.channel)

        def all_of_them() -> set[tuple[Verdict, int]]:
            with ThreadPoolExecutor(count) as pool:
                return {each.result() for each in [pool.submit(verify) for _ in range(count)]}

        ((verdict, _),) = await call(all_of_them)
    assert verdict is Verdict.MALFORMED


class Certificates:
    """An authority, a server and a client that it has signed for, and another authority."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.other = Authority.create(folder, "ca"), Authority.create(folder, "other")
        self.server = self.authority.sign("server", names="IP:127.0.0.1,DNS:localhost")
        self.client = self.authority.sign("client", names="URI:spiffe://acme/billing")
        self.callers = folder / "callers.toml"
        self.callers.write_text('[callers."spiffe://acme/billing"]\npermissions = ["verify"]\n')


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """For all tests here."""
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def secure(database_url: str, peppers: Peppers, certificates: Certificates) -> AsyncIterator[Deployment]:
    """A server that speaks TLS, and wants certificates of its clients."""
    certificate, key = certificates.server
    files = {"tls_cert": certificate, "tls_key": key, "tls_client_ca": certificates.authority.certificate}
    async with AsyncExitStack() as stack:
        yield await Deployment.open(stack, database_url, peppers, **files, tls_callers=certificates.callers)


@NEEDS_OPENSSL
@pytest.mark.parametrize("scheme", ["", "ipv4:", "dns:///", "localhost"])
async def test_a_certificate_is_enough_to_call(
    connect: Connect, secure: Deployment, certificates: Certificates, scheme: str
) -> None:
    """Without a key: the server checks the client, and the client the server, however the target names it."""
    certificate, key = certificates.client
    target = secure.address.replace("127.0.0.1", "localhost") if scheme == "localhost" else scheme + secure.address
    client = connect(
        target,
        tls_ca=str(certificates.authority.certificate),
        tls_client_cert=certificate,
        tls_client_key=key,
        verify_timeout=20,
    )
    assert (await call(client.verify, "nonsense")).verdict is Verdict.MALFORMED


@NEEDS_OPENSSL
async def test_a_list_of_servers_speaks_tls(connect: Connect, secure: Deployment, certificates: Certificates) -> None:
    """Each must have the name that was told, and no other will do."""
    certificate, key = certificates.client
    files = {"tls_ca": certificates.authority.certificate, "tls_client_cert": certificate, "tls_client_key": key}
    target = f"ipv4:{secure.address},{secure.address}"
    client = connect(target, **files, tls_server_name="localhost", verify_timeout=20)
    assert (await call(client.verify, "nonsense")).verdict is Verdict.MALFORMED
    with pytest.raises(Unavailable, match="its certificate is for another name"):
        await call(connect(target, **files, tls_server_name="keysvc.example").verify, "nonsense")


@NEEDS_OPENSSL
async def test_who_is_not_trusted_is_named(
    connect: Connect, secure: Deployment, peer: Peer, certificates: Certificates
) -> None:
    """A server of another authority, one that speaks in clear, and one that wants a certificate."""
    certificate, key = certificates.client
    own = {"tls_client_cert": certificate, "tls_client_key": key}
    for target, arguments, words in (
        (secure.address, {**own, "tls_ca": certificates.other.certificate}, "its certificate is not trusted"),
        (secure.address, {**own, "tls": True}, "its certificate is not trusted"),
        (peer.address, {**own, "tls_ca": certificates.authority.certificate}, "it does not speak TLS"),
        (secure.address, {"api_key": "key"}, r"it may want TLS \(tls, tls_ca\)"),
    ):
        with pytest.raises(Unavailable, match=words):
            await call(connect(target, **arguments).verify, "nonsense")
