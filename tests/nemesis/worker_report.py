"""What the page of the nemesis tells of servers that are several processes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

_INTRODUCTION: Final = """\
Several processes share an address, and the kernel chooses which of them accepts a connection. So connections are
opened until every process has one, and each answer names the process that it is from. Before a key is revoked each
process must have said that it is VALID, from memory; one that was started later than that is asked about it all the
same. *Knew* are those keys, *asked after* are the answers to questions about a revoked key that were asked when its
Revoke had returned, by where they came from."""

_AWAY: Final = """\
**{name}**: one that was killed was no member any more after at most {gone_max_ms:,} ms. The receipts of the Revokes
that were under way between its end and the first answer of the one in its place: {paths}."""


def worker_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section about them; nothing if there are none.

    Parameters:
        entries: of all faults.
    """
    told = [each for each in entries if each.get("workers")]
    if not told:
        return []
    lines = ["", "## The workers", "", _INTRODUCTION, ""]
    lines += ["| fault | process | knew | asked after | from memory | looked up |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for each in told:
        for name, worker in each["workers"].items():
            count = Counter(worker["probes"])
            # The machine's name is nobody's business.
            cells = (each["name"], name.rpartition("/")[2])
            counts = (worker["known"], count.total(), count["MEMORY"], count["DATABASE"])
            lines.append(f"| {' | '.join([*cells, *(f'{number:,}' for number in counts)])} |")
    for each in told:
        if each["away"]:
            paths = ", ".join(f"{path} {count:,}" for path, count in each["away"].items())
            lines += ["", _AWAY.format_map({**each, "paths": paths})]
    return lines
