"""The contract through grpcurl, which knows nothing but the address of the server."""

import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from keysvc.rpc.server import CONTRACT
from tests.contract.flow import Answer, Tool, check_calls, check_description, find_program, read_answer
from tests.deployment import Deployment

INSTALLED = Path(__file__).parents[2] / ".tools" / "bin"
"""Where `make grpcurl` puts it."""

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_RPC = re.compile(r"^\s*rpc (\w+) ", re.MULTILINE)


class Grpcurl(Tool):
    """The real grpcurl."""

    name = "grpcurl"

    @classmethod
    def find(cls) -> str | None:
        """The program; None where it is not installed."""
        return find_program("grpcurl", INSTALLED)

    async def list_services(self) -> set[str]:
        """`grpcurl list`."""
        return set((await self.say("list")).split())

    async def list_methods(self, service: str) -> set[str]:
        """`grpcurl describe SERVICE`."""
        return set(_RPC.findall(await self.say("describe", service)))

    async def say(self, *words: str) -> str:
        """What grpcurl prints for a verb that needs no caller."""
        code, out, err = await self.run("-plaintext", self.address, *words)
        assert code == 0, err
        return out

    async def call(self, method: str, request: dict[str, Any]) -> Answer:
        """Call ``package.Service/Method``."""
        options = ("-plaintext", "-format-error", "-H", self.header.read_text().strip(), "-d", json.dumps(request))
        code, out, err = await self.run(*options, self.address, method)
        if code == 0:
            return Answer("OK", read_answer(method, out))
        status = json.loads(err)
        answer = Answer(_CODES[status["code"]])
        for detail in status.get("details", ()):
            if detail["@type"].endswith("google.rpc.ErrorInfo"):
                answer.reason = detail["reason"]
            for each in detail.get("field_violations", ()):
                answer.violations[each["field"]] = each["description"]
        return answer


@pytest.fixture
def grpcurl(deployment: Deployment, header: Path) -> Grpcurl:
    """The program, if it is installed."""
    if Grpcurl.find() is None:
        pytest.skip("there is no grpcurl: `make grpcurl` installs it, where there is Go")
    return Grpcurl(deployment.address, header)


async def test_the_contract_can_be_described(grpcurl: Grpcurl) -> None:
    """Everything on the port can be listed and described by reflection alone, without a key."""
    await check_description(grpcurl)


async def test_the_flow(grpcurl: Grpcurl) -> None:
    """What a newcomer does first works, with all details of the errors."""
    await check_calls(grpcurl)


async def test_every_name_can_be_described(grpcurl: Grpcurl) -> None:
    """Services, methods, messages, enums and fields: whatever somebody asks `describe` for; and all at once."""
    for service in CONTRACT:
        for method in service.methods:
            assert f"rpc {method.name} (" in await grpcurl.say("describe", method.full_name)
            for message in (method.input_type, method.output_type):
                assert f"message {message.name} " in await grpcurl.say("describe", message.full_name)
    for name in ("keysvc.v1.Verdict", "keysvc.v1.Key.State", "keysvc.v1.Key.ip_allowlist"):
        assert name in await grpcurl.say("describe", name)
    everything = await grpcurl.say("describe")
    assert "keysvc.v1.KeyService is a service" in everything
    assert "grpc.reflection.v1.ServerReflection is a service" in everything


async def test_a_key_is_needed_for_calls_alone(grpcurl: Grpcurl) -> None:
    """Reflection and health are open; a call without a key is UNAUTHENTICATED and says what to send."""
    code, _, err = await grpcurl.run("-plaintext", grpcurl.address, "keysvc.v1.KeyService/List")
    assert code != 0
    assert "Unauthenticated" in err
    assert "authorization: Bearer" in err
