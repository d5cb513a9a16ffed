"""Property tests: a busy machine is no counterexample."""

from hypothesis import settings

settings.register_profile("keysvc", deadline=None)
settings.load_profile("keysvc")
