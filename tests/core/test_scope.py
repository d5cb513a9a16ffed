from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.permission import Permission
from keysvc.core.scope import (
    BUILT_IN_ROLES,
    SCOPE_CHARACTERS_MAX,
    capped,
    covers,
    grants_cover,
    parse_grant,
    parse_scope,
    role_grants,
)

LONGEST = "a" * SCOPE_CHARACTERS_MAX


def stands_for(grant: str, scope: str) -> bool:
    """The documented meaning of a grant, in other words than the code under test."""
    if "*" not in grant:
        return scope == grant
    begin, end = grant.split("*")
    return scope[: len(begin)] == begin and (not end or scope[-len(end) :] == end)


# Every scope of up to five words over a small vocabulary, and every grant with up to two words on each side. The scopes
# are longer than any two grants together, so what holds for all of them holds for all scopes.
WORDS = ("a", "b")
SCOPES = [".".join(words) for count in range(1, 6) for words in product(WORDS, repeat=count)]
_SHORT = [scope for scope in SCOPES if scope.count(".") < 2]
GRANTS = [
    *_SHORT,
    *(f"{begin}*{end}" for begin in ("", *(f"{s}." for s in _SHORT)) for end in ("", *(f".{s}" for s in _SHORT))),
]
MEANING = {grant: frozenset(scope for scope in SCOPES if stands_for(grant, scope)) for grant in GRANTS}


def union(grants: Iterable[str]) -> frozenset[str]:
    """All scopes that grants stand for together."""
    return frozenset().union(*(MEANING[grant] for grant in grants))


scopes = st.sampled_from(SCOPES)
some_grants = st.lists(st.sampled_from(GRANTS), max_size=5).map(tuple)


@pytest.mark.parametrize(
    ("grant", "covered", "not_covered"),
    [
        ("pdf.read", ["pdf.read"], ["pdf.write", "pdf", "read", "pdf.read.all", "a.pdf.read", "pdf.reads", "*"]),
        ("*", ["pdf", "pdf.read", "a.b.c", "*", "pdf.*", "*.read", "pdf.*.read"], []),
        ("pdf.*", ["pdf.read", "pdf.a.b", "pdf.*", "pdf.a.*", "pdf.*.read"], ["pdf", "pdfs.read", "a.pdf.read", "*"]),
        ("*.read", ["pdf.read", "a.b.read", "*.read", "*.b.read"], ["read", "pdf.reads", "pdf.xread", "*", "pdf.*"]),
        (
            "pdf.*.read",
            ["pdf.read", "pdf.a.read", "pdf.a.b.read", "pdf.*.read", "pdf.a.*.read", "pdf.*.a.read"],
            ["pdf", "read", "pdf.write", "a.pdf.read", "pdf.a", "pdf.*", "*.read", "*"],
        ),
    ],
)
def test_a_grant_covers_what_is_documented(grant: str, covered: list[str], not_covered: list[str]) -> None:
    """The five forms of a grant, against scopes and against each other."""
    assert [other for other in covered if not covers(grant, other)] == []
    assert [other for other in not_covered if covers(grant, other)] == []


def test_covers_is_exact_for_every_pair_of_grants() -> None:
    """A grant covers another if and only if it stands for every scope that the other stands for."""
    wrong = [(g, h) for g, h in product(GRANTS, repeat=2) if covers(g, h) != (MEANING[g] >= MEANING[h])]
    assert wrong == []


def test_covers_is_exact_for_every_scope() -> None:
    """A required scope is granted if and only if the grant stands for it."""
    wrong = [(g, scope) for g, scope in product(GRANTS, SCOPES) if covers(g, scope) != (scope in MEANING[g])]
    assert wrong == []


def test_capping_is_exact_for_every_pair_of_grants() -> None:
    """What is left of one grant under one cap is what both stand for: nothing more, nothing less."""
    wrong = [(g, h) for g, h in product(GRANTS, repeat=2) if union(capped((g,), (h,))) != MEANING[g] & MEANING[h]]
    assert wrong == []


@given(grants=some_grants, other=st.sampled_from([*SCOPES, *GRANTS]))
def test_grants_cover_what_one_of_them_covers(grants: tuple[str, ...], other: str) -> None:
    """Looking for the few that could cover a scope or grant finds what asking each of them would."""
    assert grants_cover(grants, other) == any(covers(grant, other) for grant in grants)


@given(grants=some_grants, allowed=some_grants, scope=scopes)
def test_capping_is_exact(grants: tuple[str, ...], allowed: tuple[str, ...], scope: str) -> None:
    """A scope is left under the workspace's cap if and only if the key grants it and the workspace allows it."""
    expected = grants_cover(grants, scope) and (not allowed or grants_cover(allowed, scope))
    assert grants_cover(capped(grants, allowed), scope) == expected


