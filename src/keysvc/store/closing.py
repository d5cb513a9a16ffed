"""The closing statement of a change: one round trip that takes the revision and writes it wherever it belongs.

Statements are made once for each shape of a change: to make one takes longer than all else that a process does for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Select, Table, bindparam, insert, literal, literal_column, select, update

from keysvc.store.rows import THIS_CHANGE
from keysvc.store.schema import audit_event, key_change, metadata, revocation_clock

_SHAPES_MAX: Final = 256


class _Shape(NamedTuple):
    """What of a row does not change from one change to the next.

    Parameters:
        table: its name.
        columns: that get values.
        dated: that get the revision of the change.
    """

    table: str
    is_update: bool
    columns: tuple[str, ...]
    dated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """A row that a change writes.

    Parameters:
        values: by column; ``THIS_CHANGE`` is its revision.
        row_id: of the row that is updated; None: it is inserted.
    """

    table: Table
    values: Mapping[str, Any]
    row_id: Any = None

    @property
    def shape(self) -> _Shape:
        """What of it does not change from one change to the next."""
        columns = tuple(name for name, value in self.values.items() if value is not THIS_CHANGE)
        dated = tuple(name for name, value in self.values.items() if value is THIS_CHANGE)
        return _Shape(self.table.name, self.row_id is not None, columns, dated)


class LogEntry(NamedTuple):
    """An entry in the log of changes.

    Parameters:
        kind: ``keys``, ``workspaces``, ``refusals``, ``all``.
        subject_id: of the key or workspace.
        is_restrictive: something may be refused that was accepted before.
    """

    kind: str
    subject_id: UUID | None
    is_restrictive: bool


def closing_statement(
    writes: Sequence[Write], entry: LogEntry | None, event: Mapping[str, Any], *, timeline: str, epoch: UUID | None
) -> tuple[Select[Any], dict[str, Any]]:
    """The statement that closes a change, and its parameters.

    With an entry in the log it answers what the barrier of the change must know: epoch, seq, lease_ms_max, timeline.

    Parameters:
        writes: rows that are locked already, or new; all get the revision, if there is one.
        entry: in the log; None: Verify's answers do not depend on the change, and there is no revision.
        event: the audit event's columns but ``seq``.
        timeline: SQL of it.
        epoch: a new one for the log.
    """
    rows = [*writes]
    if entry is None:
        rows.append(Write(audit_event, {**event, "seq": None}))
    else:
        logged = {
            "kind": entry.kind,
            "subject_ids": [] if entry.subject_id is None else [entry.subject_id],
            "restrictive": entry.is_restrictive,
            "final": not entry.is_restrictive,
            "at": event["time"],
        }
        rows += [Write(key_change, logged), Write(audit_event, event)]
    shapes = tuple(row.shape for row in rows)
    values = {
        f"row_{n}_{name}": value
        for n, row in enumerate(rows)
        for name, value in (*row.values.items(), ("row_id", row.row_id))
        if value is not THIS_CHANGE
    }
    statement = _made(shapes, timeline, has_entry=entry is not None, has_epoch=epoch is not None)
    return statement, values | {"new_epoch": epoch}


@lru_cache(_SHAPES_MAX)
def _made(shapes: tuple[_Shape, ...], timeline: str, *, has_entry: bool, has_epoch: bool) -> Select[Any]:
    """The statement for changes of a shape."""
    clock = revocation_clock.c
    new: dict[str, Any] = {"seq": clock.seq + 1}
    if has_epoch:
        new["epoch"] = bindparam("new_epoch", type_=clock.epoch.type)
    taken = update(revocation_clock).values(new).returning(clock.epoch, clock.seq, clock.lease_ms_max).cte("clock")
    seq = select(taken.c.seq).scalar_subquery()
    columns: list[Any] = [literal(0).label("seq")]
    if has_entry:
        columns = [*taken.c, literal_column(timeline).label("timeline")]
    rows = []
    for n, shape in enumerate(shapes):
        table = metadata.tables[shape.table]
        values: dict[str, Any] = {
            name: bindparam(f"row_{n}_{name}", type_=table.c[name].type) for name in shape.columns
        } | dict.fromkeys(shape.dated, seq)
        if has_entry:
            values["seq"] = seq
        if shape.is_update:
            row_id = bindparam(f"row_{n}_row_id", type_=table.c.id.type)
            rows.append(update(table).where(table.c.id == row_id).values(values).cte(f"row_{n}"))
        else:
            rows.append(insert(table).values(values).cte(f"row_{n}"))
    return select(*columns).add_cte(*rows)
