"""Which certificates are callers: names, and what whoever has a certificate of the name may do."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from keysvc.core.certificate import Certificate
from keysvc.core.keystring import is_key_string_in
from keysvc.core.permission import Permission
from keysvc.core.scope import SCOPES_MAX, capped, parse_grant
from keysvc.core.workspace import parse_workspace_name

CERTIFICATE_NAME_CHARACTERS_MAX: Final = 255
CALLERS_MAX: Final = 10_000
WORKSPACES_MAX: Final = 100

_FIELDS: Final = ("permissions", "workspaces")
_PERMISSIONS: Final = tuple(map(str, Permission))
_AREAS: Final = frozenset(name.partition(".")[0] for name in _PERMISSIONS if "." in name)


@dataclass(frozen=True, slots=True)
class CertificateCaller:
    """A caller without a key.

    Parameters:
        name: in its certificate.
        grants: its permissions, and what else it may grant.
        workspaces: where it may work; empty: everywhere.
    """

    name: str
    grants: tuple[str, ...]
    workspaces: tuple[str, ...] = ()


class AmbiguousCertificateError(ValueError):
    """A certificate has the names of several callers."""


class CertificateCallers:
    """All callers without a key.

    Parameters:
        callers: with different names.
    """

    def __init__(self, callers: Iterable[CertificateCaller] = ()) -> None:
        self._callers = {caller.name: caller for caller in callers}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Read them from a document with tables ``callers."name"``.

        Raises:
            ValueError: it cannot be used; the text names the entry and says what is allowed.
        """
        for name in document:
            if name != "callers":
                raise ValueError(f'{name}: unknown; there are only tables such as [callers."spiffe://acme/billing"]')
        entries = document.get("callers")
        if not isinstance(entries, Mapping) or not 0 < len(entries) <= CALLERS_MAX:
            raise ValueError(
                f'must have 1 to {CALLERS_MAX} callers, each a table such as [callers."spiffe://acme/billing"]'
            )
        return cls([_parse_caller(name, entry) for name, entry in entries.items()])

    def find(self, certificate: Certificate) -> CertificateCaller | None:
        """The caller that a certificate names.

        A name with a colon is a URI and is looked for among the URIs alone; any other is a DNS name, or the common name
        of a certificate that has no alternative names.

        Raises:
            AmbiguousCertificateError: it names several.
        """
        # A certificate authority may let its clients choose names of one kind and watch those of another.
        names = {name for name in certificate.uris if ":" in name}
        names |= {name for name in certificate.dns_names if ":" not in name}
        if certificate.common_name is not None and ":" not in certificate.common_name:
            names.add(certificate.common_name)
        found = [self._callers[name] for name in names if name in self._callers]
        if len(found) > 1:
            raise AmbiguousCertificateError("must have the name of one caller")
        return found[0] if found else None


def _parse_caller(name: str, entry: object) -> CertificateCaller:
    """One entry; raises ``ValueError`` naming it."""
    place = f'[callers."{_parse_name(name)}"]'
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place}: must be a table with permissions and, if wanted, workspaces")  # noqa: TRY004 (a value)
    for field, value in entry.items():
        if field not in _FIELDS:
            hint = ": put a name with dots in quotes" if isinstance(value, Mapping) else ""
            raise ValueError(f"{place} {field}: unknown; allowed are {' and '.join(_FIELDS)}{hint}")
    if not entry.get("permissions"):
        raise ValueError(f"{place} permissions: must have at least one; there are {', '.join(_PERMISSIONS)}")
    if entry.get("workspaces") == []:
        # Elsewhere no workspace means all of them: too much for what may be a slip.
        raise ValueError(f"{place} workspaces: must have at least one; leave it out for all")
    grants = _each(f"{place} permissions", entry["permissions"], _parse_permission, SCOPES_MAX)
    workspaces = _each(f"{place} workspaces", entry.get("workspaces", []), parse_workspace_name, WORKSPACES_MAX)
    return CertificateCaller(name, capped(grants, ()), workspaces)


def _parse_name(text: str) -> str:
    """Return ``text`` if a certificate can have this name, else raise ``ValueError``."""
    if not 0 < len(text) <= CERTIFICATE_NAME_CHARACTERS_MAX or not text.isprintable() or is_key_string_in(text):
        raise ValueError(
            f"callers: a name must be one of a certificate, 1 to {CERTIFICATE_NAME_CHARACTERS_MAX} characters"
        )
    if "*" in text:
        raise ValueError(f'[callers."{text}"]: a name must be whole, without *')
    return text


def _each(place: str, texts: object, parse: Callable[[str], str], count_max: int) -> tuple[str, ...]:
    """Parse a list of texts; raises ``ValueError`` naming the first bad one."""
    if not isinstance(texts, list) or len(texts) > count_max:
        raise ValueError(f"{place}: must be a list of at most {count_max} texts")
    for text in texts:
        try:
            parse(text if isinstance(text, str) else "")
        except ValueError as error:
            raise ValueError(f"{place}: {text!r} {error}") from None
    return tuple(texts)


def _parse_permission(text: str) -> str:
    """Return ``text`` if a caller can have it as permission, else raise ``ValueError`` saying what is allowed.

    Scopes to pass on are allowed, as with keys, but not what looks like a permission and is none.
    """
    if "*" not in parse_grant(text) and text not in _PERMISSIONS:
        area = text.partition(".")[0]
        if area in _AREAS or any(_is_slip(text, name) for name in _PERMISSIONS):
            raise ValueError(
                f"is no permission; there are {', '.join(_PERMISSIONS)}, "
                "and beside them scopes to pass on, such as pdf.read or pdf.*"
            )
    return text


def _is_slip(text: str, meant: str) -> bool:
    """Whether a text is one slip away from another: a letter missing, added or wrong, or two swapped."""
    shorter, longer = sorted((text, meant), key=len)
    start = next((at for at, letter in enumerate(shorter) if letter != longer[at]), len(shorter))
    rest, other = shorter[start:], longer[start:]
    if len(shorter) < len(longer):
        return rest == other[1:]
    return rest[1:] == other[1:] or (rest[2:] == other[2:] and rest[:2] == other[1::-1])
