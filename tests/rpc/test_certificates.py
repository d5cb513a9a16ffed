"""Callers without a key: names of certificates."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from keysvc.core.pepper import Peppers
from keysvc.rpc.permissions import PERMISSIONS
from keysvc.rpc.server import CONTRACT
from keysvc.v1 import audit_service_pb2, key_service_pb2, workspace_service_pb2
from tests.authority import NEEDS_OPENSSL, Authority
from tests.contract.flow import CALL_SECONDS_MAX, find_program
from tests.deployment import WORKSPACE, Client, Deployment, Refused, request_id
from tests.proxy import Proxy

pytestmark = [NEEDS_OPENSSL, pytest.mark.timeout(120)]

METHODS = [(service, method) for service in CONTRACT for method in service.methods if not method.server_streaming]
BILLING, ADMIN, TEAM = "spiffe://acme/billing", "spiffe://acme/admin", "spiffe://acme/team"
INSTALLED = Path(__file__).parents[2] / ".tools" / "bin"

CALLERS = f"""
[callers."{BILLING}"]
permissions = ["verify", "usage.write"]

[callers."{ADMIN}"]
permissions = ["operator"]

[callers."{TEAM}"]
permissions = ["operator"]
workspaces = ["{WORKSPACE}"]

[callers."reports.acme.example"]
permissions = ["keys.read", "audit.read"]

[callers."Night Shift"]
permissions = ["keys.write", "pdf.*"]
"""

NUL_NAME = b"reports.acme.example\0.evil.example"


class Holders:
    """Two authorities, one of which the server trusts, and whom they have signed for.

    Parameters:
        folder: for files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.other = Authority.create(folder, "ca"), Authority.create(folder, "other")
        self.server = self.authority.sign("server")
        self._signed: dict[tuple[str, str], tuple[Path, Path]] = {}

    def signed(self, names: str, common_name: str = "someone", *, foreign: bool = False) -> tuple[Path, Path]:
        """A certificate with these alternative names, and its key."""
        wanted = (names, common_name + "!" * foreign)
        if wanted not in self._signed:
            authority = self.other if foreign else self.authority
            self._signed[wanted] = authority.sign(f"holder-{len(self._signed)}", names=names, common_name=common_name)
        return self._signed[wanted]

    def credentials(
        self, names: str, common_name: str = "someone", *, foreign: bool = False
    ) -> grpc.ChannelCredentials:
        """What a client needs to call as the holder of such a certificate."""
        certificate, key = self.signed(names, common_name, foreign=foreign)
        roots = self.authority.certificate.read_bytes()
        return grpc.ssl_channel_credentials(roots, key.read_bytes(), certificate.read_bytes())


@pytest.fixture(scope="module")
def holders(tmp_path_factory: pytest.TempPathFactory) -> Holders:
    """Certificates for all tests here."""
    return Holders(tmp_path_factory.mktemp("tls"))


def callers_of(folder: Path, text: str) -> Path:
    """A file that gives names permissions."""
    file = folder / "callers.toml"
    file.write_text(text)
    return file


@pytest.fixture
def callers_file(tmp_path: Path) -> Path:
    """The one of most tests."""
    return callers_of(tmp_path, CALLERS)


def options(holders: Holders, **more: Path) -> dict[str, Path]:
    """Settings of a server that wants certificates."""
    certificate, key = holders.server
    return {"tls_cert": certificate, "tls_key": key, "tls_client_ca": holders.authority.certificate, **more}


@pytest.fixture
async def deployment(
    database_url: str, peppers: Peppers, holders: Holders, callers_file: Path
) -> AsyncIterator[Deployment]:
    """A server that knows names of certificates."""
    async with AsyncExitStack() as stack:
        yield await Deployment.open(stack, database_url, peppers, **options(holders, tls_callers=callers_file))


async def holder(deployment: Deployment, holders: Holders, names: str, common_name: str = "someone") -> Client:
    """A client without a key."""
    return await deployment.client(anonymous=True, credentials=holders.credentials(names, common_name))


