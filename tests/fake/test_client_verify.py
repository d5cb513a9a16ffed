"""The tests of the client library, with the fake."""

from tests.client import test_verify
from tests.fake.conftest import the_tests_of

globals().update(the_tests_of(test_verify))
