"""The synchronous client."""

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from keysvc.v1.verify_pb2 import VerifyBatchRequest
from keysvc_client._sync.audit import Audit
from keysvc_client._sync.calls import Calls
from keysvc_client._sync.keys import Keys
from keysvc_client._sync.usage import Usage
from keysvc_client._sync.watch import Watch
from keysvc_client._sync.workspaces import Workspaces
from keysvc_client.connection import Arguments, Connection, FilePath
from keysvc_client.counting import spool
from keysvc_client.errors import ConfigurationError
from keysvc_client.leasing.leased import Leased
from keysvc_client.methods import VERIFY, VERIFY_BATCH
from keysvc_client.values import EnvironmentWord, seconds, several
from keysvc_client.verification import Freshness, Presentation, Verification

VERIFY_SECONDS: Final = 2.0
CALL_SECONDS: Final = 10.0


class KeysvcClient:
    """Calls keysvc: verifies here, manages in `keys` and `workspaces`, counts in `usage`, reads the log in `audit`.

    What is not given is looked up in the environment, under the names that the `keysvc` command uses. Nothing is sent
    before the first call; that opens connections to all servers of the target, and the calls take turns among them.
    May be used by many threads at once, and in child processes after a fork; if it was used before the
    fork too, only with GRPC_ENABLE_FORK_SUPPORT=1 in the environment. Close it, or use it as a context manager:

        with KeysvcClient() as client:
            verification = client.verify(key_string, required_scopes=["pdf.read"])

    Parameters:
        target: where keysvc is (KEYSVC_ADDRESS): `host:port`, `dns:///host:port`, `ipv4:address:port,address:port` or
            `unix:path`. Default: 127.0.0.1:50051.
        api_key: key string of the caller (KEYSVC_API_KEY).
        api_key_file: a file that holds it (KEYSVC_API_KEY_FILE). It is read again, so that another key is used within a
            second after it has been replaced.
        tls: speak TLS, trusting what the system trusts (KEYSVC_TLS); False: do not, whatever the environment says.
        tls_ca: speak TLS, trusting the authorities in this file (KEYSVC_TLS_CA).
        tls_client_cert, tls_client_key: certificate of the caller, and its private key (KEYSVC_TLS_CLIENT_CERT,
            KEYSVC_TLS_CLIENT_KEY), as files in PEM.
        tls_server_name: that the certificates of the servers must have; for targets with several addresses, whose
            certificates are for a name.
        allow_plaintext: call other machines without TLS: keys cross the network in clear (KEYSVC_ALLOW_PLAINTEXT).
        lease: verify in this process: `verify` answers from memory what it has been told before, for as long as nothing
            of it changes. A lease that a thread renews sees to it that no revoked key is accepted: a Revoke that has
            returned has heard from this process, or has waited until its lease was over. Needs `usage.write` besides
            `verify`, since answers that are given here are counted here and reported.
        stale: with `lease`, go on to answer so when no server can be reached any more, for as long as the operators of
            keysvc allow (`--stale-seconds`); `basis` is STALE then. Otherwise `Unavailable` is raised.
        usage_spool: a folder for counts that were not reported yet: with `lease` of answers that were given here, with
            middleware of what became of requests. None of a process that is killed is lost then: the next one that uses
            the folder reports them. Without it they are, those of a second at most. For processes with the same caller.
        verify_timeout: deadline of `verify` and `verify_batch`, in seconds, retries included.
        timeout: deadline of all other calls, in seconds. A change that is not true everywhere by then is answered just
            before, with a receipt that says by when it will be; with the leases that servers have by default that
            takes 3.65 s at most.

    Raises:
        ConfigurationError: they make no safe connection.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        api_key: str | None = None,
        api_key_file: FilePath | None = None,
        tls: bool | None = None,
        tls_ca: FilePath | None = None,
        tls_client_cert: FilePath | None = None,
        tls_client_key: FilePath | None = None,
        tls_server_name: str | None = None,
        allow_plaintext: bool | None = None,
        lease: bool = False,
        stale: bool = False,
        usage_spool: FilePath | None = None,
        verify_timeout: float = VERIFY_SECONDS,
        timeout: float = CALL_SECONDS,
    ) -> None:
        given = Arguments(
            target=target,
            api_key=api_key,
            api_key_file=api_key_file,
            tls=tls,
            tls_ca=tls_ca,
            tls_client_cert=tls_client_cert,
            tls_client_key=tls_client_key,
            tls_server_name=tls_server_name,
            allow_plaintext=allow_plaintext,
        )
        self._verify_seconds = seconds(verify_timeout, "verify_timeout")
        self._connection = Connection.of(given, os.environ)
        self._calls = Calls(self._connection, seconds(timeout))
        self._spool_dir = None if usage_spool is None else spool(Path(usage_spool))
        self._leased = Leased(self._connection, stale=stale, spool_dir=self._spool_dir) if lease else None
        self.keys: Final = Keys(self._calls)
        self.workspaces: Final = Workspaces(self._calls)
        self.usage: Final = Usage(self._calls)
        self.audit: Final = Audit(self._calls)

    def __repr__(self) -> str:
        """Where it calls, and not as whom."""
        return f"{type(self).__name__}({self._connection.target!r})"

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close its connections, which ends calls under way. Whoever calls afterwards gets `RuntimeError`."""
        if self._leased is not None:
            self._leased.close()
        self._calls.close()

    def _begin(self) -> None:
        """Ask for a lease before the first question, and report what processes before have left in the spool."""
        if self._leased is not None:
            self._leased.answers()

    def verify(
        self,
        key_string: str,
        *,
        workspace: str | None = None,
        environment: EnvironmentWord | None = None,
        required_scopes: Iterable[str] = (),
        source_ip: str | None = None,
        resource: str | None = None,
        request_id: str | None = None,
        consistency: Freshness | None = None,
        timeout: float | None = None,
    ) -> Verification:
        """Judge what an end user presented. A refusal is an answer, never an exception.

        Permission `verify`. Repeated by itself where keysvc is not available, within the deadline.

        Parameters:
            key_string: what was presented, whole, whatever it is.
            workspace: that the request is for; a key of another one is refused. None: the key's own.
            environment: that the request is for; None: either.
            required_scopes: that the request needs, all of them; at most 100.
            source_ip: of the end user. Without it a key with an allow-list is refused.
            resource: what is being accessed, for usage reports; at most 128 characters.
            request_id: the service's own trace id, for usage reports; at most 128 characters.
            consistency: how fresh the answer must be; None: as `leased`.
            timeout: deadline, in seconds; None: that of the client.

        Raises:
            KeysvcError: no judgement was made. `Unavailable` and `ResourceExhausted`: try again later.
            ValueError, TypeError: an argument cannot be sent.
        """
        answers = question = None
        if self._leased is not None and consistency is None and isinstance(key_string, str):
            answers = self._leased.answers()
            if type(required_scopes) is not tuple:
                required_scopes = tuple(several("required_scopes", required_scopes))
            question = answers.question(key_string, workspace, environment, required_scopes)
            remembered = answers.find(question, source_ip)
            if remembered is not None:
                return remembered
        presentation = Presentation(
            key_string, workspace, environment, required_scopes, source_ip, resource, request_id, consistency
        )
        deadline = self._verify_seconds if timeout is None else timeout
        request = presentation.to_request()
        request.memo = answers is not None
        answer = self._calls.call(VERIFY, request, deadline)
        verification = Verification.of(answer)
        if answers is not None and question is not None and answer.HasField("memo"):
            answers.remember(question, source_ip, verification, answer.memo)
        return verification

    def watch(
        self,
        key_string: str,
        *,
        workspace: str | None = None,
        environment: EnvironmentWord | None = None,
        required_scopes: Iterable[str] = (),
        source_ip: str | None = None,
    ) -> Watch:
        """Watch over work in flight: be told when what `verify` has found VALID is so no more. Needs `lease`.

        Nothing is sent while nothing changes. Each time that something does, one Verify is counted.

        Parameters:
            key_string, workspace, environment, required_scopes, source_ip: as for `verify`.

        Raises:
            ConfigurationError: the client has no lease.
        """
        leased = self._leased
        if leased is None:
            raise ConfigurationError("watch needs a client with lease=True")
        scopes = tuple(several("required_scopes", required_scopes))

        def find() -> Verification | None:
            answers = leased.answers()
            question = answers.question(key_string, workspace, environment, scopes)
            return answers.find(question, source_ip, counted=False)

        def ask() -> Verification:
            return self.verify(
                key_string, workspace=workspace, environment=environment, required_scopes=scopes, source_ip=source_ip
            )

        return Watch(find, ask)

    def verify_batch(
        self, presentations: Iterable[Presentation], *, timeout: float | None = None
    ) -> tuple[Verification, ...]:
        """Judge up to 1000 presentations, each as `verify` would; one that is bad refuses the whole batch.

        Permission `verify`. Repeated by itself where keysvc is not available, within the deadline.

        Parameters:
            presentations: at least one.
            timeout: deadline, in seconds; None: that of the client for `verify`.

        Returns:
            One answer for each, in the same order.

        Raises:
            KeysvcError: no judgement was made.
            ValueError, TypeError: an argument cannot be sent.
        """
        request = VerifyBatchRequest(requests=[each.to_request() for each in presentations])
        deadline = self._verify_seconds if timeout is None else timeout
        answer = self._calls.call(VERIFY_BATCH, request, deadline)
        return tuple(map(Verification.of, answer.responses))
