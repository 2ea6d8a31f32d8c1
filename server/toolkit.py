"""How tools are declared: title, the four hints, and schemas small enough that the whole list stays under 8k tokens."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import Field

from .actors import Scope
from .calls import KEY

_BOUNDS = {
    "maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "maxLength", "minLength", "maxItems", "minItems",
}  # fmt: skip
_NOISE_IN = {"title", "examples", "additionalProperties", *_BOUNDS}
"""Left out of input schemas: an argument beyond its bounds is refused with a sentence that names them."""
_NOISE_OUT = {*_NOISE_IN, "default", "required", "enum"}
_SILENT = {"BeatSpec", "RenderSettings", "WhatIf"}
_SELF_EXPLAINING = {
    "start_s", "end_s", "move", "ease", "camera", "steps", "guidance", "negative_prompt", "prompt", "loras",
    "if_revision",
}  # fmt: skip


class ScopedTool(Tool):
    """A tool that knows which scope its callers need."""

    scope: Scope = Field("edit", exclude=True)


def tool(
    title: str,
    *,
    scope: Scope | None = None,
    read_only: bool = False,
    destructive: bool = False,
    idempotent: bool = False,
    known: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], ScopedTool]:
    """Declare a tool: its name is the function's, its description the docstring. No tool reaches out to the world.

    `scope`: what callers must be allowed to do; left out, read for what only reads and edit for the rest. `known`:
    types in arguments and answers whose fields an earlier tool of the list has shown already.
    """

    def declare(function: Callable[..., Any]) -> ScopedTool:
        hints = ToolAnnotations(
            read_only_hint=read_only,
            destructive_hint=destructive,
            idempotent_hint=idempotent or read_only,
            open_world_hint=False,
        )
        made = ScopedTool.from_function(
            function,
            title=title,
            description=" ".join(inspect.cleandoc(function.__doc__ or "").split()),
            annotations=hints,
            structured_output=True,
        )
        assert isinstance(made, ScopedTool)
        made.scope = scope or ("read" if read_only else "edit")
        parameters = _terse(compact(made.parameters, _NOISE_IN), _SILENT)
        for name in set(known) & set(parameters.get("$defs", {})):
            parameters["$defs"][name].pop("properties")
        if not read_only:
            parameters["properties"][KEY] = {"type": "string"}
        made.parameters = inlined(parameters) | {"additionalProperties": False}
        output = made.fn_metadata.output_schema
        assert output is not None
        made.fn_metadata.output_schema = inlined(_named(compact(output, _NOISE_OUT), known))
        made.fn_metadata.output_schema.pop("description", None)
        return made

    return declare


def compact(schema: Any, noise: set[str]) -> Any:
    """A JSON schema without noise: no titles, and `null` left out where a value may simply be missing."""
    if isinstance(schema, list):
        return [compact(item, noise) for item in schema]
    if not isinstance(schema, dict):
        return schema
    small: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            small[key] = {name: compact(item, noise) for name, item in value.items()}
        elif key == "anyOf" and any(item == {"type": "null"} for item in value):
            rest = [compact(item, noise) for item in value if item != {"type": "null"}]
            small |= rest[0] if len(rest) == 1 else {"anyOf": rest}
        elif key in noise or (key == "default" and not value):
            continue
        else:
            small[key] = compact(value, noise)
    return small


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every definition that is used once put where it is used."""
    definitions = dict(schema.get("$defs", {}))
    used = Counter(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(item) for item in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).removeprefix("#/$defs/")
        if used[name] == 1:
            siblings = {key: value for key, value in part.items() if key != "$ref"}
            return resolved({**definitions[name], **siblings})
        return {key: resolved(value) for key, value in part.items()}

    shared = {name: resolved(part) for name, part in definitions.items() if used[name] > 1}
    rest = resolved({key: value for key, value in schema.items() if key != "$defs"})
    return {"$defs": shared, **rest} if shared else dict(rest)


def _named(schema: dict[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """An output schema whose inner objects only name their fields, or not even those: answers show the rest."""
    inner: dict[str, Any] = {}
    for name, part in schema.get("$defs", {}).items():
        fields = {} if name in known else {"description": ", ".join(part.get("properties", {}))}
        inner[name] = {"type": "object", **fields} if "properties" in part else part
    return {**schema, "$defs": inner}


def _terse(schema: dict[str, Any], silent: set[str]) -> dict[str, Any]:
    """Without the descriptions of `silent` definitions and of fields that explain themselves."""
    for name, part in schema.get("$defs", {}).items():
        if name in silent:
            part.pop("description", None)
        for field, value in part.get("properties", {}).items():
            if field in _SELF_EXPLAINING:
                value.pop("description", None)
    schema["properties"].get("if_revision", {}).pop("description", None)
    return schema
