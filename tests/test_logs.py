import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from keysvc import logs
from keysvc.core.keystring import Environment, KeyString, mint
from keysvc.logs import redact

MINTED = mint(Environment.LIVE, bytes(32), lambda size: bytes(range(7, 7 + size)))
TEXT = MINTED.key_string.reveal()
SECRET = TEXT[-49:]  # with the tag
OTHER = mint(Environment.TEST, bytes(32), lambda size: bytes(range(70, 70 + size))).key_string.reveal()


class Terminal(io.StringIO):
    """A stream that says that a person reads it."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.fixture(params=[io.StringIO, Terminal], ids=["file", "terminal"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Where the logs go, configured; put back afterwards."""
    root, before = logging.getLogger(), structlog.get_config()
    monkeypatch.setattr(root, "handlers", root.handlers)
    monkeypatch.setattr(root, "level", root.level)
    stream: io.StringIO = request.param()
    logs.configure(stream)
    yield stream
    structlog.configure(**before)


@pytest.fixture
def log(stream: io.StringIO) -> Any:
    """A new logger of ours."""
    return structlog.get_logger(f"keysvc.test.{id(stream)}")


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines of a stream, each of them JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def leaks(text: str, secret: str = SECRET) -> list[str]:
    """All pieces of five characters of a secret that are in a text."""
    return [piece for at in range(len(secret) - 4) if (piece := secret[at : at + 5]) in text]


def fail(text: str) -> None:
    """Raise an error that knows too much, because of another one, with a note."""
    error = ValueError(f"bad: {text}")
    error.add_note(f"while looking at {text}")
    raise error from KeyError(text)


@dataclass
class Value:
    """Any value of ours."""

    text: str


OURS: dict[str, Callable[[Any], object]] = {
    "message": lambda log: log.info(f"got {TEXT} twice: {TEXT}"),  # noqa: G004 (the point)
    "value": lambda log: log.info("got", text=TEXT),
    "part of a value": lambda log: log.info("got", header=f"authorization: Bearer {TEXT}"),
    "list": lambda log: log.info("got", texts=[TEXT, [TEXT]]),
    "tuple in a dict": lambda log: log.info("got", texts={"a": {"b": (TEXT,)}}),
    "name in a dict": lambda log: log.info("got", texts={TEXT: 1}),
    "dataclass": lambda log: log.info("got", value=Value(TEXT)),
    "bytes": lambda log: log.info("got", raw=TEXT.encode()),
    "error": lambda log: log.info("got", error=ValueError(TEXT)),
    "bound": lambda log: log.bind(text=TEXT).info("got"),
    "argument": lambda log: log.info("got %s", TEXT),
    "key string in a list": lambda log: log.info("got", texts=[KeyString(TEXT), TEXT]),
}

THEIRS: dict[str, Callable[[logging.Logger], object]] = {
    "message": lambda log: log.warning(f"got {TEXT}"),  # noqa: G004 (the point)
    "argument": lambda log: log.warning("got %s and %r", TEXT, [TEXT]),
    "named argument": lambda log: log.warning("got %(text)s", {"text": TEXT}),
    "object": lambda log: log.warning(Value(TEXT)),
    "error": lambda log: log.warning(ValueError(TEXT)),
    "stack": lambda log: log.warning(f"got {TEXT}", stack_info=True),  # noqa: G004 (as above)
    "extra": lambda log: log.warning("got sk_live_1", extra={"text": TEXT}),
}


@pytest.mark.parametrize("name", OURS)
def test_no_line_of_ours_shows_a_key_string(stream: io.StringIO, log: Any, name: str) -> None:
    """Wherever in a line it stands, in whatever value: the beginning is left for people to find the key by."""
    OURS[name](log)
    assert "sk_live_1" in stream.getvalue()
    assert leaks(stream.getvalue()) == []


@pytest.mark.parametrize("name", THEIRS)
def test_no_line_of_a_library_shows_a_key_string(stream: io.StringIO, name: str) -> None:
    """Libraries log through the standard library, and know nothing of keys."""
    THEIRS[name](logging.getLogger("library.module"))
    assert "sk_live_1" in stream.getvalue()
    assert leaks(stream.getvalue()) == []


def tell_ours(how: Any) -> None:
    """Log the error that is being handled, as our code does."""
    structlog.get_logger("keysvc.test").error("failed", exc_info=how)


def tell_theirs(how: Any) -> None:
    """Log the error that is being handled, as libraries do."""
    logging.getLogger("library").warning("failed", exc_info=how)


@pytest.mark.parametrize("tell", [tell_ours, tell_theirs])
@pytest.mark.parametrize("how", [lambda _: True, lambda error: error], ids=["the current error", "an error"])
def test_no_traceback_shows_a_key_string(
    stream: io.StringIO, tell: Callable[[Any], None], how: Callable[[Exception], Any]
) -> None:
    """The error, its notes and its cause are told, without the key string that each of them has."""
    try:
        fail(TEXT)
    except ValueError as error:
        tell(how(error))
    said = stream.getvalue()
    assert all(part in said for part in ("Traceback", "KeyError", "ValueError: bad: sk_live_1", "while looking at"))
    assert leaks(said) == []


def test_no_traceback_of_a_group_shows_a_key_string(stream: io.StringIO) -> None:
    """Errors of several tasks are told together."""
    group = ExceptionGroup(TEXT, [ValueError(TEXT), ExceptionGroup("inner", [KeyError(TEXT)])])
    structlog.get_logger("keysvc.test").error("failed", exc_info=group)
    assert "KeyError" in stream.getvalue()
    assert leaks(stream.getvalue()) == []


