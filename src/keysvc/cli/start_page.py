"""What `keysvc serve` prints when it answers: where it is, and what to paste next."""

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
    program = sys.argv[0] if sys.argv[0].endswith("keysvc") else f"{sys.executable} -m keysvc"
    write(sys.stdout, _page(started, program, bootstrap_options, bold=sys.stdout.isatty()))


def _page(started: "Started", program: str, bootstrap_options: str, *, bold: bool) -> str:
    """The page."""

    def title(text: str) -> str:
        return f"\033[1m{text}\033[0m" if bold else text

    lines = ["", title(f"keysvc is ready on {started.address}") + (" (TLS)" if started.tls else ""), ""]
    if started.operator_key is not None:
        lines += [
            title("Operator key") + ", shown only now. Whoever has it may do everything: keep it well.",
            "",
            f"  {started.operator_key.reveal()}",
            "",
            title("Paste into another terminal, in this folder"),
            "",
            f"  export KEYSVC_API_KEY={started.operator_key.reveal()}",
        ]
    elif started.has_operator:
        lines += [
            title("Paste into another terminal, in this folder"),
            "",
            "  export KEYSVC_API_KEY=…      # your operator key",
        ]
    else:
        lines += [
            title("Paste into another terminal, in this folder"),
            "",
            "  # there is no operator key yet: create it",
            f'  export KEYSVC_API_KEY="$({program} bootstrap{bootstrap_options})"',
        ]
    address = started.address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
    if address != DEFAULT_ADDRESS:
        lines.append(f"  export KEYSVC_ADDRESS={address}")
    if started.tls:
        lines.append("  export KEYSVC_TLS_CA=…       # who signed the server's certificate")
    lines += [
        "",
        f"  {program} workspaces create {_WORKSPACE}",
        f"  KEY=$({program} keys create --workspace {_WORKSPACE} --name first --env live -q)",
        f'  echo "$KEY" | {program} verify --workspace {_WORKSPACE}',
        f"  {program} keys revoke $({program} keys list --workspace {_WORKSPACE} -q)",
        f'  echo "$KEY" | {program} verify --workspace {_WORKSPACE}',
        "",
        "Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines) + "\n"
