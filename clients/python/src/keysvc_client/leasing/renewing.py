"""Asks for leases, in threads of its own: whatever the application's threads and event loops do, the lease goes on.

One connection to one server carries all renewals of a session. While it lasts, that server acknowledges no change that
we have not applied; so it is left in good order, with a word of goodbye, before the server ends it for its age.
"""

import logging
import random
from collections.abc import Callable, Iterable
from threading import Event, Lock, Thread
from typing import Final
from uuid import uuid4

import grpc

from keysvc.v1.key_service_pb2 import RenewLeaseRequest, RenewLeaseResponse, WatchWakeUpsRequest, WatchWakeUpsResponse
from keysvc_client.channels import Channel, pause_at_forks
from keysvc_client.leasing.answers import Answers, Clock, boottime

RENEW_SECONDS: Final = 0.5
"""How often, when nothing happens. A shorter lease is renewed four times in its length."""

RENEWAL_SECONDS_MAX: Final = 1.0
"""A renewal that takes longer has failed: there is time for another one before a lease of 3 s ends."""

PAUSE_SECONDS: Final = 0.05
"""Before the second attempt, while no server grants anything; each later one has so much longer to wait."""

PAUSE_SECONDS_MAX: Final = 2.0

DENIED_SECONDS: Final = 5.0
"""The same, while they know us and grant nothing for that."""

SESSION_SECONDS: Final = 300.0
"""How long a connection is used, by chance up to a fifth less; keysvc ends those of ten minutes."""

CLOSE_SECONDS: Final = 0.5

_log = logging.getLogger("keysvc_client")

_DENIED: Final = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)


class Renewing:
    """Keeps a lease running until it is stopped.

    Parameters:
        answers: whose lease it is.
        open_channel: opens a connection to one of the servers.
        metadata: of a call.
        stale: ask for how long answers may be given after the lease.
        clock: of the lease.
    """

    def __init__(
        self,
        answers: Answers,
        open_channel: Callable[[], Channel],
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        *,
        stale: bool,
        clock: Clock = boottime,
    ) -> None:
        self._answers = answers
        self._open_channel = open_channel
        self._metadata = metadata
        self._stale = stale
        self._clock = clock
        self._signal = Event()
        self._calling = Lock()
        self._session: _Session | None = None
        self._is_stopping = False
        self._is_denied = False
        self._thread = Thread(target=self._run, name="keysvc lease", daemon=True)

    def start(self) -> None:
        """Begin."""
        pause_at_forks(self)
        self._thread.start()

    def stop(self) -> None:
        """Give up the lease, and end the session."""
        self._is_stopping = True
        self._signal.set()
        self._answers.lose()
        self._thread.join(RENEWAL_SECONDS_MAX + 2 * CLOSE_SECONDS)

    def pause(self) -> None:
        """Return when no call is under way, and begin none. The lease goes on."""
        self._calling.acquire()
        if self._session is not None:
            self._session.rest()

    def resume(self) -> None:
        """Go on."""
        self._calling.release()
        self._signal.set()

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                self._renew_on()
            except Exception:  # noqa: BLE001 (without a lease the service is asked, which is slow and right)
                _log.exception("the lease is given up, and asked for anew")
                self._pause(DENIED_SECONDS)

    def _renew_on(self) -> None:
        """Renew with one server after the other, until it is time to stop."""
        is_good, failures = False, 0
        try:
            while not self._is_stopping:
                with self._calling:
                    following = _Session(self._open_channel(), self._metadata, self._answers.told, self._signal)
                if self._renew(following, anew=True):
                    # Only now, so that there is no time without a lease.
                    self._leave_for(following)
                    is_good, failures = self._keep(following), 0
                    continue
                with self._calling:
                    following.end()
                failures += 1
                if is_good and self._session is not None:
                    is_good = self._keep(self._session)  # no other one takes us
                    continue
                longest = min(PAUSE_SECONDS * failures, PAUSE_SECONDS_MAX)
                self._pause(DENIED_SECONDS if self._is_denied else longest * _spread())
        finally:
            self._answers.lose()
            self._leave_for(None)

    def _leave_for(self, following: "_Session | None") -> None:
        """End the session with the server so far, in good order."""
        with self._calling:
            session, self._session = self._session, following
            if session is not None:
                session.close()
                session.end()

    def _keep(self, session: "_Session") -> bool:
        """Renew with one server until it is time for another one, or that fails; whether it has gone well."""
        ends_at = self._clock() + SESSION_SECONDS * _spread()
        while not self._is_stopping and not session.is_over and self._clock() < ends_at:
            if not session.is_of(self._metadata()):
                # What another caller was told need not be what this one would be.
                self._answers.lose()
                return False
            if not self._renew(session):
                return False
        return not session.is_over

    def _renew(self, session: "_Session", *, anew: bool = False) -> bool:
        """Renew, and wait until it is time for the next renewal; whether there is a lease.

        Parameters:
            anew: with another server than before.
        """
        epoch, applied = self._answers.place
        sent = self._clock()
        try:
            with self._calling:
                answer = session.renew(RenewLeaseRequest(epoch=epoch, applied=applied, stale=self._stale))
        except grpc.RpcError as error:
            self._is_denied = error.code() in _DENIED
            if self._is_denied and not anew:
                self._answers.lose()
            else:
                self._answers.cut_off()
            return False
        if not self._answers.renewed(sent, answer, anew=anew) and not anew:
            with self._calling:
                session.watch()
            self._pause(min(RENEW_SECONDS, answer.ttl.ToNanoseconds() / 4e9))
        return True

    def _pause(self, seconds: float) -> None:
        """Wait for so long, or until something is worth while."""
        self._signal.wait(seconds)
        self._signal.clear()


