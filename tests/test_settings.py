import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import keysvc
from keysvc.cli.connection import CLIENT_VARIABLES
from keysvc.core.certificate import Certificate
from keysvc.core.certificate_callers import CertificateCaller
from keysvc.core.pepper import Peppers, fingerprint
from keysvc.settings import (
    SERVER_VARIABLES,
    TEST_VARIABLES,
    SettingError,
    Settings,
    check_variables,
    own_peppers,
    read_certificate_callers,
    read_peppers,
    read_terms,
)

SOURCE = Path(keysvc.__file__).parent
URL = "postgresql://keysvc:hunter2@db.example/keysvc"
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PEPPERS = Peppers([NEW])
LIST = f"{NEW.hex()},{OLD.hex()}"
CERT, KEY = (Path(__file__).parent / "cli" / "tls" / name for name in ("certificate.pem", "key.pem"))
OTHER_KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWrkHJ1OXg6qcjdGI
iWe5O8QXMDVARZX6R3429lEUkYWhRANCAARTn185rx9dXqJhPqyo/3RXcT0DDly0
InDxb2f5v394moAVo3tUR/OWUAQ3Imah8wFW6osMyuTTNfzJrsdFbHcN
-----END PRIVATE KEY-----
"""


def said_by(error: BaseException | None) -> str:
    """All that an error says, and all that came before it."""
    return "" if error is None else f"{error!r} {said_by(error.__cause__)} {said_by(error.__context__)}"


def test_nothing_need_be_set() -> None:
    """`keysvc serve` works as it is: on loopback, with an embedded database in the current folder."""
    settings = Settings()
    assert (settings.listen, settings.folder) == ("127.0.0.1:50051", Path(".keysvc"))
    assert settings.database_url is settings.peppers is settings.tls_cert is None
    assert Settings(data_dir=Path("elsewhere")).folder == Path("elsewhere")


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:50051", "127.1.2.3:1", "localhost:0", "[::1]:50051", "127.0.0.1:65535", "[0:0:0:0:0:0:0:1]:1"]
)
def test_loopback_needs_no_tls(listen: str) -> None:
    """Nobody else can listen in."""
    assert Settings(listen=listen).listen == listen


BEYOND = [
    "0.0.0.0:50051",
    "[::]:50051",
    "192.0.2.1:50051",
    "128.0.0.1:50051",
    "[2001:db8::1]:50051",
    "[fe80::1]:50051",
    "keysvc.example:50051",
    "localhost.example:50051",
    "127.0.0.1.example:50051",
    "127.1:50051",
    "2130706433:50051",
    "[::ffff:192.0.2.1]:50051",
    "[127.0.0.1.1]:50051",
]


@pytest.mark.parametrize("listen", BEYOND)
def test_beyond_loopback_keys_do_not_cross_the_network_in_clear(listen: str) -> None:
    """Every other address, and every name but localhost, needs TLS or a word that something else encrypts."""
    with pytest.raises(SettingError, match=r"^--listen \(KEYSVC_LISTEN\): .* is not a loopback address") as refused:
        Settings(listen=listen)
    assert listen in str(refused.value)
    assert Settings(listen=listen, allow_plaintext=True).tls_cert is None
    assert Settings(listen=listen, tls_cert=CERT, tls_key=KEY).listen == listen


@pytest.mark.parametrize(
    "listen",
    [
        *("", ":", "127.0.0.1", "127.0.0.1:", ":50051", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1"),
        *("127.0.0.1:x", "127.0.0.1:5 ", "127.0.0.1:\u0665", "127.0.0.1:1_0", "50051", "unix:/run/keysvc", "a:b:c"),
        *(
            "::1:50051",
            "[::1:50051",
            "::1]:50051",
            "[[::1]]:50051",
            "[::1%lo]:1",
            "a b:1",
            "127.0.0.1:000001",
            "\u2460:1",
        ),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("allow_plaintext", [False, True])
def test_listen_is_host_and_port(listen: str, allow_plaintext: bool) -> None:
    """No port is guessed, and a mistake is told before anything starts."""
    with pytest.raises(SettingError, match=r"must be host:port such as 127\.0\.0\.1:50051 or \[::1\]:50051$"):
        Settings(listen=listen, allow_plaintext=allow_plaintext)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tls_cert"], "must be given together"),
        (["tls_key"], "must be given together"),
        (["tls_cert", "tls_client_ca"], "must be given together"),
        (["tls_client_ca"], "needs --tls-cert and --tls-key"),
        (["tls_callers"], "needs --tls-client-ca"),
        (["tls_cert", "tls_key", "tls_callers"], "needs --tls-client-ca"),
    ],
    ids=str,
)
@pytest.mark.parametrize("plain", [{}, {"allow_plaintext": True}, {"listen": "0.0.0.0:1"}], ids=str)
def test_half_of_tls_is_refused(given: list[str], message: str, plain: dict[str, Any]) -> None:
    """Nobody believes to have TLS who has none, wherever the server listens."""
    with pytest.raises(SettingError, match=message):
        Settings(**dict.fromkeys(given, CERT), **plain)


def test_whole_tls_is_accepted() -> None:
    """With and without certificates of clients."""
    assert Settings(tls_cert=CERT, tls_key=KEY).tls_client_ca is None
    assert Settings(tls_cert=CERT, tls_key=KEY, tls_client_ca=CERT).tls_client_ca == CERT


TLS_OPTIONS = {
    "tls_cert": "--tls-cert (KEYSVC_TLS_CERT)",
    "tls_key": "--tls-key (KEYSVC_TLS_KEY)",
    "tls_client_ca": "--tls-client-ca (KEYSVC_TLS_CLIENT_CA)",
}


@pytest.mark.parametrize("field", TLS_OPTIONS)
@pytest.mark.parametrize("content", [None, "", "PEM", OTHER_KEY], ids=["missing", "empty", "no PEM", "another key"])
def test_a_file_that_is_no_use_for_tls_is_named(field: str, content: str | None, tmp_path: Path) -> None:
    """The option, the variable and the path, before anything starts: what a person needs to repair it."""
    file = tmp_path / "x.pem"
    if content is not None:
        file.write_text(content)
    files = {"tls_cert": CERT, "tls_key": KEY, "tls_client_ca": CERT} | {field: file}
    what = "the private key of --tls-cert" if field == "tls_key" else "a certificate"
    problem = f"cannot read {file}: No such file or directory" if content is None else f"{file} is not {what} in PEM"
    with pytest.raises(SettingError) as refused:
        Settings(**files)
    assert str(refused.value) == f"{TLS_OPTIONS[field]}: {problem}"


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "postgres://keysvc@db.example",
        "postgresql:///keysvc?host=/run/postgresql",
        "postgresql://a,b:5433/keysvc?connect_timeout=5",
        "postgresql://keysvc@%2Frun%2Fpostgresql/keysvc",
        "postgresql://keysvc@/keysvc?host=/run/postgresql&port=5432",
        "postgresql://u:p%40ss@[2001:db8::1]:5433/keysvc?sslmode=verify-full",
    ],
)
def test_a_database_is_named_by_a_url(url: str) -> None:
    """Every URL that libpq takes."""
    assert Settings(database_url=url, peppers=PEPPERS).database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "postgresql:hunter2",
        " postgresql://u:hunter2@h/d",
        "mysql://u:hunter2@h/d",
        "postgresql+psycopg://u:hunter2@h/d",
        "host=h user=u password=hunter2",
        "postgresql://u:hunter2%@h/d",
        "postgresql://u:hunter2%zz@h/d",
        "postgresql://u:hunter2@[::1/d",
        "postgresql://u:hunter2@h/d?nonsense=1",
        "postgresql://u@h/d?password=hunter2&sslmode",
        "postgresql://u:hunter2@@h/d",
        "postgresql://u:hunter2/x@h/d",
        "postgresql://u:hunter2#x@h/d",
        "postgresql://u:hunter2?x@h/d",
        "postgresql://u:hunter2 x@h/d",
        "postgresql://u:x:hunter2@h/d",
        "postgresql://u:hunter2@h:port/d",
        "postgresql://u:hunter2@h/d?application_name=a=b",
    ],
)
def test_a_bad_database_url_is_refused_and_never_repeated(url: str) -> None:
    """It may hold a password, and errors are logged; what the driver said of it is not kept either.

    Characters that would make a part of the password another part of the URL are refused: the driver would name them.
    """
    with pytest.raises(SettingError, match=r"^--database-url \(KEYSVC_DATABASE_URL\) must be postgresql://") as refused:
        Settings(database_url=url, peppers=PEPPERS)
    assert "hunter2" not in said_by(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"data_dir": Path("x"), "database_url": URL, "peppers": PEPPERS},
        {"database_url": URL},
        {"database_url": URL, "peppers": PEPPERS, "listen": "0.0.0.0:1"},
        {"database_url": URL, "peppers": PEPPERS, "tls_cert": Path("x")},
    ],
    ids=["two databases", "no peppers", "no loopback", "half of TLS"],
)
def test_a_good_database_url_is_not_repeated_either(settings: dict[str, Any]) -> None:
    """Whatever else is wrong."""
    with pytest.raises(SettingError) as refused:
        Settings(**settings)
    assert "hunter2" not in said_by(refused.value)


def test_there_is_one_database() -> None:
    """An embedded database and another one at once is a mistake, not a preference."""
    with pytest.raises(SettingError, match=r"--data-dir .* and --database-url .* must not be given both"):
        Settings(data_dir=Path("x"), database_url=URL, peppers=PEPPERS)


def test_an_external_database_needs_peppers_from_outside() -> None:
    """They are never made up for a database that others use too; a command that handles no keys does without."""
    with pytest.raises(SettingError, match=r"KEYSVC_PEPPERS or --peppers-file \(KEYSVC_PEPPERS_FILE\) must be given"):
        Settings(database_url=URL)
    assert Settings(database_url=URL, peppers=PEPPERS).peppers is PEPPERS
    assert Settings(database_url=URL, needs_peppers=False).peppers is None
    assert Settings(peppers=PEPPERS).peppers is PEPPERS


def test_peppers_come_from_the_variable_or_from_a_file(tmp_path: Path) -> None:
    """The same list in both, newest first; none is none."""
    file = tmp_path / "peppers"
    file.write_text(f"{LIST}\n")
    expected = (fingerprint(NEW), fingerprint(OLD))
    from_text, from_file = read_peppers(LIST, None), read_peppers(None, file)
    assert from_text is not None
    assert from_file is not None
    assert from_text.fingerprints == from_file.fingerprints == expected
    assert read_peppers(None, None) is None


@pytest.mark.parametrize("text", ["", LIST], ids=["empty", "list"])
def test_peppers_from_both_places_are_refused(text: str, tmp_path: Path) -> None:
    """Nobody has to guess which one counts, even if one is empty or the file is missing."""
    with pytest.raises(SettingError, match="must not be given both"):
        read_peppers(text, tmp_path / "missing")


@pytest.mark.parametrize("content", [b"", b"\n", LIST.encode()[:-1], LIST.encode().replace(b",", b"\n")])
def test_bad_peppers_are_refused_by_their_place_and_not_repeated(content: bytes, tmp_path: Path) -> None:
    """The message names the variable or the file; half a pepper in a log is half a pepper too much."""
    file = tmp_path / "peppers"
    file.write_bytes(content)
    with pytest.raises(SettingError, match=r"^KEYSVC_PEPPERS must be a comma-separated list") as in_variable:
        read_peppers(content.decode(), None)
    with pytest.raises(SettingError, match=r"^--peppers-file \(KEYSVC_PEPPERS_FILE\): .*peppers must be") as in_file:
        read_peppers(None, file)
    assert NEW.hex()[:8] not in said_by(in_variable.value) + said_by(in_file.value)


@pytest.mark.parametrize("content", [None, LIST.encode() + "é".encode()], ids=["missing", "no ASCII"])
def test_a_file_of_peppers_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    """The path is told, the content is not."""
    file = tmp_path / "peppers"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        SettingError, match=r"^--peppers-file \(KEYSVC_PEPPERS_FILE\): cannot read .*peppers$"
    ) as refused:
        read_peppers(None, file)
    assert NEW.hex()[:8] not in str(refused.value)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A process that protects nothing by itself."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_own_peppers_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    """The first start makes a pepper of 256 bits with mode 0600, whatever the umask is; every later one finds it."""
    first = own_peppers(tmp_path, is_new=True)
    file = tmp_path / "peppers"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", file.read_text())
    before = file.read_bytes()
    assert (
        own_peppers(tmp_path, is_new=True).fingerprints
        == first.fingerprints
        == (fingerprint(bytes.fromhex(before.decode())),)
    )
    assert file.read_bytes() == before
    assert [*tmp_path.iterdir()] == [file]


def test_those_who_make_own_peppers_at_once_agree(tmp_path: Path) -> None:
    """`keysvc bootstrap` beside a first `keysvc serve`: a key that is made under peppers that are lost is lost too."""
    barrier = Barrier(8)

    def start(_: int) -> tuple[bytes, ...]:
        barrier.wait(10)
        return own_peppers(tmp_path, is_new=True).fingerprints

    with ThreadPoolExecutor(8) as pool:
        made = {*pool.map(start, range(8))}
    assert made == {own_peppers(tmp_path, is_new=True).fingerprints}
    assert [*tmp_path.iterdir()] == [tmp_path / "peppers"]


def test_every_folder_has_peppers_of_its_own(tmp_path: Path) -> None:
    """They are random."""
    (tmp_path / "other").mkdir()
    assert own_peppers(tmp_path, is_new=True).fingerprints != own_peppers(tmp_path / "other", is_new=True).fingerprints


def test_own_peppers_may_be_a_list(tmp_path: Path) -> None:
    """A person may put a newer one in front."""
    (tmp_path / "peppers").write_text(LIST)
    assert own_peppers(tmp_path, is_new=True).fingerprints == (fingerprint(NEW), fingerprint(OLD))


def test_own_peppers_that_were_spoiled_are_not_made_again(tmp_path: Path) -> None:
    """New ones would turn every key of the database into an unknown one: a person has to look."""
    file = tmp_path / "peppers"
    file.write_text("spoiled")
    with pytest.raises(SettingError, match="peppers must be"):
        own_peppers(tmp_path, is_new=True)
    assert file.read_text() == "spoiled"


@pytest.mark.parametrize(
    "name",
    [
        *sorted({*SERVER_VARIABLES, *CLIENT_VARIABLES, *TEST_VARIABLES}),
        *("KEYSVC_SERVICE_HOST", "KEYSVC_SERVICE_PORT", "KEYSVC_SERVICE_PORT_GRPC"),
        *("KEYSVC_PORT", "KEYSVC_PORT_50051_TCP", "KEYSVC_PORT_50051_TCP_ADDR"),
        *("PATH", "keysvc_listen", "MY_KEYSVC_LISTEN"),
    ],
)
def test_a_known_variable_is_let_through(name: str) -> None:
    """Those of both kinds of commands and of the tests, what Kubernetes sets, and whatever is not of keysvc."""
    check_variables({name: "x"}, CLIENT_VARIABLES)


@pytest.mark.parametrize(
    "name", ["KEYSVC_", "KEYSVC_PEPPER", "KEYSVC_LISTEN_", "KEYSVC_listen", "KEYSVC_DATABASE", "KEYSVC_SERVICES_HOST"]
)
def test_a_variable_that_nothing_reads_is_refused(name: str) -> None:
    """Most likely a typing error: it is named, with those that there are, and without its value."""
    with pytest.raises(SettingError, match=rf"^{name} is not a variable of keysvc; known are ") as refused:
        check_variables({"PATH": "x", "KEYSVC_LISTEN": "y", name: "hunter2"}, CLIENT_VARIABLES)
    assert "hunter2" not in str(refused.value)
    for known in (*SERVER_VARIABLES, *CLIENT_VARIABLES):
        assert known in str(refused.value)


def test_the_lists_of_variables_are_complete() -> None:
    """Every variable that the source names is in one of them, and every one of a server command has its option."""
    words = {
        path.relative_to(SOURCE).as_posix(): set(
            re.findall(r"\bKEYSVC_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8"))
        )
        for path in SOURCE.rglob("*.py")
        if "v1" not in path.parts
    }
    assert set().union(*words.values()) - {"KEYSVC_PORT"} == {*SERVER_VARIABLES, *CLIENT_VARIABLES, *TEST_VARIABLES}
    assert words["cli/server.py"] | words["cli/server_options.py"] == set(SERVER_VARIABLES)


def test_peppers_that_are_missed_are_not_made_again(tmp_path: Path) -> None:
    """A new file would hide that the peppers which keys need are lost."""
    with pytest.raises(SettingError, match="cannot read the peppers"):
        own_peppers(tmp_path, is_new=False)
    assert list(tmp_path.iterdir()) == []


def test_callers_without_a_key_are_read_from_a_file(tmp_path: Path) -> None:
    """Names of every kind, with permissions, scopes to pass on and workspaces."""
    file = tmp_path / "callers.toml"
    file.write_text(
        '[callers."spiffe://acme/billing"]\npermissions = ["verify", "pdf.*"]\nworkspaces = ["acme-corp/sales"]\n'
        '[callers."Night Shift"]\npermissions = ["operator"]\n'
    )
    callers = read_certificate_callers(file)
    billing = callers.find(Certificate(uris=("spiffe://acme/billing",)))
    assert billing == CertificateCaller("spiffe://acme/billing", ("pdf.*", "verify"), ("acme-corp/sales",))
    assert callers.find(Certificate(common_name="Night Shift")) == CertificateCaller("Night Shift", ("operator",))
    settings = Settings(tls_cert=CERT, tls_key=KEY, tls_client_ca=CERT, tls_callers=file)
    assert settings.tls_callers == file


ALL_PERMISSIONS = (
    "keys.read, keys.write, keys.revoke, verify, usage.write, usage.read, audit.read, workspaces.write, operator"
)
NO_PERMISSION = f"is no permission; there are {ALL_PERMISSIONS}, and beside them scopes to pass on"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must have 1 to 10000 callers, each a table such as"),
        ("callers = 1", "must have 1 to 10000 callers"),
        ("[callers]", "must have 1 to 10000 callers"),
        ('[caller."a"]\npermissions = ["verify"]', 'caller: unknown; there are only tables such as [callers."spiffe:'),
        ('[callers."a"]\npermissions = ["verify"', "is no TOML: Unclosed array (at end of document)"),
        ("[callers.a]\n\npermissions = verify", "is no TOML: Invalid value (at line 3, column 15)"),
        ("[callers.a]\n[callers.a]", "is no TOML: Cannot declare ('callers', 'a') twice (at line 2, column 11)"),
        ('[callers]\na = "verify"', '[callers."a"]: must be a table with permissions'),
        ('[callers."a"]', f'[callers."a"] permissions: must have at least one; there are {ALL_PERMISSIONS}'),
        ('[callers."a"]\npermissions = []', '[callers."a"] permissions: must have at least one'),
        ('[callers."a"]\npermissions = "verify"', '[callers."a"] permissions: must be a list of at most 100 texts'),
        ('[callers."a"]\npermissions = ["verify", 1]', '[callers."a"] permissions: 1 must be dotted lower-case words'),
        ('[callers."a"]\npermissions = ["Verify"]', "[callers.\"a\"] permissions: 'Verify' must be dotted lower-case"),
        ('[callers."a"]\npermissions = ["keys.delete"]', f"[callers.\"a\"] permissions: 'keys.delete' {NO_PERMISSION}"),
        *(
            (f'[callers."a"]\npermissions = ["verify", "{slip}"]', f"'{slip}' {NO_PERMISSION}")
            for slip in ("verfy", "veriffy", "vreify", "verigy", "operater", "key.read", "usage", "audit.raed")
        ),
        ('[callers."a"]\npermission = ["verify"]', "permission: unknown; allowed are permissions and workspaces"),
        ('[callers.acme.example]\npermissions = ["verify"]', "put a name with dots in quotes"),
        ('[callers."*.acme"]\npermissions = ["verify"]', '[callers."*.acme"]: a name must be whole, without *'),
        ('[callers.""]\npermissions = ["verify"]', "a name must be one of a certificate, 1 to 255 characters"),
        (f'[callers."{"a" * 256}"]\npermissions = ["verify"]', "a name must be one of a certificate, 1 to 255"),
        ('[callers."a\\u0000b"]\npermissions = ["verify"]', "a name must be one of a certificate"),
        ('[callers."a"]\npermissions = ["verify"]\nworkspaces = []', "at least one; leave it out for all"),
        (
            '[callers."a"]\npermissions = ["verify"]\nworkspaces = ["acme-corp/sales", "Acme"]',
            "[callers.\"a\"] workspaces: 'Acme' must be organization/workspace such as acme-corp/sales",
        ),
    ],
    ids=ascii,
)
def test_a_bad_file_of_callers_is_told_by_its_entry(text: str, problem: str, tmp_path: Path) -> None:
    """Option, file, entry, and what is allowed: a name that is half right would be a caller that nobody meant."""
    file = tmp_path / "callers.toml"
    file.write_text(text)
    with pytest.raises(SettingError) as refused:
        Settings(tls_cert=CERT, tls_key=KEY, tls_client_ca=CERT, tls_callers=file)
    assert str(refused.value).startswith(f"--tls-callers (KEYSVC_TLS_CALLERS): {file} ")
    assert problem in str(refused.value)


@pytest.mark.parametrize("grant", ["pdf.read", "pdf.*", "*", "*.read", "keys.*", "read", "billing", "pdf.verify"])
def test_scopes_to_pass_on_are_let_through(grant: str, tmp_path: Path) -> None:
    """As for keys: what does not look like a permission is a scope."""
    file = tmp_path / "callers.toml"
    file.write_text(f'[callers."a"]\npermissions = ["{grant}"]\n')
    assert read_certificate_callers(file).find(Certificate(dns_names=("a",))) == CertificateCaller("a", (grant,))


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["missing", "no UTF-8"])
def test_a_file_of_callers_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    """As every other file."""
    file = tmp_path / "callers.toml"
    if content is not None:
        file.write_bytes(content)
    problem = f"cannot read {file}: No such file or directory" if content is None else f"{file} is not in UTF-8"
    with pytest.raises(SettingError) as refused:
        read_certificate_callers(file)
    assert str(refused.value) == f"--tls-callers (KEYSVC_TLS_CALLERS): {problem}"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lease_seconds": 0.1}, "--lease-seconds (KEYSVC_LEASE_SECONDS) must be 0.2 to 600"),
        ({"lease_seconds": 601.0}, "--lease-seconds (KEYSVC_LEASE_SECONDS) must be 0.2 to 600"),
        ({"renew_seconds": 1.01}, "--renew-seconds (KEYSVC_RENEW_SECONDS) must be 0.01 to 1"),
        ({"stale_seconds": -1.0}, "--stale-seconds (KEYSVC_STALE_SECONDS) must be 0 to 86400"),
        ({"clock_rate": 0.99}, "--clock-rate (KEYSVC_CLOCK_RATE) must be 1 to 10"),
        ({"clock_rate": float("nan")}, "--clock-rate (KEYSVC_CLOCK_RATE) must be 1 to 10"),
        ({"margin_seconds": -0.1}, "--lease-margin-seconds (KEYSVC_LEASE_MARGIN_SECONDS) must be 0 to 60"),
    ],
)
def test_terms_that_cannot_be_kept_are_named_by_their_option(values: dict[str, float], named: str) -> None:
    """Each bad value is told with the option, the variable and what is allowed."""
    with pytest.raises(SettingError, match=re.escape(named)):
        read_terms(values)
