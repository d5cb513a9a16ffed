"""Keys as people see them."""

from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

from keysvc.cli.contract import environment_word, key_state_word
from keysvc.cli.output import Column, Output, coloured
from keysvc.v1.key_pb2 import Key, Revocation, Secret

_COLUMNS = (
    Column("Key"),
    Column("Workspace", folds=True),
    Column("Name", folds=True),
    Column("Env", rank=1),
    Column("State"),
    Column("Expires", rank=2),
    Column("Owner", rank=3, folds=True),
    Column("Hint", rank=4),
    Column("Created", rank=5),
)
_SECRET_COLUMNS = (
    Column("Secret"),
    Column("Hint"),
    Column("State"),
    Column("Created", rank=2),
    Column("Retires", rank=1),
    Column("Last used", rank=3),
)


def key_list(keys: Iterable[Key], output: Output, *, one_workspace: bool) -> Table:
    """A line for each key."""
    return output.table(
        _COLUMNS,
        [
            (
                key.id,
                "" if one_workspace else key.workspace,
                key.display_name,
                environment_word(key.environment),
                coloured(key_state_word(key.state)),
                output.brief_time(key.expire_time) if key.HasField("expire_time") else "never",
                key.owner,
                ", ".join(_hint(secret) for secret in key.secrets),
                output.brief_time(key.create_time),
            )
            for key in keys
        ],
    )


def key_rows(key: Key, output: Output) -> list[tuple[str, str | Text]]:
    """All that is known of a key but its secrets, for `Output.details`."""
    return [
        ("key", key.id),
        ("name", key.display_name),
        ("workspace", key.workspace),
        ("environment", environment_word(key.environment)),
        ("state", coloured(key_state_word(key.state))),
        ("revoked", _revocation(key.revocation, output) if key.HasField("revocation") else ""),
        ("owner", key.owner),
        ("role", key.role),
        ("scopes", ", ".join(key.scopes)),
        ("limited to", ", ".join(key.workspaces)),
        ("addresses", ", ".join(key.ip_allowlist)),
        ("expires", output.time(key.expire_time) if key.HasField("expire_time") else "never"),
        ("tags", ", ".join(key.tags)),
        *metadata_rows(key.metadata),
        ("created", output.time(key.create_time) if key.HasField("create_time") else ""),
        ("creator", key.creator),
        ("changed", output.time(key.update_time) if key.update_time != key.create_time else ""),
        ("last used", output.time(key.last_used_time) if key.HasField("last_used_time") else ""),
        ("etag", key.etag),
    ]


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
                output.brief_time(secret.last_used_time) if secret.HasField("last_used_time") else "",
            )
            for secret in key.secrets
        ],
    )


def metadata_rows(metadata: Mapping[str, str]) -> list[tuple[str, str | Text]]:
    """A line for each entry, the first one labelled."""
    entries = [f"{name}={value}" for name, value in sorted(metadata.items())]
    return [("" if at else "metadata", entry) for at, entry in enumerate(entries)]


def _hint(secret: Secret) -> str:
    """The beginning of the key string, marked as no more than that."""
    return secret.hint.removesuffix("…") + "…" if secret.hint else ""


def _revocation(revocation: Revocation, output: Output) -> str:
    """When and why."""
    return ": ".join(part for part in (output.time(revocation.time), revocation.reason) if part)
