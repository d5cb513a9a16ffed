"""Hostile input, made from nothing but the descriptors of the contract: whatever gets built is covered by itself.

An input is the bytes of a request and the metadata sent with it. Bytes are random, or a message that was damaged, or a
sound message with odd values. Known texts (ids, key strings, page tokens … of a deployment) are mixed in by the name of
the field, so that what lies behind the look-ups is reached. They are chosen by place, never by what they are: the
choices are the same in each run, although the ids are not.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from keysvc.rpc.limits import MESSAGE_BYTES_MAX

Metadata = tuple[tuple[str, str | bytes], ...]

ODD_TEXTS: Final = (
    "\0",
    "a\0b",
    "\x01\x02\x1b[31m",
    "\r\n",
    "\x7f\x80\x9f",
    "\N{RIGHT-TO-LEFT OVERRIDE}txt.exe",
    "\N{ZERO WIDTH SPACE}",
    "\N{BYTE ORDER MARK}x",
    "\N{LINE SEPARATOR}",
    "e\N{COMBINING ACUTE ACCENT}" * 70,
    "\U0010ffff\uffff\ufdd0",
    "\ue000\U000f0000",
    "\\ud800\\udfff",
    "\N{PILE OF POO}" * 33,
    "ǅßİı",
    "٣",
    "%s%n{0}{}${x}",
    "' OR 1=1; --",
    '"; DROP TABLE key; --',
    "\\",
    "%",
    "_",
    "../../../etc/passwd",
    "<script>",
    "null",
    "None",
    "-1",
    "1e999",
    "NaN",
    "=",
    "a" * 63 + "/" + "b" * 63,
    "a." * 31 + "a",
    "-" * 64,
    "*",
    "*.*",
    "0.0.0.0/0",
    "::ffff:0:0/95",
    "::ffff:1.2.3.4",
    "fe80::1%eth0",
    "10.0.0.1/0.0.0.255",
    "999999999999.9",
    f"{'0' * 32}.{'9' * 4000}",
    f"{'0' * 32}.9223372036854775808",
    "{01234567-89ab-4cde-8f01-23456789abcd}",
    "keysvc/system",
    "keysvc/other",
    "sk_live_1" + "a" * 64,
    "sk_live_",
    "paths",
    "key.id",
)
LENGTHS: Final = (1, 2, 63, 64, 65, 127, 128, 129, 512, 513, 4096, 4097, 100_000, MESSAGE_BYTES_MAX - 300)
COUNTS: Final = (2, 3, 33, 65, 100, 101, 1000, 1001, 20_000)
INTEGERS: Final = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 9, 50, 999, 1000, 1001, 10**6, 2**31 - 1, 2**53 + 1, 2**63 - 1)
SECONDS: Final = (
    *(-(2**63), -62_135_596_801, -62_135_596_800, -315_576_000_001, -1, 0, 1, 60, 86_400, 30 * 86_400, 30 * 86_400 + 1),
    *(36_500 * 86_400, 4_000_000_000, 253_402_300_799, 253_402_300_800, 315_576_000_000, 2**63 - 1),
)
NANOS: Final = (0, 0, 0, 1, -1, 999, 1_000_000, 999_999_999, 10**9, -(10**9), 2**31 - 1, -(2**31))
MESSAGES_DEEP: Final = 4


@dataclass(frozen=True)
class Input:
    """One hostile call.

    Parameters:
        body: what is sent as the request.
        metadata: besides the authorization of the caller, if ``authorized``.
        authorized: send the operator's key too.
    """

    body: bytes
    metadata: Metadata = ()
    authorized: bool = True

    def __repr__(self) -> str:
        """Short enough to be read: bodies can have a mebibyte."""
        body = repr(self.body) if len(self.body) < 1000 else f"{self.body[:100]!r}… {len(self.body)} bytes"
        return f"Input({body}, {self.metadata!r:.1000}, authorized={self.authorized})"


class Hostile:
    """Strategies for the requests of one deployment.

    Parameters:
        known: by the name of a field, texts that mean something there. Which names there are and how many texts each
            has must be the same in each run. A whole name (``keysvc.v1.Role.name``) goes before the short one.
        needed: names of fields without which nothing happens.
        rare: names of fields that hide what lies behind them, such as those that are not built yet.
    """

    def __init__(self, known: Mapping[str, Sequence[str]], *, needed: AbstractSet[str], rare: AbstractSet[str]) -> None:
        self._known = known
        self._needed = needed
        self._rare = rare
        self._all = [text for texts in known.values() for text in texts]
        self._inputs: dict[str, SearchStrategy[list[Input]]] = {}

    def inputs(self, request: Descriptor, count: int) -> SearchStrategy[list[Input]]:
        """So many inputs for a method with this request."""
        if request.full_name not in self._inputs:
            some = st.lists(self._one_input(request), min_size=count, max_size=count)
            # Behind a name, since strategies of strategies are long to tell.
            self._inputs[request.full_name] = st.composite(lambda draw: draw(some))()
        return self._inputs[request.full_name]

    def _one_input(self, request: Descriptor) -> SearchStrategy[Input]:
        sound = st.one_of([self._messages(request, odd) for odd in (0, 0, 1, 1, 2, 100)]).map(_serialized)
        kinds = (sound, sound, sound, damaged(sound, request), damaged(sound, request), RAW)
        bodies = st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)
        return st.builds(
            Input,
            body=bodies,
            metadata=st.one_of(st.just(()), st.just(()), self.metadata()),
            authorized=st.sampled_from((True,) * 9 + (False,)),
        )

    def _messages(self, descriptor: Descriptor, odd: int, depth: int = 0) -> SearchStrategy[Message]:
        """Messages that make sense, but for some of their fields.

        Parameters:
            odd: how many fields are odd.
        """
        message_class = GetMessageClass(descriptor)
        if descriptor.full_name in {"google.protobuf.Timestamp", "google.protobuf.Duration"}:
            usual = st.builds(message_class, seconds=st.sampled_from((60, 3600, 4_000_000_000)))
            return _spans(message_class) if odd else usual
        fields = [each for each in descriptor.fields if not (_is_message(each) and depth >= MESSAGES_DEEP)]
        if not fields:
            return st.builds(message_class)
        usual_values = [self._usual(each, depth) for each in fields]
        odd_values = [self._odd(each, depth) for each in fields] if odd else []
        chances = [1 if each.name in self._rare else 19 if each.name in self._needed else 5 for each in fields]
        places = st.integers(0, len(fields) - 1)

        @st.composite
        def messages(draw: DrawFn) -> Message:
            built = message_class()
            odd_places = draw(st.sets(places, min_size=1, max_size=odd)) if odd else frozenset()
            for place, field in enumerate(fields):
                if place in odd_places:
                    _set(built, field, draw(odd_values[place]))
                elif draw(st.integers(1, 20)) <= chances[place]:
                    _set(built, field, draw(usual_values[place]))
            return built

        return messages()

    def _usual(self, field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
        """Values of a field that make sense, or could."""
        if _is_map(field):
            return st.just({"a": "b"})
        if field.is_repeated:
            return st.lists(self._usual_one(field, depth), max_size=3)
        return self._usual_one(field, depth)

    def _usual_one(self, field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
        if _is_message(field):
            return self._messages(field.message_type, 0, depth + 1)
        if field.type == FieldDescriptor.TYPE_ENUM:
            return st.sampled_from([value.number for value in field.enum_type.values if value.number])
        if field.type == FieldDescriptor.TYPE_STRING:
            texts = self._texts(field)
            return _chosen(texts) if texts else st.just("x")
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.just(b"x")
        if field.type == FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        return st.sampled_from((0, 1, 2, 10))

    def _odd(self, field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
        """Values of a field that nobody expects."""
        if _is_map(field):
            texts = self._odd_texts(field)
            return st.one_of(
                st.dictionaries(texts, texts, max_size=3),
                st.sampled_from(COUNTS).map(lambda count: {str(number): "x" for number in range(count)}),
            )
        if not field.is_repeated:
            return self._odd_one(field, depth)
        one = self._odd_one(field, depth)
        same = st.builds(_repeated, st.one_of(one, self._usual_one(field, depth)), st.sampled_from(COUNTS))
        if field.type != FieldDescriptor.TYPE_STRING:
            return st.one_of(st.lists(one, min_size=1, max_size=3), same)
        different = st.sampled_from(COUNTS).map(lambda count: [f"s{number}" for number in range(count)])
        return st.one_of(st.lists(one, min_size=1, max_size=3), same, different)

    def _odd_one(self, field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
        if _is_message(field):
            return st.one_of([self._messages(field.message_type, odd, depth + 1) for odd in (1, 2)])
        if field.type == FieldDescriptor.TYPE_ENUM:
            return st.sampled_from((-1, 99, 2**31 - 1, -(2**31)))
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._odd_texts(field)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=50)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        smallest, largest = _range(field)
        return st.sampled_from([number for number in INTEGERS if smallest <= number <= largest])

    def _odd_texts(self, field: FieldDescriptor) -> SearchStrategy[str]:
        """Odd texts, and such as mean something elsewhere or meant something before somebody changed them."""
        here = self._texts(field) or self._all
        return st.one_of(
            st.sampled_from(ODD_TEXTS),
            st.text(max_size=20),
            st.builds(_long, st.sampled_from("aä/.*1\0 "), st.sampled_from(LENGTHS)),
            _chosen(self._all),
            _chosen(here).flatmap(_tampered),
        )

    def _texts(self, field: FieldDescriptor) -> Sequence[str]:
        """What is known for a field."""
        return self._known.get(field.full_name) or self._known.get(field.name) or ()

    def metadata(self) -> SearchStrategy[Metadata]:
        """Metadata as far as gRPC sends it: printable ASCII, and any bytes where the name ends with ``-bin``."""
        printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30).map(str.strip)
        texts = st.one_of(printable, _chosen(self._known["key_string"]), st.just("x" * 129), st.just("y" * 3000))
        schemes = st.sampled_from(("Bearer ", "bearer  ", "Basic ", "", "Bearer", "Bearer Bearer "))
        authorization = st.tuples(st.just("authorization"), st.builds(str.__add__, schemes, texts))
        request_id = st.tuples(st.just("x-request-id"), texts)
        binary = st.tuples(
            st.sampled_from(("x-request-id-bin", "authorization-bin", "a-bin")),
            st.binary(max_size=200),
        )
        other = st.tuples(st.sampled_from(("x", "x-forwarded-for", "traceparent", "cookie", "a.b_c-1")), texts)
        some = st.lists(st.one_of(authorization, request_id, request_id, binary, other), max_size=4).map(tuple)
        many = st.integers(0, 300).map(lambda count: tuple((f"x-{number}", "value") for number in range(count)))
        repeated = st.integers(0, 20).map(lambda count: (("x-request-id", "same"),) * count)
        return st.one_of(some, some, some, many, repeated)


RAW: Final = st.binary(max_size=120)
"""Bytes that are a message only by chance."""

_DEPTHS: Final = (b"\x0b" * 5_000, b"\x0b" * 90 + b"\x0c" * 90, b"\x0a\x02" * 1_000, b"\x7b" * 20_000)
"""Groups and messages within each other."""


@st.composite
def damaged(draw: DrawFn, sound: SearchStrategy[bytes], request: Descriptor) -> bytes:
    """A message with something done to its bytes."""
    body = draw(sound)
    for _ in range(draw(st.integers(1, 3))):
        body = draw(st.sampled_from(_DAMAGES))(draw, body, request)
    return body[:MESSAGE_BYTES_MAX]


def _flip(draw: DrawFn, body: bytes, _request: Descriptor) -> bytes:
    """Turn one bit over."""
    if not body:
        return b"\x00"
    place = draw(st.integers(0, min(len(body), 2000) - 1))
    return body[:place] + bytes([body[place] ^ 1 << draw(st.integers(0, 7))]) + body[place + 1 :]


def _cut(draw: DrawFn, body: bytes, _request: Descriptor) -> bytes:
    """Drop the end."""
    return body[: draw(st.integers(0, min(len(body), 2000)))]


def _insert(draw: DrawFn, body: bytes, _request: Descriptor) -> bytes:
    """Put bytes in."""
    place = draw(st.integers(0, min(len(body), 2000)))
    return body[:place] + draw(st.binary(min_size=1, max_size=8)) + body[place:]


def _append_unknown(draw: DrawFn, body: bytes, _request: Descriptor) -> bytes:
    """Add a field that the contract does not have."""
    return body + _encoded(draw(st.sampled_from((99, 1000, 19_000, 2**29 - 1))), draw(WIRE))


def _append_wrong(draw: DrawFn, body: bytes, request: Descriptor) -> bytes:
    """Add a field of the contract as another type."""
    return body + _encoded(draw(st.sampled_from([each.number for each in request.fields] or [1])), draw(WIRE))


def _append_text(draw: DrawFn, body: bytes, request: Descriptor) -> bytes:
    """Add a text that is not UTF-8: a surrogate, an overlong form, a byte too few or too many."""
    number = draw(st.sampled_from([each.number for each in request.fields] or [1]))
    text = draw(st.sampled_from((b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xff")))
    return body + _encoded(number, (2, _varint(len(text)) + text))


def _append_depth(draw: DrawFn, body: bytes, _request: Descriptor) -> bytes:
    """Add what is deep."""
    return body + draw(st.sampled_from(_DEPTHS))


_DAMAGES: Final = (_flip, _flip, _cut, _insert, _append_unknown, _append_wrong, _append_text, _append_depth)


def _varint(number: int) -> bytes:
    """A number on the wire."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


