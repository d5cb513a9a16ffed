"""Verify: every verdict that needs no limits, and what an answer tells."""

import secrets

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.core import keystring
from keysvc.core.keystring import Environment, mint
from keysvc.v1 import key_pb2, verify_pb2, workspace_service_pb2
from tests.deployment import WORKSPACE, Client, Deployment, Refused


@pytest.fixture
async def operator(deployment: Deployment) -> Client:
    """An operator with one workspace."""
    operator = await deployment.client()
    await operator.create_workspace()
    return operator


async def test_a_valid_answer_tells_whom_the_key_stands_for(operator: Client) -> None:
    """VALID comes with key, secret, workspace, owner, effective scopes, role, metadata and revision."""
    created = await operator.create(
        scopes=["pdf.write"], role="viewer", owner="team-a", metadata={"plan": "gold"}, ttl={"seconds": 3600}
    )
    answer = await operator.verify(
        created.key_string,
        workspace=WORKSPACE,
        environment=key_pb2.ENVIRONMENT_LIVE,
        required_scopes=["pdf.write", "pdf.read", "read"],
        source_ip="203.0.113.7",
    )
    assert answer.verdict == verify_pb2.VERDICT_VALID
    assert (answer.key_id, answer.secret_id) == (created.key.id, created.key.secrets[0].id)
    assert (answer.workspace, answer.environment) == (WORKSPACE, key_pb2.ENVIRONMENT_LIVE)
    assert (answer.owner, answer.role, dict(answer.metadata)) == ("team-a", "viewer", {"plan": "gold"})
    assert list(answer.scopes) == ["*.read", "pdf.write", "read"]
    assert answer.expire_time == created.key.expire_time
    assert not answer.HasField("retire_time")
    assert answer.basis == verify_pb2.BASIS_DATABASE
    assert answer.revision
    assert answer.message


async def test_create_revoke_and_never_again(operator: Client) -> None:
    """After Revoke has returned the key is REVOKED, and its answer's revision includes the receipt's."""
    created = await operator.create()
    assert await operator.verdict(created.key_string) == "VALID"
    receipt = (await operator.revoke(created.key.id, reason="leaked")).receipt
    answer = await operator.verify(created.key_string, consistency=verify_pb2.Consistency(at_least=receipt.revision))
    assert answer.verdict == verify_pb2.VERDICT_REVOKED
    assert answer.revision == receipt.revision


async def test_a_key_is_refused_for_another_workspace(operator: Client) -> None:
    """A key never works outside its workspace, whatever the caller asks."""
    await operator.create_workspace("acme-corp/support")
    created = await operator.create()
    assert await operator.verdict(created.key_string, workspace="acme-corp/support") == "WORKSPACE_MISMATCH"
    assert await operator.verdict(created.key_string, workspace="no/such") == "WORKSPACE_MISMATCH"


async def test_a_key_is_refused_for_the_other_environment(operator: Client) -> None:
    """A test key is refused where live is required, and the other way round; both where nothing is required."""
    live = await operator.create()
    test = await operator.create(environment=key_pb2.ENVIRONMENT_TEST)
    assert live.key_string.startswith("sk_live_1")
    assert test.key_string.startswith("sk_test_1")
    assert await operator.verdict(live.key_string, environment=key_pb2.ENVIRONMENT_TEST) == "ENVIRONMENT_MISMATCH"
    assert await operator.verdict(test.key_string, environment=key_pb2.ENVIRONMENT_LIVE) == "ENVIRONMENT_MISMATCH"
    assert await operator.verdict(test.key_string, environment=key_pb2.ENVIRONMENT_TEST) == "VALID"
    assert await operator.verdict(test.key_string) == "VALID"


async def test_missing_scopes_are_named(operator: Client) -> None:
    """INSUFFICIENT_SCOPE names exactly what is missing."""
    created = await operator.create(scopes=["pdf.*"])
    answer = await operator.verify(created.key_string, required_scopes=["pdf.read", "csv.read", "pdf", "csv.write"])
    assert answer.verdict == verify_pb2.VERDICT_INSUFFICIENT_SCOPE
    assert list(answer.missing_scopes) == ["csv.read", "pdf", "csv.write"]


async def test_the_workspace_caps_scopes_at_every_judgement(operator: Client) -> None:
    """Narrower allowed scopes of the workspace take effect on keys that exist, and wider ones give them back."""
    created = await operator.create(role="admin")
    await _allow(operator, ["pdf.*"])
    answer = await operator.verify(created.key_string, required_scopes=["pdf.read", "csv.read"])
    assert list(answer.missing_scopes) == ["csv.read"]
    assert list(answer.scopes) == ["pdf.*"]
    await _allow(operator, [])
    assert await operator.verdict(created.key_string, required_scopes=["csv.read"]) == "VALID"


