"""What lists of keys can be asked for, in SQL, and by which index it is found. A new condition goes here.

Every statement is such that one index alone can serve it, at a cost that is known before: planners guess from
statistics that are old, or of another owner than the one who is asked for, and then read a million keys to find ten.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Float,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    select,
    true,
    tuple_,
)
from sqlalchemy import table as table_of
from sqlalchemy.dialects.postgresql import ARRAY, REGCLASS
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from keysvc.core.key import State
from keysvc.core.keystring import Environment
from keysvc.core.listing import KeyFilter
from keysvc.core.verdict import Verdict
from keysvc.store.rows import is_open
from keysvc.store.schema import key, key_activity, secret, usage_total, workspace

PLANNING: Final = "SET LOCAL enable_seqscan = off; SET LOCAL random_page_cost = 0; SET LOCAL seq_page_cost = 0"
"""Never all of a table, and no bitmap where an index can be read until there is enough."""

TAGGED_MAX: Final = 50_000
"""Of a tag that more keys have, the index would give all of them before the first."""

_LAST: Final = "\U0010ffff"
_SURROGATES_START, _SURROGATES_END = 0xD800, 0xE000

_AFTER: Final = (bindparam("after_time", type_=key.c.create_time.type), bindparam("after_id", type_=key.c.id.type))

Columns: TypeAlias = ReadOnlyColumnCollection[str, Any]
"""Of a row of ``key``, or of a subquery that gives such rows."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way through keys from the newest to the oldest, along an index that has them in this order.

    Parameters:
        within: name and value of the column that the index has before the time; None: nothing is before it.
        only: the condition of a partial index, word for word.
    """

    within: tuple[str, ColumnElement[Any]] | None = None
    only: ColumnElement[bool] | None = None

    def select(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """All on the way that is older than the parameters ``after_time`` and ``after_id``, in order.

        ``within`` is written as a range and leads the order: an equation would let the planner take the index of all
        keys instead, and leave out on the way what does not fit.
        """
        query = select(*columns).order_by(*self.order(key.c))
        if self.only is not None:
            query = query.where(self.only)
        if self.within is None:
            return query.where(tuple_(key.c.create_time, key.c.id) < tuple_(*_AFTER))
        name, value = self.within
        row = tuple_(key.c[name], key.c.create_time, key.c.id)
        return query.where(key.c[name] >= value, row < tuple_(value, *_AFTER))

    def order(self, row: Columns) -> tuple[ColumnElement[Any], ...]:
        """From the newest to the oldest."""
        newest = (row.create_time.desc(), row.id.desc())
        return (row[self.within[0]].desc(), *newest) if self.within else newest


EVERYTHING: Final = Way()
"""Through all keys."""


@dataclass(frozen=True, slots=True)
class Finder:
    """How an index finds keys.

    Parameters:
        where: what it is asked for, on ``key``.
        source: rows to count, where the index is one of another table.
        is_frequent: whether there are so many that the index, which gives all at once, should not be asked.
        way: through exactly these keys, where the index has them in order.
    """

    where: ColumnElement[bool]
    source: Select[Any] | None = None
    is_frequent: ColumnElement[bool] | None = None
    way: Way | None = None

    def count(self, at_most: int) -> ColumnElement[int]:
        """How many it finds; counts no further than ``at_most``."""
        source = (
            select(literal(1).label("one")).select_from(key).where(self.where) if self.source is None else self.source
        )
        count = select(func.count()).select_from(source.limit(at_most).subquery()).scalar_subquery()
        return count if self.is_frequent is None else case((self.is_frequent, at_most), else_=count)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a filter.

    Parameters:
        holds: whether it holds for a row.
        finder: of all keys that it may hold for; None: no index knows them.
    """

    holds: Callable[[Columns], ColumnElement[bool]]
    finder: Finder | None = None


def _in_state(state: State) -> Condition:
    """As ``Key.state``: the first that applies."""

    def holds(row: Columns) -> ColumnElement[bool]:
        shown = case(
            (is_open(row.revoke_seq), State.REVOKING),
            (row.revoke_time.is_not(None), State.REVOKED),
            (row.suspended, State.SUSPENDED),
            (row.expire_time <= func.now(), State.EXPIRED),
            else_=State.ACTIVE,
        )
        return shown == state

    if state in {State.REVOKED, State.REVOKING}:
        return Condition(holds, _along(key.c.revoke_time.is_not(None)))
    if state is State.SUSPENDED:
        return Condition(holds, _along(literal_column("key.suspended", Boolean)))
    if state is State.EXPIRED:
        return Condition(holds, Finder(key.c.expire_time <= func.now()))
    return Condition(holds, Finder(key.c.revoke_time.is_(None)))


def _along(only: ColumnElement[bool]) -> Finder:
    """The finder of a partial index that has the order of creation."""
    return Finder(only, way=Way(only=only))


def _equal(name: str, value: str) -> Condition:
    """A text that has an index for all but the empty one."""
    only = literal_column(f"key.{name} <> ''", Boolean)
    finder = Finder(and_(key.c[name] == value, only), way=Way((name, literal(value)), only))
    return Condition(lambda row: row[name] == value, finder)


