"""Verification in this process, under leases that keysvc grants: "nested leases" of its docs/consistency.md.

``answers`` holds the rules, and never waits; ``renewing`` asks for leases, in a thread of its own.
"""
