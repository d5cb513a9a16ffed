import json
import re

import pytest

from keysvc.cli.text import clean, hide_key_strings
from keysvc.v1 import key_pb2
from keysvc.v1.key_service_pb2 import CreateResponse, GetResponse, ListResponse
from tests.cli.conftest import Run
from tests.cli.peer import Peer
from tests.cli.sample import KEY_ID, KEY_STRING, from_now, key

HOSTILE = (
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "two\nlines",
    "back\rspace",
    "\u202eesrever",
    "\x9b2J",
    "zero\u200bwidth",
    "\u2028",
    "tab\tbed",
    "\x7f",
)
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e]")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_steers_a_terminal(peer: Peer, run: Run, name: str) -> None:
    """Whatever somebody calls a key, in every form of output."""
    hostile = key(display_name=name, owner=name, tags=[name], metadata={name: name}, creator=name)
    for form in ([], ["-q"], ["--json"]):
        peer.answers("List", ListResponse(keys=[hostile]))
        peer.answers("Get", GetResponse(key=hostile))
        assert not STEERING.search(run("keys", "list", *form).out)
        assert not STEERING.search(run("keys", "get", KEY_ID, *form).out)
    peer.answers("List", ListResponse(keys=[hostile]))
    assert not STEERING.search(re.sub(r"\x1b\[[0-9;]*m", "", run("keys", "list", columns=200).out))


@pytest.mark.parametrize("name", HOSTILE)
def test_json_brings_back_every_character(peer: Peer, run: Run, name: str) -> None:
    """Written out there as JSON does it, not lost."""
    peer.answers("List", ListResponse(keys=[key(display_name=name)]))
    assert json.loads(run("keys", "list", "--json").out)["keys"][0]["displayName"] == name


def test_markup_in_names_is_text(peer: Peer, run: Run) -> None:
    """Brackets and colons are what they are."""
    name = "[bold red]x[/bold red] :smile: [link=http://x]y"
    peer.answers("List", ListResponse(keys=[key(display_name=name)]))
    assert name in run("keys", "list").out


def test_what_other_scripts_need_stays() -> None:
    """Joiners are part of some of them, and of emoji."""
    for text in ("می\u200cخواهم", "👩\u200d💻", "naïve café", "日本"):  # noqa: RUF001 (Persian, not Latin)
        assert clean(text) == text


@pytest.mark.parametrize("colours", [False, True])
def test_in_a_pipe_nothing_is_cut_or_broken(
    peer: Peer, run: Run, monkeypatch: pytest.MonkeyPatch, colours: bool
) -> None:
    """One line for each key, however long; with colours only for those who insist."""
    if colours:
        monkeypatch.setenv("FORCE_COLOR", "1")
    long = key(display_name="x" * 128, owner="y" * 128)
    peer.answers("List", ListResponse(keys=[long, key(id="id-2", expire_time=from_now(days=-1))]))
    out = run("keys", "list").out
    assert ("\x1b[" in out) == colours
    header, first, second = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert header.split() == ["Key", "Workspace", "Name", "Env", "State", "Expires", "Owner", "Hint", "Created"]
    assert first.split()[:3] == [KEY_ID, "acme-corp/sales", "x" * 128]
    assert "y" * 128 in first
    assert second.startswith("id-2")
    assert colours or second == second.rstrip()


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_on_a_terminal_tables_fit_and_ids_are_whole(peer: Peer, run: Run, columns: int) -> None:
    """Names take more lines, and lesser columns leave."""
    long = key(display_name="a name of several words " * 4, owner="team", expire_time=from_now(days=29))
    peer.answers("List", ListResponse(keys=[long, key()]))
    out = re.sub(r"\x1b\[[0-9;]*m", "", run("keys", "list", "--workspace", "acme-corp/sales", columns=columns).out)
    lines = out.splitlines()
    assert all(len(line) <= columns for line in lines)
    assert sum(line.startswith(KEY_ID) for line in lines) == 2
    assert "in 29 days" in out
    assert ("Hint" in lines[0]) == (columns == 200)


def test_a_terminal_that_is_too_narrow_for_an_id_breaks_it_itself(peer: Peer, run: Run) -> None:
    """An id that was cut could not be pasted."""
    peer.answers("List", ListResponse(keys=[key()]))
    assert KEY_ID in run("keys", "list", columns=30).out


def test_a_state_has_a_word_and_a_colour(peer: Peer, run: Run) -> None:
    """The colour alone says nothing to many."""
    peer.answers("List", ListResponse(keys=[key(state=key_pb2.Key.STATE_SUSPENDED)]))
    assert "\x1b[33msuspended\x1b[0m" in run("keys", "list", columns=80).out


def test_a_stream_that_cannot_carry_every_character_gets_them_written_out(peer: Peer, run: Run) -> None:
    """LANG=C is no reason to fail."""
    for form, expected in (([], r"caf\xe9"), (["--json"], r"caf\u00e9 \ud83d\ude00")):
        peer.answers("List", ListResponse(keys=[key(display_name="café 😀")]))
        result = run("keys", "list", *form, encoding="ascii")
        assert result.code == 0
        assert expected in result.out


def test_the_key_string_is_printed_as_it_is(peer: Peer, run: Run) -> None:
    """Hiding key strings is for errors."""
    peer.answers("Create", CreateResponse(key=key(), key_string=KEY_STRING))
    assert run("keys", "create", "--workspace", "a/b", "--name", "x", "--env", "test", "-q").out.strip() == KEY_STRING


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"x {KEY_STRING} y", "x sk_live_11A2b3C4… y"),
        (f"{KEY_STRING[:50]}", "sk_live_11A2b3C4…"),
        ("my_brand_test_1" + "a" * 64, "my_brand_test_1aaaaaaa…"),
        ("sk_live_11A2b3C4", "sk_live_11A2b3C4"),
        (KEY_ID, KEY_ID),
    ],
)
def test_key_strings_are_known_by_their_shape(text: str, hidden: str) -> None:
    """Of any brand, whole or cut; a hint is none."""
    assert hide_key_strings(text) == hidden
