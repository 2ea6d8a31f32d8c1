"""Who calls, and what they may do. An actor is never a tool argument: it comes with the token, or from the client."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from dreamontage.schemas.errors import Forbidden, InvalidInput

if TYPE_CHECKING:
    from .context import Ctx

Scope = Literal["read", "edit", "render"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
SCOPE_KEY = "dreamontage.actor"
"""Where the HTTP door puts the `Actor` of a request's bearer token: in its ASGI scope."""

VOUCHED_PREFIX = "oauth-"
"""Begins the names of actors that an OAuth authorization server vouches for; no token of the studio may have one."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_RESERVED = ("worker",)


@dataclass(frozen=True)
class Actor:
    """Someone who works on a studio. `name` is 1–40 letters, digits, dots, dashes and underscores."""

    name: str
    scopes: frozenset[Scope] = SCOPES

    def require(self, scope: Scope, what: str) -> None:
        """Raise Forbidden unless the actor may do `what`, which needs `scope`."""
        if scope not in self.scopes:
            held = ", ".join(sorted(self.scopes)) or "nothing"
            raise Forbidden(
                f"{what} needs the scope {scope!r}; the token of {self.name} allows {held}",
                next_call=f"ask the studio's owner for `dreamontage token add {self.name} --scope "
                f"{','.join(sorted({*self.scopes, scope}))}`",
            )


OWNER = Actor("owner")


def check_name(name: str) -> str:
    """The name, if an actor may have it. Raises InvalidInput."""
    if not _NAME.fullmatch(name) or name in _RESERVED or name.startswith(VOUCHED_PREFIX):
        raise InvalidInput(
            f"{name[:40]!r} cannot be an actor's name",
            field="name",
            allowed="1 to 40 letters, digits, dots, dashes and underscores, a letter or digit first; not 'worker', "
            "nothing that begins with 'oauth-'",
        )
    return name


def actor_of(ctx: Ctx) -> Actor:
    """The actor behind a call: over HTTP the token's, otherwise DREAMONTAGE_ACTOR or the client's own name.

    A local process can read the studio's files anyway, so on stdio every scope is granted. Raises Forbidden where an
    HTTP request reached the server without passing the door.
    """
    request = ctx.request_context.request
    if request is not None:
        actor = request.scope.get(SCOPE_KEY)
        if not isinstance(actor, Actor):
            raise Forbidden("this request carries no token", next_call="send Authorization: Bearer <token>")
        return actor
    if configured := os.environ.get("DREAMONTAGE_ACTOR"):
        return Actor(check_name(configured))
    known = ctx.request_context.session.client_params
    return Actor(_tidied(known.client_info.name) if known else OWNER.name)


def _tidied(client: str) -> str:
    """A client's name as an actor's: what does not fit becomes dashes."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", client).strip("-._")[:40]
    return OWNER.name if not name or name in _RESERVED else name
