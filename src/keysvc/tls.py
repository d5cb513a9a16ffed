"""TLS as settings say it: the files, and that they are used again when they change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from keysvc.reloading import Reloaded, reloading
from keysvc.rpc.tls import Pem, Tls
from keysvc.service.callers import Callers
from keysvc.settings import SettingError, Settings, read_certificate_callers


@asynccontextmanager
async def open_tls(settings: Settings, callers: Callers) -> AsyncIterator[Tls | None]:
    """The TLS of a server, if it speaks it. Its files, and that of the callers, are used again when they change.

    Raises:
        SettingError: one of them cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        yield None
        return
    read = partial(_read_pem, settings, settings.tls_cert, settings.tls_key)
    files = [settings.tls_cert, settings.tls_key, *([settings.tls_client_ca] if settings.tls_client_ca else [])]
    # First what notices changes, then what reads: nothing that changes in between is missed.
    changing = [Reloaded(files, lambda: tls.replace(read()))]
    tls = Tls(read())
    if settings.tls_callers is not None:
        use = partial(_use_callers, callers, settings.tls_callers)
        changing.append(Reloaded([settings.tls_callers], use))
        use()
    async with reloading(*changing):
        yield tls


def _read_pem(settings: Settings, cert: Path, key: Path) -> Pem:
    """The files of TLS; raises ``SettingError``."""
    settings.check_tls()
    client_ca = settings.tls_client_ca
    try:
        return Pem(cert.read_bytes(), key.read_bytes(), client_ca.read_bytes() if client_ca else None)
    except OSError as error:
        raise SettingError(f"cannot read {error.filename}: {error.strerror}") from None


def _use_callers(callers: Callers, path: Path) -> None:
    """Read the callers without a key; raises ``SettingError``."""
    callers.replace_certificates(read_certificate_callers(path))
