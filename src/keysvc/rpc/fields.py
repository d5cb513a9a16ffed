"""Reads the fields of a request, collecting everything that is wrong with them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NoReturn, TypeVar
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.core.errors import Violations
from keysvc.core.key import METADATA_BYTES_MAX
from keysvc.core.keystring import is_key_string_in
from keysvc.core.listing import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from keysvc.core.workspace import TTL_MAX

T = TypeVar("T")
U = TypeVar("U")

_CONTROL_CHARACTERS = frozenset(
    # Those that turn the direction of text too: what follows would not be what it looks like.
    map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)


class Fields:
    """Reads fields; what is wrong goes to ``violations`` and a harmless value comes back instead.

    Parameters:
        prefix: path of the message within the request, such as ``requests[3].``.
        violations: where to; another message of the same request may share it.
    """

    def __init__(self, prefix: str = "", violations: Violations | None = None) -> None:
        self._prefix = prefix
        self.violations = Violations() if violations is None else violations

    def done(self) -> None:
        """Raise ``InvalidArgument`` if anything was wrong."""
        self.violations.raise_if_any()

    def bad(self, field: str, description: str) -> None:
        """Say that a field is bad."""
        self.violations.add(self._prefix + field, description)

    def read(self, field: str, text: str, parse: Callable[[str], T], otherwise: T) -> T:
        """Read one field with ``parse``, which raises ``ValueError`` saying what is allowed."""
        try:
            return parse(text)
        except ValueError as error:
            self.bad(field, str(error))
            return otherwise

    def optional(self, field: str, text: str, parse: Callable[[str], T]) -> T | None:
        """As ``read``; an empty field is None."""
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.bad(field, str(error))
            return None

    def each(self, field: str, texts: Sequence[str], parse: Callable[[str], T], items_max: int) -> tuple[T, ...]:
        """Read a repeated field, each with ``parse``; repetitions are dropped, the order stays."""
        items: dict[T, None] = {}
        if len(texts) > items_max:
            self.bad(field, f"must have at most {items_max} items")
            return ()
        for index, text in enumerate(texts):
            try:
                items[parse(text)] = None
            except ValueError as error:
                self.bad(f"{field}[{index}]", str(error))
        return tuple(items)

    def text(self, field: str, text: str, *, characters_max: int, required: bool = False) -> str:
        """Read a text for people: no control characters."""
        if required and not text.strip():
            self.bad(field, f"must have 1 to {characters_max} characters")
        elif len(text) > characters_max:
            self.bad(field, f"must have at most {characters_max} characters")
        elif not _CONTROL_CHARACTERS.isdisjoint(text):
            self.bad(field, "must not contain control characters")
        elif is_key_string_in(text):
            self.bad(field, "must not contain a key string")
        else:
            return text
        return ""

    def metadata(self, field: str, metadata: Mapping[str, str]) -> dict[str, str]:
        """Read a metadata map: bounded in bytes; NUL, which PostgreSQL cannot keep, is refused."""
        if sum(len(part.encode()) for item in metadata.items() for part in item) > METADATA_BYTES_MAX:
            self.bad(field, f"names and values together must have at most {METADATA_BYTES_MAX} bytes")
        elif "" in metadata:
            self.bad(field, "names must not be empty")
        elif any("\0" in part for item in metadata.items() for part in item):
            self.bad(field, "must not contain NUL characters")
        elif any(is_key_string_in(part) for item in metadata.items() for part in item):
            self.bad(field, "must not contain a key string")
        else:
            return dict(metadata)
        return {}

    def uuid(self, field: str, text: str) -> UUID:
        """Read a UUID."""
        return self.read(field, text, _parse_uuid, UUID(int=0))

    def random_uuid(self, field: str, text: str) -> UUID:
        """Read a UUID that nobody can guess."""
        return self.read(field, text, _parse_random_uuid, UUID(int=0))

    def time(self, field: str, message: Message) -> datetime | None:
        """Read a Timestamp field; None if it is absent."""
        if not message.HasField(field):
            return None
        timestamp: Timestamp = getattr(message, field)
        try:
            return timestamp.ToDatetime(UTC)
        except (ValueError, OverflowError):
            self.bad(field, "must be a valid time between the years 1 and 9999")
            return None

    def span(self, field: str, message: Message) -> timedelta | None:
        """Read a Duration field that must be more than 0; None if it is absent."""
        if not message.HasField(field):
            return None
        duration: Duration = getattr(message, field)
        try:
            span = duration.ToTimedelta()
        except (ValueError, OverflowError):
            span = timedelta(0)
        if not timedelta(milliseconds=1) <= span <= TTL_MAX or duration.nanos < 0:
            self.bad(field, f"must be a valid duration of 1 millisecond to {TTL_MAX.days} days")
            return None
        return span

    def overlap(self, field: str, message: Message, otherwise: timedelta, longest: timedelta) -> timedelta:
        """Read a Duration field of 0 to ``longest``; ``otherwise`` if it is absent."""
        if not message.HasField(field):
            return otherwise
        duration: Duration = getattr(message, field)
        if not 0 <= duration.seconds * 10**9 + duration.nanos <= longest.total_seconds() * 10**9 or duration.nanos < 0:
            self.bad(field, f"must be a valid duration of 0 to {longest.days} days")
            return otherwise
        return duration.ToTimedelta()

    def masked(self, mask: FieldMask, settable: Mapping[str, T], read: Callable[[T], U]) -> dict[str, U]:
        """Read the fields that an update mask names.

        Parameters:
            settable: what can be named, and how each is read.
            read: reads one.
        """
        if not mask.paths:
            self.bad("update_mask", f"must name at least one of {', '.join(settable)}")
        values = {}
        for index, field in enumerate(mask.paths):
            if field in settable:
                values[field] = read(settable[field])
            else:
                self.bad(f"update_mask.paths[{index}]", f"must be one of {', '.join(settable)}")
        return values

    def number(self, field: str, number: int, highest: int) -> int:
        """Read a number of 0 to ``highest``."""
        if not 0 <= number <= highest:
            self.bad(field, f"must be 0 to {highest}")
            return 0
        return number

    def page_size(self, size: int) -> int:
        """Read a page size; 0 is the default."""
        if not 0 <= size <= PAGE_SIZE_MAX:
            self.bad("page_size", f"must be 0 to {PAGE_SIZE_MAX}; 0 means {PAGE_SIZE_DEFAULT}")
        return size or PAGE_SIZE_DEFAULT


class GoodFields(Fields):
    """Reads fields that should be good, in less time: it raises ``ValueError`` at the first one that is not."""

    def bad(self, field: str, description: str) -> NoReturn:
        """Raise ``ValueError``."""
        raise ValueError(field, description)

    def optional(self, field: str, text: str, parse: Callable[[str], T]) -> T | None:  # noqa: ARG002 (as in Fields)
        """As ``Fields.optional``."""
        return parse(text) if text else None

    def each(self, field: str, texts: Sequence[str], parse: Callable[[str], T], items_max: int) -> tuple[T, ...]:
        """As ``Fields.each``."""
        if len(texts) > items_max:
            self.bad(field, f"must have at most {items_max} items")
        # A slice: to iterate over a field of a message ends with an exception that is raised and caught.
        return tuple(dict.fromkeys(map(parse, texts[:])))


GOOD: Final = GoodFields()


@lru_cache(maxsize=1024)
def _parse_uuid(text: str) -> UUID:
    """Read a UUID in its usual form, of 36 characters. Remembered: a batch of usage names few keys, many times."""
    try:
        uuid = UUID(text)
        if str(uuid) == text.lower():
            return uuid
    except ValueError:
        pass
    raise ValueError("must be a UUID such as 01234567-89ab-4cde-8f01-23456789abcd")


def _parse_random_uuid(text: str) -> UUID:
    """Read a random (version 4) UUID."""
    uuid = _parse_uuid(text)
    if uuid.version != 4:  # noqa: PLR2004 (RFC 9562 counts them)
        raise ValueError("must be a random (version 4) UUID such as 01234567-89ab-4cde-8f01-23456789abcd")
    return uuid
