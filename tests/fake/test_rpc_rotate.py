"""The tests of the server, with the fake."""

from tests.fake.conftest import the_tests_of
from tests.rpc import test_rotate

globals().update(the_tests_of(test_rotate))