async def status(client: Client, service: str, method: object) -> str:
    """Call a method with an empty request; the status."""
    stubs = {
        "KeyService": client.keys,
        "WorkspaceService": client.workspaces,
        "UsageService": client.usage,
        "AuditService": client.audit,
    }
    try:
        await client.call(getattr(stubs[service], method.name), GetMessageClass(method.input_type)())
    except Refused as refused:
        return refused.code.name
    return "OK"


async def refusal(client: Client) -> tuple[str, str]:
    """Why a client may not even list keys: status and message."""
    with pytest.raises(Refused) as refused:
        await client.list()
    return refused.value.code.name, refused.value.message


async def test_a_name_may_do_what_its_permissions_say_and_nothing_else(
    deployment: Deployment, holders: Holders
) -> None:
    """Every RPC, the streaming ones too, is open to a name as to a key with the same permissions."""
    billing, admin = [await holder(deployment, holders, f"URI:{name}") for name in (BILLING, ADMIN)]
    for client, held in ((billing, {"verify", "usage.write"}), (admin, set(PERMISSIONS.values()))):
        for service, method in METHODS:
            is_held = PERMISSIONS[f"{service.full_name}/{method.name}"] in held
            assert (await status(client, service.name, method) == "PERMISSION_DENIED") is not is_held
    for client, expected in ((admin, "UNIMPLEMENTED"), (billing, "PERMISSION_DENIED")):
        stream = client.audit.ExportAuditEvents(audit_service_pb2.ExportAuditEventsRequest())
        assert (await stream.code()).name == expected
    await admin.create_workspace()
    created = await admin.create(scopes=["pdf.read"])
    assert await billing.verdict(created.key_string) == "VALID"


@pytest.mark.parametrize(
    ("names", "common_name"),
    [
        ("DNS:reports.acme.example", "someone"),
        ("DNS:else.example,DNS:reports.acme.example,URI:spiffe://acme/reports,IP:10.0.0.1", "someone"),
        ("DNS:reports.acme.example,DNS:reports.acme.example", "reports.acme.example"),
        ("", "reports.acme.example"),
    ],
)
async def test_a_name_is_found_wherever_it_may_stand(
    deployment: Deployment, holders: Holders, names: str, common_name: str
) -> None:
    """Among other names, twice, or as the common name of a certificate of the old kind."""
    await (await holder(deployment, holders, names, common_name)).list()


@pytest.mark.parametrize(
    ("names", "common_name"),
    [
        ("URI:spiffe://acme/other", "someone"),
        ("URI:spiffe://acme/billing/", "someone"),
        ("URI:SPIFFE://acme/billing", "someone"),
        ("DNS:spiffe://acme/admin", "someone"),
        ("URI:reports.acme.example", "someone"),
        ("email:reports.acme.example@x", "reports.acme.example"),
        ("DNS:x.reports.acme.example", "someone"),
        ("DNS:*.acme.example", "someone"),
        ("DNS:REPORTS.acme.example", "someone"),
        ("DNS:else.example", "reports.acme.example"),
        ("IP:10.0.0.1", "reports.acme.example"),
        ("otherName:1.3.6.1.4.1.311.20.2.3;UTF8:x", "reports.acme.example"),
        ("", "spiffe:\\/\\/acme\\/admin"),
        ("", "reports.acme.example.evil.example"),
        (f"DER:30:{len(NUL_NAME) + 2:x}:82:{len(NUL_NAME):x}:{NUL_NAME.hex(':')}", "someone"),
    ],
)
async def test_what_is_not_exactly_a_name_is_none(
    deployment: Deployment, holders: Holders, names: str, common_name: str
) -> None:
    """Nothing is folded, cut at a NUL, or taken from another kind of name; beside others no common name counts."""
    code, message = await refusal(await holder(deployment, holders, names, common_name))
    assert code == "UNAUTHENTICATED"
    assert message.startswith("no name of the certificate is a caller")


async def test_a_certificate_of_several_callers_is_none_of_them(deployment: Deployment, holders: Holders) -> None:
    """Nobody has to guess which one counts, least of all by an order that a client may choose."""
    code, message = await refusal(await holder(deployment, holders, f"URI:{BILLING},URI:{ADMIN}"))
    assert (code, "several callers" in message) == ("UNAUTHENTICATED", True)


