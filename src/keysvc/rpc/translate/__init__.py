"""Messages to values and back. Reading a request names everything that is wrong with it at once."""
