"""Searches whatever a deployment writes down for what must not be written down."""

import base64
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import sql

SECRET = re.compile(r"(?P<random>[0-9A-Za-z]{43})[0-9A-Za-z]{6}$")
"""The random part of a key string, before its tag."""


def traces(text: str | bytes) -> dict[str, bytes]:
    """The ways in which a text may be written down, whatever stands around it."""
    raw = text.encode() if isinstance(text, str) else text
    found = {"text": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for at in range(3):
        # Only the characters that depend on nothing but the text.
        first, last = -(-at * 8 // 6), (at + len(raw)) * 8 // 6
        encoded = base64.b64encode(bytes(at) + raw + bytes(3))[first:last]
        found[f"base64 at {at}"] = encoded
        found[f"base64url at {at}"] = encoded.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def traces_of_id(uuid: UUID) -> dict[str, bytes]:
    """The ways in which a UUID may be written down: in its usual form, as 32 digits, as 16 bytes, in every writing."""
    spelled: dict[str, str | bytes] = {
        "usual form": str(uuid),
        "USUAL FORM": str(uuid).upper(),
        "bytes": uuid.bytes,
        "bytes, the least first": uuid.bytes_le,
    }
    return {f"{form} as {how}": trace for form, raw in spelled.items() for how, trace in traces(raw).items()}


def leaks(key_strings: Sequence[str], places: Mapping[str, bytes]) -> list[str]:
    """Where which key is written down, and how; without the key."""
    found = []
    for number, key_string in enumerate(key_strings):
        match = SECRET.search(key_string)
        assert match
        for part, text in (("whole", key_string), ("random part", match["random"])):
            for how, trace in traces(text).items():
                found += [f"key {number}, {part}, as {how}: {name}" for name, place in places.items() if trace in place]
    return found


def leaks_of_ids(ids: Sequence[UUID], places: Mapping[str, bytes]) -> list[str]:
    """Where which UUID is written down, and how; without the UUID."""
    return [
        f"id {number}, {how}: {name}"
        for number, uuid in enumerate(ids)
        for how, trace in traces_of_id(uuid).items()
        for name, place in places.items()
        if trace in place
    ]


def dump(url: str) -> bytes:
    """All rows of all tables."""
    found = bytearray()
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert len(tables) >= 10
        for table in tables:
            statement = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(*table))
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                for row in copy:
                    found += row
    return bytes(found)


def files_since(folder: Path, since: float) -> dict[str, bytes]:
    """The files of a folder that were written since a time, the write-ahead log among them, without long emptiness."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                if path.stat().st_mtime >= since:
                    found[str(path.relative_to(folder))] = re.sub(rb"\0{64,}", b"\0", path.read_bytes())
            except FileNotFoundError:
                continue  # PostgreSQL removes what it no longer needs
    return found


def log_of_changes(cluster: Path) -> bytes:
    """PostgreSQL's write-ahead log, without the headers of its pages, which may stand in the middle of a record."""
    found = bytearray()
    for path in sorted((cluster / "pg_wal").iterdir()):
        if re.fullmatch("[0-9A-F]{24}", path.name):
            raw = path.read_bytes()
            for at in range(0, len(raw), 8192):
                found += raw[at + (24 if at else 40) : at + 8192]
    return re.sub(rb"\0{64,}", b"\0", found)
