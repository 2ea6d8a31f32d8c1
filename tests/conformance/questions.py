"""Fixtures of the official conformance suite: tools that ask the client, in either era, under the suite's names."""

from __future__ import annotations

import json
from typing import Annotated, Any

from content import Ctx, text
from mcp.server import MCPServer
from mcp.server.mcpserver import Elicit, ElicitationResult, Resolve
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
)
from pydantic import BaseModel, Field

ENUM = ["active", "inactive", "pending"]


class Account(BaseModel):
    """What the suite's client fills in."""

    username: str
    email: str


class Person(BaseModel):
    """Every primitive type, with a default."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: str = Field("active", json_schema_extra={"enum": list(ENUM)})
    verified: bool = True


class Choices(BaseModel):
    """Every form of a choice."""

    untitledSingle: str = Field(json_schema_extra={"enum": list(ENUM)})
    titledSingle: str = Field(json_schema_extra={"oneOf": [{"const": c, "title": c.title()} for c in ("low", "high")]})
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": ["read", "write"]}})
    titledMulti: list[str] = Field(
        json_schema_extra={"items": {"anyOf": [{"const": c, "title": c.title()} for c in ("feature", "bug")]}}
    )
    legacyEnum: str = Field(json_schema_extra={"enum": ["small", "large"], "enumNames": ["Small Size", "Large Size"]})


def question(message: str, field: str, kind: str = "string") -> ElicitRequest:
    """One question with one field."""
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(words: str) -> CreateMessageRequest:
    """Asks the client's model."""
    message = SamplingMessage(role="user", content=text(words))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=50))


def answered(ctx: Ctx, key: str, field: str) -> str | None:
    """What the user said to a question; None while it is open."""
    answer = (ctx.input_responses or {}).get(key)
    return str((answer.content or {}).get(field)) if isinstance(answer, ElicitResult) else None


def ask_who() -> Elicit[Account]:
    """A question that the SDK asks in the way of the client's era."""
    return Elicit("Who are you?", Account)


def add_questions(server: MCPServer[Any]) -> None:
    """Tools and a prompt that ask before they answer."""
    _add_handshake_era(server)
    _add_single_questions(server)
    _add_rounds(server)


def _add_handshake_era(server: MCPServer[Any]) -> None:
    @server.tool()
    async def test_sampling(prompt: str, ctx: Ctx) -> str:
        message = SamplingMessage(role="user", content=text(prompt))
        result = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
        return f"LLM response: {result.content.text if result.content.type == 'text' else 'none'}"

    async def asked(ctx: Ctx, message: str, model: type[BaseModel]) -> str:
        result = await ctx.elicit(message=message, schema=model)
        content = result.data.model_dump_json() if result.action == "accept" else "{}"
        return f"action={result.action}, content={content}"

    @server.tool()
    async def test_elicitation(message: str, ctx: Ctx) -> str:
        return f"User response: {await asked(ctx, message, Account)}"

    @server.tool()
    async def test_elicitation_sep1034_defaults(ctx: Ctx) -> str:
        return f"Elicitation completed: {await asked(ctx, 'Who are you?', Person)}"

    @server.tool()
    async def test_elicitation_sep1330_enums(ctx: Ctx) -> str:
        return f"Elicitation completed: {await asked(ctx, 'What do you choose?', Choices)}"

    @server.tool()
    async def test_streaming_elicitation(answer: Annotated[ElicitationResult[Account], Resolve(ask_who)]) -> str:
        return f"elicitation {answer.action}"


def _add_single_questions(server: MCPServer[Any]) -> None:
    @server.tool()
    async def test_input_required_result_elicitation(ctx: Ctx) -> str | InputRequiredResult:
        if (name := answered(ctx, "user_name", "name")) is not None:
            return f"Hello, {name}!"
        return InputRequiredResult(input_requests={"user_name": question("What is your name?", "name")})

    @server.tool()
    async def test_input_required_result_sampling(ctx: Ctx) -> str | InputRequiredResult:
        answer = (ctx.input_responses or {}).get("capital_question")
        if isinstance(answer, CreateMessageResult):
            return f"Model said: {answer.content.text if answer.content.type == 'text' else '?'}"
        return InputRequiredResult(input_requests={"capital_question": sample("What is the capital of France?")})

    @server.tool()
    async def test_input_required_result_list_roots(ctx: Ctx) -> str | InputRequiredResult:
        answer = (ctx.input_responses or {}).get("client_roots")
        if isinstance(answer, ListRootsResult):
            return f"Client exposed {len(answer.roots)} root(s)."
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})

    @server.tool()
    async def test_input_required_result_request_state(ctx: Ctx) -> str | InputRequiredResult:
        if "confirm" in (ctx.input_responses or {}) and ctx.request_state == "request-state-nonce":
            return "state-ok: confirmation received"
        confirm = question("Please confirm", "ok", "boolean")
        return InputRequiredResult(input_requests={"confirm": confirm}, request_state="request-state-nonce")

    @server.tool()
    async def test_input_required_result_tampered_state(ctx: Ctx) -> str | InputRequiredResult:
        if ctx.request_state is not None:
            return f"state-ok: {ctx.request_state}"
        confirm = question("Please confirm", "ok", "boolean")
        return InputRequiredResult(input_requests={"confirm": confirm}, request_state="round-1")

    @server.prompt()
    async def test_input_required_result_prompt(ctx: Ctx) -> list[UserMessage] | InputRequiredResult:
        if (words := answered(ctx, "user_context", "context")) is not None:
            return [UserMessage(text(f"Use the following context: {words}"))]
        asked = question("What context should the prompt use?", "context")
        return InputRequiredResult(input_requests={"user_context": asked})


def _add_rounds(server: MCPServer[Any]) -> None:
    @server.tool()
    async def test_input_required_result_multiple_inputs(ctx: Ctx) -> str | InputRequiredResult:
        requests: dict[str, InputRequest] = {
            "user_name": question("What is your name?", "name"),
            "greeting": sample("Generate a greeting"),
            "client_roots": ListRootsRequest(),
        }
        if requests.keys() <= (ctx.input_responses or {}).keys():
            return "All inputs received."
        return InputRequiredResult(input_requests=requests, request_state="multiple-inputs")

    @server.tool()
    async def test_input_required_result_multi_round(ctx: Ctx) -> str | InputRequiredResult:
        state: dict[str, Any] = json.loads(ctx.request_state) if ctx.request_state else {"round": 0}
        name, colour = answered(ctx, "step1", "name"), answered(ctx, "step2", "color")
        if state["round"] == 2 and colour is not None:
            return f"{state['name']} likes {colour}."
        if state["round"] == 1 and name is not None:
            step = question("Step 2: What is your favorite color?", "color")
            told = json.dumps({"round": 2, "name": name})
            return InputRequiredResult(input_requests={"step2": step}, request_state=told)
        step = question("Step 1: What is your name?", "name")
        return InputRequiredResult(input_requests={"step1": step}, request_state=json.dumps({"round": 1}))

    @server.tool()
    async def test_input_required_result_capabilities(ctx: Ctx) -> InputRequiredResult:
        capabilities = ctx.client_capabilities
        requests: dict[str, InputRequest] = {}
        if capabilities is None or capabilities.sampling is not None:
            requests["sample"] = sample("Say hello")
        if capabilities is None or capabilities.elicitation is not None:
            requests["ask"] = question("What is your name?", "name")
        return InputRequiredResult(input_requests=requests, request_state="capability-gated")
