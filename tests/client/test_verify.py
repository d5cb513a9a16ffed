"""Verify through the library: what an answer is, and that no refusal is an exception."""

import dataclasses
from datetime import timedelta

import pytest

from keysvc.v1 import key_pb2, verify_pb2
from keysvc_client import AtLeast, Basis, Environment, Presentation, Verdict, Verification
from keysvc_client.values import to_datetime
from tests.client.conftest import AnyClient, call
from tests.deployment import WORKSPACE, Client, Deployment


async def test_a_valid_answer_tells_whom_the_key_stands_for(client: AnyClient, operator: Client) -> None:
    """Everything that the contract answers, as Python has it, and what was asked is obeyed."""
    created = await operator.create(
        scopes=["pdf.write"], role="viewer", owner="team-a", metadata={"plan": "gold"}, ttl={"seconds": 3600}
    )
    rotated = await operator.rotate(created.key.id, overlap={"seconds": 600})
    verification = await call(
        client.verify,
        created.key_string,
        workspace=WORKSPACE,
        environment="live",
        required_scopes=["pdf.write", "pdf.read"],
        source_ip="203.0.113.7",
        resource="GET /pdf",
        request_id="trace-1",
        consistency="strong",
    )
    assert verification == Verification(
        verdict=Verdict.VALID,
        basis=Basis.DATABASE,
        key_id=created.key.id,
        secret_id=created.key.secrets[0].id,
        workspace=WORKSPACE,
        environment=Environment.LIVE,
        owner="team-a",
        scopes=("*.read", "pdf.write", "read"),
        role="viewer",
        metadata={"plan": "gold"},
        expire_time=to_datetime(created.key.expire_time),
        retire_time=to_datetime(rotated.key.secrets[0].retire_time),
        revision=rotated.receipt.revision,
        message=verification.message,
        holder=verification.holder,
    )
    assert verification.message
    assert verification.holder
    assert verification.expire_time - to_datetime(created.key.create_time) == timedelta(hours=1)


@pytest.mark.parametrize(
    ("asked", "verdict", "status"),
    [
        ({}, Verdict.VALID, 200),
        ({"workspace": "acme-corp/other"}, Verdict.WORKSPACE_MISMATCH, 401),
        ({"environment": Environment.TEST}, Verdict.ENVIRONMENT_MISMATCH, 401),
        ({"required_scopes": ("pdf.read", "pdf.write")}, Verdict.INSUFFICIENT_SCOPE, 403),
        ({"source_ip": "203.0.113.7"}, Verdict.IP_NOT_ALLOWED, 403),
    ],
)
async def test_a_refusal_is_an_answer(
    client: AnyClient, operator: Client, asked: dict[str, object], verdict: Verdict, status: int
) -> None:
    """Each with the HTTP status that the contract gives it; a refusal is false, so that it is not served by mistake."""
    created = await operator.create(scopes=["pdf.read"], ip_allowlist=["198.51.100.0/24"])
    verification = await call(client.verify, created.key_string, **({"source_ip": "198.51.100.1"} | asked))
    assert (verification.verdict, verification.verdict.http_status) == (verdict, status)
    assert verification.valid is bool(verification) is (verdict is Verdict.VALID)
    assert verification.missing_scopes == (("pdf.write",) if verdict is Verdict.INSUFFICIENT_SCOPE else ())


@pytest.mark.parametrize(
    "text", ["", "sk_live_nonsense", "\udcff", "é\0", "x" * 2_000_000, "sk_live_1" + "\ud800" * 64]
)
async def test_whatever_is_presented_gets_a_verdict(client: AnyClient, text: str) -> None:
    """Also what a message cannot carry, or only one that is too large: it is no key string, and that is the answer."""
    verification = await call(client.verify, text)
    assert verification.verdict is Verdict.MALFORMED
    assert verification.basis is None
    assert verification.key_id == ""


async def test_a_batch_is_answered_in_its_order(client: AnyClient, operator: Client) -> None:
    """Each presentation with what it asks."""
    created = await operator.create(scopes=["pdf.read"])
    verifications = await call(
        client.verify_batch,
        [
            Presentation(created.key_string, required_scopes=["pdf.read"]),
            Presentation("nonsense"),
            Presentation(created.key_string, required_scopes=["pdf.write"]),
        ],
    )
    assert [each.verdict for each in verifications] == [
        Verdict.VALID,
        Verdict.MALFORMED,
        Verdict.INSUFFICIENT_SCOPE,
    ]


async def test_an_answer_can_include_a_change(client: AnyClient, operator: Client) -> None:
    """`AtLeast` the revision of a receipt."""
    created = await operator.create()
    receipt = (await operator.revoke(created.key.id)).receipt
    verification = await call(client.verify, created.key_string, consistency=AtLeast(receipt.revision))
    assert (verification.verdict, verification.revision) == (Verdict.REVOKED, receipt.revision)


def test_what_the_library_does_not_know_is_a_refusal() -> None:
    """A verdict of a later version, or none at all, is not VALID; other new values are None."""
    for number in (0, 15, 99, -1):
        answer = verify_pb2.VerifyResponse(verdict=number, basis=99, environment=99)  # type: ignore[arg-type]
        verification = Verification.of(verify_pb2.VerifyResponse.FromString(answer.SerializeToString()))
        assert (verification.verdict, verification.verdict.http_status) == (Verdict.UNKNOWN, 401)
        assert not verification
        assert (verification.basis, verification.environment) == (None, None)


def test_every_word_of_the_contract_is_known() -> None:
    """With the HTTP status that its comment names."""
    known = {f"VERDICT_{each.name}" for each in Verdict if each is not Verdict.UNKNOWN} | {"VERDICT_UNSPECIFIED"}
    assert known == set(verify_pb2.Verdict.keys())
    assert {f"BASIS_{each.name}" for each in Basis} | {"BASIS_UNSPECIFIED"} == set(verify_pb2.Basis.keys())
    environments = {f"ENVIRONMENT_{each.name}" for each in Environment} | {"ENVIRONMENT_UNSPECIFIED"}
    assert environments == set(key_pb2.Environment.keys())


def test_an_answer_cannot_be_changed() -> None:
    """Neither its fields nor its metadata: it may be shared."""
    answer = verify_pb2.VerifyResponse(verdict=verify_pb2.VERDICT_VALID, metadata={"plan": "gold"})
    verification = Verification.of(answer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        verification.verdict = Verdict.VALID  # type: ignore[misc]
    with pytest.raises(TypeError):
        verification.metadata["plan"] = "iron"  # type: ignore[index]
    assert not hasattr(verification, "__dict__")


async def test_nothing_shows_a_key_string(client: AnyClient, operator: Client, deployment: Deployment) -> None:
    """Not the client, not what is asked, not an answer; not that of the caller, and not the one that is presented."""
    created = await operator.create()
    presentation = Presentation(created.key_string)
    shown = f"{client!r} {presentation!r} {await call(client.verify, created.key_string)!r}"
    assert created.key_string not in shown
    assert deployment.operator_key not in shown
