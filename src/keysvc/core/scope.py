"""Scopes and grants: what a key may do, and how a workspace caps it.

A *scope* is a dotted lower-case word such as ``pdf.read``. A *grant* is a scope or one of the patterns ``*``, ``pdf.*``
(begins with ``pdf.``) and ``*.read`` (ends with ``.read``). Capping one grant by another can also give ``pdf.*.read``:
begins with ``pdf.`` and ends with ``.read``, ``pdf.read`` included.
"""

import re
from collections.abc import Iterable, Mapping

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


def grants_cover(grants: Iterable[str], other: str) -> bool:
    """Whether one of ``grants`` covers ``other``."""
    return any(covers(grant, other) for grant in grants)


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


def capped(grants: Iterable[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """What of ``grants`` is left under ``allowed`` (empty: everything), without repetitions, sorted."""
    grants = set(grants)
    if allowed:
        grants = {both for grant in grants for cap in allowed if (both := _meet(grant, cap))}
    return tuple(sorted(g for g in grants if not any(g != other and covers(other, g) for other in grants)))


def role_grants(role: str, roles: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The grants of a role, built in or one of the workspace's ``roles``; None if there is no such role."""
    return BUILT_IN_ROLES.get(role) or roles.get(role)