async def test_strangers_do_not_connect(deployment: Deployment, holders: Holders) -> None:
    """A certificate of another authority, and none, end with the handshake, whatever key they bring."""
    roots = holders.authority.certificate.read_bytes()
    for credentials in (
        holders.credentials(f"URI:{ADMIN}", foreign=True),
        grpc.ssl_channel_credentials(roots),
    ):
        client = await deployment.client(credentials=credentials)
        assert (await refusal(client))[0] == "UNAVAILABLE"


async def test_a_key_comes_before_a_certificate(deployment: Deployment, holders: Holders) -> None:
    """Who sends a key is its caller, with less and with more than the certificate; a bad one is not made good by it."""
    credentials = holders.credentials(f"URI:{ADMIN}")
    operator = await deployment.client(credentials=holders.credentials(f"URI:{BILLING}"))
    await operator.create_workspace()
    made = await operator.create(workspace="keysvc/system", scopes=["verify"])
    weak = await deployment.client(made.key_string, credentials=credentials)
    assert (await refusal(weak))[0] == "PERMISSION_DENIED"
    assert not made.key.creator.startswith("tls:"), "the operator's key made it, not the certificate beside it"
    admin = await deployment.client(anonymous=True, credentials=credentials)
    await admin.revoke(made.key.id)
    assert (await refusal(weak))[0] == "UNAUTHENTICATED"
    for value in ("", "Bearer", "Bearer nonsense", "Basic eDp5"):
        with pytest.raises(Refused) as refused:
            await admin.call(admin.keys.List, key_service_pb2.ListRequest(), authorization=value)
        assert refused.value.code.name == "UNAUTHENTICATED"
    await admin.list()


async def test_a_limited_name_works_in_its_workspaces_alone(deployment: Deployment, holders: Holders) -> None:
    """Every other workspace does not exist for it, and callers are not its to make, operator or not."""
    admin, team = [await holder(deployment, holders, f"URI:{name}") for name in (ADMIN, TEAM)]
    for name in (WORKSPACE, "acme-corp/support"):
        await admin.create_workspace(name)
    mine, foreign = await admin.create(), await admin.create(workspace="acme-corp/support")
    assert [key.id for key in (await team.list()).keys] == [mine.key.id]
    assert await team.verdict(mine.key_string) == "VALID"
    assert await team.verdict(foreign.key_string) == "NOT_FOUND"
    for attempt in (
        team.get(foreign.key.id),
        team.revoke(foreign.key.id),
        team.create(workspace="acme-corp/support"),
        team.create(workspace="keysvc/system", scopes=["operator"]),
        team.create_workspace("acme-corp/new"),
    ):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code.name == "NOT_FOUND"


async def test_a_limited_operator_does_not_change_callers(
    database_url: str, peppers: Peppers, holders: Holders, tmp_path: Path
) -> None:
    """Not even one that may see them: it could make itself another one without limits."""
    file = callers_of(tmp_path, f'[callers."{TEAM}"]\npermissions = ["operator"]\nworkspaces = ["keysvc/system"]\n')
    async with AsyncExitStack() as stack:
        deployment = await Deployment.open(stack, database_url, peppers, **options(holders, tls_callers=file))
        team = await holder(deployment, holders, f"URI:{TEAM}")
        (key,) = (await team.list()).keys
        for attempt in (team.create(workspace="keysvc/system", scopes=["verify"]), team.revoke(key.id)):
            with pytest.raises(Refused) as refused:
                await attempt
            assert refused.value.code.name == "PERMISSION_DENIED"


async def test_a_name_grants_what_it_holds(deployment: Deployment, holders: Holders) -> None:
    """Scopes beside the permissions may be passed on, as with a key, and no others."""
    await (await holder(deployment, holders, f"URI:{ADMIN}")).create_workspace()
    shift = await holder(deployment, holders, "", "Night Shift")
    await shift.create(scopes=["pdf.read"])
    with pytest.raises(Refused) as refused:
        await shift.create(scopes=["csv.read"])
    assert refused.value.code.name == "PERMISSION_DENIED"


