"""`dreamontage token`: who may reach a studio over HTTP, and what they may do there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, cast

import typer

from dreamontage.schemas.errors import InvalidInput

from .actors import Scope
from .store import Studio

app = typer.Typer(help="Access tokens for HTTP: who may reach the studio, and what they may do.", no_args_is_help=True)

StudioOption = Annotated[Path | None, typer.Option("--studio", help="Studio folder (default: DREAMONTAGE_HOME).")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Who it is for: the name beside their edits and jobs.")],
    scope: Annotated[str, typer.Option("--scope", help="read, edit, render; edit and render include read.")] = (
        "read,edit,render"
    ),
    days: Annotated[float | None, typer.Option("--days", help="Days until it expires; never without.")] = None,
    studio: StudioOption = None,
) -> None:
    """Make a token and print it, once: only its hash is kept."""
    if days is not None and days <= 0:
        raise InvalidInput(f"{days:g} days is over already", field="--days", allowed="more than 0")
    scopes = [cast(Scope, part.strip()) for part in scope.split(",") if part.strip()]
    with Studio(studio) as opened:
        token = opened.add_token(name, scopes, None if days is None else time.time() + days * 86_400)
    typer.echo(token)
    typer.echo("Keep it safe: it is not shown again. Clients send it as `Authorization: Bearer <token>`.", err=True)


@app.command("list")
def listed(studio: StudioOption = None) -> None:
    """Show every token's id, actor, scopes and state; never the token itself."""
    now = time.time()
    with Studio(studio) as opened:
        known = opened.tokens()
    for token in known:
        state = "revoked" if token.revoked_at is not None else "valid" if token.valid(now) else "expired"
        until = f" until {_day(token.expires_at)}" if token.expires_at is not None and state == "valid" else ""
        scopes = ",".join(sorted(token.scopes))
        typer.echo(f"{token.id}  {token.actor}  {scopes}  {state}{until}, made {_day(token.created_at)}")
    if not known:
        typer.echo("No tokens yet; `dreamontage token add NAME` makes one.")


@app.command()
def revoke(
    which: Annotated[str, typer.Argument(help="A token's id, or a name: all tokens of that actor.")],
    studio: StudioOption = None,
) -> None:
    """Close the door to a token at once."""
    with Studio(studio) as opened:
        for token in opened.revoke_token(which):
            typer.echo(f"{token.id} of {token.actor} is revoked.")


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
