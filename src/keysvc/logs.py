"""Logs: one structured line for each thing worth telling, to standard error. Pretty on a terminal, else JSON.

Whatever looks like a key string is cut to brand, environment and version, wherever it stands: in values, messages and
tracebacks, ours or those of libraries.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from keysvc.core.keystring import redact


def _redact_event(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Redact all that a line says."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
        elif not isinstance(value, bool | int | float | None):
            event[name] = redact(str(value))
    return event


def _in_order(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Begin each line with what is read first."""
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def configure(stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Send our log lines, and warnings of libraries, to ``stream`` (standard error).

    Parameters:
        worker: number of the process among those that serve together, which all its lines tell.

    Tracebacks are rendered before redaction, so that they are redacted too.
    """
    stream = stream or sys.stderr
    pretty = stream.isatty()

    def tell_worker(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return event if worker is None else {**event, "worker": worker}

    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        tell_worker,
        structlog.stdlib.add_log_level,
        *(() if pretty else (structlog.stdlib.add_logger_name,)),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
        structlog.processors.format_exc_info,
        _redact_event,
        _in_order,
    ]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(pad_event_to=14, sort_keys=False)
        if pretty
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    # A record that cannot be formatted would be printed as it is, unredacted.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("keysvc").setLevel(logging.INFO)
