"""What a run found: topics with rows of figures, as data for JSON, tables, pictures and the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

Number = float | int | None


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of every row.

    Parameters:
        name: of the figure in a row.
        heading: for people, with the unit.
        style: of Python's formatting.
    """

    name: str
    heading: str
    style: str = ",.0f"

    def text(self, row: "Row") -> str:
        """The figure of a row, for people."""
        number = row.figures.get(self.name)
        return "" if number is None else format(number, self.style)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured.

    Parameters:
        figures: by name of the column.
        target: what is promised; empty: nothing.
        holds: whether it is met.
        note: what to know when reading it.
    """

    name: str
    figures: dict[str, Number]
    target: str = ""
    holds: bool | None = None
    note: str = ""

    @property
    def judgement(self) -> str:
        """Target, and whether it is met."""
        return f"{self.target} {'holds' if self.holds else 'MISSED'}" if self.target else ""


@dataclass(frozen=True, slots=True)
class Topic:
    """What belongs together, and was measured side by side.

    Parameters:
        name: on the command line.
        title: for people.
        method: how it was measured.
        checks: what was asserted about the answers while it was measured, with numbers.
        raw: of each round, for whoever wants to look closer.
    """

    name: str
    title: str
    method: str
    columns: tuple[Column, ...]
    rows: list[Row] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)


def spread(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    if len(numbers) == 1:
        return numbers[0], numbers[0], numbers[0]
    low, _, high = quantiles(numbers, n=4, method="inclusive")
    return median(numbers), low, high


def percentile(numbers: Sequence[float], part: float) -> float:
    """The number that so large a part of all does not exceed."""
    ordered = sorted(numbers)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]