def _spread() -> float:
    """A little less than one, by chance, so that clients do not come together."""
    return random.uniform(0.8, 1.0)  # noqa: S311


class _Session:
    """A session with one server.

    Parameters:
        channel: to it, and used for nothing else.
        metadata: of a call.
        told: is told of each wake-up.
        signal: is set after that: it is worth while to renew.
    """

    def __init__(
        self,
        channel: Channel,
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        told: Callable[[WatchWakeUpsResponse], None],
        signal: Event,
    ) -> None:
        self._channel = channel
        self._metadata = metadata
        self._told = told
        self._signal = signal
        self._id = str(uuid4())
        self._caller = dict(metadata()).get("authorization")
        self._watching: Thread | None = None
        self._stream: grpc.RpcContext | None = None
        self.is_over = False
        """The server is about to stop."""
        path = "/keysvc.v1.KeyService/"
        self._renew = channel.unary_unary(
            f"{path}RenewLease",
            request_serializer=RenewLeaseRequest.SerializeToString,
            response_deserializer=RenewLeaseResponse.FromString,
        )
        self._watch = channel.unary_stream(
            f"{path}WatchWakeUps",
            request_serializer=WatchWakeUpsRequest.SerializeToString,
            response_deserializer=WatchWakeUpsResponse.FromString,
        )

    def is_of(self, metadata: tuple[tuple[str, str], ...]) -> bool:
        """Whether its caller is still the one of these metadata."""
        return self._caller == dict(metadata).get("authorization")

    def renew(self, request: RenewLeaseRequest) -> RenewLeaseResponse:
        """Ask for a lease.

        Raises:
            grpc.RpcError: there is none.
        """
        request.session_id = self._id
        return self._renew(request, timeout=RENEWAL_SECONDS_MAX, metadata=self._metadata())

    def close(self) -> None:
        """Tell the server that its lease is not used any more; otherwise changes wait for the lease's end."""
        try:
            self._renew(
                RenewLeaseRequest(session_id=self._id, close=True), timeout=CLOSE_SECONDS, metadata=self._metadata()
            )
        except grpc.RpcError:
            return

    def watch(self) -> None:
        """Hear each wake-up, unless that is so already."""
        if self._watching is None or not self._watching.is_alive():
            self._stream = stream = self._watch(WatchWakeUpsRequest(session_id=self._id), metadata=self._metadata())
            self._watching = Thread(target=self._hear, args=(stream,), name="keysvc wake-ups", daemon=True)
            self._watching.start()

    def rest(self) -> None:
        """Hear none until the next ``watch``."""
        if self._stream is not None and self._watching is not None:
            self._stream.cancel()
            self._watching.join(CLOSE_SECONDS)

    def end(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _hear(self, stream: Iterable[WatchWakeUpsResponse]) -> None:
        try:
            for wake_up in stream:
                self._told(wake_up)
                self._signal.set()
        except grpc.RpcError:
            return  # The connection is lost or closed: the next renewal notices, or begins to watch anew.
        self.is_over = True
        self._signal.set()
