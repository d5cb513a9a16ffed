"""What `keysvc serve` prints when it answers: where it is, and what to paste next."""

import shlex
import sys
from typing import TYPE_CHECKING

from keysvc.cli.connection import DEFAULT_ADDRESS
from keysvc.cli.text import write

if TYPE_CHECKING:
    from keysvc.app import Started

_WORKSPACE = "acme-corp/sales"


def show_start_page(started: "Started", *, bootstrap_options: str) -> None:
    """Print the start page. The operator key is on it only if standard output is a terminal: see ``app.serve``.

    Parameters:
        bootstrap_options: what `keysvc bootstrap` needs to find the same database.
    """
    program = shlex.quote(sys.argv[0])
    if not sys.argv[0].endswith("keysvc"):
        program = f"{shlex.quote(sys.executable)} -m keysvc"
    write(sys.stdout, _page(started, program, bootstrap_options, bold=sys.stdout.isatty()))


def _page(started: "Started", program: str, bootstrap_options: str, *, bold: bool) -> str:
    """The page."""

    def title(text: str) -> str:
        return f"\033[1m{text}\033[0m" if bold else text

    lines = ["", title(f"keysvc is ready on {started.address}") + (" (TLS)" if started.tls else ""), ""]
    exports = _exports(started)
    paste = title("Paste into another terminal, in this folder")
    if started.operator_key is None and started.has_operator:
        lines += [paste, "", *exports, ""] if exports else []
        lines.append(f"{program} --help says what to do with it.")
        lines.append(f"Lost the operator key? {program} bootstrap --another{bootstrap_options} makes one more.")
        return "\n".join([*lines, "Ctrl-C stops it.", "", ""])
    if started.operator_key is not None:
        lines += [
            title("Operator key") + ", shown only now. Whoever has it may do everything: keep it well.",
            "",
            f"  {started.operator_key.reveal()}",
            "",
            paste,
            "",
            f"  export KEYSVC_API_KEY={started.operator_key.reveal()}",
        ]
    else:
        lines += [
            paste,
            "",
            "  # there is no operator key yet: create it",
            f'  export KEYSVC_API_KEY="$({program} bootstrap{bootstrap_options})"',
        ]
    lines += exports
    lines += [
        "",
        f"  {program} workspaces create {_WORKSPACE}",
        f"  KEY=$({program} keys create --workspace {_WORKSPACE} --name first --env live -q)",
        f'  echo "$KEY" | {program} verify --workspace {_WORKSPACE}',
        f'  {program} keys revoke $({program} keys list --hint-prefix "${{KEY:0:16}}" -q)',
        f'  echo "$KEY" | {program} verify --workspace {_WORKSPACE}',
        "",
        "Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines) + "\n"


def _exports(started: "Started") -> list[str]:
    """What the client commands must be told to find this server."""
    address = started.address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
    lines = []
    if address != DEFAULT_ADDRESS:
        lines.append(f"  export KEYSVC_ADDRESS={address}")
    if started.tls:
        lines.append("  export KEYSVC_TLS_CA=…       # who signed the server's certificate")
    return lines
