"""Pictures of a run, from its JSON."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

Report = Mapping[str, Any]

OURS: Final = "#1f6f8b"
OURS_LIGHT: Final = "#8fc1d4"
THEIRS: Final = "#9aa5b1"
THEIRS_LIGHT: Final = "#d5dbe1"
WARM: Final = "#d1603d"
INK: Final = "#22303c"
FAINT: Final = "#6b7885"

_STYLE: Final = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "figure.facecolor": "white",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#c3cad1",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6eaee",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}

_TEN: Final = 10.0
_FAR: Final = 200.0
"""From the beginning to the end of an axis: beyond that only powers of ten have room."""

_SHORT: Final = {
    "empty": "empty handler",
    "hot": "Verify, remembered",
    "hot, all fields asked": "… all fields asked",
    "mixed, 90 % hot": "… 90 % remembered",
    "cold": "Verify, looked up",
    "naive": "naive service",
}


def draw(report: Report, folder: Path) -> list[str]:
    """All pictures that a report has the figures for; their file names.

    Parameters:
        folder: where they are written; it is there.
    """
    mpl.use("Agg")
    pictures: dict[str, tuple[str, Callable[[Report], Any]]] = {
        "throughput.png": ("contest", _throughput),
        "rates.png": ("rates", _rates),
        "flood.png": ("flood", _flood),
        "revoke.png": ("revoke", _revoke),
    }
    topics = {topic["name"]: topic for topic in report["topics"]}
    drawn = []
    with mpl.rc_context(_STYLE):
        for name, (topic, picture) in pictures.items():
            if topic in topics:
                figure = picture(topics[topic])
                # Without the version of the library, so that the same figures make the same file.
                figure.savefig(folder / name, bbox_inches="tight", pad_inches=0.2, metadata={"Software": None})
                plt.close(figure)
                drawn.append(name)
    return drawn


def _throughput(topic: Report) -> Any:  # noqa: ANN401 (of a library that only this needs)
    """How many calls are answered, and what one costs, next to an empty handler and a naive service."""
    rows = [row for row in topic["rows"] if row["name"] in _SHORT][::-1]
    names = [row["name"] for row in rows]
    places = range(len(rows))
    colours = [THEIRS if name in {"empty", "naive"} else OURS for name in names]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.55 * len(rows) + 1.4), sharey=True, width_ratios=(3, 2))
    left.barh(places, [row["figures"]["per_second"] for row in rows], color=colours, height=0.62)
    longest = 0.0
    for place, row in zip(places, rows, strict=True):
        each = [one["per_second"] for one in topic["raw"] if one["contender"] == row["name"]]
        longest = max(longest, *each)
        left.plot(each, [place] * len(each), "|", color=INK, alpha=0.45, markersize=9, markeredgewidth=1)
        told = left.annotate(
            f"{row['figures']['per_second']:,.0f}",
            (max(each), place),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
        )
        if row["name"] != "empty":
            ratio = f"{row['figures']['ratio']:.2f} of empty"
            left.annotate(ratio, (1, 0.5), (6, 0), xycoords=told, textcoords="offset points", va="center", color=FAINT)
    left.set_xlim(0, longest * 1.42)
    left.set_yticks(places, [_SHORT[name] for name in names])
    left.set_title("Calls per second, one server process")
    left.set_xlabel("bars: medians; marks: single rounds", color=FAINT, fontsize=9, loc="left")
    left.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    server = [row["figures"]["server_us"] for row in rows]
    database = [row["figures"]["database_us"] for row in rows]
    right.barh(places, server, color=colours, height=0.62)
    right.barh(places, database, left=server, color=WARM, alpha=0.8, height=0.62)
    for place, one, other in zip(places, server, database, strict=True):
        right.annotate(
            f"{one + other:,.0f}",
            (one + other, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
        )
    right.set_xlim(0, 1.2 * max(one + other for one, other in zip(server, database, strict=True)))
    right.set_title("CPU µs per call")
    right.set_xlabel("orange: PostgreSQL; the rest: server", color=FAINT, fontsize=9, loc="left")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    figure.subplots_adjust(wspace=0.06)
    return figure


def _rates(topic: Report) -> Any:  # noqa: ANN401 (as above)
    """Latency over the rate of calls."""
    figure, axes = plt.subplots(figsize=(9, 4.8))
    names = {"p50": "median", "p99": "99 %", "p999": "99.9 %"}
    lines = {"hot": (OURS, "-", "o"), "empty": (THEIRS, "--", "s")}
    ends: list[tuple[float, str, str]] = []
    rates: list[float] = []
    for name, (colour, style, marker) in lines.items():
        found = [one for one in topic["raw"] if one["name"] == name]
        rates = [one["rate"] for one in found]
        for quantile, width in (("p50", 1.4), ("p99", 2.4), ("p999", 1.4)):
            numbers = [one["ms"][quantile] for one in found]
            axes.plot(rates, numbers, style, color=colour, marker=marker, markersize=5, linewidth=width)
            ends.append((numbers[-1], f"{names[quantile]}{'' if name == 'hot' else ', empty handler'}", colour))
    _milliseconds(axes.yaxis)
    _label_ends(axes, rates[-1], ends)
    axes.set_xlim(rates[0] / 2, rates[-1] * 1.02)
    axes.set_xticks(rates, [f"{one['rate']:,.0f}\n{one['share']:.0%}" for one in topic["raw"] if one["name"] == "hot"])
    axes.set_xlabel("calls due per second, and as part of what Verify can answer at most")
    axes.set_title("Latency of Verify for remembered keys, from when a call was due")
    return figure


def _milliseconds(axis: Any) -> None:  # noqa: ANN401 (as above)
    """A logarithmic axis with numbers that people read."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high < _FAR * low else (1,), numticks=30))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g} ms"))


