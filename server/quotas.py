"""Quotas: how much one actor and the whole studio may hold, checked in the transaction that would exceed them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput, QuotaExceeded, StudioFull

if TYPE_CHECKING:
    import sqlite3

Kind = Literal["montages", "media", "jobs", "disk_bytes"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
FILE_NAME = "quotas.json"

_COUNTED: Final[dict[Kind, str]] = {
    "montages": "SELECT count(*) FROM montage WHERE NOT archived AND {whose}",
    "media": "SELECT count(*) FROM media WHERE {whose}",
    "jobs": "SELECT count(*) FROM job WHERE {whose} AND state IN ('queued', 'running')",
    "disk_bytes": "SELECT (SELECT coalesce(sum(bytes), 0) FROM media WHERE {whose})"
    " + (SELECT coalesce(sum(bytes), 0) FROM job WHERE {whose})",
}
_WAY_OUT: Final[dict[Kind, str]] = {
    "montages": "update_montage(montage_id, archive=True) puts away one that is done with",
    "media": "pin media that is there by its id",
    "jobs": "get_job(job_id, wait_s=45) until one is done, or cancel_job(job_id)",
    "disk_bytes": "a smaller or shorter render",
}


class Quotas(BaseModel):
    """The bounds of a studio. quotas.json in its folder may set any of them, for all processes that open it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    montages_per_actor: int = Field(limits.MAX_MONTAGES_PER_ACTOR, ge=0, description="Montages of one actor.")
    montages: int = Field(limits.MAX_MONTAGES, ge=0, description="Montages in all; what is put away does not count.")
    media_per_actor: int = Field(limits.MAX_MEDIA_PER_ACTOR, ge=0, description="Pictures and clips one may add.")
    media: int = Field(limits.MAX_MEDIA, ge=0, description="Pictures and clips in all.")
    jobs_per_actor: int = Field(limits.MAX_JOBS_PER_ACTOR, ge=0, description="Jobs of one that wait or run.")
    jobs: int = Field(limits.MAX_JOBS, ge=0, description="Jobs that wait or run in all.")
    disk_bytes_per_actor: int = Field(
        limits.MAX_DISK_BYTES_PER_ACTOR, ge=0, description="Bytes of one's media, takes and videos."
    )
    disk_bytes: int = Field(limits.MAX_DISK_BYTES, ge=0, description="Bytes of all media, takes and videos.")
    keep_free_bytes: int = Field(
        limits.MIN_FREE_DISK_BYTES, ge=0, description="Bytes of the disk that always stay free."
    )

    @classmethod
    def of(cls, studio: Path) -> Self:
        """The quotas of a studio's folder. Raises InvalidInput if its quotas.json is wrong."""
        try:
            return cls.model_validate_json((studio / FILE_NAME).read_bytes())
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise InvalidInput(
                f"{FILE_NAME} in the studio: {'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg'].lower()}",
                allowed=", ".join(cls.model_fields),
            ) from error

    def admit(self, connection: sqlite3.Connection, actor: str, studio: Path, **more: int) -> None:
        """Raise QuotaExceeded or StudioFull unless `more` of these kinds may be added by an actor.

        Called inside the write transaction that adds them, so that two callers cannot both take the last place.
        """
        for kind in KINDS:
            asked = more.get(kind, 0)
            if not asked:
                continue
            for whose, bound in ((actor, getattr(self, f"{kind}_per_actor")), (None, getattr(self, kind))):
                used = usage(connection, kind, whose)
                if used + asked > bound:
                    raise _exceeded(kind, whose, used, asked, bound)
        if size := more.get("disk_bytes", 0):
            promised = connection.execute(
                "SELECT coalesce(sum(bytes), 0) FROM job WHERE state IN ('queued', 'running')"
            ).fetchone()[0]
            require_space(studio, size + promised, self.keep_free_bytes)


def usage(connection: sqlite3.Connection, kind: Kind, actor: str | None = None) -> int:
    """How much of a kind an actor holds, or everybody together."""
    whose = "1" if actor is None else "actor = :actor"
    return int(connection.execute(_COUNTED[kind].format(whose=whose), {"actor": actor}).fetchone()[0])


def require_space(folder: Path, size: int, keep_free: int) -> None:
    """Raise StudioFull unless `size` bytes fit on the disk of a folder and `keep_free` bytes stay free."""
    free = shutil.disk_usage(folder).free
    if free - size < keep_free:
        raise StudioFull(
            f"{free / 2**20:.0f} MiB are free on the studio's disk, so nothing was written",
            allowed=f"at least {(size + keep_free) / 2**20:.0f} MiB free, of which {keep_free / 2**20:.0f} stay free",
            next_call="free some space, or `dreamontage studio clean`; then repeat the call",
        )


def shown(kind: Kind, amount: int) -> str:
    """An amount for people."""
    return f"{amount / 2**20:,.0f} MiB" if kind == "disk_bytes" else f"{amount:,}"


def _exceeded(kind: Kind, whose: str | None, used: int, asked: int, bound: int) -> QuotaExceeded:
    name = kind if whose is None else f"{kind}_per_actor"
    holder = f"{whose} has" if whose else "all actors together have"
    noun = {"jobs": "jobs waiting or running", "disk_bytes": "of disk"}.get(kind, kind)
    return QuotaExceeded(
        f"{holder} {shown(kind, used)} {noun}, and {shown(kind, asked)} more would pass the studio's quota",
        field=name,
        allowed=f"{shown(kind, bound)}; the studio's owner may set {name} in its {FILE_NAME}",
        next_call=_WAY_OUT[kind],
    )
