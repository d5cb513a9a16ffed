"""The machine that calls keysvc at random, and compares each answer with the model's."""

import sys
import time
from collections.abc import Iterable
from itertools import count
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from keysvc.v1 import audit_service_pb2, key_pb2, key_service_pb2, receipt_pb2, verify_pb2, workspace_service_pb2
from tests.deployment import Refused, request_id
from tests.model.drawn import DAY, FAR, PLAIN_SCOPES, calls, good_keys, good_workspaces
from tests.model.model import (
    SECOND,
    SYSTEM,
    VERIFY_ANSWERS,
    Model,
    Refusal,
    Thing,
    admits,
    key_state,
    living,
    secret_state,
    stands_for,
)
from tests.model.world import World, a_span, a_time, nanoseconds, sequence, settled

SAME_IN_EVENTS: Final = {
    *("display_name", "owner", "scopes", "role", "metadata", "tags", "suspended", "allowed_scopes", "key_limit"),
    "roles",
}
"""Fields that events tell as the contract names them."""


def event_name(name: str) -> str:
    """The name of a field in an event."""
    return {"default_ttl": "default_ttl_seconds", "max_ttl": "max_ttl_seconds", "revoked": "revocation"}.get(name, name)


def unique(value: Any) -> Any:
    """A list as it is kept: without repetitions."""
    return list(dict.fromkeys(value)) if isinstance(value, list) else value


def normal(value: Any) -> Any:
    """A value as it is compared."""
    return unique(value)


def check_refused(method: str, request: Any, refused: Refused, expected: Refusal) -> None:
    """A call failed for one of the reasons that there are; bad fields are named at once, all of them and no other."""
    assert refused.code.name in expected.everything(), (method, request, refused, expected)
    if refused.code.name == "INVALID_ARGUMENT":
        assert set(refused.violations) == expected.fields, (method, request, refused, expected)


