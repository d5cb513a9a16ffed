"""`keysvc keys update`: changes what a key is."""

import ipaddress
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from keysvc.cli.command import client_command
from keysvc.cli.contract import to_timestamp, wait_value
from keysvc.cli.failure import Failure
from keysvc.cli.key_changes import KeyArgument, outcome
from keysvc.cli.key_table import changed_rows
from keysvc.cli.output import Output
from keysvc.cli.receipt import REPEAT, ReasonOption, WaitOption, receipt_state
from keysvc.cli.values import Pair, When, parse_duration, parse_pair, parse_time, to_mapping
from keysvc.v1 import key_service_pb2
from keysvc.v1.key_pb2 import Key

if TYPE_CHECKING:
    from keysvc.cli.client import Client

# Somebody who is faster five times in a row is a program that should be looked at, not raced.
_ATTEMPTS_MAX = 5
_SINGLE = "Single values; the others stay"

_EPILOG = """\b
Examples
  keysvc keys update KEY_ID --add-scope pdf.write --remove-ip 10.0.0.7
  keysvc keys update KEY_ID --ttl 90d --clear owner --reason "new contract\""""


class Clearable(StrEnum):
    """What an update can clear."""

    OWNER = "owner"
    ROLE = "role"
    SCOPES = "scopes"
    IPS = "ips"
    TAGS = "tags"
    METADATA = "metadata"
    EXPIRY = "expiry"
    LIMIT_TO = "limit-to"


_PATHS = {
    Clearable.OWNER: "owner",
    Clearable.ROLE: "role",
    Clearable.SCOPES: "scopes",
    Clearable.IPS: "ip_allowlist",
    Clearable.TAGS: "tags",
    Clearable.METADATA: "metadata",
    Clearable.EXPIRY: "expire_time",
    Clearable.LIMIT_TO: "workspaces",
}
_WORDS = {path: word.value for word, path in _PATHS.items()}


