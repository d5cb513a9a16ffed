"""`python -m bench.naive`: what one writes first. A synchronous grpcio server with a query of SQLAlchemy for each call.

It reads keysvc's tables and answers what Verify answers for a valid key, but authenticates no caller, counts nothing
that lasts, and knows neither roles nor scopes of a workspace: a real one would be slower. Prints its port, and serves
until standard input ends.
"""

import hmac
import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Final

import grpc
from sqlalchemy import create_engine, select

from bench.empty import METHOD_COUNT, METHOD_VERIFY
from keysvc.core.keystring import KeyString
from keysvc.store.schema import key, secret, workspace
from keysvc.v1 import key_pb2, verify_pb2

THREADS: Final = 10

_ID: Final = slice(-64, -49)
"""Of the secret, in a key string."""

_QUERY: Final = (
    select(
        key,
        workspace.c.name,
        workspace.c.suspended.label("workspace_suspended"),
        secret.c.id.label("sid"),
        secret.c.digest,
    )
    .join(secret, secret.c.key_id == key.c.id)
    .join(workspace, workspace.c.id == key.c.workspace_id)
)


class Naive:
    """Verifies."""

    def __init__(self, url: str, pepper: bytes) -> None:
        self._engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=THREADS)
        self._pepper = pepper
        self._calls = itertools.count()

    def verify(self, request: verify_pb2.VerifyRequest, _context: grpc.ServicerContext) -> verify_pb2.VerifyResponse:
        """One look-up, and the checks that come to mind."""
        next(self._calls)
        text = KeyString(request.key_string).reveal()
        with self._engine.connect() as connection:
            row = connection.execute(_QUERY.where(secret.c.id == text[_ID])).one_or_none()
        digest = hmac.digest(self._pepper, text.encode(), "sha256")
        if row is None or not compare_digest(digest, row.digest):
            return _refused(verify_pb2.VERDICT_NOT_FOUND)
        if row.revoke_time is not None:
            return _refused(verify_pb2.VERDICT_REVOKED)
        if row.suspended or row.workspace_suspended:
            return _refused(verify_pb2.VERDICT_SUSPENDED)
        if row.expire_time is not None and row.expire_time < datetime.now(UTC):
            return _refused(verify_pb2.VERDICT_EXPIRED)
        if not set(request.required_scopes) <= set(row.scopes):
            return _refused(verify_pb2.VERDICT_INSUFFICIENT_SCOPE)
        return verify_pb2.VerifyResponse(
            verdict=verify_pb2.VERDICT_VALID,
            key_id=str(row.id),
            secret_id=row.sid,
            workspace=row.name,
            environment=key_pb2.ENVIRONMENT_LIVE,
            owner=row.owner,
            scopes=row.scopes,
            role=row.role,
            metadata=row.metadata,
            basis=verify_pb2.BASIS_DATABASE,
            message="the key is valid",
        )

    def count(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        """How often that was called before."""
        # The next number, and the one that is taken by looking at it.
        number = next(self._calls)
        self._calls = itertools.count(number)
        return str(number).encode()


def _refused(verdict: verify_pb2.Verdict.ValueType) -> verify_pb2.VerifyResponse:
    return verify_pb2.VerifyResponse(verdict=verdict, basis=verify_pb2.BASIS_DATABASE)


def main() -> None:
    """Serve."""
    naive = Naive(os.environ["DATABASE_URL"], bytes.fromhex(os.environ["PEPPER"]))
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    verify = grpc.unary_unary_rpc_method_handler(
        naive.verify,
        request_deserializer=verify_pb2.VerifyRequest.FromString,
        response_serializer=verify_pb2.VerifyResponse.SerializeToString,
    )
    for path, handler in ((METHOD_VERIFY, verify), (METHOD_COUNT, grpc.unary_unary_rpc_method_handler(naive.count))):
        service, method = path.strip("/").split("/")
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main()
