"""A process that verifies by itself, with a lease of the client library, and can be asked like a server.

It is a program: the nemesis starts it in place of `python -m keysvc`. So are the mutants, which use it.
"""

import asyncio
import os
import signal
import sys
from typing import Any, Final

import grpc

from keysvc.v1 import verify_pb2
from keysvc.v1.key_service_pb2_grpc import KeyServiceServicer, add_KeyServiceServicer_to_server
from keysvc_client import AsyncKeysvcClient, AtLeast, Basis, Consistency, KeysvcError, Verification
from keysvc_client.leasing import renewing

SESSION_VARIABLE: Final = "NEMESIS_SESSION_SECONDS"
"""After so long the client goes to another server."""


class Answering(KeyServiceServicer):
    """Answers Verify and VerifyBatch.

    Parameters:
        client: that verifies.
    """

    def __init__(self, client: AsyncKeysvcClient) -> None:
        self._client = client

    async def Verify(  # noqa: N802 (its name in the contract)
        self, request: Any, context: Any
    ) -> verify_pb2.VerifyResponse:
        """Answer one question."""
        try:
            return await self._verify(request)
        except KeysvcError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise

    async def VerifyBatch(  # noqa: N802 (the same)
        self, request: Any, context: Any
    ) -> verify_pb2.VerifyBatchResponse:
        """Answer many questions, each by itself."""
        try:
            answers = await asyncio.gather(*map(self._verify, request.requests))
        except KeysvcError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise
        return verify_pb2.VerifyBatchResponse(responses=answers)

    async def _verify(self, request: verify_pb2.VerifyRequest) -> verify_pb2.VerifyResponse:
        consistency: Consistency | AtLeast | None = None
        if request.HasField("consistency"):
            at_least = request.consistency.at_least
            consistency = AtLeast(at_least) if at_least else Consistency.STRONG
        verification = await self._client.verify(
            request.key_string,
            required_scopes=tuple(request.required_scopes),
            source_ip=request.source_ip or None,
            consistency=consistency,
        )
        return _message(verification)


def _message(verification: Verification) -> verify_pb2.VerifyResponse:
    """What those hear who ask us: what a server has told us is not from our memory."""
    is_own = verification.holder.endswith("(client)")
    basis = (is_own and verification.basis) or Basis.DATABASE
    return verify_pb2.VerifyResponse(
        verdict=verify_pb2.Verdict.Value(f"VERDICT_{verification.verdict.name}"),
        basis=verify_pb2.Basis.Value(f"BASIS_{basis.name}"),
        key_id=verification.key_id,
        secret_id=verification.secret_id,
        revision=verification.revision,
        holder=verification.holder,
    )


async def answer() -> None:
    """Answer until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with AsyncKeysvcClient(lease=True) as client:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_KeyServiceServicer_to_server(Answering(client), server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        sys.stdout.write(f"keysvc is ready on 127.0.0.1:{port}\nCtrl-C stops it.\n")
        sys.stdout.flush()
        await stopping.wait()
        await server.stop(1)


def main() -> None:
    """Be the process."""
    renewing.SESSION_SECONDS = float(os.environ.get(SESSION_VARIABLE, renewing.SESSION_SECONDS))
    asyncio.run(answer())


if __name__ == "__main__":
    main()
