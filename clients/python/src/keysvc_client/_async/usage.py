"""Usage: what was done with keys, told and asked."""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta

from keysvc.v1.usage_pb2 import RecordUsageRequest, RecordUsageResponse, UsageBucket
from keysvc.v1.usage_service_pb2 import QueryUsageRequest
from keysvc_client import methods
from keysvc_client._async.calls import AsyncCalls
from keysvc_client.records import UsageRecord
from keysvc_client.values import UsageGroupWord, to_duration, to_timestamp, usage_group_value


class AsyncUsage:
    """The calls about usage. What they answer are the messages of the contract, ``keysvc.v1``."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def record(
        self, source_id: str, batch_seq: int, records: Iterable[UsageRecord], *, timeout: float | None = None
    ) -> RecordUsageResponse:
        """Record a batch of usage. It is durable before the answer, and counted once, however often it is sent.

        Permission `usage.write`. Repeated by itself where keysvc is not available.

        Parameters:
            source_id: who counts, 1 to 128 characters, owned by the caller that first used it. A process that does not
                remember its last `batch_seq` takes a new one, such as a random UUID.
            batch_seq: 1 for the source's first batch, then one more for each, when the one before is answered.
            records: 1 to 1000. The answer's `failures` names those that will never be kept.

        Raises:
            FailedPrecondition: batches before this one are missing (`metadata["expected_batch_seq"]`), or another one
                was recorded under its number.
            InvalidArgument, PermissionDenied: see the contract.
        """
        request = RecordUsageRequest(
            source_id=source_id, batch_seq=batch_seq, records=[each.to_message() for each in records]
        )
        return await self._calls.call(methods.RECORD_USAGE, request, timeout)

    def query(
        self,
        *,
        workspace: str | None = None,
        key_id: str = "",
        groups: Iterable[UsageGroupWord] = (),
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        bucket: timedelta | None = None,
        page_size: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[UsageBucket]:
        """Totals of verifications and recorded work, one bucket for each workspace and group that was used.

        Permission `usage.read`. Repeated by itself where keysvc is not available.

        Parameters:
            workspace: only of this one; None: of all that the caller may see.
            key_id: only of this key.
            groups: what to keep apart.
            start_time, end_time, bucket: from when, until when, how long a bucket is. The service cannot do that yet.
            page_size: buckets in one call, at most 1000; None: 50.
            timeout: of each page.

        Raises:
            InvalidArgument, NotFound, Unimplemented: see the contract; with the first page.
        """
        request = QueryUsageRequest(
            workspace=workspace or "",
            key_id=key_id,
            groups=map(usage_group_value, groups),
            start_time=to_timestamp(start_time, "start_time"),
            end_time=to_timestamp(end_time, "end_time"),
            bucket=to_duration(bucket),
            page_size=page_size or 0,
        )
        return self._calls.items(methods.QUERY_USAGE, request, lambda page: page.buckets, timeout)
