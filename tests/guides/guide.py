"""Runs a guide as its reader does: its blocks in order, in one bash on a terminal of 80 columns, in an empty folder.

What a guide means:

- a ``bash`` block is pasted into the terminal;
- a ``python`` block under a line that ends with "`name.py`:" is saved as that file;
- a ``text`` block after a ``bash`` block is what that must have printed; ``…``, with the spaces after it, stands for
  anything within a line, and alone in a line for any lines;
- a ``bash`` block without one must succeed: its last command ends with 0, and no line is an error of keysvc's;
- any other block (``sh``, ``json``) is only there to be read.

``127.0.0.1:50051`` becomes the address of the test's own server, ``127.0.0.1:50052`` and so on free ports, and so does
``--port 50052``. The reader has an operator's key in KEYSVC_API_KEY, unless the guide says to paste it:
``export KEYSVC_API_KEY=sk_live_…``.
"""

import contextlib
import os
import pty
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from threading import Thread
from uuid import uuid4

from tests.process.running import environment

GUIDES = Path(__file__).parents[2] / "docs" / "guides"

_SERVER = "127.0.0.1:50051"
_PASTED = "KEYSVC_API_KEY=sk_live_…"
_ANOTHER_ADDRESS = re.compile(r"127\.0\.0\.1:5005[2-9]")
_FENCE = re.compile(r"```(?P<kind>\w*)")
_SAVED_AS = re.compile(r".*`(?P<name>[\w.-]+\.py)`:")
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\([A-Z]")
_ERROR = re.compile(r"^error: |^Traceback ", re.MULTILINE)
_COLUMNS, _LINES = 80, 24
_SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Block:
    """A block between fences.

    Parameters:
        line: where it begins in the guide.
        before: the last line of text above it.
    """

    kind: str
    text: str
    line: int
    before: str


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is typed, and what must come of it.

    Parameters:
        expected: all that it prints; None: whatever it likes.
    """

    line: int
    script: str
    expected: str | None = None


def read(guide: str) -> Iterator[Block]:
    """The blocks of a guide."""
    kind, begin, before, inside = "", 0, "", list[str]()
    for number, line in enumerate(guide.splitlines(), 1):
        if fence := _FENCE.fullmatch(line):
            if begin:
                yield Block(kind, "\n".join(inside), begin, before)
                begin, before, inside = 0, "", []
            else:
                kind, begin = fence["kind"], number
        elif begin:
            inside.append(line)
        elif line:
            before = line
    assert not begin, f"the block in line {begin} has no end"


def steps(guide: str) -> list[Step]:
    """What a reader of a guide does."""
    found: list[Step] = []
    for block in read(guide):
        if block.kind == "bash":
            found.append(Step(block.line, block.text))
        elif block.kind == "python" and (saved := _SAVED_AS.fullmatch(block.before)):
            end = f"end-{uuid4().hex}"
            found.append(Step(block.line, f"cat > {shlex.quote(saved['name'])} <<'{end}'\n{block.text}\n{end}"))
        elif block.kind == "text":
            assert found, f"line {block.line}: nothing was run that could have printed this"
            found[-1] = Step(found[-1].line, found[-1].script, block.text)
    assert found, "there is nothing to run"
    return found


def problems(guide: Path, folder: Path, address: str, operator_key: str) -> list[str]:
    """Run a guide, to its end, and tell each block that did not do what the guide says.

    Parameters:
        guide: its file.
        folder: where it is run; empty.
        address: of keysvc.
        operator_key: who the reader is there.
    """
    text = guide.read_text().replace(_SERVER, address)
    for other in sorted(set(_ANOTHER_ADDRESS.findall(text))):
        address_of_it = free_address()
        text = text.replace(other, address_of_it)
        text = text.replace(*(f"--port {each.rpartition(':')[2]}" for each in (other, address_of_it)))
    variables = {"KEYSVC_ADDRESS": address}
    if _PASTED in text:
        text = text.replace(_PASTED, f"KEYSVC_API_KEY={operator_key}")
    else:
        variables["KEYSVC_API_KEY"] = operator_key
    typed = steps(text)
    outputs = _type(typed, folder, **variables)
    return [
        f"{guide.name}, line {step.line}: {problem}\n--- run\n{step.script}\n--- printed (exit code {code})\n{output}"
        for step, (output, code) in zip(typed, outputs, strict=True)
        if (problem := _problem(step, output, code))
    ]


def _problem(step: Step, output: str, code: int | None) -> str:
    """What is wrong with what a step did; empty: nothing."""
    if code is None:
        return "the guide ended before this"
    if step.expected is not None:
        lines = (".*".join(map(re.escape, re.split("… *", line))) for line in step.expected.strip().splitlines())
        pattern = "".join("(?:.*\n)*?" if line == ".*" else f"{line}\n" for line in lines)
        matches = re.fullmatch(pattern, output + "\n")
        return "" if matches else f"it should have printed\n{step.expected}\n"
    if code or _ERROR.search(output):
        return "it failed"
    return ""


def _type(typed: list[Step], folder: Path, **variables: str) -> list[tuple[str, int | None]]:
    """Type all steps into one bash; what each has printed, and the exit code of its last command."""
    mark = uuid4().hex
    script = "".join(f"{step.script}\nprintf '\\n%s %s\\n' {mark} $?\n" for step in typed)
    said = _on_a_terminal(["bash", "-c", script], folder, **variables)
    outputs: list[tuple[str, int | None]] = []
    parts = re.split(rf"\n{mark} ([0-9]+)\n", said)
    for at in range(len(typed)):
        ended = 2 * at + 1 < len(parts)
        output = parts[2 * at] if 2 * at < len(parts) else ""
        printed = "\n".join(line.rstrip() for line in output.splitlines()).strip("\n")
        outputs.append((printed, int(parts[2 * at + 1]) if ended else None))
    return outputs


def _on_a_terminal(command: list[str], folder: Path, **variables: str) -> str:
    """Run a command with a terminal as its output; all that the screen shows. Nothing of it runs on afterwards."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment(PATH=path, TERM="xterm-256color", **variables),
        start_new_session=True,
    )
    os.close(theirs)
    screen = bytearray()
    reader = Thread(target=_read, args=(ours, screen), daemon=True)
    reader.start()
    try:
        process.wait(_SECONDS_MAX)
    finally:
        # What the guide has left in the background, too; the group may be gone already.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(_SECONDS_MAX)
        os.close(ours)
    return _STEERING.sub("", screen.decode()).replace("\r\n", "\n")


def _read(terminal: int, screen: bytearray) -> None:
    """Read until nobody writes to the terminal any more, which Linux tells by an error."""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            return
        if not data:
            return
        screen += data


def free_address() -> str:
    """An address that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listening.getsockname()[1]}"
