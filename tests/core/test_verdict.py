from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import combinations
from typing import Any

import pytest

from keysvc.core.address import parse_address, parse_range
from keysvc.core.keystring import Environment, KeyString
from keysvc.core.verdict import Judgement, Presentation, Record, Verdict, judge
from tests.records import HOME
from tests.records import record as record_of

AT = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)

# The order of the contract, as far as verdicts of today go.
ORDER = [
    "VALID",
    "MALFORMED",
    "NOT_FOUND",
    "WORKSPACE_MISMATCH",
    "ENVIRONMENT_MISMATCH",
    "REVOKING",
    "REVOKED",
    "SUSPENDED",
    "WORKSPACE_SUSPENDED",
    "EXPIRED",
    "IP_NOT_ALLOWED",
    "INSUFFICIENT_SCOPE",
]

# One reason for each verdict after the proof: what makes it hold in the record, and in what is asked for.
REASONS: dict[Verdict, tuple[dict[str, Any], dict[str, Any]]] = {
    Verdict.WORKSPACE_MISMATCH: ({}, {"workspace": "acme-corp/other"}),
    Verdict.ENVIRONMENT_MISMATCH: ({}, {"environment": Environment.TEST}),
    Verdict.REVOKING: ({"revoking": True}, {}),
    Verdict.REVOKED: ({"revoked": True}, {}),
    Verdict.SUSPENDED: ({"suspended": True}, {}),
    Verdict.WORKSPACE_SUSPENDED: ({"home": replace(HOME, suspended=True)}, {}),
    Verdict.EXPIRED: ({"expire_time": AT}, {}),
    Verdict.IP_NOT_ALLOWED: (
        {"ip_allowlist": (parse_range("203.0.113.0/24"),)},
        {"source_ip": ip_address("192.0.2.1")},
    ),
    Verdict.INSUFFICIENT_SCOPE: ({}, {"required_scopes": ("pdf.read", "image.read")}),
}


def record(**values: Any) -> Record:
    """A key that nothing speaks against."""
    return record_of(**({"scopes": ("pdf.*",)} | values))


def presentation(**values: Any) -> Presentation:
    """A presentation that asks for nothing."""
    return Presentation(KeyString("sk_live_…"), **values)


def verdict(in_record: dict[str, Any], asked: dict[str, Any]) -> Verdict:
    """The verdict at ``AT``."""
    return judge(record(**in_record), presentation(**asked), AT).verdict


def test_verdicts_are_in_the_documented_order() -> None:
    """The enumeration is the order of judgement."""
    assert [each.name for each in Verdict] == ORDER


def test_every_verdict_after_the_proof_has_its_reason_here() -> None:
    """A verdict that is added is judged in the tests below, in its place."""
    assert list(REASONS) == list(Verdict)[3:]


def test_a_key_that_nothing_speaks_against_is_valid() -> None:
    """VALID, with nothing asked for and with everything asked for that the key has."""
    assert judge(record(), presentation(), AT) == Judgement(Verdict.VALID)
    asked = presentation(
        workspace="acme-corp/sales",
        environment=Environment.LIVE,
        required_scopes=("pdf.read", "pdf.write"),
        source_ip=ip_address("203.0.113.7"),
    )
    assert judge(record(ip_allowlist=(parse_range("203.0.113.0/24"),)), asked, AT) == Judgement(Verdict.VALID)


@pytest.mark.parametrize("count", range(1, len(REASONS) + 1))
def test_of_several_reasons_the_first_is_answered(count: int) -> None:
    """For every set of reasons that hold at once, whatever else holds, the earliest in the order is the verdict."""
    for reasons in combinations(REASONS, count):
        in_record = {name: value for each in reasons for name, value in REASONS[each][0].items()}
        asked = {name: value for each in reasons for name, value in REASONS[each][1].items()}
        assert verdict(in_record, asked) is reasons[0], reasons


@pytest.mark.parametrize("end", ["expire_time", "retire_time"])
@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (AT - TICK, Verdict.EXPIRED),
        (AT, Verdict.EXPIRED),
        (AT + TICK, Verdict.VALID),
        (AT.astimezone(tz=None), Verdict.EXPIRED),
        (None, Verdict.VALID),
    ],
    ids=["over", "exactly now", "in the next moment", "exactly now in another time zone", "never"],
)
def test_the_end_itself_is_refused(end: str, time: datetime | None, expected: Verdict) -> None:
    """From expire_time on the key is EXPIRED, from retire_time on the secret, to the microsecond."""
    assert verdict({end: time}, {}) is expected


@pytest.mark.parametrize(("expire", "retire"), [(AT, AT + TICK), (AT + TICK, AT), (None, AT), (AT, None)])
def test_the_earlier_end_counts(expire: datetime | None, retire: datetime | None) -> None:
    """A secret ends with its key, and a key's secret before it; a later end of the other does not help."""
    assert verdict({"expire_time": expire, "retire_time": retire}, {}) is Verdict.EXPIRED