@given(grants=some_grants, allowed=some_grants)
def test_capping_again_changes_nothing(grants: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """Capping is idempotent, also without a cap."""
    once = capped(grants, allowed)
    assert capped(once, allowed) == once
    assert capped(once, ()) == once


@given(grants=some_grants, allowed=some_grants, data=st.data())
def test_the_order_of_grants_does_not_matter(
    grants: tuple[str, ...], allowed: tuple[str, ...], data: st.DataObject
) -> None:
    """The answer of Verify is the same text whatever order and repetition the grants were stored in."""
    shuffled = (*data.draw(st.permutations(grants)), *grants)
    caps = (*data.draw(st.permutations(allowed)), *allowed)
    assert capped(shuffled, caps) == capped(grants, allowed)
    assert list(capped(grants, allowed)) == sorted(set(capped(grants, allowed)))


@given(grants=some_grants, allowed=some_grants)
def test_nothing_redundant_is_left(grants: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """No grant in the answer is covered by another one."""
    left = capped(grants, allowed)
    assert [(one, other) for one in left for other in left if one != other and covers(other, one)] == []


@given(grants=some_grants, allowed=some_grants, more=st.sampled_from(GRANTS))
def test_a_narrower_cap_never_grants_more(grants: tuple[str, ...], allowed: tuple[str, ...], more: str) -> None:
    """Taking something from a workspace's allowed scopes takes it from keys, and gives nothing; only the last one."""
    wide, narrow = capped(grants, (*allowed, more)), capped(grants, allowed)
    if allowed:
        assert union(narrow) <= union(wide)


def test_nothing_in_common_leaves_nothing() -> None:
    """A key without any allowed grant has none, which is not the same as everything."""
    assert capped(("pdf.read", "pdf.*"), ("image.*",)) == ()
    assert capped((), ("*",)) == capped((), ()) == ()


@pytest.mark.parametrize(
    "text", ["a", "0", "pdf", "pdf.read", "pdf.read.all", "a-b", "a_b", "a--b", "0.1.2", LONGEST, "a.b" * 20]
)
def test_a_scope_is_returned_as_it_is(text: str) -> None:
    """Plain dotted lower-case words are scopes, and grants too."""
    assert parse_scope(text) == parse_grant(text) == text


@pytest.mark.parametrize("text", ["*", "pdf.*", "pdf.read.*", "*.read", "*.all.read", "a-b.*", "*.0"])
def test_a_pattern_is_a_grant_and_no_scope(text: str) -> None:
    """Patterns can be granted, never required."""
    assert parse_grant(text) == text
    with pytest.raises(ValueError, match=r"^must be dotted lower-case words such as pdf\.read, at most 64 characters$"):
        parse_scope(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "..", "a.", ".a", "a..b", "A", "Pdf.read", "a b", "a,b", "a/b", "a:b", "-a", "a-", "_a", "a_"),
        *("a.-b", "a\n", "\na", "a\0", "é", "\u0661", "\uff41", "**", "*.*", "a*", "*a", "a.*.b", "*.a.*", "a.*b"),
        *("a.**", "*.", ".*", "*..a", "a.*\n", LONGEST + "a", "a." * 31 + "a.*", "a" * 10**6, "a." * 10**6),
    ],
    ids=lambda text: f"{len(text)} {text[:9]!a}",
)
def test_anything_else_is_refused(text: str) -> None:
    """Case, blanks, empty words, patterns in the middle and endless text are refused without repeating the text."""
    for parse in (parse_scope, parse_grant):
        with pytest.raises(ValueError, match=r"^must be dotted lower-case words") as refused:
            parse(text)
        assert len(str(refused.value)) < 150


def test_a_scope_has_no_more_than_64_characters() -> None:
    """The bound of the contract."""
    assert SCOPE_CHARACTERS_MAX == 64


def test_built_in_roles_are_the_documented_ones() -> None:
    """`viewer` reads, `editor` also writes, `admin` does everything."""
    assert BUILT_IN_ROLES == {
        "viewer": ("read", "*.read"),
        "editor": ("read", "*.read", "write", "*.write"),
        "admin": ("*",),
    }
    assert all(parse_scope(role) for role in BUILT_IN_ROLES)
    assert all(parse_grant(grant) for grants in BUILT_IN_ROLES.values() for grant in grants)


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("admin", ("*",)),
        ("viewer", ("read", "*.read")),
        ("clerk", ("pdf.read",)),
        ("nobody", ()),
        ("gone", None),
        ("", None),
        ("Admin", None),
    ],
)
def test_a_role_gives_its_grants(role: str, expected: tuple[str, ...] | None) -> None:
    """Built-in roles first, then those of the workspace; a name of neither is no role, and no error."""
    own = {"clerk": ("pdf.read",), "nobody": (), "admin": ("pdf.write",)}
    assert role_grants(role, own) == expected


def test_permissions_are_the_documented_scopes() -> None:
    """The permissions of the contract can be scopes of a key, which is how a caller carries them."""
    assert {str(permission) for permission in Permission} == {
        *("keys.read", "keys.write", "keys.revoke", "verify", "usage.write", "usage.read", "audit.read"),
        *("workspaces.write", "operator"),
    }
    assert all(parse_scope(permission) == permission for permission in Permission)


def test_a_hundred_grants_under_a_hundred_caps_are_quick() -> None:
    """What a workspace can be made to hold cannot hold up the server: no step grows with pairs of what is left."""
    grants = tuple(f"a{n}.*" for n in range(100))
    left = capped(grants, tuple(f"*.b{n}" for n in range(100)))
    assert len(left) == 10_000
    assert capped(left, ()) == left