def _label_ends(axes: Any, place: float, ends: Sequence[tuple[float, str, str]]) -> None:  # noqa: ANN401 (as above)
    """Write the names of lines at their ends, apart from each other on a logarithmic axis."""
    apart = (axes.get_ylim()[1] / axes.get_ylim()[0]) ** 0.055
    lowest = 0.0
    for number, text, colour in sorted(ends):
        lowest = max(number, lowest * apart)
        axes.annotate(
            text,
            (place, number),
            (place * 1.045, lowest),
            color=colour,
            va="center",
            annotation_clip=False,
            fontsize=9.5,
        )


def _flood(topic: Report) -> Any:  # noqa: ANN401 (as above)
    """Latency of remembered keys while something else happens."""
    rows = topic["rows"][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(rows) + 1.4))
    quiet = next(row["figures"]["hot_p99"] for row in rows if row["name"] == "quiet")
    for place, row in enumerate(rows):
        low, high = row["figures"]["hot_p50"], row["figures"]["hot_p99"]
        colour = WARM if row["holds"] is False else OURS if row["target"] else THEIRS
        axes.plot([low, high], [place, place], color=colour, linewidth=7, solid_capstyle="round", alpha=0.35)
        axes.plot(low, place, "o", color=colour, markersize=7, markerfacecolor="white", markeredgewidth=2)
        axes.plot(high, place, "o", color=colour, markersize=9)
        each = [one["hot"]["latency_ms"]["p99"] for one in topic["raw"] if one["trouble"]["name"] == row["name"]]
        axes.plot(each, [place] * len(each), "|", color=INK, alpha=0.5, markersize=11)
        _beside(axes, place, 1.03, _told(high), weight="bold")
        _beside(axes, place, 1.19, f"{high / quiet:.1f} x quiet")
        _beside(axes, place, 1.37, _told(row["figures"]["revoke_p50"]))
    for x, heading in ((1.03, "p99"), (1.37, "Revoke, median")):
        _beside(axes, len(rows) - 0.4, x, heading)
    _milliseconds(axes.xaxis)
    axes.axvline(2 * quiet, color=WARM, linestyle=":", linewidth=1.5)
    axes.text(2 * quiet, len(rows) - 0.4, "  twice the quiet p99", color=WARM, fontsize=9, va="center")
    axes.set_ylim(-0.6, len(rows) - 0.1)
    axes.set_yticks(range(len(rows)), [_trouble(row) for row in rows])
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Verify of remembered keys while something else happens")
    axes.set_xlabel("hollow: median; filled: p99; marks: p99 of single rounds", color=FAINT, fontsize=9, loc="left")
    return figure


def _beside(axes: Any, place: float, x: float, text: str, *, weight: str = "normal") -> None:  # noqa: ANN401 (as above)
    """Write to the right of a row; ``x`` in widths of the axes."""
    colour = FAINT if weight == "normal" else INK
    axes.text(
        x, place, text, transform=axes.get_yaxis_transform(), va="center", color=colour, weight=weight, fontsize=9.5
    )


def _told(milliseconds: float) -> str:
    """As many digits as anybody reads."""
    digits = 2 if milliseconds < 1 else 1 if milliseconds < _TEN else 0
    return f"{milliseconds:,.{digits}f} ms"


def _trouble(row: Report) -> str:
    offered = row["figures"].get("offered")
    name: str = row["name"]
    return name + (f"\n{offered:,.0f} per second" if offered else "")


def _revoke(topic: Report) -> Any:  # noqa: ANN401 (as above)
    """Every Revoke, by number of holders."""
    raw = topic["raw"][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(raw) + 1.4))
    for place, one in enumerate(raw):
        times = [1000 * each for each in one["seconds"][1:]]
        colour = OURS if one["loaded"] else OURS_LIGHT
        # The golden ratio spreads them evenly, and in the same way each time.
        heights = [place + 0.4 * ((number * 0.618034) % 1 - 0.5) for number in range(len(times))]
        axes.plot(times, heights, "o", color=colour, markersize=3.2, alpha=0.55, markeredgewidth=0)
        for x, name, style in ((1.03, "revoke_p50", "-"), (1.19, "revoke_p99", ":")):
            number = one["figures"][name]
            axes.plot([number, number], [place - 0.32, place + 0.32], style, color=INK, linewidth=2)
            _beside(axes, place, x, _told(number), weight="bold" if style == "-" else "normal")
        _beside(axes, place, 1.37, _receipts(one["figures"]))
    for x, heading in ((1.03, "median"), (1.19, "p99"), (1.37, "receipts")):
        _beside(axes, len(raw) - 0.4, x, heading)
    _milliseconds(axes.xaxis)
    axes.set_ylim(-0.6, len(raw) - 0.1)
    axes.set_yticks(range(len(raw)), [one["name"] for one in raw])
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Revoke, until nobody accepts the key")
    axes.set_xlabel("dots: single calls; line: median; dotted: p99", color=FAINT, fontsize=9, loc="left")
    return figure


def _receipts(figures: Report) -> str:
    return ", ".join(f"{figures[name]} {name.upper()}" for name in ("ack", "timer", "pending") if figures[name.lower()])
