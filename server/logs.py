"""Structured logs on stderr: readable lines by default, one JSON object per line on request.

Every record carries what it is about (tool, actor, montage, job), so that one montage or job can be followed through
server and worker: `about` sets these fields for a block, also across threads and tasks started in it.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from dreamontage.schemas.errors import DreamontageError, InvalidInput

from .actors import actor_of

FORMS = ("text", "json")
FORM_VARIABLE = "DREAMONTAGE_LOG"
LEVELS = ("debug", "info", "warning", "error")
LEVEL_VARIABLE = "DREAMONTAGE_LOG_LEVEL"
_IDS = ("montage_id", "job_id")
_MAX_ID_CHARS = 64
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039 - never changed in place

log = logging.getLogger(__name__)


def configure(form: str | None = None) -> None:
    """Send this process's logs to stderr, and those of the workers it starts to their file, in one form.

    `form`, else DREAMONTAGE_LOG, is text or json. DREAMONTAGE_LOG_LEVEL is the least level shown of this package,
    default info; libraries speak from warning on. Raises InvalidInput for other values.
    """
    if form is not None:
        os.environ[FORM_VARIABLE] = form
    chosen = _choice(FORM_VARIABLE, FORMS, "text")
    level = _choice(LEVEL_VARIABLE, LEVELS, "info")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if chosen == "json" else Readable())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("dreamontage").setLevel(level.upper())


@contextmanager
def about(**fields: str | None) -> Iterator[None]:
    """Put these fields on every record of the block; a field that is None stays as it was."""
    token = _about.set({**_about.get(), **{key: value for key, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _about.reset(token)


Call = TypeVar("Call", bound=Callable[..., Awaitable[Any]])


def each_call(call_tool: Call) -> Call:
    """Log every call of a tool: how long it took and whether it was refused, never its arguments' values."""

    @functools.wraps(call_tool)
    async def logged(server: Any, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        began = time.perf_counter()
        with about(tool=name[:_MAX_ID_CHARS], actor=_caller(context), **_ids(arguments)):
            result = await call_tool(server, name, arguments, context)
            with about(**_ids(getattr(result, "structured_content", None) or {})):
                outcome = "refused" if getattr(result, "is_error", False) else "answered"
                log.info("%s after %.0f ms", outcome, 1000 * (time.perf_counter() - began))
            return result

    return cast(Call, logged)


def _caller(context: Any) -> str | None:
    try:
        return actor_of(context).name if context is not None else None
    except DreamontageError:  # the call itself says so
        return None


def _ids(given: Mapping[str, Any]) -> dict[str, str]:
    return {key: given[key][:_MAX_ID_CHARS] for key in _IDS if isinstance(given.get(key), str)}


def _choice(variable: str, allowed: tuple[str, ...], default: str) -> str:
    value = os.environ.get(variable, default).lower()
    if value not in allowed:
        raise InvalidInput(f"{value[:40]!r} is unknown", field=variable, allowed=", ".join(allowed))
    return value


class JsonLines(logging.Formatter):
    """One JSON object per record: at (UTC), level, logger, message, what it is about, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = {
            "at": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class Readable(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info worker: attempt 1 begins (montage_id=m_1 job_id=j_1)`; a traceback below it.

    Control characters are written out, so that nobody's words can end a line and forge the next.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        source = record.name.removeprefix("dreamontage.").removeprefix("server.")
        fields = " ".join(f"{key}={value}" for key, value in _about.get().items())
        line = f"{_moment(record)} {record.levelname.lower()} {source}: {record.getMessage()}"
        line = _plain(f"{line} ({fields})" if fields else line)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