async def test_an_error_that_nobody_waited_for_does_not_show_a_key_string(stream: io.StringIO) -> None:
    """The event loop logs what no task took: it is redacted as everything else."""
    asyncio.get_running_loop().call_exception_handler({"message": f"lost {TEXT}", "exception": ValueError(TEXT)})
    assert "ValueError: sk_live_1" in stream.getvalue()
    assert leaks(stream.getvalue()) == []


def test_what_is_bound_to_the_call_is_told_and_redacted(stream: io.StringIO) -> None:
    """The request id stands in every line of its call, also in those of libraries."""
    with structlog.contextvars.bound_contextvars(request_id=f"id of {TEXT}"):
        structlog.get_logger("keysvc.test").info("ours")
        logging.getLogger("library").warning("theirs")
    assert stream.getvalue().count("id of sk_live_1") == 2
    assert leaks(stream.getvalue()) == []


@pytest.mark.parametrize("stream", [io.StringIO], indirect=True, ids=["file"])
def test_lines_for_programs_are_json(stream: io.StringIO, log: Any) -> None:
    """One JSON object for each thing on one line, traceback included, beginning with time in UTC, level and event."""
    before = datetime.now(UTC)
    log.info("one", number=1, nothing=None, yes=True, ratio=0.5, text="a\nb")
    try:
        fail("x")
    except ValueError:
        log.exception("two")
    logging.getLogger("library").warning("three %d", 3)
    one, two, three = lines_of(stream)
    assert [*one][:3] == [*two][:3] == [*three][:3] == ["timestamp", "level", "event"]
    name = one["logger"]
    assert (one["event"], one["level"], name.startswith("keysvc.test.")) == ("one", "info", True)
    assert (one["number"], one["nothing"], one["yes"], one["ratio"], one["text"]) == (1, None, True, 0.5, "a\nb")
    assert (two["event"], two["level"], "\n" in two["exception"]) == ("two", "error", True)
    assert (three["event"], three["level"], three["logger"]) == ("three 3", "warning", "library")
    for line in (one, two, three):
        assert before <= datetime.fromisoformat(line["timestamp"]) <= datetime.now(UTC)


@pytest.mark.parametrize("stream", [Terminal], indirect=True, ids=["terminal"])
def test_lines_for_people_are_no_json(stream: io.StringIO, log: Any) -> None:
    """On a terminal a line is to be read."""
    log.info("one", number=1)
    assert "one" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.parametrize("stream", [io.StringIO], indirect=True, ids=["file"])
def test_libraries_are_heard_when_something_is_wrong(stream: io.StringIO) -> None:
    """Of ours from INFO on, of libraries from WARNING on."""
    for name in ("keysvc", "keysvc.rpc", "library", "keysvcs"):
        logger = logging.getLogger(name)
        logger.debug("debug")
        logger.info("info")
        logger.warning("warning")
    told = [(line["logger"], line["event"]) for line in lines_of(stream)]
    assert told == [
        *(("keysvc", "info"), ("keysvc", "warning"), ("keysvc.rpc", "info"), ("keysvc.rpc", "warning")),
        *(("library", "warning"), ("keysvcs", "warning")),
    ]


@pytest.mark.parametrize("stream", [io.StringIO], indirect=True, ids=["file"])
def test_configuring_again_moves_the_lines(stream: io.StringIO) -> None:
    """A line is told once, in the newest place."""
    newest = io.StringIO()
    logs.configure(newest)
    structlog.get_logger("keysvc.test").info("one")
    assert stream.getvalue() == ""
    assert [line["event"] for line in lines_of(newest)] == ["one"]


@pytest.mark.usefixtures("stream")
def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to what a command prints."""
    logs.configure()
    structlog.get_logger("keysvc.test").info("one")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "one"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no key in here: sk_live_, sk_live_1, sk_test_1abc", "no key in here: sk_live_, sk_live_1, sk_test_1abc"),
        (TEXT, "sk_live_1…"),
        (OTHER, "sk_test_1…"),
        (f"{TEXT},{OTHER}", "sk_live_1…,sk_test_1…"),
        (f"<{TEXT}>\n'{TEXT}'", "<sk_live_1…>\n'sk_live_1…'"),
        (TEXT.replace("sk_", "acme_keys_", 1), "acme_keys_live_1…"),
        (f"{TEXT}{'A' * 1000}", "sk_live_1…"),
        (f"{TEXT}é", "sk_live_1…é"),
    ],
    ids=ascii,
)
def test_redaction_leaves_the_beginning(text: str, expected: str) -> None:
    """Brand, environment and version stay, and all that is around; no more than people may see of a hint."""
    assert redact(text) == expected
    assert all(MINTED.hint.startswith(redact(key).removesuffix("…")) for key in (TEXT, TEXT[:-10]))


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_a_piece_of_a_key_string_is_redacted_too(length: int) -> None:
    """Wherever a text was cut off, no more than four characters of the secret are shown."""
    assert leaks(redact(TEXT[:length])) == []
    assert leaks(redact(f"[{TEXT[:length]}...]")) == []


@settings(deadline=None)
@given(
    id_entropy=st.binary(min_size=11, max_size=11),
    secret_entropy=st.binary(min_size=32, max_size=32),
    before=st.text(),
    after=st.text(),
)
def test_no_key_string_survives(id_entropy: bytes, secret_entropy: bytes, before: str, after: str) -> None:
    """Whatever is minted and whatever stands around it, its secret is not in the redacted text."""
    text = mint(Environment.TEST, b"x", {11: id_entropy, 32: secret_entropy}.__getitem__).key_string.reveal()
    redacted = redact(before + text + after)
    assert text[-49:] not in redacted
    assert text[-49:-6] not in redacted
    assert "test_1" in redacted
    assert redact(redacted) == redacted
