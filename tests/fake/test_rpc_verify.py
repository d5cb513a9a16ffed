"""The tests of the server, with the fake."""

from tests.fake.conftest import the_tests_of
from tests.rpc import test_verify

globals().update(
    the_tests_of(
        test_verify,
        # looks for the tag key in the database
        "test_an_unknown_secret_tells_nothing",
        # as above
        "test_the_whole_secret_must_be_right",
    )
)
