"""Messages of usage."""

from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

from keysvc.core.address import parse_address
from keysvc.core.errors import NotBuilt
from keysvc.core.keystring import parse_secret_id
from keysvc.core.listing import UsageFilter
from keysvc.core.usage import (
    BATCH_MAX,
    COUNT_MAX,
    LABEL_CHARACTERS_MAX,
    NO_KEY,
    STATUS_CODE_MAX,
    UNITS_MAX,
    Counter,
    Group,
    Outcome,
    Tally,
    UsageRecord,
)
from keysvc.core.verdict import Verdict
from keysvc.core.workspace import parse_workspace_name
from keysvc.rpc.fields import GOOD, Fields
from keysvc.rpc.translate.pages import read_page
from keysvc.rpc.translate.times import timestamp
from keysvc.rpc.translate.verify import VERDICTS
from keysvc.service.reading import Page, PageRequest
from keysvc.service.recording import Failure, Recorded, Report
from keysvc.v1 import usage_pb2, usage_service_pb2, verify_pb2

_BATCH_SEQ_MAX: Final = 2**63 - 1

_OUTCOME_OF: Final = {
    usage_pb2.OUTCOME_SUCCESS: Outcome.SUCCESS,
    usage_pb2.OUTCOME_FAILURE: Outcome.FAILURE,
}
_UNPROVED: Final = frozenset({Verdict.MALFORMED, Verdict.NOT_FOUND})
_VERDICT_OF: Final = {number: verdict for verdict, number in VERDICTS.items() if verdict not in _UNPROVED}
_Groups = usage_service_pb2.QueryUsageRequest
_GROUP_OF: Final = {
    _Groups.GROUP_KEY: Group.KEY,
    _Groups.GROUP_SECRET: Group.SECRET,
    _Groups.GROUP_VERDICT: Group.VERDICT,
}


def read_report(request: usage_pb2.RecordUsageRequest) -> Report:
    """A batch. A bad record does not make the batch bad: it will never be kept, and is told."""
    fields = Fields()
    source_id = fields.text("source_id", request.source_id, characters_max=LABEL_CHARACTERS_MAX, required=True)
    if not 1 <= request.batch_seq <= _BATCH_SEQ_MAX:
        fields.bad("batch_seq", f"must be 1 to {_BATCH_SEQ_MAX}")
    if not 1 <= len(request.records) <= BATCH_MAX:
        fields.bad("records", f"must have 1 to {BATCH_MAX} items")
    fields.done()
    records, failures = {}, []
    for index, each in enumerate(request.records):
        try:
            records[index] = _read_record(GOOD, each)
        except ValueError:
            bad = Fields()
            _read_record(bad, each)
            told = "; ".join(f"{violation.field}: {violation.description}" for violation in bad.violations)
            failures.append(Failure(index, told))
    batch = usage_pb2.RecordUsageRequest(records=request.records)
    digest = sha256(batch.SerializeToString(deterministic=True)).digest()
    return Report(source_id, request.batch_seq, digest, records, tuple(failures))


def _read_record(fields: Fields, record: usage_pb2.UsageRecord) -> UsageRecord:
    if record.outcome not in _OUTCOME_OF and (record.outcome or not record.verdict):
        fields.bad("outcome", "must be OUTCOME_SUCCESS or OUTCOME_FAILURE")
    if record.verdict and record.verdict not in _VERDICT_OF:
        fields.bad("verdict", "must be a verdict that Verify gives to whoever has proved a secret")
    fields.number("status_code", record.status_code, STATUS_CODE_MAX)
    if record.resource:
        fields.text("resource", record.resource, characters_max=LABEL_CHARACTERS_MAX)
    fields.optional("source_ip", record.source_ip, _parse_address)
    if record.request_id:
        fields.text("request_id", record.request_id, characters_max=LABEL_CHARACTERS_MAX)
    time = fields.time("occur_time", record)
    return UsageRecord(
        fields.uuid("key_id", record.key_id),
        fields.read("secret_id", record.secret_id, _parse_secret_id, ""),
        _OUTCOME_OF.get(record.outcome),
        fields.number("count", record.count, COUNT_MAX) or 1,
        fields.number("units", record.units, UNITS_MAX),
        _VERDICT_OF.get(record.verdict),
        time,
    )


# Remembered: a batch names few keys and addresses, many times.
_parse_address = lru_cache(maxsize=4096)(parse_address)
_parse_secret_id = lru_cache(maxsize=4096)(parse_secret_id)


def recorded_message(recorded: Recorded) -> usage_pb2.RecordUsageResponse:
    """What became of a batch."""
    return usage_pb2.RecordUsageResponse(
        accepted=recorded.accepted,
        duplicate=not recorded.is_new,
        failures=[
            usage_pb2.RecordUsageResponse.Failure(index=failure.index, message=failure.message)
            for failure in recorded.failures
        ],
    )


def read_query(request: usage_service_pb2.QueryUsageRequest) -> tuple[str | None, UsageFilter, PageRequest]:
    """Workspace, filter and page."""
    in_time = request.HasField("start_time") or request.HasField("end_time") or request.HasField("bucket")
    if in_time or {_Groups.GROUP_RESOURCE, _Groups.GROUP_SOURCE} & set(request.groups):
        raise NotBuilt("start_time, end_time, bucket, GROUP_RESOURCE and GROUP_SOURCE are not built yet")
    fields = Fields()
    workspace = fields.optional("workspace", request.workspace, parse_workspace_name)
    key_id = fields.uuid("key_id", request.key_id) if request.key_id else None
    for index, group in enumerate(request.groups):
        if group not in _GROUP_OF:
            fields.bad(f"groups[{index}]", "must be GROUP_KEY, GROUP_SECRET or GROUP_VERDICT")
    page = read_page(fields, request)
    fields.done()
    groups = frozenset(_GROUP_OF[group] for group in request.groups)
    return workspace, UsageFilter(key_id=key_id, groups=groups), page


def totals_message(
    page: Page[tuple[Counter, Tally]], usage_time: datetime | None
) -> usage_service_pb2.QueryUsageResponse:
    """A page of totals."""
    return usage_service_pb2.QueryUsageResponse(
        buckets=[_bucket(counter, tally) for counter, tally in page.items],
        next_page_token=page.next_token,
        usage_time=timestamp(usage_time),
    )


def _bucket(counter: Counter, tally: Tally) -> usage_pb2.UsageBucket:
    return usage_pb2.UsageBucket(
        workspace=counter.workspace,
        key_id="" if counter.key_id == NO_KEY else str(counter.key_id),
        secret_id=counter.secret_id,
        verdict=VERDICTS[counter.verdict] if counter.verdict else verify_pb2.VERDICT_UNSPECIFIED,
        verify_count=tally.verify_count,
        success_count=tally.success_count,
        failure_count=tally.failure_count,
        units=tally.units,
    )
