"""Errors that teach: what was wrong with the value, what is allowed, the next call."""

from __future__ import annotations


class DreamontageError(Exception):
    """An error an agent can act on.

    `problem` says what was wrong, with the value; `field` names the argument; `allowed` says what would be accepted;
    `next_call` is a complete call that leads on. `str()` is one short paragraph without a traceback or a foreign path.
    """

    code = "error"

    def __init__(
        self, problem: str, *, field: str | None = None, allowed: str | None = None, next_call: str | None = None
    ) -> None:
        self.problem = problem.rstrip(".")
        self.field = field
        self.allowed = allowed
        self.next_call = next_call
        super().__init__(str(self))

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

    code = "invalid_input"


class NotFound(DreamontageError):
    """An id names nothing in this studio."""

    code = "not_found"


class SlotTaken(InvalidInput):
    """Two anchors would share one latent slot of the timeline."""

    code = "slot_taken"


class MediaRejected(DreamontageError):
    """A file is not a picture or clip that can be taken in."""

    code = "media_rejected"


class PathRefused(MediaRejected):
    """A path lies outside the media roots, or is no regular file."""

    code = "path_refused"


class Conflict(DreamontageError):
    """The montage changed since the revision the caller has seen."""

    code = "conflict"


class RenderFailed(DreamontageError):
    """A job cannot be finished; finished segments are kept."""

    code = "render_failed"


class Busy(DreamontageError):
    """Others are writing for longer than this call could wait; nothing was changed."""

    code = "busy"


class StudioFull(DreamontageError):
    """The disk cannot hold what the call would write; nothing was changed."""

    code = "studio_full"


class Cancelled(DreamontageError):
    """The job was cancelled on request; finished segments are kept."""

    code = "cancelled"
