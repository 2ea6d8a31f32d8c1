"""Errors that teach: what was wrong with the value, what is allowed, the next call."""

from __future__ import annotations

import re


class DreamontageError(Exception):
    """An error an agent can act on.

    `problem` says what was wrong, with the value; `field` names the argument; `allowed` says what would be accepted;
    `next_call` is a complete call that leads on. `str()` is one short paragraph without a traceback or a foreign path.
    """

    def __init__(
        self, problem: str, *, field: str | None = None, allowed: str | None = None, next_call: str | None = None
    ) -> None:
        self.problem = problem.rstrip(".")
        self.field = field
        self.allowed = allowed
        self.next_call = next_call
        super().__init__(str(self))

    @property
    def code(self) -> str:
        """What kind of error it is, for programs: not_found, conflict, invalid_input ..."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def __str__(self) -> str:
        text = f"{self.field}: {self.problem}." if self.field else f"{self.problem}."
        if self.allowed:
            text += f" Allowed: {self.allowed.rstrip('.')}."
        if self.next_call:
            text += f" Next: {self.next_call.rstrip('.')}."
        return text

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by keyword, so that the error crosses a process border whole."""
        return (_rebuild, (type(self), self.problem, self.field, self.allowed, self.next_call))


def _rebuild(
    kind: type[DreamontageError], problem: str, field: str | None, allowed: str | None, next_call: str | None
) -> DreamontageError:
    return kind(problem, field=field, allowed=allowed, next_call=next_call)


class InvalidInput(DreamontageError):
    """A value is outside what is allowed; nothing was changed."""


class NotFound(DreamontageError):
    """An id names nothing in this studio."""


class SlotTaken(InvalidInput):
    """Two anchors would share one latent slot of the timeline."""


class MediaRejected(DreamontageError):
    """A file is not a picture or clip that can be taken in."""


class PathRefused(MediaRejected):
    """A path lies outside the media roots, or is no regular file."""


class Conflict(DreamontageError):
    """The montage changed since the revision the caller has seen."""


class Forbidden(DreamontageError):
    """The caller's token does not allow this; nothing was changed."""


class RenderFailed(DreamontageError):
    """A job cannot be finished; finished segments are kept."""


class Busy(DreamontageError):
    """Others are writing for longer than this call could wait; nothing was changed."""


class StudioFull(DreamontageError):
    """The disk cannot hold what the call would write; nothing was changed."""


class QuotaExceeded(DreamontageError):
    """The call would pass a quota of its actor or of the studio; nothing was changed."""


class Cancelled(DreamontageError):
    """The job was cancelled on request; finished segments are kept."""


class Unexpected(DreamontageError):
    """Something broke that the caller could not know of; what is stored is safe."""