WIRE: Final[SearchStrategy[tuple[int, bytes]]] = st.one_of(
    st.tuples(st.just(0), st.sampled_from((0, 1, 2**31, 2**63, 2**64 - 1)).map(_varint)),
    st.tuples(st.just(0), st.just(b"\xff" * 10 + b"\x01")),
    st.tuples(st.just(1), st.binary(min_size=8, max_size=8)),
    st.tuples(st.just(2), st.binary(max_size=20).map(lambda content: _varint(len(content)) + content)),
    st.tuples(st.just(2), st.just(b"\xff\xff\xff\xff\x07")),
    st.tuples(st.sampled_from((3, 4, 6, 7)), st.just(b"")),
    st.tuples(st.just(5), st.binary(min_size=4, max_size=4)),
)
"""A wire type, and bytes behind it."""


def _encoded(number: int, wire: tuple[int, bytes]) -> bytes:
    """A field on the wire."""
    wire_type, content = wire
    return _varint(number << 3 | wire_type) + content


def _spans(message_class: type[Message]) -> SearchStrategy[Message]:
    """Odd times and durations."""
    return st.builds(message_class, seconds=st.sampled_from(SECONDS), nanos=st.sampled_from(NANOS))


def _chosen(texts: Sequence[str]) -> SearchStrategy[str]:
    """One of some texts, by its place."""
    return st.integers(0, len(texts) - 1).map(texts.__getitem__)


