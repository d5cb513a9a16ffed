"""Why we may remember: the protocol of docs/consistency.md, and nothing else.

A holder answers from memory while it has a lease. A restrictive change commits, and then waits until everybody who can
have a lease has acknowledged it, or has run out of lease. Two invariants carry this:

I1. While its lease lasts, a holder has applied every change that was visible when the renewal that set the lease's end
    was sent.
I2. Every remembered record is the state of its key at ``applied``.

So once the last lease has ended whose holder may not have acknowledged a change, every lease was asked for after the
change had been committed, and by I1 its holder has applied it: that is TIMER. And if every member has acknowledged it,
then whoever has a lease has applied it, or joined after the change, or joined at the same time, and then asked for its
first lease after the change: that is ACK. By I2 whoever has applied a change does not answer by the state before it.

``holder`` and ``memory`` keep the invariants, ``barrier`` knows when a change is certain, ``collector`` which members
have died. They are told what happened and when, and never wait for anything: the loops that ask the database and tell
them are ``keysvc.service.renewing`` and ``keysvc.service.waiting``.
"""
