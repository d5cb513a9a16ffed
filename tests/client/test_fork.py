"""A process with a client is forked, as some servers of applications do."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import Client, Deployment
from tests.process.running import environment

PROGRAM = Path(__file__).with_name("forking.py")


async def run(deployment: Deployment, *arguments: str, **variables: str) -> list[str]:
    """Run the program that forks; what it tells."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, PROGRAM, deployment.address, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
        env=environment(KEYSVC_API_KEY=deployment.operator_key, **variables),
    )
    return list(done.stdout.splitlines())


@pytest.mark.parametrize("used", ["fresh", "used"])
async def test_a_client_works_in_children(deployment: Deployment, used: str) -> None:
    """Used before the fork or not, in children of children too, and in the parent as before; where gRPC is told to."""
    said = await run(deployment, used, "deep", GRPC_ENABLE_FORK_SUPPORT="1")
    told = ["parent"] * (used == "used") + ["child", "child's child", "parent", "child", "parent"]
    assert said == [f"{who}: MALFORMED" for who in told]


async def test_a_client_that_the_parent_has_not_used_works_in_children(deployment: Deployment) -> None:
    """However gRPC was told to go on. One that was used before says what it needs, where gRPC would hang for ever."""
    assert "GRPC_ENABLE_FORK_SUPPORT" not in os.environ
    said = await run(deployment, "fresh", "shallow")
    assert said[:2] == ["child: MALFORMED", "parent: MALFORMED"]
    assert said[2].startswith("child: a client was used before this process was forked: gRPC needs GRPC_ENABLE_FORK")
    assert said[3:] == ["parent: MALFORMED"]


@pytest.mark.parametrize("support", ["0", "1"])
async def test_each_process_has_a_lease_of_its_own(deployment: Deployment, operator: Client, support: str) -> None:
    """A client answers from its own process's memory in children too, and goes on in the parent.

    One that had its lease before the fork does so where gRPC was told to, and otherwise says what it needs.
    """
    created = await operator.create()
    variables = {"GRPC_ENABLE_FORK_SUPPORT": support, "KEY_STRING": created.key_string}
    said = await run(deployment, "fresh", "shallow", **variables)
    assert said[:2] == ["child: VALID", "parent: VALID"]
    assert said[2].startswith("child: VALID" if support == "1" else "child: a client was used before this process")
    assert said[3:] == ["parent: VALID"]


@pytest.mark.parametrize("support", ["", "0", "1"])
async def test_a_new_client_works_in_a_child(deployment: Deployment, operator: Client, support: str) -> None:
    """While one of the parent verifies under a lease, whose threads call at any time; that one goes on.

    Where gRPC was told to do nothing at forks it would hang: whoever makes a client is told so.
    """
    created = await operator.create()
    variables = {"GRPC_ENABLE_FORK_SUPPORT": support} if support else {}
    said = await run(deployment, "used", "anew", KEY_STRING=created.key_string, **variables)
    assert [each.partition(":")[0] for each in said] == ["parent", "child", "parent", "child", "parent"]
    told = {each.partition(": ")[2][:13] for each in said if each.startswith("child")}
    assert told == ({"a client was "} if support == "0" else {"VALID"})
    assert [each for each in said if each.startswith("parent")] == ["parent: VALID"] * 3
