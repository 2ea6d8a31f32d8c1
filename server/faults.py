"""Faulty arguments in one sentence: field, problem, value, what is allowed. Never a link or a traceback."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Beat, Camera

from .arguments import AnchorChange, AnchorSpec, SourceForm, WhatIf

_SHOWN = 4
_KINDS = {"text", "form"}
"""Tags of the source union, which are no part of an argument's name."""
_MODELS: dict[str, type[Any]] = {
    "source": SourceForm,
    "sources": SourceForm,
    "settings": RenderSettings,
    "camera": Camera,
    "what_if": WhatIf,
    "upsert": Beat,
    "beats": Beat,
    "add": AnchorSpec,
    "update": AnchorChange,
}


def describe(tool: str, error: ValidationError) -> str:
    """One sentence per fault, at most four."""
    faults = error.errors(include_url=False)
    shown = [_sentence(tool, fault) for fault in faults[:_SHOWN]]
    more = f" {len(faults) - _SHOWN} more faults are not shown." if len(faults) > _SHOWN else ""
    return " ".join(shown) + more + " Nothing was changed."


def first_field(error: ValidationError) -> str:
    """The argument in which the first fault is."""
    return _where([str(part) for part in error.errors(include_url=False)[0]["loc"] if part not in _KINDS])


def _where(path: list[str]) -> str:
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path).lstrip(".") or "arguments"


def _sentence(tool: str, fault: Any) -> str:
    path = [str(part) for part in fault["loc"] if part not in _KINDS]
    where = _where(path)
    if fault["type"] == "extra_forbidden":
        return f"{where[:120]}: not known. Allowed: {', '.join(_allowed(tool, path[:-1]))}."
    if fault["type"] == "missing":
        return f"{where}: missing."
    message = fault["msg"].removeprefix("Value error, ")
    if isinstance(fault.get("input"), dict):  # it says what does not fit; the whole object would say less
        return f"{where}: {message}."
    received = repr(fault.get("input"))
    received = received if len(received) <= 60 else received[:57] + "..."
    return f"{where}: {message[:1].lower()}{message[1:]}, received {received}."


def _allowed(tool: str, parent: list[str]) -> list[str]:
    """Field names of the model a fault was found in."""
    words = [part for part in parent if not part.isdigit()]
    owner = words[-1] if words else ""
    if owner == "anchors":
        return list((AnchorChange if tool == "update_anchors" else AnchorSpec).model_fields)
    return list(_MODELS[owner].model_fields) if owner in _MODELS else []
