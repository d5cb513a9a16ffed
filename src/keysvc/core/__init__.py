"""What is true: keys, scopes, verdicts and their rules. Pure: no clock, no I/O, no randomness of its own."""
