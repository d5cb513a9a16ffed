"""The tests of the server, with the fake."""

from tests.fake.conftest import the_tests_of
from tests.rpc import test_callers

globals().update(
    the_tests_of(
        test_callers,
        # ends with `keysvc bootstrap`
        "test_the_last_operator_key_stays",
        # reads the database
        "test_an_operator_is_found_behind_many_other_callers",
    )
)
