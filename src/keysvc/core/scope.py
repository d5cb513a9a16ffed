"""Scopes and grants: what a key may do, and how a workspace caps it.

A *scope* is a dotted lower-case word such as ``pdf.read``. A *grant* is a scope or one of the patterns ``*``, ``pdf.*``
(begins with ``pdf.``) and ``*.read`` (ends with ``.read``). Capping one grant by another can also give ``pdf.*.read``:
begins with ``pdf.`` and ends with ``.read``, ``pdf.read`` included.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product

SCOPE_CHARACTERS_MAX = 64
SCOPES_MAX = 100

_WORD = "[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?"
_SCOPE = re.compile(rf"{_WORD}(?:\.{_WORD})*")
_GRANT = re.compile(rf"\*|{_WORD}(?:\.{_WORD})*(?:\.\*)?|\*(?:\.{_WORD})+")

BUILT_IN_ROLES: Mapping[str, tuple[str, ...]] = {
    "viewer": ("read", "*.read"),
    "editor": ("read", "*.read", "write", "*.write"),
    "admin": ("*",),
}


def parse_scope(text: str) -> str:
    """Return ``text`` if it is a plain scope, else raise ``ValueError`` saying what is allowed."""
    if len(text) > SCOPE_CHARACTERS_MAX or not _SCOPE.fullmatch(text):
        raise ValueError(f"must be dotted lower-case words such as pdf.read, at most {SCOPE_CHARACTERS_MAX} characters")
    return text


def parse_grant(text: str) -> str:
    """Return ``text`` if it is a grant, else raise ``ValueError`` saying what is allowed."""
    if len(text) > SCOPE_CHARACTERS_MAX or not _GRANT.fullmatch(text):
        raise ValueError(
            "must be dotted lower-case words such as pdf.read, or *, pdf.*, *.read, "
            f"at most {SCOPE_CHARACTERS_MAX} characters"
        )
    return text


def _ends(grant: str) -> tuple[str, str]:
    """Split a pattern into what it begins and ends with."""
    prefix, _, suffix = grant.partition("*")
    return prefix, suffix


def covers(grant: str, other: str) -> bool:
    """Whether all that ``other``, a scope or a grant, stands for is granted by ``grant``."""
    if "*" not in grant:
        return grant == other
    prefix, suffix = _ends(grant)
    if "*" not in other:
        return other.startswith(prefix) and other.endswith(suffix)
    other_prefix, other_suffix = _ends(other)
    return other_prefix.startswith(prefix) and other_suffix.endswith(suffix)


EFFECTIVE_SCOPES_MAX = 1000
"""So many effective scopes an answer tells; only patterns that cut across each other make more."""


def grants_cover(grants: Iterable[str], other: str) -> bool:
    """Whether one of ``grants`` covers ``other``: asks for the few that could, however many there are."""
    grants = tuple(grants)
    if other in grants:
        return True
    suffixes_of = _suffixes_by_prefix(grants)
    if not suffixes_of:
        return False
    prefixes, suffixes = _wider_ends(other)
    return any(not suffixes_of[prefix].isdisjoint(suffixes) for prefix in prefixes if prefix in suffixes_of)


@lru_cache(maxsize=4096)
def _suffixes_by_prefix(grants: tuple[str, ...]) -> dict[str, set[str]]:
    """What the patterns among ``grants`` end with, by what they begin with.

    Remembered, as below: a Verify can ask for a hundred scopes of a key with hundreds of grants.
    """
    found: dict[str, set[str]] = {}
    for grant in grants:
        if "*" in grant:
            prefix, suffix = _ends(grant)
            found.setdefault(prefix, set()).add(suffix)
    return found


@lru_cache(maxsize=4096)
def _wider_ends(grant: str) -> tuple[list[str], list[str]]:
    """What a pattern that covers this grant can begin and end with. Remembered: services ask for few scopes."""
    prefix, suffix = _ends(grant) if "*" in grant else (grant, grant)
    return (
        ["", *(prefix[: dot + 1] for dot, character in enumerate(prefix) if character == ".")],
        ["", *(suffix[dot:] for dot, character in enumerate(suffix) if character == ".")],
    )


def _meet(first: str, second: str) -> str | None:
    """What both grants stand for, as one grant; None when that is nothing."""
    if covers(first, second):
        return second
    if covers(second, first):
        return first
    if "*" not in first or "*" not in second:
        return None
    prefixes, suffixes = zip(_ends(first), _ends(second), strict=True)
    prefix, suffix = max(prefixes, key=len), max(suffixes, key=len)
    if not all(map(prefix.startswith, prefixes)) or not all(map(suffix.endswith, suffixes)):
        return None
    return f"{prefix}*{suffix}"


@lru_cache(maxsize=256)
def capped(grants: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """What of ``grants`` is left under ``allowed`` (empty: everything), without repetitions, sorted.

    Remembered, since the same few roles and caps come again with every key, and a hundred of each take a while.
    """
    left = set(grants)
    if allowed:
        left = {both for grant in left for cap in set(allowed) if (both := _meet(grant, cap))}
    return tuple(sorted(grant for grant in left if not _is_covered(grant, left)))


def _is_covered(grant: str, grants: set[str]) -> bool:
    """Whether another one of ``grants`` covers this one; asks for the few that could, however many there are."""
    return any(
        wider != grant and wider in grants
        for wider in (f"{first}*{last}" for first, last in product(*_wider_ends(grant)))
    )


def role_grants(role: str, roles: Mapping[str, Sequence[str]]) -> Sequence[str] | None:
    """The grants of a role, built in or one of the workspace's ``roles``; None if there is no such role."""
    return BUILT_IN_ROLES.get(role) or roles.get(role)


def granted(role: str, scopes: Sequence[str], roles: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What a key's role and scopes grant together, before its workspace's cap. A role that is gone grants nothing."""
    return (*(role_grants(role, roles) or ()), *scopes)
