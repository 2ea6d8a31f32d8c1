"""Calls that are carried out once: the same idempotency key and arguments give the same answer and change nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio.to_thread
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult

from dreamontage.schemas import limits
from dreamontage.schemas.errors import Conflict, InvalidInput

from .store import Studio
from .store.answers import AlreadyAnswered, Call

KEY = "idempotency_key"
_call: ContextVar[Call | None] = ContextVar("call", default=None)

Written = TypeVar("Written")
Result = CallToolResult | InputRequiredResult


def carry_out(
    write: Callable[[Callable[[Any, Written], None] | None], Written], answer: Callable[[Written], CallToolResult]
) -> CallToolResult:
    """Write, and answer with what was written. Under an idempotency key the answer is kept in the same transaction.

    `write` hands its argument on to the studio as `then`, which runs when all is written; `answer` may read the studio
    but not write.
    """
    call = _call.get()
    if call is None:
        return answer(write(None))
    told: list[CallToolResult] = []

    def then(connection: Any, written: Written) -> None:
        told.append(answer(written))
        call.keep(connection, told[0].model_dump_json())

    write(then)
    return told[0]


async def once(
    studio: Studio, actor: str, tool: str, arguments: Mapping[str, Any], run: Callable[[], Awaitable[Result]]
) -> Result:
    """Run a tool, or answer what it answered to this actor under the same key. Raises InvalidInput, Conflict.

    A tool that writes otherwise than through `carry_out` changes nothing when it is repeated; its answer is kept, too.
    """
    key = arguments.get(KEY)
    if key is None:
        return await run()
    if not isinstance(key, str) or not 1 <= len(key) <= limits.MAX_KEY_CHARS:
        raise InvalidInput(
            f"{str(key)[:40]!r} cannot be a key", field=KEY, allowed=f"a text of 1 to {limits.MAX_KEY_CHARS} characters"
        )
    body = json.dumps({name: value for name, value in arguments.items() if name != KEY}, sort_keys=True)
    call = Call(actor, key, tool, hashlib.sha256(body.encode()).hexdigest())
    if (known := await anyio.to_thread.run_sync(_known, studio, call)) is not None:
        return known
    token = _call.set(call)
    try:
        result = await run()
    except ToolError:  # perhaps only because the same call, made at the same time, was faster
        if (known := await anyio.to_thread.run_sync(_known, studio, call)) is not None:
            return known
        raise
    finally:
        _call.reset(token)
    if isinstance(result, CallToolResult) and not result.is_error:
        return await anyio.to_thread.run_sync(_keep, studio, call, result)
    return result


def _known(studio: Studio, call: Call) -> CallToolResult | None:
    kept = studio.kept_answer(call.actor, call.key)
    if kept is None:
        return None
    if (kept.tool, kept.sha256) != (call.tool, call.sha256):
        raise Conflict(
            f"{call.key!r} was used before for a call of {kept.tool} with other arguments; nothing was done",
            field=KEY,
            allowed="the same call again, or a new key",
        )
    return CallToolResult.model_validate_json(kept.answer)


def _keep(studio: Studio, call: Call, result: CallToolResult) -> CallToolResult:
    """Keep the answer of a tool that did not keep it itself; the first one's where another call was faster."""
    if (known := _known(studio, call)) is not None:
        return known
    try:
        studio.keep_answer(call, result.model_dump_json())
    except AlreadyAnswered:
        return _known(studio, call) or result
    return result
