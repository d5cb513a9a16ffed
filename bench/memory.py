"""Memory of a server that remembers many keys."""

from typing import Final

from bench.deployment import open_deployment
from bench.generator import Generator, Loop, WrongAnswersError
from bench.result import Column, Row, Topic
from bench.seeding import Minted, Size, seed, tidy
from bench.session import ONE_WORKER, SCOPE, Session, create_caller, settle
from keysvc.v1 import verify_pb2

BYTES_MAX: Final = 800
WARM_UP: Final = 1_000

_RANGES: Final = ("203.0.113.0/24", "2001:db8::/32")
_NOTE_CHARACTERS: Final = 140
"""With these the metadata of a key has about 200 bytes as JSON."""

_KEYS_FOR_ONE_STRING: Final = 2.6

COLUMNS: Final = (
    Column("remembered", "keys remembered"),
    Column("megabytes", "resident MB", ",.1f"),
    Column("bytes", "bytes per key"),
)


async def measure(session: Session) -> Topic:
    """Before and after all keys were verified, in a deployment of its own."""
    keys = session.effort.memory_keys
    topic = Topic(
        "memory",
        "Memory of one worker",
        f"{keys:,} keys, each with three scopes, two CIDR ranges and 200 bytes of metadata. Resident set of the server "
        "when it has nothing to do; bytes per key: by what it has grown since it was warmed up, over the new keys.",
        COLUMNS,
    )
    with open_deployment() as deployment:
        operator = deployment.bootstrap()
        size = Size(int(keys * _KEYS_FOR_ONE_STRING), 1_000, keys, _RANGES, _NOTE_CHARACTERS)
        minted = seed(deployment.url, deployment.admin_url, deployment.peppers, size)[:keys]
        tidy(deployment.url, deployment.admin_url)
        with deployment.serve(*ONE_WORKER) as served:
            caller = await create_caller(served, operator)
            generator = Generator(session.generator.program, caller)
            warm, rest = minted[: len(minted) // 10][:WARM_UP], minted[len(minted) // 10 :]
            steps = (
                ("warmed up", warm, "DATABASE"),
                ("all verified once", rest, "DATABASE"),
                ("and again", rest, "MEMORY"),
            )
            before = first = 0
            for name, part, basis in steps:
                loop = Loop(requests=len(part))
                answers = await generator.run([served.address], map(_body, part), loop)
                answers.check_all("VALID", basis)
                counters, resident = await settle(served), served.resident_bytes()
                if not before:
                    before, first = resident, counters.remembered
                grown = counters.remembered - first
                figures: dict[str, float | int | None] = {
                    "remembered": counters.remembered,
                    "megabytes": resident / 1e6,
                }
                if part is rest:
                    if grown != len(rest):
                        raise WrongAnswersError(f"{len(rest)} keys were verified, {grown} are remembered")
                    figures["bytes"] = (resident - before) / grown
                topic.rows.append(_row(name, figures))
    topic.checks.append("the server remembered each key: the second time all answers were from memory")
    return topic


def _row(name: str, figures: dict[str, float | int | None]) -> Row:
    each = figures.get("bytes")
    return Row(
        name,
        figures,
        target="" if each is None else f"at most {BYTES_MAX} bytes",
        holds=None if each is None else each <= BYTES_MAX,
    )


def _body(key: Minted) -> bytes:
    """A request that the allow-list admits."""
    return verify_pb2.VerifyRequest(
        key_string=key.key_string.reveal(), required_scopes=[SCOPE], source_ip="203.0.113.7"
    ).SerializeToString()
