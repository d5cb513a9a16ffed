"""Latency at fixed rates, counted from when a call was due."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

from bench.beside import open_empty
from bench.generator import Answers, Loop
from bench.result import Column, Row, Topic
from bench.session import Session, body

SHARES: Final = (0.25, 0.50, 0.75, 0.90)
RATE_MIN: Final = 200.0
"""Or a short run might make no call at all."""

HALF: Final = 0.50
P99_RATIO_MAX: Final = 1.3

COLUMNS: Final = (
    Column("rate", "due per second"),
    Column("p50", "p50 ms", ".2f"),
    Column("p90", "p90 ms", ".2f"),
    Column("p99", "p99 ms", ".2f"),
    Column("p999", "p99.9 ms", ".2f"),
    Column("max", "max ms", ".1f"),
    Column("p99_ratio", "p99 of empty", ".2f"),
    Column("late_p99", "sent late p99 ms", ".2f"),
)


@dataclass(frozen=True, slots=True)
class Latencies:
    """What calls at a rate took.

    Parameters:
        ms: by name of the quantile; the median of several rounds.
        late_ms: how late calls were sent, which is part of it.
        calls: of all rounds.
    """

    rate: float
    ms: dict[str, float]
    late_ms: dict[str, float]
    calls: int

    @classmethod
    def of(cls, rate: float, rounds: list[Answers]) -> "Latencies":
        """Of several rounds."""
        return cls(
            rate,
            {name: median(each.latency_ms[name] for each in rounds) for name in rounds[0].latency_ms},
            {name: median(each.late_ms[name] for each in rounds) for name in rounds[0].late_ms},
            sum(each.counted for each in rounds),
        )

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.calls:,} calls, p99 {self.ms['p99']:.2f} ms, sent late by {self.late_ms['p99']:.2f} ms (p99)"


async def at_rate(session: Session, addresses: Mapping[str, str], rate: float) -> dict[str, Latencies]:
    """Latencies of Verify for remembered keys, of several servers in turn.

    Parameters:
        addresses: by name of the server; each must answer VALID from memory.
    """
    effort = session.effort
    rate = max(rate, RATE_MIN)
    bodies = [body(key.key_string) for key in session.hot]
    rounds: dict[str, list[Answers]] = {name: [] for name in addresses}
    for number in range(effort.rate_rounds):
        for name in session.chance.sample(sorted(addresses), len(addresses)):
            loop = Loop(rate=rate, seconds=effort.rate_seconds, warm=effort.warm_seconds, seed=number)
            answers = await session.generator.run([addresses[name]], bodies, loop)
            answers.check_all("VALID", "MEMORY")
            rounds[name].append(answers)
    return {name: Latencies.of(rate, found) for name, found in rounds.items()}


async def measure(session: Session) -> Topic:
    """Hot Verify and the empty handler at parts of the rate that hot Verify can do."""
    topic = Topic(
        "rates",
        "Verify at fixed rates",
        f"Open loop: calls are due at random times (a Poisson process) over {Loop().connections} connections, and a "
        "latency is counted from then, whoever was late. Rates are parts of what hot Verify answers at most; the empty "
        f"handler gets the same. Median of {session.effort.rate_rounds} interleaved rounds of "
        f"{session.effort.rate_seconds:g} s each.",
        COLUMNS,
    )
    calls = 0
    with session.serve() as served:
        await session.prime([served], session.hot)
        capacity = await session.capacity(served)
        async with open_empty(session, served) as empty:
            for share in SHARES:
                found = await at_rate(session, {"empty": empty.address, "hot": served.address}, share * capacity)
                for name, latencies in found.items():
                    ratio = latencies.ms["p99"] / found["empty"].ms["p99"]
                    promised = share == HALF and name == "hot"
                    topic.rows.append(
                        Row(
                            f"{name} at {share:.0%}",
                            {
                                "rate": latencies.rate,
                                **latencies.ms,
                                "p99_ratio": ratio,
                                "late_p99": latencies.late_ms["p99"],
                            },
                            target=f"p99 at most {P99_RATIO_MAX} of empty" if promised else "",
                            holds=ratio <= P99_RATIO_MAX if promised else None,
                        )
                    )
                    topic.raw.append({"name": name, "share": share, **asdict(latencies)})
                    calls += latencies.calls
                session.say(f"  {share:.0%}: " + "; ".join(f"{name}: {each.told}" for name, each in found.items()))
    topic.checks.append(f"each of {calls:,} answers was VALID and from memory")
    return topic
