"""A keysvc in memory, for tests of services that use keysvc: everything is the real thing but for what keeps it."""
