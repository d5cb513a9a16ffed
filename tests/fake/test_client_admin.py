"""The tests of the client library, with the fake."""

from tests.client import test_admin
from tests.fake.conftest import the_tests_of

globals().update(
    the_tests_of(
        test_admin,
        # the fake counts no usage
        "test_usage_is_recorded_once_and_told",
        # as above
        "test_verifications_are_told_by_group",
    )
)
