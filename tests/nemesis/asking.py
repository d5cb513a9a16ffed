"""Asks servers, and writes down what was asked and answered, and when."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.v1 import audit_service_pb2, key_pb2, key_service_pb2, receipt_pb2, verify_pb2, workspace_service_pb2
from tests.nemesis.cluster import Caller, now
from tests.nemesis.history import (
    Answer,
    Change,
    Event,
    History,
    Key,
    Question,
    Receipt,
    Revision,
    Told,
    basis_of,
    states_of,
    verdict_of,
)

UNANSWERED: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
"""After these nobody knows what became of a change."""

REFUSED: Final = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""These say that nothing was changed."""

VERIFY_SECONDS: Final = 8.0
"""Longer than any fault: a server that was stopped answers what it was asked in the meantime."""

CHANGE_SECONDS: Final = 8.0


class Asker:
    """Somebody who asks, and forgets nothing.

    Parameters:
        wall: what to add to this clock's times to get those that people know.

    Attributes:
        key_strings: by secret.
        unanswered: how many Verifys were not, by status.
        unexpected: errors that no fault explains.
    """

    def __init__(self, wall: float) -> None:
        self.wall = wall
        self.history = History()
        self.key_strings = dict[str, str]()
        self.unanswered = Counter[str]()
        self.unexpected = list[str]()
        self._labels = 0

    async def verify(
        self,
        caller: Caller,
        question: Question,
        *,
        level: str = "leased",
        at_least: Revision | None = None,
    ) -> Answer | None:
        """Ask for one verdict; None: there was no answer."""
        request = self._request(question)
        if level == "strong":
            request.consistency.strong.SetInParent()
        elif at_least:
            request.consistency.at_least = f"{at_least.epoch}.{at_least.seq}"
        invoke = now()
        try:
            message = await caller.keys.Verify(request, metadata=caller.metadata, timeout=VERIFY_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._not_answered("Verify", caller, error)
            return None
        return self._answered(caller, question, invoke, now(), message, level=level, at_least=at_least)

    async def verify_all(self, caller: Caller, questions: Sequence[Question]) -> list[Answer]:
        """Ask for many verdicts at once; none: there was no answer."""
        request = verify_pb2.VerifyBatchRequest(requests=map(self._request, questions))
        invoke = now()
        try:
            message = await caller.keys.VerifyBatch(request, metadata=caller.metadata, timeout=VERIFY_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._not_answered("VerifyBatch", caller, error)
            return []
        returned = now()
        return [
            self._answered(caller, question, invoke, returned, each)
            for question, each in zip(questions, message.responses, strict=True)
        ]

    async def create(self, caller: Caller, workspace: str, scopes: Sequence[str]) -> Key | None:
        """Create a key; None: it is unknown whether there is one, and nobody has its key string."""
        request = key_service_pb2.CreateRequest(
            workspace=workspace, display_name="a key", environment=key_pb2.ENVIRONMENT_LIVE, scopes=scopes
        )
        try:
            message = await caller.keys.Create(request, metadata=caller.metadata, timeout=CHANGE_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._not_answered("Create", caller, error)
            return None
        key = Key(message.key.id, workspace, message.key.secrets[0].id, tuple(scopes))
        self.own(key, key.secret_id, message.key_string)
        return key

    async def create_workspace(self, caller: Caller, name: str) -> bool:
        """Create a workspace; whether it is there."""
        request = workspace_service_pb2.CreateWorkspaceRequest(workspace={"name": name})
        try:
            await caller.workspaces.CreateWorkspace(request, metadata=caller.metadata, timeout=CHANGE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                return True
            self._not_answered("CreateWorkspace", caller, error)
            return False
        return True

    def own(self, key: Key, secret_id: str, key_string: str) -> None:
        """Remember a key and a secret of it, which can be asked about from now on."""
        self.key_strings[secret_id] = key_string
        self.history.keys[key.id] = key
        self.history.owners[secret_id] = key.id

    async def change(  # noqa: PLR0913 (all that a change is)
        self,
        caller: Caller,
        method: str,
        workspace: str,
        key_id: str = "",
        *,
        wait: receipt_pb2.Wait = receipt_pb2.WAIT_BARRIER,
        seconds: float = CHANGE_SECONDS,
        **wanted: Any,
    ) -> Change:
        """Change something.

        Parameters:
            key_id: empty: the workspace is changed.
            wait: what for.
            seconds: so long it may take.
        """
        self._labels += 1
        label = f"{workspace} {self._labels}"
        change = Change(label, caller.name, method, workspace, key_id, wanted, now())
        self.history.changes.append(change)
        stub = caller.keys if key_id else caller.workspaces
        request = self._change_request(change)
        request.reason, request.wait = label, wait
        try:
            message = await getattr(stub, method)(request, metadata=caller.metadata, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSED:
                change.returned, change.refusal = now(), error.code().name
            else:
                self._not_answered(method, caller, error)
            return change
        change.returned, change.receipt = now(), Receipt.of(message.receipt, self.wall)
        if key_id:
            self._told(caller.name, message.key, change.invoke, change.returned)
        if method == "Rotate":
            self.own(self.history.keys[key_id], message.key.secrets[-1].id, message.key_string)
        return change

    async def list_keys(self, caller: Caller, workspace: str) -> dict[str, str]:
        """What List says of all secrets of a workspace; nothing where there was no answer."""
        found = dict[str, str]()
        request = key_service_pb2.ListRequest(workspace=workspace, page_size=1000)
        while True:
            invoke = now()
            try:
                message = await caller.keys.List(request, metadata=caller.metadata, timeout=CHANGE_SECONDS)
            except grpc.aio.AioRpcError as error:
                self._not_answered("List", caller, error)
                return {}
            for key in message.keys:
                found.update(self._told(caller.name, key, invoke, now()))
            if not message.next_page_token:
                return found
            request.page_token = message.next_page_token

    async def look_for_events(self, caller: Caller, workspaces: Iterable[str]) -> bool:
        """Read the audit events of workspaces into the history; whether all could be read."""
        events = list[Event]()
        for workspace in workspaces:
            request = audit_service_pb2.ListAuditEventsRequest(workspace=workspace, page_size=1000)
            while True:
                try:
                    message = await caller.audit.ListAuditEvents(request, metadata=caller.metadata, timeout=20)
                except grpc.aio.AioRpcError as error:
                    self._not_answered("ListAuditEvents", caller, error)
                    return False
                events += map(_event, message.events)
                if not message.next_page_token:
                    break
                request.page_token = message.next_page_token
        self.history.events = events
        return True

    def _request(self, question: Question) -> verify_pb2.VerifyRequest:
        key_string = self.key_strings[question.secret_id]
        return verify_pb2.VerifyRequest(
            key_string=key_string, required_scopes=question.scopes, source_ip=question.source_ip
        )

    def _answered(  # noqa: PLR0913 (all that an answer is)
        self,
        caller: Caller,
        question: Question,
        invoke: float,
        returned: float,
        message: verify_pb2.VerifyResponse,
        *,
        level: str = "leased",
        at_least: Revision | None = None,
    ) -> Answer:
        answer = Answer(
            caller.answered_by(message.holder),
            question,
            invoke,
            returned,
            verdict_of(message),
            Revision.parse(message.revision) if message.revision else None,
            basis_of(message),
            level,
            at_least,
        )
        self.history.answers.append(answer)
        return answer

    def _told(self, server: str, key: key_pb2.Key, invoke: float, returned: float) -> Mapping[str, str]:
        states = states_of(key)
        self.history.told += [Told(server, secret_id, invoke, returned, state) for secret_id, state in states.items()]
        return states

    def _not_answered(self, method: str, caller: Caller, error: grpc.aio.AioRpcError) -> None:
        self.unanswered[f"{method} {error.code().name}"] += 1
        if error.code() not in UNANSWERED | {grpc.StatusCode.RESOURCE_EXHAUSTED}:
            self.unexpected.append(f"{method} at {caller.name}: {error.code().name}: {error.details()}")

    def _change_request(self, change: Change) -> Any:
        """The request of a change, but for its reason and what it waits for."""
        wanted = dict(change.wanted)
        if change.method == "Update":
            end = wanted.get("expire_time")
            if end is not None:
                wanted["expire_time"] = Timestamp(nanos=0)
                wanted["expire_time"].FromNanoseconds(round((end + self.wall) * 1e9))
            return key_service_pb2.UpdateRequest(
                key={"id": change.key_id, **wanted}, update_mask={"paths": [*change.wanted]}
            )
        if change.method == "UpdateWorkspace":
            return workspace_service_pb2.UpdateWorkspaceRequest(
                workspace={"name": change.workspace, **wanted}, update_mask={"paths": [*wanted]}
            )
        if not change.key_id:
            return getattr(workspace_service_pb2, f"{change.method}Request")(name=change.workspace)
        if change.method == "Rotate":
            wanted["overlap"] = {"seconds": wanted["overlap"]}
        return getattr(key_service_pb2, f"{change.method}Request")(key_id=change.key_id, **wanted)


def _event(message: audit_service_pb2.AuditEvent) -> Event:
    return Event(
        message.reason,
        message.method.partition("/")[2],
        message.workspace,
        message.key_id,
        message.secret_id,
        Revision.parse(message.revision) if message.revision else None,
    )
