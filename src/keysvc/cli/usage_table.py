"""Usage as people see it: how often keys were verified, what became of it, and how fresh that is."""

from collections.abc import Collection, Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table
from rich.text import Text

from keysvc.cli.contract import UsageGroup, word
from keysvc.cli.output import Column, Output
from keysvc.v1.key_pb2 import Key
from keysvc.v1.usage_pb2 import UsageBucket
from keysvc.v1.verify_pb2 import Verdict

NOT_COUNTED = "No server is counting: what was used since is not known."

_NO_KEY = "(no known key)"
_RECORDED = "(recorded work)"
_COUNTS = ("Verified", "Succeeded", "Failed", "Units")


def usage_list(buckets: Sequence[UsageBucket], output: Output, groups: Collection[UsageGroup]) -> Table:
    """In a pipe a line for each bucket; on a screen, which has no room for two ids in a line, a tree."""
    headers = ["Workspace", *(group.title() for group in UsageGroup if group in groups)]
    counts = _count_cells(buckets, output)
    paths = [(bucket.workspace or _NO_KEY, *group_words(bucket, groups)) for bucket in buckets]
    columns = [Column(header, right=True) for header in _COUNTS]
    if not output.narrow:
        rows = [(*path, *cells) for path, cells in zip(paths, counts, strict=True)]
        return output.table([*map(Column, headers), *columns], rows)
    lines: list[tuple[str | Text, ...]] = []
    above: tuple[str, ...] = ()
    for path, cells in zip(paths, counts, strict=True):
        words = tuple(filter(None, path))
        for depth, name in enumerate(words):
            if words[: depth + 1] != above[: depth + 1] or depth == len(words) - 1:
                indented = "  " * depth + name
                lines.append((indented, *cells) if depth == len(words) - 1 else (indented, *[""] * len(cells)))
        above = words
    return output.table([Column(" / ".join(headers)), *columns], lines)


def group_words(bucket: UsageBucket, groups: Collection[UsageGroup]) -> tuple[str, ...]:
    """What a bucket was kept apart by, always in the same order; of presentations without a key not all is known."""
    words = {
        UsageGroup.KEY: bucket.key_id,
        UsageGroup.SECRET: bucket.secret_id,
        UsageGroup.VERDICT: word(Verdict.DESCRIPTOR, bucket.verdict) if bucket.verdict else _RECORDED,
    }
    return tuple(words[group] for group in UsageGroup if group in groups)


def usage_rows(key: Key, output: Output) -> list[tuple[str, str | Text]]:
    """How a key was used, for `Output.details`."""
    if not key.HasField("usage_time"):
        return [("used", "not known: no server is counting")]
    return [
        ("verified", f"{output.count(key.usage_total)} times" if key.usage_total != 1 else "once"),
        ("last used", output.time(key.last_used_time) if key.HasField("last_used_time") else "never"),
        ("as of", output.time(key.usage_time)),
    ]


def freshness(time: Timestamp, output: Output) -> str:
    """A remark under counts."""
    return f"Usage as of {output.time(time)}."


def _count_cells(buckets: Sequence[UsageBucket], output: Output) -> list[tuple[str, ...]]:
    """The counts of each bucket; what nobody recorded is left empty."""
    counts = [(each.verify_count, each.success_count, each.failure_count, each.units) for each in buckets]
    recorded = [at == 0 or any(row[at] for row in counts) for at in range(len(_COUNTS))]
    return [
        tuple(output.count(count) if kept else "" for count, kept in zip(row, recorded, strict=True)) for row in counts
    ]
