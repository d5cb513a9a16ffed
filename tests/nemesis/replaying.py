"""What keys and workspaces are at each revision, as the calls that were committed make them; and what Verify must say.

It knows what calls mean, and nothing of how keysvc does it.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.nemesis.history import REFUSING, Answer, Change, Event, History, Key, Question


@dataclass(frozen=True)
class Secret:
    """One secret; a retired one was replaced without an overlap."""

    is_revoked: bool = False
    is_retired: bool = False


@dataclass(frozen=True)
class KeyState:
    """A key at a revision.

    Parameters:
        expire_time: on the history's clock.
    """

    scopes: tuple[str, ...] = ()
    ip_allowlist: tuple[str, ...] = ()
    expire_time: float | None = None
    is_suspended: bool = False
    is_revoked: bool = False
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    def after(self, method: str, wanted: Mapping[str, Any], secret_id: str) -> "KeyState":
        """The key with a change.

        Parameters:
            secret_id: that the change is about: its new one, or the one that it ends; empty: the whole key.
        """
        secrets = dict(self.secrets)
        match method:
            case "Suspend" | "Resume":
                return replace(self, is_suspended=method == "Suspend")
            case "Update":
                return replace(self, **wanted)
            case "Rotate":
                if not wanted["overlap"]:
                    secrets = {each: replace(state, is_retired=True) for each, state in secrets.items()}
                return replace(self, secrets=secrets | {secret_id: Secret()})
            case "Revoke" if not secret_id:
                return replace(self, is_revoked=True)
            case "Revoke" | "CancelRotation":
                return replace(self, secrets=secrets | {secret_id: Secret(is_revoked=True)})
            case _:
                raise ValueError(method)


@dataclass(frozen=True)
class WorkspaceState:
    """A workspace at a revision."""

    allowed_scopes: tuple[str, ...] = ()
    is_suspended: bool = False

    def after(self, method: str, wanted: Mapping[str, Any], _secret_id: str) -> "WorkspaceState":
        """The workspace with a change."""
        match method:
            case "SuspendWorkspace" | "ResumeWorkspace":
                return replace(self, is_suspended=method == "SuspendWorkspace")
            case "UpdateWorkspace":
                return replace(self, **wanted)
            case _:
                raise ValueError(method)


class Replay:
    """What was committed, in its order.

    Parameters:
        history: with its events.
        clock_seconds: so far an end by time may be missed, either way.
    """

    def __init__(self, history: History, clock_seconds: float) -> None:
        assert history.events is not None
        self._clock_seconds = clock_seconds
        self._owners = history.owners
        calls = {change.label: change for change in history.changes}
        self._workspace_of = {key.id: key.workspace for key in history.keys.values()}
        dated = [event for event in history.events if event.revision and event.label in calls]
        dated.sort(key=lambda event: event.revision.seq if event.revision else 0)
        self._key_states = {key.id: _States(_created(key)) for key in history.keys.values()}
        self._workspace_states = {key.workspace: _States(WorkspaceState()) for key in history.keys.values()}
        for event in dated:
            states = self._key_states[event.key_id] if event.key_id else self._workspace_states[event.workspace]
            states.add(event, calls[event.label])

    def key_at(self, key_id: str, seq: int) -> KeyState:
        """A key at a revision."""
        state: KeyState = self._key_states[key_id].at(seq)
        return state

    def workspace_at(self, name: str, seq: int) -> WorkspaceState:
        """A workspace at a revision."""
        state: WorkspaceState = self._workspace_states[name].at(seq)
        return state

    def allowed(self, answer: Answer) -> set[str]:
        """The verdicts that are right at the revision of an answer; mostly one."""
        assert answer.revision
        key_id = self._owners[answer.question.secret_id]
        seq = answer.revision.seq
        key, workspace = self.key_at(key_id, seq), self.workspace_at(self._workspace_of[key_id], seq)
        return set(self._verdicts(key, workspace, answer))

    def _verdicts(self, key: KeyState, workspace: WorkspaceState, answer: Answer) -> Iterator[str]:
        """In the documented order: up to the first one that certainly applies."""
        secret = key.secrets.get(answer.question.secret_id)
        if secret is None:
            yield "NOT_FOUND"
        elif key.is_revoked or secret.is_revoked:
            yield from REFUSING
        elif key.is_suspended:
            yield "SUSPENDED"
        elif workspace.is_suspended:
            yield "WORKSPACE_SUSPENDED"
        elif secret.is_retired:
            yield "EXPIRED"
        else:
            end = key.expire_time
            if end is not None and answer.returned > end - self._clock_seconds:
                yield "EXPIRED"
            if end is None or answer.invoke < end + self._clock_seconds:
                yield _granted(key, workspace, answer.question)


class _States:
    """One thing at all revisions."""

    def __init__(self, first: Any) -> None:
        self._seqs: list[int] = []
        self._states: list[Any] = [first]

    def add(self, event: Event, change: Change) -> None:
        """What a change makes of it."""
        assert event.revision
        self._seqs.append(event.revision.seq)
        self._states.append(self._states[-1].after(change.method, change.wanted, event.secret_id))

    def at(self, seq: int) -> Any:
        return self._states[bisect_right(self._seqs, seq)]


def has_effect(change: Change, replay: Replay, seq: int) -> bool:
    """Whether things are at a revision as a change that was acknowledged, and changed nothing, wanted to have them."""
    wanted: Mapping[str, Any] = change.wanted
    if not change.key_id:
        workspace = replay.workspace_at(change.workspace, seq)
        return workspace.after(change.method, wanted, "") == workspace
    key = replay.key_at(change.key_id, seq)
    if change.method == "CancelRotation":
        return True  # of a rotation that is over there is nothing to see
    return change.method != "Rotate" and key.after(change.method, wanted, wanted.get("secret_id", "")) == key


def _created(key: Key) -> KeyState:
    return KeyState(scopes=key.scopes, secrets={key.secret_id: Secret()})


def _granted(key: KeyState, workspace: WorkspaceState, question: Question) -> str:
    """What is judged last. Addresses and scopes are plain here, so that both are looked for as they are."""
    if key.ip_allowlist and question.source_ip not in key.ip_allowlist:
        return "IP_NOT_ALLOWED"
    granted = set(key.scopes) & set(workspace.allowed_scopes or key.scopes)
    return "VALID" if granted.issuperset(question.scopes) else "INSUFFICIENT_SCOPE"
