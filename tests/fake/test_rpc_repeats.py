"""The tests of the server, with the fake."""

from tests.fake.conftest import the_tests_of
from tests.rpc import test_repeats

globals().update(
    the_tests_of(
        test_repeats,
        # ages rows of the database; test_fake.py lets time go by instead
        "test_after_ten_minutes_a_repeat_names_what_was_made",
        # looks into the database
        "test_sealed_copies_are_removed",
    )
)