async def _allow(operator: Client, scopes: list[str]) -> None:
    await operator.call(
        operator.workspaces.UpdateWorkspace,
        workspace_service_pb2.UpdateWorkspaceRequest(
            workspace={"name": WORKSPACE, "allowed_scopes": scopes}, update_mask={"paths": ["allowed_scopes"]}
        ),
    )


@pytest.mark.parametrize(
    ("source_ip", "verdict"),
    [
        ("203.0.113.7", "VALID"),
        ("203.0.113.255", "VALID"),
        ("203.0.114.0", "IP_NOT_ALLOWED"),
        ("198.51.100.1", "VALID"),
        ("198.51.100.2", "IP_NOT_ALLOWED"),
        ("2001:db8:1::1", "VALID"),
        ("2001:db8:2::1", "IP_NOT_ALLOWED"),
        ("::ffff:203.0.113.7", "VALID"),
        ("::ffff:203.0.114.7", "IP_NOT_ALLOWED"),
        ("", "IP_NOT_ALLOWED"),
    ],
)
async def test_the_allowlist_decides_from_where(operator: Client, source_ip: str, verdict: str) -> None:
    """Only addresses in the list are accepted, of both families; an address that is not told is in no list."""
    created = await operator.create(ip_allowlist=["203.0.113.0/24", "198.51.100.1", "2001:db8:1::/48"])
    assert await operator.verdict(created.key_string, source_ip=source_ip) == verdict


async def test_suspended_and_resumed(operator: Client) -> None:
    """A suspended key is refused until Resume; so are all keys of a suspended workspace."""
    created = await operator.create()
    await operator.suspend(created.key.id)
    assert await operator.verdict(created.key_string) == "SUSPENDED"
    await operator.resume(created.key.id)
    assert await operator.verdict(created.key_string) == "VALID"
    suspension = workspace_service_pb2.SuspendWorkspaceRequest(name=WORKSPACE)
    await operator.call(operator.workspaces.SuspendWorkspace, suspension)
    assert await operator.verdict(created.key_string) == "WORKSPACE_SUSPENDED"
    resumption = workspace_service_pb2.ResumeWorkspaceRequest(name=WORKSPACE)
    await operator.call(operator.workspaces.ResumeWorkspace, resumption)
    assert await operator.verdict(created.key_string) == "VALID"


async def test_an_expired_key_is_refused(operator: Client) -> None:
    """From its expire_time on, by the database's clock, a key is EXPIRED."""
    created = await operator.create(ttl={"nanos": 5_000_000})
    answers = [await operator.verify(created.key_string) for _ in range(20)]
    assert answers[-1].verdict == verify_pb2.VERDICT_EXPIRED
    assert (await operator.get(created.key.id)).state == key_pb2.Key.STATE_EXPIRED


async def test_a_revoked_secret_is_refused_and_its_key_stays(operator: Client) -> None:
    """Revoking the last living secret leaves the key ACTIVE, and refused."""
    created = await operator.create()
    secret_id = created.key.secrets[0].id
    key = (await operator.revoke(created.key.id, secret_id=secret_id, reason="lost")).key
    assert key.state == key_pb2.Key.STATE_ACTIVE
    assert key.secrets[0].state == key_pb2.Key.STATE_REVOKED
    assert key.secrets[0].revocation.reason == "lost"
    assert await operator.verdict(created.key_string) == "REVOKED"


@pytest.mark.parametrize("text", ["", " ", "x", "sk_live_", "\0", "ä" * 1000, "sk_live_1" + "a" * 64])
async def test_what_is_no_key_string_is_malformed(operator: Client, text: str) -> None:
    """Whatever an end user presents gets a verdict; text that we did not mint tells nothing and asks no database."""
    answer = await operator.verify(text)
    assert answer == verify_pb2.VerifyResponse(
        verdict=verify_pb2.VERDICT_MALFORMED, message=answer.message, holder=answer.holder
    )


async def test_a_forged_key_string_is_malformed(operator: Client) -> None:
    """A changed character anywhere is caught by the tag."""
    created = await operator.create()
    for position in (10, 30, 60, len(created.key_string) - 1):
        other = "b" if created.key_string[position] != "b" else "c"
        forged = created.key_string[:position] + other + created.key_string[position + 1 :]
        assert await operator.verdict(forged) == "MALFORMED"