async def test_what_a_name_did_is_told_by_its_name(deployment: Deployment, holders: Holders) -> None:
    """Actor and creator are the name, marked as such; page tokens and request ids are its own."""
    admin = await holder(deployment, holders, f"URI:{ADMIN}")
    operator = await deployment.client(credentials=holders.credentials(f"URI:{BILLING}"))
    await admin.create_workspace()
    claim = request_id()
    created = await admin.create(request_id=claim)
    assert created.key.creator == f"tls:{ADMIN}"
    asked = audit_service_pb2.ListAuditEventsRequest(filter={"actor": f"tls:{ADMIN}"})
    events = (await operator.call(operator.audit.ListAuditEvents, asked)).events
    assert [event.method.partition("/")[2] for event in events] == ["Create", "CreateWorkspace"]
    assert {(event.actor, event.source_ip) for event in events} == {(f"tls:{ADMIN}", "127.0.0.1")}

    assert (await admin.create(request_id=claim)).key_string == created.key_string
    assert (await operator.create(request_id=claim)).key.id != created.key.id
    page = workspace_service_pb2.ListWorkspacesRequest(page_size=1)
    token = (await admin.call(admin.workspaces.ListWorkspaces, page)).next_page_token
    page.page_token = token
    await admin.call(admin.workspaces.ListWorkspaces, page)
    with pytest.raises(Refused) as refused:
        await operator.call(operator.workspaces.ListWorkspaces, page)
    assert refused.value.code.name == "INVALID_ARGUMENT"


async def test_a_name_is_known_without_the_database(
    database_url: str, peppers: Peppers, holders: Holders, callers_file: Path
) -> None:
    """What is refused, or not built, is so while the database is away; only a key has to be looked up."""
    proxy = Proxy(database_url)
    await proxy.start()
    async with AsyncExitStack() as stack:
        deployment = await Deployment.open(stack, proxy.url, peppers, **options(holders, tls_callers=callers_file))
        await proxy.stop()
        billing = await holder(deployment, holders, f"URI:{BILLING}")
        assert (await refusal(billing))[0] == "PERMISSION_DENIED"
        keyed = await deployment.client(credentials=holders.credentials(f"URI:{BILLING}"))
        assert (await refusal(keyed))[0] == "UNAVAILABLE"


async def test_without_the_file_a_certificate_is_no_caller(
    database_url: str, peppers: Peppers, holders: Holders
) -> None:
    """It lets its holder connect, and no more; the words are those for everybody without a key."""
    async with AsyncExitStack() as stack:
        deployment = await Deployment.open(stack, database_url, peppers, **options(holders))
        code, message = await refusal(await holder(deployment, holders, f"URI:{ADMIN}"))
        assert code == "UNAUTHENTICATED"
        assert message == "a caller must send a valid key of keysvc/system as metadata authorization: Bearer …"


async def test_health_and_reflection_need_no_name(deployment: Deployment, holders: Holders) -> None:
    """As they need no key: with any certificate of the authority."""
    certificate, key = holders.signed("URI:spiffe://acme/other")
    out = await grpcurl(holders, certificate, key, deployment.address, "list")
    assert "keysvc.v1.KeyService" in out
    out = await grpcurl(holders, certificate, key, deployment.address, "grpc.health.v1.Health/Check")
    assert "SERVING" in out


async def test_grpcurl_calls_with_a_certificate(deployment: Deployment, holders: Holders) -> None:
    """Another implementation of TLS and gRPC, by its own options."""
    certificate, key = holders.signed(f"URI:{ADMIN}")
    method = "keysvc.v1.WorkspaceService/ListWorkspaces"
    assert "keysvc/system" in await grpcurl(holders, certificate, key, deployment.address, method)
    certificate, key = holders.signed("URI:spiffe://acme/other")
    assert "Unauthenticated" in await grpcurl(holders, certificate, key, deployment.address, method)


async def grpcurl(holders: Holders, certificate: Path, key: Path, *words: str) -> str:
    """What grpcurl says."""
    program = find_program("grpcurl", INSTALLED)
    if program is None:
        pytest.skip("there is no grpcurl: `make grpcurl` installs it, where there is Go")
    trust = ("-cacert", holders.authority.certificate, "-cert", certificate, "-key", key)
    process = await asyncio.create_subprocess_exec(
        program, *trust, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), CALL_SECONDS_MAX)
    return out.decode()
