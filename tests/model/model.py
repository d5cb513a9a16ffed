"""What should be true of keysvc, read from the comments of the contract: a few plain dictionaries and functions.

Nothing here is taken from ``keysvc.core``. Times are nanoseconds since 1970; None is "never". What the contract leaves
open (which of several errors is told, how a capped scope is written) stays open here.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final

SYSTEM: Final = "keysvc/system"
SECOND: Final = 10**9

BUILT_IN_ROLES: Final = {
    "viewer": ["read", "*.read"],
    "editor": ["read", "*.read", "write", "*.write"],
    "admin": ["*"],
}
PERMISSIONS: Final = {
    "Create": "keys.write",
    "Get": "keys.read",
    "List": "keys.read",
    "Update": "keys.write",
    "Rotate": "keys.write",
    "CancelRotation": "keys.write",
    "Suspend": "keys.write",
    "Resume": "keys.write",
    "Revoke": "keys.revoke",
    "Verify": "verify",
    "VerifyBatch": "verify",
    "CreateWorkspace": "workspaces.write",
    "GetWorkspace": "keys.read",
    "ListWorkspaces": "keys.read",
    "UpdateWorkspace": "workspaces.write",
    "SuspendWorkspace": "workspaces.write",
    "ResumeWorkspace": "workspaces.write",
    "ListAuditEvents": "audit.read",
}
VERIFY_ANSWERS: Final = {
    *("owner", "scopes", "role", "ip_allowlist", "metadata", "workspaces", "expire_time"),
    *("allowed_scopes", "roles"),
}
"""Fields that Verify judges or answers: a change of one has a revision."""

Thing = dict[str, Any]


@dataclass
class Refusal:
    """Why a call must fail: one of these codes; with INVALID_ARGUMENT all of these fields. Nothing: it must succeed."""

    codes: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether the call must fail."""
        return bool(self.codes or self.fields)

    def add_if(self, condition: object, code: str) -> None:
        """Add a code."""
        if condition:
            self.codes.add(code)

    def bad_if(self, condition: object, name: str) -> None:
        """Add a field."""
        if condition:
            self.fields.add(name)

    def everything(self) -> set[str]:
        """All codes that may be told."""
        return self.codes | ({"INVALID_ARGUMENT"} if self.fields else set())


def stands_for(grant: str, scope: str) -> bool:
    """Whether a grant stands for a plain scope. ``pdf.*`` begins with ``pdf.``, ``*.read`` ends with ``.read``."""
    begin, star, end = grant.partition("*")
    return scope.startswith(begin) and scope.endswith(end) if star else scope == grant


def holds(grants: list[str], other: str) -> bool:
    """Whether a grant, or scope, is within one of some grants: they stand for it with a word that nobody has heard."""
    return any(stands_for(grant, other.replace("*", "unheard-of")) for grant in grants)


def living(key: Thing) -> list[Thing]:
    """The secrets of a key that are neither revoked nor retired."""
    return [each for each in key["secrets"] if secret_state(each) == "ACTIVE"]


def secret_state(secret: Thing) -> str:
    """The state of a secret."""
    return "REVOKED" if secret["revoked"] is not None else "EXPIRED" if ended(secret["retire_time"]) else "ACTIVE"


def key_state(key: Thing) -> str:
    """The state of a key: the first that applies."""
    if key["revoked"] is not None:
        return "REVOKED"
    if key["suspended"]:
        return "SUSPENDED"
    return "EXPIRED" if ended(key["expire_time"]) else "ACTIVE"


def ended(end: int | None) -> bool:
    """Whether a time has come."""
    return end is not None and end <= time.time_ns()


def admits(allowlist: list[str], source_ip: str) -> bool:
    """Whether an allow-list lets an address in."""
    if not allowlist or not source_ip:
        return not allowlist
    address = ip_address(source_ip)
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in range_of(each) for each in allowlist)


def range_of(text: str) -> Any:
    """A range; of IPv4 in IPv6 clothes, that of IPv4."""
    if not text.startswith("::ffff:"):
        return ip_network(text)
    address, _, bits = text.removeprefix("::ffff:").partition("/")
    return ip_network(f"{address}/{int(bits or 128) - 96}")


