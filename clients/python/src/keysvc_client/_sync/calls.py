"""How every call is made: the channel, the deadline, who calls, and what its errors mean."""

import os
from collections.abc import Iterator, Callable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

import grpc

from keysvc_client.channels import Channel, abandoned, leave_to_parent, open_channel, opening
from keysvc_client.connection import Connection
from keysvc_client.failures import FailedCall, error_of
from keysvc_client.methods import Method, Page, PageRequest, Request, Response
from keysvc_client.values import new_request_id, seconds

Item = TypeVar("Item")


class _Opened(NamedTuple):
    """A channel, the process that opened it, and what calls each method on it."""

    process: int
    channel: Channel
    callables: dict[Method[Any, Any], Any]


class Calls:
    """Makes the calls of one client. Its channel is opened by the first call, and again in a child process.

    Parameters:
        connection: where to, and as whom.
        timeout: deadline of calls that have none of their own, in seconds.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._opened: _Opened | None = None
        self._is_closed = False

    def call(self, method: Method[Request, Response], request: Request, timeout: float | None = None) -> Response:
        """Call a method.

        Parameters:
            timeout: deadline, in seconds; None: that of the client.

        Raises:
            KeysvcError: it was not carried out, or nobody knows whether it was.
        """
        deadline = self._timeout if timeout is None else seconds(timeout)
        request_id = new_request_id()
        send = self._find(method)
        try:
            return cast("Response", send(request, timeout=deadline, metadata=self._connection.metadata(request_id)))
        except grpc.RpcError as raised:
            failed = cast("FailedCall", raised)
            error = error_of(failed, target=self._connection.target, timeout=deadline, request_id=request_id)
        # Where nothing is being handled any more, so that what gRPC raised does not hang on it.
        raise error

    def items(
        self,
        method: Method[PageRequest, Page],
        request: PageRequest,
        items: Callable[[Page], Iterable[Item]],
        timeout: float | None,
    ) -> Iterator[Item]:
        """All that is on the pages of a list, one page after the other.

        Parameters:
            request: for the first page; the tokens of the others are set in it.
            items: what is on a page.
            timeout: of each page.
        """
        while True:
            page = self.call(method, request, timeout)
            for item in items(page):
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def close(self) -> None:
        """Close the channel, which ends calls under way. Whoever calls afterwards gets ``RuntimeError``."""
        with opening:
            opened, self._opened, self._is_closed = self._opened, None, True
            if opened is not None and opened.process != os.getpid():
                abandoned.append(opened.channel)
                opened = None
        if opened is not None:
            opened.channel.close()

    def _find(self, method: Method[Request, Response]) -> Any:  # noqa: ANN401 (has two types for two kinds of channel)
        """What calls a method."""
        opened = self._opened
        if opened is None or opened.process != os.getpid():
            opened = self._open()
        found = opened.callables.get(method)
        if found is None:
            found = opened.callables[method] = opened.channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return found

    def _open(self) -> _Opened:
        """Open the channel, unless another thread has done so."""
        with opening:
            if self._is_closed:
                raise RuntimeError("this client is closed")
            opened = self._opened
            if opened is None or opened.process != os.getpid():
                if opened is not None:
                    leave_to_parent(opened.channel)
                opened = self._opened = _Opened(os.getpid(), open_channel(self._connection), {})
            return opened
