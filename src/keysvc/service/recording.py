"""Records usage that callers report, and reads the totals."""

from dataclasses import dataclass

from keysvc.core.usage import Batch, UsageRecord, tally
from keysvc.service.callers import Call
from keysvc.service.ports import UsageTotals


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that will never be kept.

    Parameters:
        index: its place in the batch.
        message: what is wrong with it, naming the field.
    """

    index: int
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """A batch as a caller sent it.

    Parameters:
        digest: of the records.
        records: by their place in the batch, those that have passed their own checks.
        failures: the others.
    """

    source_id: str
    seq: int
    digest: bytes
    records: dict[int, UsageRecord]
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch.

    Parameters:
        is_new: it was added now; otherwise it had been before.
    """

    accepted: int
    is_new: bool
    failures: tuple[Failure, ...]


class Recording:
    """Records usage.

    Parameters:
        totals: where it is kept.
    """

    def __init__(self, totals: UsageTotals) -> None:
        self._totals = totals

    async def record(self, call: Call, report: Report) -> Recorded:
        """Add a batch to the totals, unless that has been done; durable when this returns.

        A secret never goes away, so that a repeat of a batch finds the same records good, and the same bad.

        Raises:
            PermissionDenied: the source is another caller's.
            FailedPrecondition: there is a gap before the batch, or another one was recorded under its number.
        """
        owners = await self._totals.find_owners({record.secret_id for record in report.records.values()})
        failures = list(report.failures)
        good = []
        for index, record in report.records.items():
            key_id, workspace = owners.get(record.secret_id, (None, ""))
            if key_id != record.key_id or not call.caller.sees(workspace):
                failures.append(Failure(index, "secret_id: must be a secret of the key key_id"))
            else:
                good.append((workspace, record))
        batch = Batch(report.source_id, call.caller.name, report.seq, report.digest, tally(good))
        is_new = await self._totals.add(batch)
        return Recorded(len(good), is_new, tuple(sorted(failures, key=lambda failure: failure.index)))
