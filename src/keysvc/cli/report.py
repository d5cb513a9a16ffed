"""How a failure is told: a sentence and its bad fields for people, JSON for machines; both on standard error."""

import re
import sys

from rich.console import Console
from rich.text import Text

from keysvc.cli.failure import Failure
from keysvc.cli.text import clean, hide_key_strings, to_json, write

# How the command line spells a field; any other one is its own name with dashes.
_SPELLINGS = {
    "display_name": "--name",
    "environment": "--env",
    "scopes": "--scope",
    "required_scopes": "--scope",
    "ip_allowlist": "--ip",
    "expire_time": "--expires",
    "tags": "--tag",
    "workspaces": "--limit-to",
    "key_id": "KEY_ID",
    "key.id": "KEY_ID",
    "secret_id": "--secret",
    "key_string": "the key string",
    "consistency.at_least": "--at-least",
    "name": "NAME",
    "filter.key_id": "--key-id",
    "filter.display_name_prefix": "--name-prefix",
    "workspace.name": "NAME",
    "workspace.display_name": "--display-name",
    "workspace.allowed_scopes": "--allowed-scope",
    "workspace.roles": "--role",
    "workspace.default_ttl": "--default-ttl",
    "workspace.max_ttl": "--max-ttl",
    "workspace.key_limit": "--key-limit",
    "workspace.etag": "--etag",
}
_PATH = re.compile(r"(?P<field>[a-z_]+(?:\.[a-z_]+)?)(?:\[(?P<at>[^\]]*)\])?(?P<rest>.*)", re.DOTALL)


def report(failure: Failure, *, as_json: bool, subject: str = "") -> None:
    """Tell a failure; ``subject`` names the thing, where a command has several."""
    if as_json:
        write(sys.stderr, hide_key_strings(to_json({"error": _document(failure, subject)}, sys.stderr)))
        return
    console = Console(stderr=True, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(Text("error: ", style="bold red"), end="")
    label = captured.get()
    write(sys.stderr, label + "".join(f"{hide_key_strings(clean(line))}\n" for line in _lines(failure, subject)))


def _lines(failure: Failure, subject: str) -> list[str]:
    """A failure in lines for people."""
    message = failure.message
    if failure.violations and all(description in message for _, description in failure.violations):
        message = "these values cannot be used."  # the message only repeats what the lines below say
    parts = [subject, "" if failure.local else failure.code, message]
    lines = [": ".join(part for part in parts if part)]
    lines += [f"  {spell(field)}: {description}" for field, description in failure.violations]
    if failure.retry_seconds is not None:
        lines.append(f"Try again in {failure.retry_seconds:g} s.")
    if failure.advice:
        lines.append(failure.advice)
    if failure.request_id:
        lines.append(f"The service's logs know this call as {failure.request_id}.")
    return lines


def spell(field: str) -> str:
    """A field of a request as the command line spells it: `ip_allowlist[1]` is `--ip (2nd)`."""
    match = _PATH.fullmatch(field)
    if match is None:
        return field
    name, at, rest = match["field"], match["at"], match["rest"]
    last = name.rpartition(".")[2]
    spelling = _SPELLINGS.get(name) or _SPELLINGS.get(last) or "--" + last.replace("_", "-")
    if at is None:
        return spelling + rest
    return f"{spelling} ({_ordinal(int(at) + 1) if at.isdecimal() else at}){rest}"


def _ordinal(number: int) -> str:
    """A place in a row, such as 1st or 22nd."""
    teen = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _document(failure: Failure, subject: str) -> dict[str, object]:
    """A failure for machines; what is empty is left out."""
    document: dict[str, object] = {
        "code": failure.code,
        "message": failure.message,
        "subject": subject,
        "reason": failure.reason,
        "metadata": failure.metadata,
        "fieldViolations": [{"field": field, "description": text} for field, text in failure.violations],
        "retryDelay": "" if failure.retry_seconds is None else f"{failure.retry_seconds:g}s",
        "advice": failure.advice,
        "requestId": failure.request_id,
    }
    return {name: value for name, value in document.items() if value}
