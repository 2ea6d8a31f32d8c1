"""The studio: one folder that any number of processes open at once."""

from .blobs import StagedBlob, measured
from .db import new_id
from .events import Event
from .jobs import DeviceLost, StaleAttempt
from .studio import Studio

__all__ = ["DeviceLost", "Event", "StagedBlob", "StaleAttempt", "Studio", "measured", "new_id"]
