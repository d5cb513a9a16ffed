"""`python -m bench.empty`: a handler that does nothing, which is what gRPC costs by itself.

Takes raw bytes and answers fixed ones, given in hex. Server options and event loop are keysvc's. Prints its port, and
serves until standard input ends, so that it never outlives whoever measures it.
"""

import asyncio
import os
import sys
from typing import Any

import grpc

METHOD_VERIFY = "/keysvc.v1.KeyService/Verify"
METHOD_COUNT = "/bench.Empty/Count"


async def serve(answer: bytes) -> None:
    """Serve both methods: the empty one, and how often that was called."""
    from keysvc.rpc.server import limited_server  # noqa: PLC0415 (after the settings of gRPC)

    calls = 0

    async def verify(_raw: bytes, _context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        nonlocal calls
        calls += 1
        return answer

    async def count(_raw: bytes, _context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        return str(calls).encode()

    services = []
    for path, handle in ((METHOD_VERIFY, verify), (METHOD_COUNT, count)):
        service, method = path.strip("/").split("/")
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {method: grpc.unary_unary_rpc_method_handler(handle)}
        services.append(grpc.method_handlers_generic_handler(service, handlers))
    server = limited_server(services)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from keysvc import serving

    serving.run(serve(bytes.fromhex(sys.argv[1])))
