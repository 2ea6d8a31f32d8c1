"""Tokens of an OAuth authorization server: this server as a resource server for one issuer.

Access tokens are JWTs (RFC 9068), signed with a key that the issuer publishes (RFC 8414 and OpenID Connect metadata),
made for this server's own address (RFC 8707), and carry scopes among read, edit and render.
"""

from __future__ import annotations

import hashlib
import re
import time
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx2
import jwt
from mcp.server.auth.provider import AccessToken, TokenVerifier
from pydantic import BaseModel, ValidationError

from dreamontage.schemas.errors import DreamontageError, InvalidInput

from .actors import SCOPES, VOUCHED_PREFIX, Actor

ALGORITHMS: Final = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA")
"""Signatures with a private key only: with a shared secret, or none, anybody could sign."""
_FRESH_S: Final = 300.0
_RETRY_S: Final = 30.0
_LEEWAY_S: Final = 30


class _Metadata(BaseModel):
    issuer: str
    jwks_uri: str


class IssuedTokens(TokenVerifier):
    """Verifies the tokens of `issuer` for `resource`, the address clients call (such as https://host/mcp).

    The issuer's keys are fetched when first needed, kept for five minutes, and fetched again for an unknown key at most
    every thirty seconds. Raises InvalidInput for an issuer that is neither https nor on this machine.
    """

    def __init__(self, issuer: str, resource: str) -> None:
        self.issuer, self.resource = issuer, resource
        _require_https(issuer)
        self._known: dict[str | None, jwt.PyJWK] = {}
        self._fetched = -_FRESH_S
        self._fetching = anyio.Lock()

    async def actor(self, token: str) -> Actor | None:
        """Whose token this is: `oauth-` with the subject and a hash that tells issuers and spellings apart."""
        issued = await self.verify_token(token)
        if issued is None:
            return None
        digest = hashlib.sha256(f"{self.issuer} {issued.subject}".encode()).hexdigest()[:8]
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", issued.subject or "")[:20].strip("-.")
        granted = SCOPES & set(issued.scopes)
        return Actor(f"{VOUCHED_PREFIX}{readable}-{digest}", granted | {"read"} if granted else granted)

    async def verify_token(self, token: str) -> AccessToken | None:
        """What an access token says, if its signature, issuer, audience and times are right; else None."""
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token, key, [*ALGORITHMS], audience=[self.resource, self.resource + "/"], issuer=self.issuer,
                leeway=_LEEWAY_S, options={"require": ["exp", "iss", "sub", "aud"]},
            )  # fmt: skip
        except (jwt.PyJWTError, KeyError):
            return None
        scopes = claims.get("scope", claims.get("scp", []))
        return AccessToken(
            token=token,
            client_id=str(claims.get("client_id", claims["sub"])),
            scopes=scopes.split() if isinstance(scopes, str) else [str(scope) for scope in scopes],
            expires_at=int(claims["exp"]),
            resource=self.resource,
            subject=str(claims["sub"]),
            claims=claims,
        )

    async def _key(self, kid: str | None) -> jwt.PyJWK:
        """A key of the issuer. Raises KeyError for one it does not publish, or while it cannot be asked."""
        async with self._fetching:
            age = time.monotonic() - self._fetched
            if age > _FRESH_S or (kid not in self._known and age > _RETRY_S):
                self._fetched = time.monotonic()
                self._known = await anyio.to_thread.run_sync(partial(_published, self.issuer))
        return self._known[kid]


def _published(issuer: str) -> dict[str | None, jwt.PyJWK]:
    """The keys an issuer publishes, by their ids; none where it cannot be asked."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    places = (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    )
    with httpx2.Client(timeout=10, trust_env=False) as client:
        for place in places:
            try:
                metadata = _Metadata.model_validate_json(client.get(place).raise_for_status().content)
                if metadata.issuer != issuer:
                    continue
                _require_https(metadata.jwks_uri)
                published = client.get(metadata.jwks_uri).raise_for_status().json()
                return {key.key_id: key for key in jwt.PyJWKSet.from_dict(published).keys}
            except (httpx2.HTTPError, ValidationError, ValueError, jwt.PyJWTError, DreamontageError):
                continue
    return {}


def _require_https(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise InvalidInput(
            f"{address[:80]!r} is no issuer to be trusted", field="--oauth-issuer", allowed="an https:// address"
        )