class Machine(RuleBasedStateMachine):
    """Calls, as they come; each is checked against the model, and at the end everything is.

    Parameters:
        world: the server. Workspaces and keys of earlier machines are on it, but their operators are not.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.organization = f"org-{next(world.numbers)}"
        self.steps = count(1)
        self.model = Model(self.read_key(world.only_operator(), [world.deployment.operator_key]))
        self.clock = 0
        self.made: list[tuple[str, Thing, key_service_pb2.CreateRequest, str]] = []
        self.names = [f"{self.organization}/{name}" for name in ("sales", "support", "extra")]

    @initialize(first=good_workspaces, second=good_workspaces, keys=st.tuples(good_keys, good_keys))
    def begin(self, first: Thing, second: Thing, keys: tuple[Thing, Thing]) -> None:
        """Two workspaces with a key each, and callers who may do less than the operator."""
        for number, asked in enumerate((first, second)):
            self.create_workspace(n=0, name=number, asked=asked, reason="")
        everything = ["keys.read", "keys.write", "keys.revoke", "verify", "workspaces.write", "audit.read"]
        for scopes, workspaces in (
            ([*everything, "pdf.*"], [self.names[0]]),
            (["keys.write", "keys.revoke", "workspaces.write", "pdf.*", "*.read"], []),
            (["verify", "keys.read"], [self.names[1], SYSTEM]),
        ):
            self.create_caller(n=0, scopes=scopes, workspaces=workspaces, reason="")
        for workspace, fields in ((1, keys[0]), (2, keys[1])):
            self.create_key(0, workspace, 1, fields, expiry="none", has_workspaces=False, reason="")

    @rule(call=calls)
    def call(self, call: tuple[str, Thing]) -> None:
        """One call, or one walk through a list. One rule for all, so that all come together."""
        name, arguments = call
        getattr(self, name)(**arguments)

    # Choosing.

    def operator(self) -> tuple[Thing, Thing]:
        """An operator that can do everything, and its secret."""
        key = next(each for each in self.model.keys.values() if self.model.is_usable_operator(each))
        return key, living(key)[0]

    def caller(self, number: int) -> tuple[Thing, Thing]:
        """A caller, an operator in half of all cases, and its newest secret."""
        others = [key for key in self.model.keys.values() if key["workspace"] == SYSTEM and not self.is_kept(key)]
        if number % 2 == 0 or not others:
            return self.operator()
        key = others[number // 2 % len(others)]
        return key, key["secrets"][-1]

    def key(self, number: int) -> Thing:
        """A key, or sometimes that of a caller, beginning with the first operator's."""
        keys = [key for key in self.model.keys.values() if (key["workspace"] == SYSTEM) == (number % 4 == 3)]
        keys = keys or list(self.model.keys.values())
        return keys[number // 4 % len(keys)]

    def is_kept(self, key: Thing) -> bool:
        """Whether a key is the first operator's, whose string the next machine needs."""
        return key is self.model.root

    # Calling.

    def attempt(self, caller: tuple[Thing, Thing], service: str, method: str, request: Any, why_not: Refusal) -> Any:
        """Call, and return the answer; None where the model says that it must fail, and it has failed so."""
        refusal = self.model.admitted(*caller, method)
        refusal = refusal or why_not
        self.trace_id = f"{self.organization}.{next(self.steps)}"
        try:
            answer = self.world.call(caller[1]["key_string"], service, method, request, self.trace_id)
        except Refused as refused:
            check_refused(method, request, refused, refusal)
            return None
        assert not refusal, (method, request, refusal)
        return answer

    def changed(  # noqa: PLR0913 (all that an event tells)
        self,
        caller: tuple[Thing, Thing],
        method: str,
        *,
        reason: str,
        workspace: str,
        key_id: str = "",
        secret_id: str = "",
        before: Thing | None = None,
        after: Thing | None = None,
        receipt: receipt_pb2.Receipt | None = None,
        is_judged: bool = True,
    ) -> None:
        """Remember the event of a change, and check the place of the change in the order of all.

        Parameters:
            before, after: what is told of it, as far as the contract names it; those in ``before`` have changed.
            is_judged: Verify's answers depend on it, so that it has a revision.
        """
        revision = ""
        if receipt is not None and is_judged:
            revision = receipt.revision
            assert sequence(revision) > self.clock
        self.model.events.append(
            {
                "actor": caller[0]["id"],
                "method": f"keysvc.v1.{method}",
                "workspace": workspace,
                "key_id": key_id,
                "secret_id": secret_id,
                "reason": reason,
                "request_id": self.trace_id,
                "revision": revision,
                "source_ip": "127.0.0.1",
                "before": before,
                "after": after,
            }
        )

    def check_receipt(self, receipt: receipt_pb2.Receipt) -> None:
        """A change that has returned is true everywhere; revisions never go back."""
        assert receipt.state == receipt_pb2.Receipt.STATE_COMPLETE
        self.clock = max(self.clock, sequence(receipt.revision))
        self.last_revision = receipt.revision

    # Workspaces.

    def workspace_message(self, asked: Thing, **more: Any) -> workspace_service_pb2.Workspace:
        """A workspace as it is asked for."""
        fields = asked | more
        if "roles" in asked:
            fields["roles"] = [{"name": name, "scopes": scopes} for name, scopes in asked["roles"].items()]
        for name in ("default_ttl", "max_ttl"):
            if name in asked:
                fields[name] = a_span(asked[name])
        return workspace_service_pb2.Workspace(**fields)

    def check_workspace(self, message: workspace_service_pb2.Workspace) -> None:
        """A workspace is as the model has it."""
        known = self.model.workspaces[message.name]
        assert message.state == 1 + known["suspended"]
        assert message.display_name == known["display_name"]
        assert list(message.allowed_scopes) == known["allowed_scopes"]
        assert {role.name: list(role.scopes) for role in message.roles} == known["roles"]
        assert nanoseconds(message, "default_ttl") == known["default_ttl"]
        assert nanoseconds(message, "max_ttl") == known["max_ttl"]
        assert (message.key_limit if message.HasField("key_limit") else None) == known["key_limit"]
        if "message" in known:
            assert message == known["message"]
        known["message"], known["etag"] = message, message.etag

    def workspace_changed(self, caller: tuple[Thing, Thing], method: str, answer: Any, new: Thing, reason: str) -> None:
        """A workspace is as it shall be from now on; what was so before is no change."""
        name = answer.workspace.name
        known = self.model.workspaces[name]
        before = {field: known[field] for field, value in new.items() if known[field] != value}
        if before:
            known.update(new)
            assert answer.workspace.etag != known.pop("etag")
            known.pop("message", None)
            self.changed(
                caller,
                f"WorkspaceService/{method}",
                reason=reason,
                workspace=name,
                before=before,
                after={field: known[field] for field in before},
                receipt=answer.receipt,
                is_judged=not {"suspended", *VERIFY_ANSWERS}.isdisjoint(before),
            )
        self.check_workspace(answer.workspace)
        self.check_receipt(answer.receipt)
        self.verify_secrets([key for key in self.model.keys.values() if key["workspace"] == name])

    def create_workspace(self, n: int, name: int, asked: Thing, reason: str) -> None:
        """CreateWorkspace."""
        caller, asked = self.caller(n), asked | {"name": self.names[name]}
        request = workspace_service_pb2.CreateWorkspaceRequest(workspace=self.workspace_message(asked), reason=reason)
        answer = self.attempt(
            caller, "workspaces", "CreateWorkspace", request, self.model.creating_workspace(caller[0], asked)
        )
        if answer:
            self.model.workspaces[asked["name"]] = asked | {"suspended": False}
            self.check_workspace(answer.workspace)
            self.changed(caller, "WorkspaceService/CreateWorkspace", reason=reason, workspace=asked["name"], after={})

    def update_workspace(self, n: int, name: int, asked: Thing, etag: str, reason: str) -> None:
        """UpdateWorkspace: with and without an etag; keysvc/system, whose scopes and roles are fixed, too."""
        caller, target = self.caller(n), [*self.names, SYSTEM][name]
        if target == SYSTEM:
            asked = {field: value for field, value in asked.items() if field in {"allowed_scopes", "roles"} and value}
            etag = "none"
            if not asked:
                return
        known = self.model.workspaces.get(target, {})
        etag_text = {"none": "", "right": known.get("etag", "1"), "wrong": "999"}[etag]
        request = workspace_service_pb2.UpdateWorkspaceRequest(
            workspace=self.workspace_message(asked, name=target, etag=etag_text),
            update_mask={"paths": list(asked)},
            reason=reason,
        )
        why_not = self.model.updating_workspace(caller[0], target, asked, etag_text)
        answer = self.attempt(caller, "workspaces", "UpdateWorkspace", request, why_not)
        if answer:
            self.workspace_changed(caller, "UpdateWorkspace", answer, asked, reason)

    def suspend_or_resume_workspace(self, n: int, name: int, suspended: bool, reason: str) -> None:
        """SuspendWorkspace and ResumeWorkspace, also repeated, also of keysvc/system."""
        caller, target = self.caller(n), [*self.names, SYSTEM][name]
        method = "SuspendWorkspace" if suspended else "ResumeWorkspace"
        request = getattr(workspace_service_pb2, f"{method}Request")(name=target, reason=reason)
        why_not = self.model.changing(caller[0], target)
        why_not.add_if(target == SYSTEM and suspended, "FAILED_PRECONDITION")
        answer = self.attempt(caller, "workspaces", method, request, why_not)
        if answer and target != SYSTEM:
            self.workspace_changed(caller, method, answer, {"suspended": suspended}, reason)

    # Keys.

    def read_key(self, message: key_pb2.Key, strings: list[str]) -> Thing:
        """A key as the model has it, from an answer that was checked, or that is the beginning."""
        return {
            "id": message.id,
            "workspace": message.workspace,
            "display_name": message.display_name,
            "environment": message.environment,
            "owner": message.owner,
            "scopes": list(message.scopes),
            "role": message.role,
            "ip_allowlist": list(message.ip_allowlist),
            "metadata": dict(message.metadata),
            "tags": list(message.tags),
            "workspaces": list(message.workspaces),
            "expire_time": nanoseconds(message, "expire_time"),
            "creator": message.creator,
            "suspended": False,
            "revoked": None,
            "etag": message.etag,
            "message": settled(message),
            "secrets": [
                self.read_secret(secret, string) for secret, string in zip(message.secrets, strings, strict=True)
            ],
        }

    def read_secret(self, message: key_pb2.Secret, string: str) -> Thing:
        """A new secret as the model has it."""
        assert string.startswith(message.hint.removesuffix("…"))
        return {
            "id": message.id,
            "hint": message.hint,
            "key_string": string,
            "retire_time": None,
            "revoked": None,
            "end_before": None,
        }

    def check_key(self, message: key_pb2.Key) -> None:
        """A key is as the model has it, and as it was when it was seen last unless it has changed."""
        known = self.model.keys[message.id]
        told = self.read_key(message, [each["key_string"] for each in known["secrets"]])
        for name in ("workspace", "display_name", "environment", "owner", "role", "metadata", "creator", "workspaces"):
            assert told[name] == known[name], name
        for name in ("scopes", "tags"):
            assert told[name] == list(dict.fromkeys(known[name])), name
        for source in ("203.0.113.7", "203.0.114.1", "2001:db8::1", "198.51.100.9"):
            assert admits(told["ip_allowlist"], source) == admits(known["ip_allowlist"], source)
        assert told["expire_time"] == known["expire_time"]
        assert key_pb2.Key.State.Name(message.state) == f"STATE_{key_state(known)}"
        assert (message.revocation.reason if message.HasField("revocation") else None) == known["revoked"]
        for secret, other in zip(message.secrets, known["secrets"], strict=True):
            assert secret.id == other["id"]
            assert key_pb2.Key.State.Name(secret.state) == f"STATE_{secret_state(other)}"
            assert nanoseconds(secret, "retire_time") == other["retire_time"]
            assert (secret.revocation.reason if secret.HasField("revocation") else None) == other["revoked"]
        if "message" in known and not known["expire_time"]:
            assert settled(message) == known["message"]
        known["message"], known["etag"] = settled(message), message.etag

    def key_changed(  # noqa: PLR0913, PLR0917 (as above)
        self,
        caller: tuple[Thing, Thing],
        method: str,
        answer: Any,
        before: Thing,
        after: Thing,
        reason: str,
        **more: Any,
    ) -> None:
        """A key has changed, in what ``before`` and ``after`` name."""
        known = self.model.keys[answer.key.id]
        known.update(after)
        assert answer.key.etag != known["etag"]
        known.pop("message", None)
        self.changed(
            caller,
            f"KeyService/{method}",
            reason=reason,
            workspace=known["workspace"],
            key_id=known["id"],
            before=before,
            after=after,
            receipt=answer.receipt,
            **more,
        )

    def create_key(  # noqa: PLR0913, PLR0917 (all that a key has)
        self, n: int, workspace: int, environment: int, fields: Thing, expiry: str, has_workspaces: bool, reason: str
    ) -> None:
        """Create."""
        asked = fields | {
            "workspace": [self.names[0], *self.names][workspace],
            "environment": environment,
            "expire_time": FAR if expiry == "time" else None,
            "ttl": {"ttl": 50 * DAY, "past": SECOND // 1000}.get(expiry),
            "workspaces": [self.names[0]] if has_workspaces else [],
        }
        self.create(self.caller(n), asked, reason)

    def create_caller(self, n: int, scopes: list[str], workspaces: list[str], reason: str) -> None:
        """Create a key of keysvc/system: another operator, or somebody with less."""
        asked = {
            "workspace": SYSTEM,
            "display_name": "a caller",
            "environment": 1,
            "owner": "",
            "scopes": scopes,
            "role": "",
            "ip_allowlist": [],
            "metadata": {},
            "tags": [],
            "expire_time": None,
            "ttl": None,
            "workspaces": [self.names[0] if name == "first" else name for name in workspaces],
        }
        self.create(self.caller(n), asked, reason)

    def repeat_create(self, n: int) -> None:
        """Create once more with the same request id: the same key and key string, as the key is by now."""
        caller = self.caller(n)
        made = [each for each in self.made if each[0] == caller[0]["id"]]
        if not made:
            return
        _, asked, request, key_id = made[n // 2 % len(made)]
        why_not = self.model.changing(caller[0], asked["workspace"])
        why_not.add_if(self.model.lacks(caller[0], self.model.grants(asked)), "PERMISSION_DENIED")
        answer = self.attempt(caller, "keys", "Create", request, why_not)
        if answer:
            assert answer.key.id == key_id
            assert answer.key_string == self.model.keys[key_id]["secrets"][0]["key_string"]
            self.check_key(answer.key)

    def create(self, caller: tuple[Thing, Thing], asked: Thing, reason: str) -> None:
        """Create a key; one that ends at once has ended when this returns."""
        fields = asked | {"reason": reason, "expire_time": a_time(asked["expire_time"]), "ttl": a_span(asked["ttl"])}
        request = key_service_pb2.CreateRequest(**{name: value for name, value in fields.items() if value is not None})
        request.request_id = request_id()
        answer = self.attempt(caller, "keys", "Create", request, self.model.creating(caller[0], asked))
        if not answer:
            return
        create_time = nanoseconds(answer.key, "create_time") or 0
        key = self.read_key(answer.key, [answer.key_string])
        key |= {name: asked[name] for name in asked if name != "ttl"}
        key |= {"expire_time": self.model.expiry(asked, create_time), "creator": caller[0]["id"]}
        self.model.keys[answer.key.id] = key
        self.made.append((caller[0]["id"], asked, request, key["id"]))
        if key["workspace"] == SYSTEM:
            self.world.caller_strings.append(answer.key_string)
        while asked["ttl"] and asked["ttl"] < SECOND and key_state(key) != "EXPIRED":
            pass
        if not asked["ttl"] or asked["ttl"] > SECOND:
            self.check_key(answer.key)
        key.pop("message")
        after = {"display_name": asked["display_name"]}
        self.changed(
            caller, "KeyService/Create", reason=reason, workspace=key["workspace"], key_id=key["id"], after=after
        )

    def update_key(self, n: int, k: int, asked: Thing, etag: str, reason: str) -> None:
        """Update: with and without an etag, in every state."""
        caller, key = self.caller(n), self.key(k)
        if key["workspace"] == SYSTEM:
            # A caller keeps its addresses and its end; what it may do can become less, or more.
            asked = asked | {"scopes": [["operator"], ["verify", "keys.write"], ["*"]][k % 3]}
            asked = {name: value for name, value in asked.items() if name in {"scopes", "owner", "tags"}}
        if asked.get("expire_time") == 30 * DAY:
            asked = asked | {"expire_time": time.time_ns() // SECOND * SECOND + 30 * DAY}
        etag_text = {"none": "", "right": key["etag"], "wrong": "999"}[etag]
        fields = asked | ({"expire_time": a_time(asked["expire_time"])} if "expire_time" in asked else {})
        request = key_service_pb2.UpdateRequest(
            key=key_pb2.Key(id=key["id"], etag=etag_text, **fields),
            update_mask={"paths": list(asked)},
            reason=reason,
        )
        answer = self.attempt(caller, "keys", "Update", request, self.model.updating(caller[0], key, asked, etag_text))
        if not answer:
            return
        before = {name: key[name] for name, value in asked.items() if normal(key[name]) != normal(value)}
        if before:
            is_judged = not VERIFY_ANSWERS.isdisjoint(before)
            after = {name: asked[name] for name in before}
            self.key_changed(caller, "Update", answer, before, after, reason, is_judged=is_judged)
        self.check_key(answer.key)
        self.check_receipt(answer.receipt)
        self.verify_secrets([key])

    def rotate(self, n: int, k: int, overlap: int | None, reason: str) -> None:
        """Rotate: a third living secret is refused, an end is never put off."""
        caller, key = self.caller(n), self.key(k)
        if self.is_kept(key):
            return
        request = key_service_pb2.RotateRequest(key_id=key["id"], overlap=a_span(overlap), reason=reason)
        span = DAY if overlap is None else overlap
        answer = self.attempt(caller, "keys", "Rotate", request, self.model.rotating(caller[0], key, span))
        if not answer:
            return
        new = self.read_secret(answer.key.secrets[-1], answer.key_string)
        rotate_time = nanoseconds(answer.key.secrets[-1], "create_time") or 0
        for secret in living(key):
            new["end_before"] = secret["retire_time"]
            secret["retire_time"] = min(secret["retire_time"] or rotate_time + span, rotate_time + span)
        key["secrets"].append(new)
        if key["workspace"] == SYSTEM:
            self.world.caller_strings.append(answer.key_string)
        self.key_changed(caller, "Rotate", answer, {"secrets": ...}, {}, reason, secret_id=new["id"])
        self.check_key(answer.key)
        self.check_receipt(answer.receipt)
        self.verify_secrets([key])

    def rotate_twice(self, k: int, first: int, second: int, is_cancelled: bool) -> None:
        """Rotate, revoke the new secret, rotate again: the old one has an end when its second rotation begins."""
        self.rotate(n=0, k=k, overlap=first, reason="")
        self.revoke(n=0, k=k, s=-1, reason="")
        self.rotate(n=0, k=k, overlap=second, reason="")
        if is_cancelled:
            self.cancel_rotation(n=0, k=k, reason="")

    def cancel_rotation(self, n: int, k: int, reason: str) -> None:
        """CancelRotation, also without one: the older secret retires when it would have."""
        caller, key = self.caller(n), self.key(k)
        two = living(key) if len(living(key)) == 2 else []
        if self.is_kept(key):
            return
        request = key_service_pb2.CancelRotationRequest(key_id=key["id"], reason=reason)
        why_not = self.model.ending(caller[0], key, key, is_final=False)
        answer = self.attempt(caller, "keys", "CancelRotation", request, why_not)
        if not answer:
            return
        if two:
            two[0]["retire_time"], two[1]["revoked"] = two[1]["end_before"], reason
            self.key_changed(caller, "CancelRotation", answer, {"secrets": ...}, {}, reason, secret_id=two[1]["id"])
        self.check_key(answer.key)
        self.check_receipt(answer.receipt)
        self.verify_secrets([key])

    def suspend_or_resume_key(self, n: int, k: int, suspended: bool, reason: str) -> None:
        """Suspend and Resume, also repeated, also of the operator that was there first."""
        caller, key = self.caller(n), self.key(k)
        method = "Suspend" if suspended else "Resume"
        request = getattr(key_service_pb2, f"{method}Request")(key_id=key["id"], reason=reason)
        after = {"suspended": suspended}
        why_not = self.model.ending(caller[0], key, key | after, is_final=False)
        answer = self.attempt(caller, "keys", method, request, why_not)
        if not answer:
            return
        if key["suspended"] != suspended:
            self.key_changed(caller, method, answer, {"suspended": not suspended}, after, reason)
        self.check_key(answer.key)
        self.check_receipt(answer.receipt)
        self.verify_secrets([key])

    def revoke(self, n: int, k: int, s: int | str | None, reason: str) -> None:
        """Revoke a key or one secret, also repeated: the first reason stays."""
        caller, key = self.caller(n), self.key(k)
        if self.is_kept(key) and not self.model.is_last_operator(key):
            return
        request = key_service_pb2.RevokeRequest(key_id=key["id"], reason=reason)
        foreign = self.model.root["secrets"][0]
        after = key | {"revoked": reason}
        secret = None
        if s is not None:
            secret = foreign if s == "foreign" else key["secrets"][int(s) % len(key["secrets"])]
            request.secret_id = secret["id"]
            after = key | {
                "secrets": [each | {"revoked": reason} if each is secret else each for each in key["secrets"]]
            }
        why_not = self.model.ending(caller[0], key, after, is_final=True)
        why_not.add_if(secret is not None and secret not in key["secrets"], "NOT_FOUND")
        answer = self.attempt(caller, "keys", "Revoke", request, why_not)
        if not answer:
            return
        if secret is None and key["revoked"] is None:
            self.key_changed(caller, "Revoke", answer, {"revoked": None}, {"revoked": reason}, reason)
        elif secret is not None and secret["revoked"] is None:
            secret["revoked"] = reason
            self.key_changed(caller, "Revoke", answer, {"secrets": ...}, {}, reason, secret_id=secret["id"])
        self.check_key(answer.key)
        self.check_receipt(answer.receipt)
        self.verify_secrets([key])

    # Verify.

    def presentation(self, drawn: Thing) -> Thing:
        """A presentation of one of the secrets, or of none."""
        secrets = [(key, secret) for key in self.model.keys.values() for secret in key["secrets"]]
        key, secret = secrets[-1 - drawn["secret"] % len(secrets)]
        workspace = {"own": key["workspace"], "other": self.names[1]}.get(drawn["workspace"], drawn["workspace"])
        string = "sk_live_nonsense" if drawn["secret"] == 23 else secret["key_string"]
        return {name: value for name, value in drawn.items() if name != "secret"} | {
            "key_string": string,
            "workspace": workspace,
        }

    def check_answer(self, caller: Thing, asked: Thing, answer: verify_pb2.VerifyResponse) -> None:
        """An answer is what the model says, no more and no less."""
        verdict, key, secret, missing = self.model.verdict(caller, asked)
        assert verify_pb2.Verdict.Name(answer.verdict) == f"VERDICT_{verdict}", (asked, answer)
        told = {each.name for each, _ in answer.ListFields()}
        if verdict == "MALFORMED":
            assert told == {"verdict", "message", "holder"}
            return
        assert answer.basis in {verify_pb2.BASIS_MEMORY, verify_pb2.BASIS_DATABASE}
        assert sequence(answer.revision) >= self.clock
        self.clock = sequence(answer.revision)
        if key is None or secret is None:
            assert told == {"verdict", "message", "holder", "basis", "revision"}
            return
        assert (answer.key_id, answer.secret_id, answer.workspace) == (key["id"], secret["id"], key["workspace"])
        assert (answer.environment, answer.owner, answer.role) == (key["environment"], key["owner"], key["role"])
        assert dict(answer.metadata) == key["metadata"]
        assert list(answer.missing_scopes) == missing
        told_scopes = {scope for scope in PLAIN_SCOPES if any(stands_for(each, scope) for each in answer.scopes)}
        assert told_scopes == self.model.granted(key, PLAIN_SCOPES)
        assert nanoseconds(answer, "expire_time") == key["expire_time"]
        assert nanoseconds(answer, "retire_time") == secret["retire_time"]

    def verify(self, n: int, drawn: Thing, is_sure: bool) -> None:
        """Verify, sometimes with the revision of the last change."""
        caller, asked = self.caller(n), self.presentation(drawn)
        level = {"at_least": self.last_revision} if is_sure and hasattr(self, "last_revision") else {}
        request = verify_pb2.VerifyRequest(**asked, consistency=level)
        answer = self.attempt(caller, "keys", "Verify", request, Refusal())
        if answer:
            self.check_answer(caller[0], asked, answer)

    def verify_batch(self, n: int, drawn: list[Thing]) -> None:
        """VerifyBatch: each as Verify would, in the same order."""
        self.verify_all(self.caller(n), [self.presentation(each) for each in drawn])

    def verify_secrets(self, keys: Iterable[Thing]) -> None:
        """Verify each secret of some keys, from where it may be used and from elsewhere."""
        plain: Thing = {"workspace": "", "environment": 0}
        asked = [
            plain | {"key_string": secret["key_string"], "source_ip": source, "required_scopes": scopes}
            for key in keys
            for secret in key["secrets"]
            for source, scopes in (("203.0.113.7", ["pdf.read", "csv.read"]), ("127.0.0.1", []))
        ]
        if asked:
            self.verify_all(self.operator(), asked)

    def verify_all(self, caller: tuple[Thing, Thing], asked: list[Thing]) -> None:
        """Verify several presentations at once."""
        request = verify_pb2.VerifyBatchRequest(requests=[verify_pb2.VerifyRequest(**each) for each in asked])
        answer = self.attempt(caller, "keys", "VerifyBatch", request, Refusal())
        if answer:
            assert len({each.revision for each in answer.responses if each.revision}) <= 2
            for each, response in zip(asked, answer.responses, strict=True):
                self.check_answer(caller[0], each, response)

    # Reading.

    def walk(
        self, caller: tuple[Thing, Thing], service: str, method: str, request: Any, items: str
    ) -> list[Any] | None:
        """All items of a list, page by page; None if the caller may not have them, or not know of the workspace."""
        why_not = Refusal()
        asked = getattr(request, "workspace", "")
        unknown = asked and (asked not in self.model.workspaces or not self.model.sees(caller[0], asked))
        why_not.add_if(unknown, "NOT_FOUND")
        found: list[Any] = []
        while True:
            page = self.attempt(caller, service, method, request, why_not)
            if page is None:
                return None
            assert len(getattr(page, items)) <= request.page_size
            found += getattr(page, items)
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    def get(self, n: int, k: int) -> None:
        """Get."""
        caller, key = self.caller(n), self.key(k)
        why_not = Refusal(set() if self.model.sees(caller[0], key["workspace"]) else {"NOT_FOUND"})
        answer = self.attempt(caller, "keys", "Get", key_service_pb2.GetRequest(key_id=key["id"]), why_not)
        if answer:
            self.check_key(answer.key)

    def list_keys(self, n: int, workspace: int, page_size: int, asked: Thing) -> None:
        """List with filters, in small pages."""
        caller = self.caller(n)
        workspaces = [*self.names, ""][workspace]
        if not workspaces and not caller[0]["workspaces"]:
            workspaces = self.names[0]  # all that an unlimited caller may see has keys of other machines in it
        nothing = {"state": "", "environment": 0, "display_name_prefix": "", "expire_before": None}
        conditions = nothing | dict.fromkeys(("owner", "tag", "role", "hint_prefix"), "") | asked
        if (hint := conditions.pop("hint", None)) is not None:
            whole = self.key(hint)["secrets"][-1]["hint"]
            conditions["hint_prefix"] = whole if hint % 2 else whole[: 8 + hint % 5]
        state = f"STATE_{conditions['state'] or 'UNSPECIFIED'}"
        sent = conditions | {"state": state, "expire_before": a_time(conditions["expire_before"])}
        request = key_service_pb2.ListRequest(workspace=workspaces, page_size=page_size, filter=sent)
        keys = self.walk(caller, "keys", "List", request, "keys")
        if keys is not None:
            where = [workspaces] if workspaces else caller[0]["workspaces"]
            if workspaces or SYSTEM not in where:
                assert [key.id for key in keys] == self.model.listed(where, conditions)
            for key in keys:
                if key.id in self.model.keys:
                    self.check_key(key)

    def read_workspaces(self, n: int, name: int, page_size: int) -> None:
        """GetWorkspace and ListWorkspaces."""
        caller, target = self.caller(n), self.names[name]
        known = target in self.model.workspaces and self.model.sees(caller[0], target)
        request = workspace_service_pb2.GetWorkspaceRequest(name=target)
        why_not = Refusal(set() if known else {"NOT_FOUND"})
        answer = self.attempt(caller, "workspaces", "GetWorkspace", request, why_not)
        if answer:
            self.check_workspace(answer.workspace)
        all_of_them = workspace_service_pb2.ListWorkspacesRequest(organization=self.organization, page_size=page_size)
        listed = self.walk(caller, "workspaces", "ListWorkspaces", all_of_them, "workspaces")
        if listed is not None:
            expected = sorted(each for each in self.model.workspaces if each != SYSTEM)
            assert [each.name for each in listed] == [each for each in expected if self.model.sees(caller[0], each)]

    def list_events(self, n: int, workspace: int, by: str, k: int) -> None:
        """ListAuditEvents of a workspace."""
        caller, key = self.caller(n), self.key(k)
        conditions = {
            "": {},
            "key": {"key_id": key["id"]},
            "actor": {"actor": caller[0]["id"]},
            "method": {"method": "keysvc.v1.KeyService/Create"},
        }[by]
        request = audit_service_pb2.ListAuditEventsRequest(
            workspace=self.names[workspace], page_size=1 + k % 5, filter=conditions
        )
        self.check_events(caller, request, conditions | {"workspace": self.names[workspace]})

    def check_events(
        self, caller: tuple[Thing, Thing], request: audit_service_pb2.ListAuditEventsRequest, conditions: Thing
    ) -> None:
        """There is exactly one event for each change, newest first."""
        told = self.walk(caller, "audit", "ListAuditEvents", request, "events")
        if told is None:
            return
        expected = [
            event
            for event in reversed(self.model.events)
            if all(event[name] == value for name, value in conditions.items())
        ]
        names = ("actor", "method", "workspace", "key_id", "secret_id", "reason", "request_id", "revision", "source_ip")
        assert [[getattr(event, name) for name in names] for event in told] == [
            [event[name] for name in names] for event in expected
        ]
        assert [event.time.ToNanoseconds() for event in told] == sorted(
            (event.time.ToNanoseconds() for event in told), reverse=True
        )
        for event, other in zip(told, expected, strict=True):
            assert event.HasField("before") == (other["before"] is not None)
            before, after = MessageToDict(event.before), MessageToDict(event.after)
            if other["before"] is not None:
                assert set(before) == set(after) == set(map(event_name, other["before"]))
            for name in SAME_IN_EVENTS.intersection(other["after"]):
                assert after[name] == unique(other["after"][name])
            for name in SAME_IN_EVENTS.intersection(other["before"] or ()):
                assert before[name] == unique(other["before"][name])

    def teardown(self) -> None:
        """At the end everything is looked at once more."""
        if sys.exc_info()[0]:
            return  # it has failed already
        operator = self.operator()
        self.verify_secrets(self.model.keys.values())
        for name in (each for each in self.names if each in self.model.workspaces):
            request = audit_service_pb2.ListAuditEventsRequest(workspace=name, page_size=7)
            self.check_events(operator, request, {"workspace": name})
        for key in self.model.keys.values():
            answer = self.attempt(operator, "keys", "Get", key_service_pb2.GetRequest(key_id=key["id"]), Refusal())
            self.check_key(answer.key)
            if key["workspace"] == SYSTEM and key is not self.model.root:
                request = audit_service_pb2.ListAuditEventsRequest(filter={"key_id": key["id"]}, page_size=7)
                self.check_events(operator, request, {"key_id": key["id"]})