class Model:
    """All that was made, and all that was done to it.

    Parameters:
        root: the operator that was there first.
    """

    def __init__(self, root: Thing) -> None:
        self.root = root
        self.workspaces: dict[str, Thing] = {
            SYSTEM: {"name": SYSTEM, "suspended": False, "allowed_scopes": [], "roles": {}}
            | dict.fromkeys(("default_ttl", "max_ttl", "key_limit"))
        }
        self.keys: dict[str, Thing] = {root["id"]: root}
        self.events: list[Thing] = []

    # What a key grants, and what Verify says of it.

    def grants(self, key: Thing) -> list[str]:
        """What a key grants before it is capped."""
        roles = BUILT_IN_ROLES | self.workspaces[key["workspace"]]["roles"]
        return [*roles.get(key["role"], ()), *key["scopes"]]

    def granted(self, key: Thing, scopes: Iterable[str]) -> set[str]:
        """Those of some plain scopes that a key grants in effect."""
        grants, allowed = self.grants(key), self.workspaces[key["workspace"]]["allowed_scopes"]
        return {each for each in scopes if holds(grants, each) and (not allowed or holds(allowed, each))}

    def verdict(self, caller: Thing, asked: Thing) -> tuple[str, Thing | None, Thing | None, list[str]]:
        """The verdict, key and secret if the presentation proves one that the caller may see, and missing scopes."""
        found = [
            (key, secret)
            for key in self.keys.values()
            for secret in key["secrets"]
            if secret["key_string"] == asked["key_string"]
        ]
        if not found:
            return "MALFORMED", None, None, []
        ((key, secret),) = found
        if not self.sees(caller, key["workspace"]):
            return "NOT_FOUND", None, None, []
        granted = self.granted(key, asked["required_scopes"])
        missing = [each for each in dict.fromkeys(asked["required_scopes"]) if each not in granted]
        reasons = {
            "WORKSPACE_MISMATCH": asked["workspace"] not in {"", key["workspace"]},
            "ENVIRONMENT_MISMATCH": asked["environment"] not in {0, key["environment"]},
            "REVOKED": key["revoked"] is not None or secret["revoked"] is not None,
            "SUSPENDED": key["suspended"],
            "WORKSPACE_SUSPENDED": self.workspaces[key["workspace"]]["suspended"],
            "EXPIRED": ended(key["expire_time"]) or ended(secret["retire_time"]),
            "IP_NOT_ALLOWED": not admits(key["ip_allowlist"], asked["source_ip"]),
            "INSUFFICIENT_SCOPE": missing,
        }
        verdict = next((name for name, applies in reasons.items() if applies), "VALID")
        return verdict, key, secret, missing if verdict == "INSUFFICIENT_SCOPE" else []

    # Callers.

    def may(self, caller: Thing, permission: str) -> bool:
        """Whether a caller has a permission; an operator has all."""
        return holds(self.grants(caller), permission) or holds(self.grants(caller), "operator")

    def sees(self, caller: Thing, workspace: str) -> bool:
        """Whether a caller may know of a workspace."""
        return not caller["workspaces"] or workspace in caller["workspaces"]

    def is_usable_operator(self, key: Thing) -> bool:
        """Whether a key can administer everything."""
        return (
            key["workspace"] == SYSTEM
            and key_state(key) == "ACTIVE"
            and bool(living(key))
            and not key["workspaces"]
            and self.may(key, "operator")
        )

    def is_last_operator(self, key: Thing) -> bool:
        """Whether a key is the only one that can administer everything."""
        return [key["id"]] == [each["id"] for each in self.keys.values() if self.is_usable_operator(each)]

    def lacks(self, caller: Thing, grants: list[str]) -> bool:
        """Whether a caller does not hold what it would grant."""
        return not self.may(caller, "operator") and any(not holds(self.grants(caller), each) for each in grants)

    def admitted(self, caller: Thing, secret: Thing, method: str) -> Refusal:
        """What every call asks for first: a caller, and the permission."""
        presented = {"key_string": secret["key_string"], "workspace": SYSTEM, "environment": 0, "required_scopes": []}
        if self.verdict(self.root, presented | {"source_ip": "127.0.0.1"})[0] != "VALID":
            return Refusal({"UNAUTHENTICATED"})
        return Refusal(set() if self.may(caller, PERMISSIONS[method]) else {"PERMISSION_DENIED"})

    def changing(self, caller: Thing, workspace: str) -> Refusal:
        """What every change asks for: a workspace that is there and seen, and for the system an unlimited operator."""
        if workspace not in self.workspaces or not self.sees(caller, workspace):
            return Refusal({"NOT_FOUND"})
        is_operator = self.may(caller, "operator") and not caller["workspaces"]
        return Refusal({"PERMISSION_DENIED"} if workspace == SYSTEM and not is_operator else set())

    # Changes: why they must fail.

    def bad_key_fields(self, workspace: Thing | None, asked: Thing, prefix: str = "") -> set[str]:
        """Fields of a key that are bad by themselves, or do not fit its workspace, unless that is None."""
        refusal = Refusal()
        allowed = workspace["allowed_scopes"] if workspace else []
        refusal.bad_if(asked.get("display_name") == "", f"{prefix}display_name")
        refusal.bad_if("" in asked.get("tags", ()), f"{prefix}tags[0]")
        for index, scope in enumerate(asked.get("scopes", ())):
            refusal.bad_if(scope.isupper() or (allowed and not holds(allowed, scope)), f"{prefix}scopes[{index}]")
        if workspace:
            roles = ["", *BUILT_IN_ROLES, *workspace["roles"]]
            refusal.bad_if(asked.get("role", "") not in roles, f"{prefix}role")
            refusal.bad_if(asked.get("workspaces") and workspace["name"] != SYSTEM, f"{prefix}workspaces")
        return refusal.fields

    def creating(self, caller: Thing, asked: Thing) -> Refusal:
        """Why a key cannot be created."""
        refusal = self.changing(caller, asked["workspace"])
        if "NOT_FOUND" in refusal.codes:
            refusal.fields = self.bad_key_fields(None, asked)
            return refusal
        workspace = self.workspaces[asked["workspace"]]
        refusal.fields = self.bad_key_fields(workspace, asked)
        longest = workspace["max_ttl"]
        refusal.bad_if(longest and asked["ttl"] and asked["ttl"] > longest, "ttl")
        refusal.bad_if(
            longest and asked["expire_time"] and asked["expire_time"] > time.time_ns() + longest, "expire_time"
        )
        refusal.add_if(self.lacks(caller, self.grants(asked)), "PERMISSION_DENIED")
        taken = [
            each for each in self.keys.values() if each["workspace"] == asked["workspace"] and each["revoked"] is None
        ]
        limit = workspace["key_limit"]
        refusal.add_if(limit is not None and len(taken) >= limit, "RESOURCE_EXHAUSTED")
        return refusal

    def updating(self, caller: Thing, key: Thing, asked: Thing, etag: str) -> Refusal:
        """Why a key cannot be updated."""
        refusal = self.changing(caller, key["workspace"])
        if "NOT_FOUND" in refusal.codes:
            refusal.fields = self.bad_key_fields(None, asked, "key.")
            return refusal
        workspace, after = self.workspaces[key["workspace"]], key | asked
        refusal.fields = self.bad_key_fields(workspace, asked, "key.")
        if "expire_time" in asked and workspace["max_ttl"]:
            latest = time.time_ns() + workspace["max_ttl"]
            refusal.bad_if(asked["expire_time"] is None or asked["expire_time"] > latest, "key.expire_time")
        refusal.add_if(etag not in {"", key["etag"]}, "ABORTED")
        refusal.add_if(key["revoked"] is not None, "FAILED_PRECONDITION")
        anew = [grant for grant in self.grants(after) if not holds(self.grants(key), grant)]
        refusal.add_if(self.lacks(caller, anew), "PERMISSION_DENIED")
        refusal.add_if(self.is_last_operator(key) and not self.is_usable_operator(after), "FAILED_PRECONDITION")
        return refusal

    def rotating(self, caller: Thing, key: Thing, overlap: int) -> Refusal:
        """Why a key cannot be rotated."""
        refusal = self.changing(caller, key["workspace"])
        refusal.bad_if(overlap > 30 * 86_400 * SECOND, "overlap")
        refusal.add_if(key["revoked"] is not None or len(living(key)) == 2, "FAILED_PRECONDITION")
        refusal.add_if(self.lacks(caller, self.grants(key)), "PERMISSION_DENIED")
        return refusal

    def ending(self, caller: Thing, key: Thing, after: Thing, *, is_final: bool) -> Refusal:
        """Why a key cannot be suspended, resumed or revoked, or its rotation cancelled.

        Parameters:
            after: what would become of it.
            is_final: it is a revocation, which a revoked key takes as well.
        """
        refusal = self.changing(caller, key["workspace"])
        refusal.add_if(key["revoked"] is not None and not is_final, "FAILED_PRECONDITION")
        refusal.add_if(self.is_last_operator(key) and not self.is_usable_operator(after), "FAILED_PRECONDITION")
        return refusal

    def bad_workspace_fields(self, asked: Thing) -> set[str]:
        """Fields of a workspace that are bad."""
        refusal = Refusal()
        for index, scope in enumerate(asked.get("allowed_scopes", ())):
            refusal.bad_if(scope.isupper(), f"workspace.allowed_scopes[{index}]")
        refusal.bad_if((asked.get("key_limit") or 0) < 0, "workspace.key_limit")
        return refusal.fields

    def creating_workspace(self, caller: Thing, asked: Thing) -> Refusal:
        """Why a workspace cannot be created."""
        refusal = Refusal(fields=self.bad_workspace_fields(asked))
        refusal.add_if(not self.sees(caller, asked["name"]), "NOT_FOUND")
        refusal.add_if(asked["name"] in self.workspaces, "ALREADY_EXISTS")
        refusal.add_if(
            self.lacks(caller, [each for grants in asked["roles"].values() for each in grants]), "PERMISSION_DENIED"
        )
        refusal.bad_if(exceeds(asked), "workspace.default_ttl")
        return refusal

    def updating_workspace(self, caller: Thing, name: str, asked: Thing, etag: str) -> Refusal:
        """Why a workspace cannot be updated."""
        refusal = self.changing(caller, name)
        refusal.fields = self.bad_workspace_fields(asked)
        if "NOT_FOUND" in refusal.codes:
            return refusal
        before = self.workspaces[name]
        anew = [
            grant
            for role, grants in asked.get("roles", {}).items()
            for grant in grants
            if not holds(before["roles"].get(role, []), grant)
        ]
        refusal.bad_if(exceeds(before | asked), "workspace.default_ttl")
        refusal.add_if(self.lacks(caller, anew), "PERMISSION_DENIED")
        refusal.add_if(etag not in {"", before.get("etag")}, "ABORTED")
        is_fixed = name == SYSTEM and (asked.get("allowed_scopes") or asked.get("roles"))
        refusal.add_if(is_fixed, "FAILED_PRECONDITION")
        return refusal

    def expiry(self, asked: Thing, create_time: int) -> int | None:
        """When a new key ends."""
        if asked["expire_time"]:
            return int(asked["expire_time"])
        workspace = self.workspaces[asked["workspace"]]
        span = asked["ttl"] or workspace["default_ttl"] or workspace["max_ttl"]
        return create_time + span if span else None

    def listed(self, workspaces: list[str], asked: Thing) -> list[str]:
        """Ids of keys, newest first, that a filter admits."""

        def fits(key: Thing) -> bool:
            hints = [secret["hint"].removesuffix("…") for secret in key["secrets"]]
            return all(
                (
                    key["workspace"] in workspaces,
                    asked["state"] in {"", key_state(key)},
                    asked["environment"] in {0, key["environment"]},
                    asked["owner"] in {"", key["owner"]},
                    asked["tag"] in {"", *key["tags"]},
                    asked["role"] in {"", key["role"]},
                    any(hint.startswith(asked["hint_prefix"].removesuffix("…")) for hint in hints),
                    key["display_name"].startswith(asked["display_name_prefix"]),
                    not asked["expire_before"]
                    or (key["expire_time"] or asked["expire_before"]) < asked["expire_before"],
                )
            )

        return [key["id"] for key in reversed(self.keys.values()) if fits(key)]


def exceeds(workspace: Thing) -> bool:
    """Whether the default lifetime of a workspace is longer than the longest."""
    return bool(workspace["default_ttl"] and workspace["max_ttl"] and workspace["default_ttl"] > workspace["max_ttl"])
