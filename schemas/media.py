"""Media: pictures and clips taken in once, known by their content hash; and the one union of sources."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MediaKind = Literal["still", "clip"]


class Media(BaseModel):
    """A picture, clip or sound in the studio. The same bytes always get the same id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(
        description="img_, clip_ or snd_ and the first 16 hex digits of the content's sha256.",
        examples=["img_5d1f0c2ab3e4a1b2"],
    )
    sha256: str = Field(description="Content hash of the stored bytes.")
    kind: MediaKind | Literal["sound"] = Field(
        description="still or clip; a clip of one frame is a still. A sound cannot be pinned."
    )
    container: str = Field(
        description="Pillow format (JPEG, PNG, WEBP, GIF) or PyAV demuxer (mov, matroska, avi, gif, apng, flac).",
        examples=["JPEG", "mov"],
    )
    width: int = Field(description="Upright width in pixels, after rotation tags; 0 for a sound.")
    height: int = Field(description="Upright height in pixels, after rotation tags; 0 for a sound.")
    duration_s: float = Field(0.0, description="Duration of a clip or sound in seconds; 0 for a still.")
    fps: float = Field(0.0, description="Mean frame rate of a clip; 0 for a still.")
    frames: int = Field(1, description="Frames of a clip; 1 for a still, 0 for a sound.")
    bytes: int = Field(description="Stored size.")
    name: str = Field("", description="File name it came with, shortened.", examples=["lake.jpg"])
    sound: bool = Field(False, description="Whether it carries sound; that of a pinned clip is dropped.")


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MediaIdSource(_Source):
    """Media already in the studio."""

    media_id: str = Field(description="Id from add_media.")


class PathSource(_Source):
    """A file inside one of the media roots."""

    path: str = Field(description="Path of a picture or clip inside the media roots.")


class VideoFrameSource(_Source):
    """A frame of an earlier output."""

    video_id: str = Field(description="Id of a finished video.")
    at_s: float = Field(ge=0, allow_inf_nan=False, description="Second of the frame.")


class VideoPieceSource(_Source):
    """A piece of an earlier output."""

    video_id: str = Field(description="Id of a finished video.")
    from_s: float = Field(ge=0, allow_inf_nan=False, description="Start in seconds.")
    to_s: float = Field(gt=0, allow_inf_nan=False, description="End in seconds.")


class InlineSource(_Source):
    """A small picture or clip sent in the call itself."""

    data: str = Field(description="Base64, at most 64 KiB decoded.")
    mime: str = Field(description="Media type, such as image/jpeg.", examples=["image/jpeg"])


Source = str | MediaIdSource | PathSource | VideoFrameSource | VideoPieceSource | InlineSource
"""One source union everywhere; a plain string is a media id or a path."""
