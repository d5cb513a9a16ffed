"""One flow through the contract, for every tool that speaks it from the outside."""

import asyncio
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf import descriptor_pool, json_format
from google.protobuf.message_factory import GetMessageClass

from keysvc.rpc.server import CONTRACT

CALL_SECONDS_MAX = 30.0

PUBLISHED = {
    *(service.full_name for service in CONTRACT),
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
"""Every service on the port."""


@dataclass
class Answer:
    """What a tool says became of a call.

    Parameters:
        status: name of the gRPC status.
        body: the answer as JSON.
        violations: bad fields, from the details of an error.
        reason: the word for programs, from the details of an error.
    """

    status: str
    body: dict[str, Any] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    reason: str = ""


class Tool(ABC):
    """A command-line client that learns the contract from the server.

    Parameters:
        address: of the server.
        header: a file for the header that says who calls, so that the key is in no argument.
    """

    name: ClassVar[str]

    def __init__(self, address: str, header: Path) -> None:
        self.address = address
        self.header = header

    @classmethod
    @abstractmethod
    def find(cls) -> str | None:
        """The program; None where it is not installed."""

    @abstractmethod
    async def list_services(self) -> set[str]:
        """The services that the server says it has."""

    @abstractmethod
    async def list_methods(self, service: str) -> set[str]:
        """The methods of a service, as the server describes them."""

    @abstractmethod
    async def call(self, method: str, request: dict[str, Any]) -> Answer:
        """Call ``package.Service/Method``."""

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run the program; its exit code and what it said."""
        program = self.find()
        assert program
        process = await asyncio.create_subprocess_exec(
            program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), CALL_SECONDS_MAX)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


def find_program(name: str, *folders: Path) -> str | None:
    """A program in the folders given, else on the PATH."""
    for folder in folders:
        if found := shutil.which(name, path=folder):
            return found
    return shutil.which(name)


def read_answer(method: str, text: str) -> dict[str, Any]:
    """The answer of ``package.Service/Method`` that a tool has printed. Tools differ in how they spell its fields."""
    descriptor = descriptor_pool.Default().FindMethodByName(method.replace("/", "."))
    message = GetMessageClass(descriptor.output_type)()
    return json_format.MessageToDict(json_format.Parse(text, message))


async def check_description(tool: Tool) -> None:
    """The whole contract can be listed and described, without a key and without the proto files."""
    assert await tool.list_services() == PUBLISHED
    for service in CONTRACT:
        assert await tool.list_methods(service.full_name) == {method.name for method in service.methods}


async def check_calls(tool: Tool) -> None:
    """A key is created, verified and revoked; errors come with their details; the health service answers."""
    keys, workspaces = "keysvc.v1.KeyService", "keysvc.v1.WorkspaceService"
    workspace = {"name": "acme-corp/sales", "displayName": "Sales"}
    created = await tool.call(f"{workspaces}/CreateWorkspace", {"workspace": workspace})
    assert created.status == "OK"
    assert created.body["workspace"]["state"] == "STATE_ACTIVE"

    request = {
        "workspace": "acme-corp/sales",
        "displayName": "a key",
        "environment": "ENVIRONMENT_LIVE",
        "scopes": ["pdf.read"],
        "ttl": "3600s",
    }
    created = await tool.call(f"{keys}/Create", request)
    assert created.status == "OK"
    key, key_string = created.body["key"], created.body["keyString"]
    assert key_string.startswith("sk_live_1")

    verify = {"keyString": key_string, "workspace": "acme-corp/sales", "requiredScopes": ["pdf.read"]}
    valid = await tool.call(f"{keys}/Verify", verify)
    assert (valid.status, valid.body["verdict"]) == ("OK", "VERDICT_VALID")
    assert valid.body["keyId"] == key["id"]
    assert valid.body["basis"] == "BASIS_DATABASE"

    revoked = await tool.call(f"{keys}/Revoke", {"keyId": key["id"], "reason": "a test"})
    assert revoked.status == "OK"
    assert revoked.body["key"]["state"] == "STATE_REVOKED"
    assert revoked.body["receipt"]["state"] == "STATE_COMPLETE"

    refused = await tool.call(f"{keys}/Verify", verify)
    assert (refused.status, refused.body["verdict"]) == ("OK", "VERDICT_REVOKED")

    bad = await tool.call(f"{keys}/Create", {"workspace": "Acme", "ipAllowlist": ["10.0.0.0/8", "nonsense"]})
    assert (bad.status, bad.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert set(bad.violations) == {"workspace", "display_name", "environment", "ip_allowlist[1]"}
    assert all(bad.violations.values())

    not_built = await tool.call("keysvc.v1.UsageService/ListAnomalies", {})
    assert (not_built.status, not_built.reason) == ("UNIMPLEMENTED", "NOT_BUILT")

    for service in ("", *(each.full_name for each in CONTRACT)):
        health = await tool.call("grpc.health.v1.Health/Check", {"service": service})
        assert (health.status, health.body) == ("OK", {"status": "SERVING"})
