"""The migrations that make the tables, run by ``keysvc.store.migrate``."""
