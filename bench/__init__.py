"""Measures a real `keysvc serve` on a real PostgreSQL: `make bench`."""
