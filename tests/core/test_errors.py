import re
from collections.abc import Iterator

import pytest

from keysvc.core import errors
from keysvc.core.errors import InvalidArgument, KeysvcError, NotFound, Overloaded, Unavailable, Violation, Violations


def family(parent: type[KeysvcError] = KeysvcError) -> Iterator[type[KeysvcError]]:
    """All errors below one."""
    for child in parent.__subclasses__():
        yield child
        yield from family(child)


@pytest.mark.parametrize("error", [*family()])
def test_every_error_has_a_reason_for_programs(error: type[KeysvcError]) -> None:
    """UPPER_SNAKE, at most 63 characters, as google.rpc.ErrorInfo wants it."""
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]", error.reason)


def test_no_two_errors_have_the_same_reason() -> None:
    """A program can tell them apart."""
    reasons = [error.reason for error in family()]
    assert sorted(reasons) == sorted(set(reasons))


def test_the_family_lives_in_one_module() -> None:
    """Whoever looks for an error looks there."""
    assert {error.__module__ for error in family()} == {errors.__name__}
    assert not issubclass(KeysvcError, ValueError | OSError)


def test_an_error_has_a_sentence_and_metadata() -> None:
    """The sentence is for people, the metadata for programs."""
    error = NotFound("workspace acme-corp/sales not found", workspace="acme-corp/sales")
    assert error.message == str(error) == "workspace acme-corp/sales not found"
    assert error.metadata == {"workspace": "acme-corp/sales"}
    assert NotFound("gone").metadata == {}


def test_nothing_is_raised_where_nothing_is_bad() -> None:
    """An empty collection is no error."""
    Violations().raise_if_any()


def test_all_bad_fields_are_told_at_once() -> None:
    """In the order in which they were found, in the sentence and one by one."""
    violations = Violations()
    violations.add("scopes[1]", "must be a scope")
    violations.add("ttl", "must be more than 0")
    with pytest.raises(InvalidArgument) as refused:
        violations.raise_if_any()
    assert refused.value.violations == (
        Violation("scopes[1]", "must be a scope"),
        Violation("ttl", "must be more than 0"),
    )
    assert refused.value.message == "scopes[1]: must be a scope; ttl: must be more than 0"
    assert refused.value.metadata == {}


@pytest.mark.parametrize(("count", "end"), [(10, "f9: is bad"), (11, "and 1 more"), (1000, "and 990 more")])
def test_the_sentence_has_an_end(count: int, end: str) -> None:
    """It names ten fields and counts the rest; the list names all."""
    error = InvalidArgument([Violation(f"f{index}", "is bad") for index in range(count)])
    assert error.message.startswith("f0: is bad; f1: is bad; ")
    assert error.message.endswith(f"; {end}")
    assert error.message.count(": is bad") == 10
    assert len(error.violations) == count


def test_what_was_raised_does_not_change_afterwards() -> None:
    """A collection that goes on growing does not change an error that is on its way."""
    violations = Violations([Violation("a", "is bad")])
    error = InvalidArgument(violations)
    violations.add("b", "is bad too")
    assert error.violations == (Violation("a", "is bad"),)


def test_a_request_can_be_bad_as_a_whole() -> None:
    """Bytes that are no message have no field to name."""
    error = InvalidArgument([], "the bytes are no message")
    assert (error.message, error.violations) == ("the bytes are no message", ())


def test_waiting_helps_where_nothing_could_be_decided() -> None:
    """Only then a caller is told to try again, and when."""
    assert Unavailable("x").retry_after_seconds == 1.0
    assert {error for error in family() if error.retry_after_seconds is not None} == {Overloaded, Unavailable}