async def test_an_unknown_secret_tells_nothing(deployment: Deployment, operator: Client) -> None:
    """A key string of this deployment without a row is NOT_FOUND, and nothing else is said."""
    with psycopg.connect(deployment.database_url) as connection:
        tag_key = connection.execute("SELECT key FROM tag_key").fetchone()[0]
    minted = mint(Environment.LIVE, tag_key, secrets.token_bytes)
    answer = await operator.verify(minted.key_string.reveal())
    assert answer == verify_pb2.VerifyResponse(
        verdict=verify_pb2.VERDICT_NOT_FOUND,
        basis=verify_pb2.BASIS_DATABASE,
        revision=answer.revision,
        message=answer.message,
        holder=answer.holder,
    )


async def test_the_whole_secret_must_be_right(deployment: Deployment, operator: Client) -> None:
    """A key string with the id of a key and a right tag, but another secret, is NOT_FOUND: the digest decides."""
    created = await operator.create()
    with psycopg.connect(deployment.database_url) as connection:
        tag_key = connection.execute("SELECT key FROM tag_key").fetchone()[0]
    forged = keystring_with_other_secret(created.key_string, tag_key)
    assert forged != created.key_string
    assert keystring.find_secret_id(forged, tag_key) == created.key.secrets[0].id
    assert await operator.verdict(forged) == "NOT_FOUND"
    assert await operator.verdict(created.key_string) == "VALID"
    liar = await deployment.client(keystring_with_other_secret(deployment.operator_key, tag_key))
    with pytest.raises(Refused) as refused:
        await liar.list()
    assert refused.value.code.name == "UNAUTHENTICATED"


def keystring_with_other_secret(text: str, tag_key: bytes) -> str:
    """The same id, another secret, a right tag."""
    body = text[: -43 - 6] + keystring._base62(int.from_bytes(secrets.token_bytes(32)), 43)
    return body + keystring._tag(body, tag_key)


async def test_a_batch_answers_each_in_order(operator: Client) -> None:
    """VerifyBatch answers as Verify would, in the same order, also for the same key twice."""
    live, revoked = await operator.create(), await operator.create()
    await operator.revoke(revoked.key.id)
    strings = [live.key_string, revoked.key_string, "nonsense", live.key_string] * 250
    request = verify_pb2.VerifyBatchRequest(requests=[{"key_string": each} for each in strings])
    answers = (await operator.call(operator.keys.VerifyBatch, request)).responses
    expected = [verify_pb2.VERDICT_VALID, verify_pb2.VERDICT_REVOKED, verify_pb2.VERDICT_MALFORMED]
    assert [answer.verdict for answer in answers] == [*expected, verify_pb2.VERDICT_VALID] * 250


async def test_a_batch_with_a_bad_request_names_it(operator: Client) -> None:
    """One bad request refuses the batch and says which."""
    request = verify_pb2.VerifyBatchRequest(requests=[{}, {"source_ip": "1.2.3"}, {"required_scopes": ["A"]}])
    with pytest.raises(Refused) as refused:
        await operator.call(operator.keys.VerifyBatch, request)
    assert set(refused.value.violations) == {"requests[1].source_ip", "requests[2].required_scopes[0]"}


async def test_a_revision_of_the_future_or_of_another_database_is_refused(operator: Client) -> None:
    """at_least beyond the clock, or of another epoch, is FAILED_PRECONDITION, not a wait."""
    created = await operator.create()
    revision = (await operator.verify(created.key_string)).revision
    epoch, _, seq = revision.partition(".")
    for other in (f"{epoch}.{int(seq) + 1}", f"{'0' * 32}.0"):
        with pytest.raises(Refused) as refused:
            await operator.verify(created.key_string, consistency=verify_pb2.Consistency(at_least=other))
        assert refused.value.code.name == "FAILED_PRECONDITION"
    strong = verify_pb2.Consistency(strong={})
    assert await operator.verdict(created.key_string, consistency=strong) == "VALID"


async def test_a_key_seen_by_list_and_get_is_the_same(operator: Client) -> None:
    """Create, Get and List tell the same of a key."""
    created = await operator.create(expire_time=Timestamp(seconds=4_000_000_000), tags=["b", "a", "b"])
    assert list(created.key.tags) == ["b", "a"]
    (listed,) = (await operator.list(workspace=WORKSPACE)).keys
    for key in (listed, await operator.get(created.key.id), await operator.get(created.key.id.upper())):
        key.ClearField("usage_time")  # of the moment in which it was read
        assert key == created.key
