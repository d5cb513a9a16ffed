"""The contract through `buf curl`, which the development environment always has."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from tests.contract.flow import Answer, Tool, check_calls, check_description, find_program, read_answer
from tests.deployment import Deployment


class BufCurl(Tool):
    """The real `buf curl`, by one version of reflection.

    Parameters:
        reflection: as buf calls it: ``grpc-v1`` or ``grpc-v1alpha``.
    """

    name = "buf curl"

    def __init__(self, address: str, header: Path, reflection: str) -> None:
        super().__init__(address, header)
        self.reflection = reflection

    @classmethod
    def find(cls) -> str | None:
        """The program; None where it is not installed."""
        return find_program("buf", Path(sys.executable).parent)

    async def list_services(self) -> set[str]:
        """`buf curl --list-services`."""
        return set((await self.say("--list-services")).split())

    async def list_methods(self, service: str) -> set[str]:
        """`buf curl --list-methods`, which resolves every service that is listed."""
        names = (name.split("/") for name in (await self.say("--list-methods")).split())
        return {method for owner, method in names if owner == service}

    async def say(self, *words: str) -> str:
        """What buf prints for a verb that needs no caller."""
        code, out, err = await self.curl("", *words)
        assert code == 0, err
        return out

    async def curl(self, method: str, *options: str) -> tuple[int, str, str]:
        """Run `buf curl`."""
        how = ("--protocol", "grpc", "--http2-prior-knowledge", "--reflect", "--reflect-protocol", self.reflection)
        return await self.run("curl", *how, *options, f"http://{self.address}/{method}")

    async def call(self, method: str, request: dict[str, Any]) -> Answer:
        """Call ``package.Service/Method``."""
        code, out, err = await self.curl(method, "--header", f"@{self.header}", "--data", json.dumps(request))
        if code == 0:
            return Answer("OK", read_answer(method, out))
        status = json.loads(err)
        answer = Answer(status["code"].upper())
        for detail in status.get("details", ()):
            # Connect leaves out the padding.
            value = base64.b64decode(detail["value"] + "==")
            if detail["type"] == "google.rpc.ErrorInfo":
                answer.reason = error_details_pb2.ErrorInfo.FromString(value).reason
            elif detail["type"] == "google.rpc.BadRequest":
                for each in error_details_pb2.BadRequest.FromString(value).field_violations:
                    answer.violations[each.field] = each.description
        return answer


@pytest.fixture(params=["grpc-v1", "grpc-v1alpha"])
def buf_curl(deployment: Deployment, header: Path, request: pytest.FixtureRequest) -> BufCurl:
    """The program. It belongs to the development environment, so its absence is no reason to skip."""
    assert BufCurl.find(), "there is no buf: `make setup` installs it"
    return BufCurl(deployment.address, header, request.param)


async def test_the_contract_can_be_described(buf_curl: BufCurl) -> None:
    """Everything on the port can be listed and described by reflection alone, without a key."""
    await check_description(buf_curl)


async def test_the_flow(buf_curl: BufCurl) -> None:
    """What a newcomer does first works, with all details of the errors."""
    await check_calls(buf_curl)
