"""Reflection and health, spoken directly."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from keysvc.core.pepper import Peppers
from keysvc.rpc.server import CONTRACT
from tests.contract.flow import PUBLISHED
from tests.deployment import Deployment

STOP_SECONDS = 5.0
PATIENCE = 3

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Reflection:
    """Asks a server for its contract, in one version of the protocol. Both have the same messages on the wire.

    Parameters:
        channel: to the server, without any credentials.
        version: ``v1`` or ``v1alpha``.
    """

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._ask: Any = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    async def ask(self, **question: str) -> reflection_pb2.ServerReflectionResponse:
        """One question, its answer."""

        async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest(**question)

        (answer,) = [each async for each in self._ask(questions(), timeout=10)]
        return answer

    async def files(self, **question: str) -> dict[str, descriptor_pb2.FileDescriptorProto]:
        """The files of an answer and all that they need, by name."""
        found: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        questions = [question]
        while questions:
            answer = await self.ask(**questions.pop())
            assert answer.error_response.error_message == ""
            for text in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(text)
                found[file.name] = file
                questions += [{"file_by_filename": name} for name in file.dependency if name not in found]
        return found


@pytest.fixture(params=["v1", "v1alpha"])
async def reflection(deployment: Deployment, request: pytest.FixtureRequest) -> AsyncIterator[Reflection]:
    """Reflection of a server, asked by nobody in particular."""
    async with grpc.aio.insecure_channel(deployment.address) as channel:
        yield Reflection(channel, request.param)


async def test_all_services_are_listed(reflection: Reflection) -> None:
    """Every service on the port, and no other."""
    answer = await reflection.ask(list_services="")
    assert {service.name for service in answer.list_services_response.service} == PUBLISHED


async def test_every_listed_service_can_be_loaded(reflection: Reflection) -> None:
    """Tools load all that is listed: each service comes with its file, whole, with all that the file imports."""
    for name in sorted(PUBLISHED):
        files = await reflection.files(file_containing_symbol=name)
        pool = descriptor_pool.DescriptorPool()
        waiting = dict(files)
        while waiting:
            ready = [each for each in waiting.values() if not waiting.keys() & set(each.dependency)]
            for file in ready:
                pool.Add(file)
                del waiting[file.name]
        loaded = pool.FindServiceByName(name)
        for service in CONTRACT:
            if service.full_name == name:
                assert [method.full_name for method in loaded.methods] == [each.full_name for each in service.methods]


async def test_every_kind_of_name_is_found(reflection: Reflection) -> None:
    """The protocol promises the file of any symbol: a service, a method, a message, a field, an enum, its value."""
    for name in (
        "keysvc.v1.KeyService",
        "keysvc.v1.KeyService.Verify",
        "keysvc.v1.VerifyRequest",
        "keysvc.v1.VerifyRequest.key_string",
        "keysvc.v1.Verdict",
        "keysvc.v1.Key.State",
        "keysvc.v1.ListRequest.Filter",
    ):
        assert await reflection.files(file_containing_symbol=name)


async def test_an_unknown_name_is_not_found(reflection: Reflection) -> None:
    """What is not there is NOT_FOUND in the answer; the stream goes on."""
    for question in ({"file_containing_symbol": "keysvc.v1.Nothing"}, {"file_by_filename": "keysvc/v1/nothing.proto"}):
        answer = await reflection.ask(**question)
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_health_is_serving_for_every_service(deployment: Deployment) -> None:
    """The server as a whole and each service of the contract; an unknown one is NOT_FOUND. No key is asked for."""
    async with grpc.aio.insecure_channel(deployment.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", *(each.full_name for each in CONTRACT)):
            request = health_pb2.HealthCheckRequest(service=service)
            assert (await health.Check(request, timeout=10)).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health.Check(health_pb2.HealthCheckRequest(service="keysvc.v1.Nothing"), timeout=10)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_says_that_the_server_drains(database_url: str, peppers: Peppers) -> None:
    """Who watches is told NOT_SERVING at once; who asks then is told the same or finds nobody, never SERVING."""
    async with AsyncExitStack() as stack:
        deployment = await Deployment.open(stack, database_url, peppers)
        async with grpc.aio.insecure_channel(deployment.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            services = ("", CONTRACT[0].full_name)
            watches = [health.Watch(health_pb2.HealthCheckRequest(service=each)) for each in services]
            assert [(await watch.read()).status for watch in watches] == [SERVING, SERVING]

            began = time.monotonic()
            stopping = asyncio.create_task(stack.aclose())
            assert [(await watch.read()).status for watch in watches] == [NOT_SERVING, NOT_SERVING]
            try:
                assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=10)).status == NOT_SERVING
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 (the other good answer is above)
            await stopping
            assert time.monotonic() - began < PATIENCE * STOP_SECONDS
            for watch in watches:
                watch.cancel()
