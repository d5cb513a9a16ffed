"""The tests of the server, with the fake."""

from tests.fake.conftest import the_tests_of
from tests.rpc import test_keys

globals().update(
    the_tests_of(
        test_keys,
        # asks for usage too, which the fake does not have at all
        "test_what_is_not_built_says_so",
    )
)