@dataclass(frozen=True, slots=True)
class Edit:
    """Single values to add to a list of a key, and to take away from it."""

    add: Sequence[str]
    remove: Sequence[str]


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes that depend on what the key is: it is read, changed, and written back if it is still the same.

    Parameters:
        lists: by field of the key.
        metadata: entries to set.
        metadata_gone: names of entries to take away.
    """

    lists: dict[str, Edit]
    metadata: dict[str, str]
    metadata_gone: Sequence[str]

    @property
    def paths(self) -> set[str]:
        """The fields that they change."""
        return {*self.lists, *(["metadata"] if self.metadata or self.metadata_gone else [])}

    def apply(self, before: Key, after: Key) -> None:
        """Fill the fields in ``after``; raise ``Failure`` where the key is not what they take it for."""
        _edit_list(before.scopes, after.scopes, self.lists.get("scopes"), "scope")
        _edit_list(before.tags, after.tags, self.lists.get("tags"), "tag")
        addresses = self.lists.get("ip_allowlist")
        _edit_list(before.ip_allowlist, after.ip_allowlist, addresses, "address", _range)
        if addresses and not before.ip_allowlist:
            raise Failure.input(
                f"The key is accepted from everywhere. Then it would be from {', '.join(addresses.add)} alone: "
                "if that is meant, say --ip instead of --add-ip."
            )
        if addresses and not after.ip_allowlist:
            raise Failure.input(
                "That was the last address, and a key without any is accepted from everywhere: "
                "if that is meant, say --clear ips."
            )
        if "metadata" in self.paths:
            for name in self.metadata_gone:
                _check_there(name, list(before.metadata), "metadata")
            kept = {name: value for name, value in before.metadata.items() if name not in self.metadata_gone}
            after.metadata.update(kept | self.metadata)


def register(app: typer.Typer) -> None:
    """Add the command."""
    client_command(app, "update", quiet="COMPLETE or PENDING", epilog=_EPILOG)(update)


def update(
    client: "Client",
    output: Output,
    key_id: KeyArgument,
    *,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Name for people.")] = None,
    owner: Annotated[str | None, typer.Option(metavar="TEXT", help="Person, team or service account.")] = None,
    role: Annotated[
        str | None, typer.Option(metavar="ROLE", help="A named set of grants: viewer, editor, admin.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="What it grants, instead of all before. Repeatable."),
    ] = None,
    ip: Annotated[
        list[str] | None,
        typer.Option("--ip", metavar="RANGE", help="Where it may be used from, instead of all before. Repeatable."),
    ] = None,
    ttl: Annotated[
        timedelta | None,
        typer.Option(metavar="DURATION", parser=parse_duration, help="How long it lives from now on: 90d, 12h."),
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(metavar="TIME", parser=parse_time, help="When it ends instead: 2027-01-31T00:00:00Z."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="WORD", help="Its tags, instead of all before. Repeatable.")
    ] = None,
    metadata: Annotated[
        list[Pair] | None,
        typer.Option(metavar="NAME=VALUE", parser=parse_pair, help="Its metadata, instead of all before. Repeatable."),
    ] = None,
    limit_to: Annotated[
        list[str] | None,
        typer.Option(
            "--limit-to",
            metavar="NAME",
            help="Keys of keysvc/system: where the caller may work, instead of all before. Repeatable.",
        ),
    ] = None,
    clear: Annotated[
        list[Clearable] | None,
        typer.Option(
            "--clear",
            metavar="WHAT",
            help="One of owner, role, scopes, ips, tags, metadata, expiry, limit-to. Repeatable.",
        ),
    ] = None,
    etag: Annotated[
        str, typer.Option(metavar="TEXT", show_default=False, help="Only if it has not changed since: see get.")
    ] = "",
    reason: ReasonOption = "",
    wait: WaitOption = None,
    add_scope: Annotated[
        list[str] | None,
        typer.Option("--add-scope", metavar="SCOPE", help="Grant this too. Repeatable.", rich_help_panel=_SINGLE),
    ] = None,
    remove_scope: Annotated[
        list[str] | None,
        typer.Option(
            "--remove-scope",
            metavar="SCOPE",
            help="Take this one away, as it is written in the key. Repeatable.",
            rich_help_panel=_SINGLE,
        ),
    ] = None,
    add_ip: Annotated[
        list[str] | None,
        typer.Option("--add-ip", metavar="RANGE", help="Accept it from here too. Repeatable.", rich_help_panel=_SINGLE),
    ] = None,
    remove_ip: Annotated[
        list[str] | None,
        typer.Option(
            "--remove-ip", metavar="RANGE", help="Do not accept it from here. Repeatable.", rich_help_panel=_SINGLE
        ),
    ] = None,
    add_tag: Annotated[
        list[str] | None,
        typer.Option("--add-tag", metavar="WORD", help="One more tag. Repeatable.", rich_help_panel=_SINGLE),
    ] = None,
    remove_tag: Annotated[
        list[str] | None,
        typer.Option("--remove-tag", metavar="WORD", help="One tag less. Repeatable.", rich_help_panel=_SINGLE),
    ] = None,
    add_metadata: Annotated[
        list[Pair] | None,
        typer.Option(
            metavar="NAME=VALUE",
            parser=parse_pair,
            help="Set this entry, new or not. Repeatable.",
            rich_help_panel=_SINGLE,
        ),
    ] = None,
    remove_metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--remove-metadata", metavar="NAME", help="Take this entry away. Repeatable.", rich_help_panel=_SINGLE
        ),
    ] = None,
) -> None:
    """Change what is given, and leave the rest.

    Single values are read, changed and written back; if somebody else changes the key meanwhile, that is tried again.
    What a list held before is replaced by --scope, --ip, --tag, --metadata and --limit-to.
    """
    if ttl is not None and expires is not None:
        raise Failure.usage("--ttl and --expires say the same thing twice: give one of them.")
    end = expires if ttl is None else When(distance=ttl).ahead_of(output.now)
    edits = Edits(
        {
            path: Edit(add or (), remove or ())
            for path, add, remove in (
                ("scopes", add_scope, remove_scope),
                ("ip_allowlist", add_ip, remove_ip),
                ("tags", add_tag, remove_tag),
            )
            if add or remove
        },
        to_mapping(add_metadata or ()),
        remove_metadata or (),
    )
    given = {
        "display_name": name,
        "owner": owner,
        "role": role,
        "scopes": scope,
        "ip_allowlist": ip,
        "expire_time": end,
        "tags": tag,
        "metadata": metadata,
        "workspaces": limit_to,
    }
    paths = _paths({path for path, value in given.items() if value is not None}, clear or (), edits)
    request = key_service_pb2.UpdateRequest(
        key=Key(
            id=key_id,
            display_name=name or "",
            owner=owner or "",
            role=role or "",
            scopes=scope or (),
            ip_allowlist=ip or (),
            expire_time=to_timestamp(end),
            tags=tag or (),
            metadata=to_mapping(metadata or ()),
            workspaces=limit_to or (),
            etag=etag,
        ),
        update_mask=FieldMask(paths=paths),
        reason=reason,
        wait=wait_value(wait),
    )
    response = _send(client, request, edits)
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(receipt_state(response.receipt))
    else:
        output.show(f"Updated key {key_id}", outcome(response, output, changed_rows(response.key, paths, output)))


def _paths(given: set[str], clear: Iterable[Clearable], edits: Edits) -> list[str]:
    """The fields that change; raises ``Failure`` where there are none, or where one shall change in two ways."""
    cleared = {_PATHS[each] for each in clear}
    ways = (("set", given), ("cleared", cleared), ("changed by single values", edits.paths))
    for at, (one, paths) in enumerate(ways):
        for other, others in ways[at + 1 :]:
            if both := sorted(paths & others):
                raise Failure.usage(f"{_WORDS[both[0]]} cannot be {one} and {other} at once.")
    if not given | cleared | edits.paths:
        raise Failure.usage("There is nothing to change: give at least one option.")
    return sorted(given | cleared | edits.paths)


def _send(client: "Client", request: key_service_pb2.UpdateRequest, edits: Edits) -> key_service_pb2.UpdateResponse:
    """Update the key. With single values: as it is now, and again if somebody else was faster, a few times."""
    key_id, etag = request.key.id, request.key.etag
    look = f"Nobody knows whether the change was made. Look: keysvc keys get {key_id}"
    if not edits.paths:
        return client.call(client.keys.Update, request, if_unknown=look if etag else REPEAT)
    for attempt in range(1, _ATTEMPTS_MAX + 1):
        before = client.call(client.keys.Get, key_service_pb2.GetRequest(key_id=key_id)).key
        changed = key_service_pb2.UpdateRequest()
        changed.CopyFrom(request)
        changed.key.etag = etag or before.etag
        edits.apply(before, changed.key)
        try:
            return client.call(client.keys.Update, changed, if_unknown=look)
        except Failure as failure:
            if failure.code != "ABORTED" or etag:
                raise
            if attempt == _ATTEMPTS_MAX:
                failure.advice = f"Somebody else was faster {attempt} times. Nothing was changed: try again later."
                raise
    raise AssertionError  # the last attempt returns or raises


def _edit_list(
    before: Sequence[str],
    after: MutableSequence[str],
    edit: Edit | None,
    what: str,
    spell: Callable[[str], str] = str,
) -> None:
    """Fill a list of a key: what was there without what goes, then what is new. ``spell``: as the service writes it."""
    if edit is None:
        return
    gone = list(map(spell, edit.remove))
    for value in gone:
        _check_there(value, before, what)
    kept = [value for value in before if value not in gone]
    after.extend([*kept, *(value for value in edit.add if spell(value) not in kept)])


def _check_there(value: str, values: Sequence[str], what: str) -> None:
    """Raise ``Failure`` if a value is not there: somebody believes it is, and it might be in other words."""
    if value not in values:
        raise Failure.input(f"The key has no {what} {value}: it has {', '.join(values) or 'none'}.")


def _range(text: str) -> str:
    """An address or a range as the service writes it; what is neither is left for the service to refuse."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return text
    return str(network.network_address) if network.num_addresses == 1 else str(network)