@pytest.mark.parametrize(
    ("allowlist", "source_ip", "expected"),
    [
        ([], None, Verdict.VALID),
        ([], "192.0.2.1", Verdict.VALID),
        (["203.0.113.0/24"], None, Verdict.IP_NOT_ALLOWED),
        (["203.0.113.0/24"], "203.0.113.0", Verdict.VALID),
        (["203.0.113.0/24"], "203.0.113.255", Verdict.VALID),
        (["203.0.113.0/24"], "203.0.114.0", Verdict.IP_NOT_ALLOWED),
        (["203.0.113.0/24"], "203.0.112.255", Verdict.IP_NOT_ALLOWED),
        (["203.0.113.0/24"], "::ffff:203.0.113.7", Verdict.VALID),
        (["::ffff:203.0.113.0/120"], "203.0.113.7", Verdict.VALID),
        (["203.0.113.0/24"], "2001:db8::1", Verdict.IP_NOT_ALLOWED),
        (["192.0.2.1", "2001:db8::/32"], "2001:db8:ffff::1", Verdict.VALID),
        (["192.0.2.1", "2001:db8::/32"], "2001:db9::", Verdict.IP_NOT_ALLOWED),
        (["0.0.0.0/0"], "2001:db8::1", Verdict.IP_NOT_ALLOWED),
        (["0.0.0.0/0", "::/0"], None, Verdict.IP_NOT_ALLOWED),
    ],
)
def test_an_allow_list_admits_its_ranges_only(allowlist: list[str], source_ip: str | None, expected: Verdict) -> None:
    """An empty list admits everybody; any list, even of everything, nobody whose address is not told."""
    asked = {"source_ip": parse_address(source_ip) if source_ip else None}
    assert verdict({"ip_allowlist": tuple(map(parse_range, allowlist))}, asked) is expected


@pytest.mark.parametrize(
    ("grants", "caps", "required", "missing"),
    [
        ((), (), (), ()),
        ((), (), ("pdf.read",), ("pdf.read",)),
        (("*",), (), ("pdf.read", "image.read"), ()),
        (("pdf.*",), (), ("image.read", "pdf.read", "a"), ("image.read", "a")),
        (("pdf.read", "image.read"), (), ("image.read", "pdf.read"), ()),
        (("pdf.*.read",), (), ("pdf.a.read", "pdf.a.write"), ("pdf.a.write",)),
        (("*",), ("pdf.*",), ("pdf.read", "image.read"), ("image.read",)),
        (("*.read",), ("pdf.*",), ("pdf.read", "pdf.write", "image.read"), ("pdf.write", "image.read")),
        (("pdf.read",), ("image.read",), ("pdf.read",), ("pdf.read",)),
    ],
)
def test_missing_scopes_are_named(
    grants: tuple[str, ...], caps: tuple[str, ...], required: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    """All required scopes are needed; those that are not granted are told, in the order in which they were asked."""
    expected = Judgement(Verdict.INSUFFICIENT_SCOPE, missing) if missing else Judgement(Verdict.VALID)
    assert (
        judge(record(scopes=grants, home=replace(HOME, caps=caps)), presentation(required_scopes=required), AT)
        == expected
    )


@pytest.mark.parametrize("reason", list(REASONS)[:-1])
def test_missing_scopes_are_named_with_their_verdict_only(reason: Verdict) -> None:
    """Whoever is refused for an earlier reason does not learn what the key would lack."""
    in_record, asked = REASONS[reason]
    judgement = judge(record(**in_record), presentation(**{"required_scopes": ("image.read",)} | asked), AT)
    assert judgement == Judgement(reason, ())


@pytest.mark.parametrize("environment", Environment)
def test_the_environment_asked_for_is_the_key_s(environment: Environment) -> None:
    """Each environment is refused where the other is required; asking for neither accepts both."""
    other = next(each for each in Environment if each is not environment)
    assert verdict({"environment": environment}, {"environment": environment}) is Verdict.VALID
    assert verdict({"environment": environment}, {"environment": other}) is Verdict.ENVIRONMENT_MISMATCH
    assert verdict({"environment": environment}, {}) is Verdict.VALID


@pytest.mark.parametrize("asked", ["acme-corp/sale", "acme-corp/sales2", "Acme-Corp/sales", "acme-corp", ""])
def test_only_the_whole_name_of_the_workspace_counts(asked: str) -> None:
    """A key never works outside its workspace, however alike the names are."""
    assert verdict({}, {"workspace": asked}) is Verdict.WORKSPACE_MISMATCH


def test_a_presentation_and_a_judgement_cannot_be_changed_or_tell_the_key_string() -> None:
    """Values: what was judged stays what it was, and may be written anywhere."""
    asked = Presentation(KeyString("sk_live_1065eoDiDgza8qaZ"), workspace="acme-corp/sales")
    assert "065eoDi" not in repr(asked)
    for value, name in ((asked, "workspace"), (Judgement(Verdict.VALID), "verdict"), (record(), "refusal")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)
