"""The HTTP server beside an OAuth authorization server: whose tokens open it, and with which scopes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from serving import served
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from dreamontage.schemas.errors import InvalidInput
from dreamontage.server.http import http_app
from dreamontage.server.oauth import IssuedTokens
from dreamontage.server.store import Studio

pytestmark = pytest.mark.anyio
RESOURCE = "https://studio.example/mcp"
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """An authorization server's public face."""
    public = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "one", "alg": "ES256"}

    def metadata(request: Any) -> JSONResponse:
        base = str(request.base_url).rstrip("/")
        return JSONResponse({"issuer": base, "jwks_uri": f"{base}/keys"})

    def keys(_: Any) -> JSONResponse:
        return JSONResponse({"keys": [public]})

    routes = [Route("/.well-known/openid-configuration", metadata), Route("/keys", keys)]
    with served(Starlette(routes=routes)) as address:
        yield address


@pytest.fixture
def signed(issuer: str) -> Callable[..., str]:
    """A token as the issuer makes them, with some claims changed."""

    def token(key: Any = KEY, algorithm: str = "ES256", kid: str = "one", **changed: Any) -> str:
        claims = {"iss": issuer, "sub": "ada", "aud": RESOURCE, "exp": time.time() + 60, "scope": "edit", **changed}
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, key, algorithm, headers={"kid": kid})

    return token


async def test_a_token_of_the_issuer_names_its_actor_and_scopes(issuer: str, signed: Callable[..., str]) -> None:
    tokens = IssuedTokens(issuer, RESOURCE)
    actor = await tokens.actor(signed())
    assert actor is not None and actor.name.startswith("oauth-ada-") and actor.scopes == {"read", "edit"}
    owner = await tokens.actor(signed(sub="owner", scope=None, scp=["render", "admin"]))
    assert owner is not None and owner.name != "owner" and owner.scopes == {"read", "render"}
    stranger = await tokens.actor(signed(scope="email"))
    assert stranger is not None and stranger.scopes == frozenset()
    assert actor == await tokens.actor(signed(aud=[RESOURCE + "/", "https://other.example"]))
    hostile = await tokens.actor(signed(sub="../../ada\n"))
    assert hostile is not None and hostile.name != actor.name and "/" not in hostile.name and "\n" not in hostile.name


FORGED: list[dict[str, Any]] = [
    {"key": OTHER},
    {"kid": "two"},
    {"exp": time.time() - 3600},
    {"exp": None},
    {"aud": "https://other.example/mcp"},
    {"aud": None},
    {"iss": "https://evil.example"},
    {"sub": None},
    {"nbf": time.time() + 3600},
    {"key": "", "algorithm": "none"},
    {"key": "a shared secret of enough characters", "algorithm": "HS256"},
]


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
async def test_a_token_that_is_not_quite_right_opens_nothing(
    issuer: str, signed: Callable[..., str], forged: dict[str, Any]
) -> None:
    assert await IssuedTokens(issuer, RESOURCE).actor(signed(**forged)) is None


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "..", "e30.e30.", "ü.ü.ü", "a" * 100_000])
async def test_what_is_no_token_opens_nothing(issuer: str, text: str) -> None:
    assert await IssuedTokens(issuer, RESOURCE).actor(text) is None


async def test_an_issuer_that_cannot_be_asked_opens_nothing(signed: Callable[..., str]) -> None:
    assert await IssuedTokens("http://127.0.0.1:9", RESOURCE).actor(signed()) is None


def test_an_issuer_without_https_is_not_trusted() -> None:
    with pytest.raises(InvalidInput, match="https"):
        IssuedTokens("http://issuer.example", RESOURCE)


async def test_the_server_says_whose_tokens_it_takes_and_takes_them(
    studio: Studio, issuer: str, signed: Callable[..., str]
) -> None:
    app = http_app(studio, "a-token-for-tests-only", issued=IssuedTokens(issuer, RESOURCE))
    with served(app) as url:
        async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
            refused = await client.post("/mcp", json={})
            assert refused.status_code == 401
            where = refused.headers["www-authenticate"].partition('resource_metadata="')[2].rstrip('"')
            assert where == "https://studio.example/.well-known/oauth-protected-resource/mcp"
            metadata = (await client.get(where.removeprefix("https://studio.example"))).json()
            assert metadata["resource"] == RESOURCE and metadata["scopes_supported"] == ["edit", "read", "render"]
            assert [server.rstrip("/") for server in metadata["authorization_servers"]] == [issuer]
            for token, status in ((signed(), 404), (signed(key=OTHER), 401), ("a-token-for-tests-only", 404)):
                answer = await client.get("/nowhere", headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == status
