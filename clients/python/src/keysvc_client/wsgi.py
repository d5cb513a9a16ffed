"""WSGI: every request of an application needs a key.

    app.wsgi_app = KeysvcMiddleware(app.wsgi_app, KeysvcClient(lease=True), Policy(public=["/health"]))

Whom a request is from is `environ["keysvc.principal"]` then, and `current_principal()` anywhere.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from keysvc_client._sync.client import KeysvcClient
from keysvc_client.errors import KeysvcError
from keysvc_client.middleware.gate import Gate, Headers, request_id_of
from keysvc_client.middleware.outcomes import Outcomes
from keysvc_client.middleware.policy import Policy
from keysvc_client.middleware.principal import Principal, principal_of_this_request
from keysvc_client.middleware.refusals import Refusal

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

PRINCIPAL: Final = "keysvc.principal"
SUCCESS_MAX: Final = 399
"""What is answered with more has not been done."""

_FAILED: Final = 500


class KeysvcMiddleware:
    """Lets requests through to an application if keysvc says that their key is valid, and has the scopes they need.

    Parameters:
        app: the application.
        client: asks keysvc. It is not closed here.
        policy: what requests need; None: a valid key.
    """

    def __init__(self, app: App, client: KeysvcClient, policy: Policy | None = None) -> None:
        policy = policy or Policy()
        self._app = app
        self._client = client
        self._gate = Gate(policy)
        spool_dir = client._spool_dir  # noqa: SLF001 (of the same library)
        self._outcomes = Outcomes(client._connection, spool_dir) if policy.report_outcomes else None  # noqa: SLF001
        self._allow_preflight = policy.allow_preflight
        self._key_variable = _variable(policy.header)
        self._proxy_variable = _variable(policy.proxy_header)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        environ.pop(PRINCIPAL, None)
        if _path(environ) in self._gate.public or (self._allow_preflight and _is_preflight(environ)):
            return self._app(environ, start_response)
        headers = Headers(
            *(
                () if (value := environ.get(variable)) is None else (value,)
                for variable in (self._key_variable, "HTTP_X_REQUEST_ID", self._proxy_variable)
            )
        )
        request_id = request_id_of(headers.request_ids)
        judged = self._judge(environ, headers, request_id)
        if isinstance(judged, Refusal):
            start_response(f"{judged.status} {judged.phrase}", [*judged.headers, ("x-request-id", request_id)])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [judged.body]
        environ[PRINCIPAL] = judged
        return _Answer(judged, self._outcomes).serve(self._app, environ, start_response)

    def close(self) -> None:
        """Report the last outcomes. The end of the process does so too."""
        if self._outcomes is not None:
            self._outcomes.close()

    def _judge(self, environ: Environ, headers: Headers, request_id: str) -> Principal | Refusal:
        gate = self._gate
        scopes = gate.scopes_of(environ["REQUEST_METHOD"])
        question = gate.question(headers, scopes, environ.get("REMOTE_ADDR"), request_id)
        if isinstance(question, Refusal):
            return question
        try:
            verification = self._client.verify(**question._asdict())
        except KeysvcError as error:
            return gate.unjudged(error, request_id)
        return gate.judged(verification, request_id)


class _Answer:
    """The answer of an application, which is over when it is closed; what became of the request is counted then."""

    def __init__(self, principal: Principal, outcomes: Outcomes | None) -> None:
        self._principal = principal
        self._outcomes = outcomes
        self._status = _FAILED
        self._is_done = False
        self._body: Iterable[bytes] = ()

    def serve(self, app: App, environ: Environ, start_response: StartResponse) -> "_Answer":
        """Have the application begin."""

        def starting(status: str, headers: list[tuple[str, str]], *raised: object) -> Callable[[bytes], object]:
            self._status = int(status[:3])
            if all(name.lower() != "x-request-id" for name, _ in headers):
                headers = [*headers, ("x-request-id", self._principal.request_id)]
            return start_response(status, headers, *raised)

        principal_of_this_request.set(self._principal)
        try:
            self._body = app(environ, starting)
        except BaseException:
            self._end()
            raise
        return self

    def __iter__(self) -> Iterator[bytes]:
        """The parts of the body."""
        yield from self._body
        self._is_done = True

    def close(self) -> None:
        """End the answer, as every server does in the end."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        principal_of_this_request.set(None)
        if self._outcomes is not None:
            is_success = self._is_done and self._status <= SUCCESS_MAX
            self._outcomes.add(self._principal.verification, self._status, is_success=is_success)


def _variable(header: str) -> str:
    """What WSGI calls a header."""
    return f"HTTP_{header.upper().replace('-', '_')}"


def _path(environ: Environ) -> str:
    """The path of a request, as `Policy.public` names it."""
    return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"


def _is_preflight(environ: Environ) -> bool:
    """Whether a request is one with which a browser asks whether it may send another one."""
    return (
        environ["REQUEST_METHOD"] == "OPTIONS"
        and "HTTP_ORIGIN" in environ
        and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    )