def _tampered(text: str) -> SearchStrategy[str]:
    """A text with something done to it."""
    middle = len(text) // 2
    return st.sampled_from(
        (
            text.upper(),
            text[:-1],
            text[1:],
            text + "A",
            text + "=",
            text + "\0",
            " " + text,
            text + text,
            text[:middle] + "x" + text[middle + 1 :],
            text[:middle] + "\N{SNOWMAN}" + text[middle:],
            text[::-1],
            text.removesuffix("…") + "…",
        )
    )


def _long(character: str, length: int) -> str:
    """A long text that fits into a message."""
    return character * (length // len(character.encode()))


def _repeated(value: Any, count: int) -> list[Any]:
    """A value so often as asked, but not more often than fits into a message."""
    size = len(value.encode()) if isinstance(value, str) else value.ByteSize() if isinstance(value, Message) else 10
    return [value] * min(count, MESSAGE_BYTES_MAX // (size + 4))


def _serialized(message: Message) -> bytes:
    """The bytes of a message. Several huge fields together give what gRPC refuses by itself: one byte too many."""
    return message.SerializeToString()[: MESSAGE_BYTES_MAX + 1]


def _is_message(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_MESSAGE


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _range(field: FieldDescriptor) -> tuple[int, int]:
    """The smallest and the largest number that an integer field can have."""
    bits = 32 if field.cpp_type in {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32} else 64
    if field.cpp_type in {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set a field, whatever its kind."""
    if isinstance(value, dict):
        getattr(message, field.name).update(value)
    elif isinstance(value, list):
        getattr(message, field.name).extend(value)
    elif isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)
