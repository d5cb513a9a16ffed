"""What commands print: tables for people, JSON for machines, one word for scripts."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keysvc.cli.contract import to_datetime
from keysvc.cli.failure import Failure
from keysvc.cli.report import report
from keysvc.cli.text import clean, to_json, write
from keysvc.cli.values import format_distance, format_time

_COLOURS = {
    "active": "green",
    "suspended": "yellow",
    "expired": "magenta",
    "revoking": "red",
    "revoked": "red",
    "COMPLETE": "green",
    "PENDING": "yellow",
}

# Whoever reads a pipe has no right margin.
_ENDLESS = 1_000_000
_FOLDED_CHARACTERS_MIN = 12
_UNFOLDED_CHARACTERS_MAX = 32
_RANK_WORTH_FOLDING_MAX = 2
_GAP = 2


def coloured(state: str) -> Text:
    """A state, in the colour that goes with the word."""
    return Text.assemble((clean(state), _COLOURS.get(state, "")))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Parameters:
        header: its title.
        rank: where a terminal is too narrow, columns leave, the highest rank first; 0 stays. For ranks up to 2 others
            are folded, the rest has to fit in beside them.
        folds: long values may take several lines; ids and the like may not.
        right: values end at the same place, as numbers do.
    """

    header: str
    rank: int = 0
    folds: bool = False
    right: bool = False


class Output:
    """One command's way to speak.

    Parameters:
        as_json: JSON instead of tables, errors included.
        quiet: only the essential.
        now: for distances such as `in 29 days`.
    """

    def __init__(self, *, as_json: bool, quiet: bool, now: datetime) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.now = now
        self.reader_gone = False
        self._console = Console(highlight=False, emoji=False, markup=False)
        self.narrow = sys.stdout.isatty()  # rich would also say so of a pipe that wants colours
        if not self.narrow:
            self._console.width = _ENDLESS

    def document(self, message: Message) -> None:
        """Print a message as JSON."""
        self._write(to_json(MessageToDict(message), sys.stdout))

    def line(self, text: str) -> None:
        """Print one line."""
        self._write(clean(text) + "\n")

    def show(self, *parts: Table | Text | str) -> None:
        """Print for people. Only tables are laid out; a line of text is never broken."""
        with self._console.capture() as captured:
            for part in parts:
                if isinstance(part, Table):
                    self._console.print(part, crop=False)
                else:
                    self._console.print(part if isinstance(part, Text) else Text(clean(part)), soft_wrap=True)
        self._write("".join(f"{line.rstrip(' ')}\n" for line in captured.get().split("\n")[:-1]))

    def note(self, text: str) -> None:
        """Say something beside the output."""
        write(sys.stderr, clean(text) + "\n")

    def failure(self, failure: Failure, subject: str = "") -> None:
        """Say why something could not be done; ``subject`` tells with which of several."""
        report(failure, as_json=self.as_json, subject=subject)

    def time(self, time: Timestamp) -> str:
        """A time, and how far away it is."""
        moment = to_datetime(time)
        return f"{format_time(moment)} ({format_distance(moment, self.now)})"

    def brief_time(self, time: Timestamp) -> str:
        """A time for a column: on a screen only how far away it is."""
        return format_distance(to_datetime(time), self.now) if self.narrow else format_time(to_datetime(time))

    def count(self, count: int) -> str:
        """How many: on a screen in groups of three digits."""
        return f"{count:,}" if self.narrow else str(count)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> Table:
        """Lay out rows. Columns without any value are left out, and those that a narrow terminal has no room for."""
        cells = [[each if isinstance(each, Text) else Text(clean(each)) for each in row] for row in rows]
        widths = [max((row[at].cell_len for row in cells), default=0) for at in range(len(columns))]
        kept = [at for at, width in enumerate(widths) if width]
        while (least := _least_width(kept, columns, widths)) > self._console.width:
            last = max(kept, key=lambda at: columns[at].rank)
            if not columns[last].rank:
                break
            kept.remove(last)
        # Rather let the terminal break a line than cut an id.
        table = _bare_table(show_header=True, width=least if least > self._console.width else None)
        for at in kept:
            column, header = columns[at], columns[at].header
            if column.right:  # rich moves nothing in a column that it must not cut
                header = header.rjust(widths[at])
                for row in cells:
                    row[at].pad_left(max(widths[at], len(header)) - row[at].cell_len)
            table.add_column(header, no_wrap=not column.folds, overflow="fold" if column.folds else "ignore")
        for row in cells:
            table.add_row(*(row[at] for at in kept))
        return table

    def details(self, rows: Iterable[tuple[str, str | Text]]) -> Table:
        """Lay out one thing, a line for each of its values; empty ones are left out."""
        table = _bare_table(show_header=False)
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for label, value in rows:
            if value:
                table.add_row(label, value if isinstance(value, Text) else Text(clean(value)))
        return table

    def _write(self, text: str) -> None:
        """Print, and go on in silence once the reader has gone: what was asked for is still to be done."""
        if not self.reader_gone:
            self.reader_gone = not write(sys.stdout, text)


def _bare_table(*, show_header: bool, width: int | None = None) -> Table:
    """A table without lines."""
    return Table(
        box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=show_header, header_style="bold", width=width
    )


def _least_width(kept: Sequence[int], columns: Sequence[Column], widths: Sequence[int]) -> int:
    """How wide a table must at least be."""
    worth_folding = all(columns[at].rank <= _RANK_WORTH_FOLDING_MAX for at in kept)
    folded = _FOLDED_CHARACTERS_MIN if worth_folding else _UNFOLDED_CHARACTERS_MAX
    return _GAP * (len(kept) - 1) + sum(
        max(len(columns[at].header), min(widths[at], folded) if columns[at].folds else widths[at]) for at in kept
    )
