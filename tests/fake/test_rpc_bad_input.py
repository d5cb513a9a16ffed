"""The tests of the server, with the fake."""

from tests.fake.conftest import the_tests_of
from tests.rpc import test_bad_input

globals().update(
    the_tests_of(
        test_bad_input,
        # the fake has neither
        "test_health_and_reflection_refuse_bytes_that_are_no_message",
    )
)
