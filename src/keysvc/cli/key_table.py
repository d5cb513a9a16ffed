"""Keys as people see them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from rich.table import Table
from rich.text import Text

from keysvc.cli.contract import environment_word, key_state_word
from keysvc.cli.output import Column, Output, coloured
from keysvc.v1.key_pb2 import Key, Revocation, Secret

LAST_USED = "Last used"
"""Title of the column that only tells something with the time that it is as of."""

_COLUMNS = (
    Column("Key"),
    Column("Workspace", folds=True),
    Column("Name", folds=True),
    Column("Env", rank=1),
    Column("State"),
    Column("Expires", rank=2),
    Column(LAST_USED, rank=3),
    Column("Verified", rank=4, right=True),
    Column("Owner", rank=5, folds=True),
    Column("Hint", rank=6),
    Column("Created", rank=7),
)
# Whoever looks for idle keys wants to see these before anything else that may have to leave.
_IDLE_RANKS = {LAST_USED: 0, "State": 1, "Env": 3}

_SECRET_COLUMNS = (
    Column("Secret"),
    Column("Hint", rank=2),
    Column("State"),
    Column("Created", rank=3),
    Column("Retires", rank=1),
    Column("Verified", right=True),
    Column(LAST_USED),
)

# What an empty field of a key stands for, where it has just been changed.
_EMPTY = {"ip_allowlist": "everywhere", "workspaces": "nothing: all workspaces"}


def key_list(keys: Iterable[Key], output: Output, *, one_workspace: bool, idle: bool = False) -> Table:
    """A line for each key; ``idle`` says that these were looked for because nobody uses them."""
    columns = [replace(each, rank=_IDLE_RANKS.get(each.header, each.rank)) if idle else each for each in _COLUMNS]
    return output.table(
        columns,
        [
            (
                key.id,
                "" if one_workspace else key.workspace,
                key.display_name,
                environment_word(key.environment),
                coloured(key_state_word(key.state)),
                output.brief_time(key.expire_time) if key.HasField("expire_time") else "never",
                _last_used(key, key, output),
                _verified(key, key, output),
                key.owner,
                ", ".join(_hint(secret) for secret in key.secrets),
                output.brief_time(key.create_time),
            )
            for key in keys
        ],
    )


def key_rows(key: Key, output: Output) -> list[tuple[str, str | Text]]:
    """All that is known of a key but its use and its secrets, for `Output.details`."""
    settable = _settable_rows(key, output)
    return [
        ("key", key.id),
        *settable.pop("display_name"),
        ("workspace", key.workspace),
        ("environment", environment_word(key.environment)),
        ("state", coloured(key_state_word(key.state))),
        ("revoked", _revocation(key.revocation, output) if key.HasField("revocation") else ""),
        *(row for rows in settable.values() for row in rows),
        ("created", output.time(key.create_time) if key.HasField("create_time") else ""),
        ("creator", key.creator),
        ("changed", output.time(key.update_time) if key.update_time != key.create_time else ""),
        ("etag", key.etag),
    ]


def changed_rows(key: Key, paths: Collection[str], output: Output) -> list[tuple[str, str | Text]]:
    """The fields of these paths, for `Output.details`; an empty one says what that means."""
    return [
        (label, value or _EMPTY.get(path, "none"))
        for path, rows in _settable_rows(key, output).items()
        if path in paths
        for label, value in rows or [(path, "")]
    ]


def _settable_rows(key: Key, output: Output) -> dict[str, list[tuple[str, str | Text]]]:
    """All of a key that can be changed, by the field of the contract."""
    return {
        "display_name": [("name", key.display_name)],
        "owner": [("owner", key.owner)],
        "role": [("role", key.role)],
        "scopes": [("scopes", ", ".join(key.scopes))],
        "workspaces": [("limited to", ", ".join(key.workspaces))],
        "ip_allowlist": [("addresses", ", ".join(key.ip_allowlist))],
        "expire_time": [("expires", output.time(key.expire_time) if key.HasField("expire_time") else "never")],
        "tags": [("tags", ", ".join(key.tags))],
        "metadata": metadata_rows(key.metadata),
    }


def secret_list(key: Key, output: Output) -> Table:
    """A line for each secret of a key."""
    return output.table(
        _SECRET_COLUMNS,
        [
            (
                secret.id,
                _hint(secret),
                coloured(key_state_word(secret.state)),
                output.brief_time(secret.create_time),
                output.brief_time(secret.retire_time) if secret.HasField("retire_time") else "",
                _verified(secret, key, output),
                _last_used(secret, key, output),
            )
            for secret in key.secrets
        ],
    )


def metadata_rows(metadata: Mapping[str, str]) -> list[tuple[str, str | Text]]:
    """A line for each entry, the first one labelled."""
    entries = [f"{name}={value}" for name, value in sorted(metadata.items())]
    return [("" if at else "metadata", entry) for at, entry in enumerate(entries)]


def _verified(used: Key | Secret, key: Key, output: Output) -> str:
    """How often a key or a secret of it was verified; nothing where nobody counts."""
    return output.count(used.usage_total) if key.HasField("usage_time") else ""


def _last_used(used: Key | Secret, key: Key, output: Output) -> str:
    """When a key or a secret of it was last accepted; nothing where nobody counts."""
    if not key.HasField("usage_time"):
        return ""
    return output.brief_time(used.last_used_time) if used.HasField("last_used_time") else "never"


def _hint(secret: Secret) -> str:
    """The beginning of the key string, marked as no more than that."""
    return secret.hint.removesuffix("…") + "…" if secret.hint else ""


def _revocation(revocation: Revocation, output: Output) -> str:
    """When and why."""
    return ": ".join(part for part in (output.time(revocation.time), revocation.reason) if part)
