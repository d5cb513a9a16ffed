"""The whole API against a simple model of it: random calls of several callers, on a real server with a real PostgreSQL.

Whatever the model says must happen does, and nothing else. ``--hypothesis-profile=long`` tries for longer.
"""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from keysvc.core.pepper import Peppers
from tests.deployment import Client, Deployment
from tests.model.machine import Machine
from tests.model.world import Loop, World


@pytest.fixture
def world(database_url: str, peppers: Peppers) -> Iterator[World]:
    """A server for a whole run of the machine."""
    loop, stack = Loop(), AsyncExitStack()

    async def start() -> tuple[Deployment, Client]:
        deployment = await Deployment.open(stack, database_url, peppers)
        return deployment, await deployment.client()

    try:
        yield World(loop, *loop.run(start()))
        loop.run(stack.aclose())
    finally:
        loop.close()


@pytest.mark.timeout(1800)  # for the long profile
@pytest.mark.parametrize("number", range(5))
def test_keysvc_does_what_the_model_says(world: World, number: int) -> None:
    """Every answer, verdict, list, revision and audit event is the model's, whoever calls what in whichever order."""
    # Several runs of ten, since Hypothesis does not begin to vary what it has tried, which finds little here, before.
    machine = seed(number)(partial(Machine, world))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=settings().max_examples // 10,
            stateful_step_count=40,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