def _of_workspaces(names: tuple[str, ...]) -> Condition:
    """Of one of these. Only one has its way: several would have to be merged."""
    ids = func.array(
        select(workspace.c.id).where(workspace.c.name == any_(literal(list(names), ARRAY(Text)))).scalar_subquery()
    )
    way = None
    if len(names) == 1:
        way = Way(("workspace_id", select(workspace.c.id).where(workspace.c.name == names[0]).scalar_subquery()))
    finder = Finder(key.c.workspace_id == any_(ids), way=way)
    return Condition(lambda row: row.workspace_id == any_(ids), finder)


def _tagged(tag: str) -> Condition:
    """With a tag. That many keys have it is taken from statistics: to be mistaken costs time, and no more."""
    table = table_of("pg_class", column("oid"), column("reltuples", Float))
    statistics = table_of("pg_stats", column("schemaname"), column("tablename"), column("attname"))
    known = (
        func.unnest(
            cast(cast(literal_column("most_common_elems"), Text), ARRAY(Text)), literal_column("most_common_elem_freqs")
        )
        .table_valued(column("tag", Text), column("frequency", Float), name="known")
        .render_derived()
        .render_derived()
    )
    rows = select(table.c.reltuples).where(table.c.oid == cast("key", REGCLASS)).scalar_subquery()
    frequency = (
        select(known.c.frequency)
        .select_from(statistics.join(known, true()))
        .where(
            statistics.c.schemaname == func.current_schema(),
            statistics.c.tablename == "key",
            statistics.c.attname == "tags",
            known.c.tag == tag,
        )
    )
    finder = Finder(
        key.c.tags.contains([tag]),
        is_frequent=func.coalesce(frequency.scalar_subquery() * rows > TAGGED_MAX, false()),
    )
    return Condition(lambda row: row.tags.contains([tag]), finder)


def _hinted(prefix: str) -> Condition:
    """With a secret whose hint begins so."""
    begins = _range(secret.c.hint, prefix)
    source = select(secret.c.key_id).where(begins)

    def holds(row: Columns) -> ColumnElement[bool]:
        # Not EXISTS, which may be answered by going through all hints that begin so.
        return select(func.bool_or(begins)).where(secret.c.key_id == row.id).scalar_subquery()

    return Condition(holds, Finder(key.c.id == any_(func.array(source.scalar_subquery())), source))


def _named(prefix: str) -> Condition:
    """With a display name that begins so, byte by byte."""
    end = _end(prefix)

    def begins(name: ColumnElement[str]) -> ColumnElement[bool]:
        return and_(name.bool_op("~>=~")(prefix), name.bool_op("~<~")(end) if end else true())

    return Condition(lambda row: begins(row.display_name), Finder(begins(key.c.display_name)))


def _ending_before(time: datetime) -> Condition:
    return Condition(lambda row: row.expire_time < time, Finder(key.c.expire_time < time))


def _of_environment(environment: Environment) -> Condition:
    return Condition(lambda row: row.environment == environment)


def _idle_since(time: datetime) -> Condition:
    """Neither accepted nor created since a time. The time of activity may lag behind the totals of usage."""
    source = select(key_activity.c.key_id).where(key_activity.c.active_time < time)

    def holds(row: Columns) -> ColumnElement[bool]:
        active_time = select(key_activity.c.active_time).where(key_activity.c.key_id == row.id).scalar_subquery()
        accepted = (
            select(usage_total.c.key_id)
            .join(workspace, workspace.c.name == usage_total.c.workspace)
            .where(
                workspace.c.id == row.workspace_id,
                usage_total.c.key_id == row.id,
                usage_total.c.verdict == Verdict.VALID,
                usage_total.c.last_time >= time,
            )
            # As a join, which OFFSET 0 forbids, it could read the totals of a whole workspace.
            .offset(0)
        )
        return and_(active_time < time, not_(exists(accepted)))

    return Condition(holds, Finder(key.c.id == any_(func.array(source.scalar_subquery())), source))


def _range(text: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """Whether a text of collation ``C`` begins so, as a range: of LIKE with a parameter no index knows anything."""
    end = _end(prefix)
    return and_(text >= prefix, text < end if end else true())


def _end(prefix: str) -> str:
    """The first text behind all that begin so, by code points; empty: none is."""
    head = prefix.rstrip(_LAST)
    if not head:
        return ""
    after = ord(head[-1]) + 1
    return head[:-1] + chr(_SURROGATES_END if after == _SURROGATES_START else after)


_CONDITIONS: Final[Mapping[str, Callable[[Any], Condition]]] = {
    "state": _in_state,
    "owner": partial(_equal, "owner"),
    "workspaces": _of_workspaces,
    "role": partial(_equal, "role"),
    "tag": _tagged,
    "hint_prefix": _hinted,
    "display_name_prefix": _named,
    "expire_before": _ending_before,
    "idle_since": _idle_since,
    "environment": _of_environment,
}
"""By field of a filter. The first that has a way is taken where none has few candidates."""


def key_conditions(asked: KeyFilter) -> list[Condition]:
    """The conditions of a filter."""
    wanted = {name: getattr(asked, name) for name in _CONDITIONS}
    return [_CONDITIONS[name](value) for name, value in wanted.items() if value is not None]
