"""Every bound of the product in one place. Seconds, frames, pixels and bytes as named."""

from __future__ import annotations

from typing import Final

# Time
DEFAULT_FPS: Final = 24
MIN_FPS: Final = 8
MAX_FPS: Final = 60
MIN_DURATION_S: Final = 0.2
MAX_DURATION_S: Final = 600.0
AUTO_GAP_S: Final = 3.0
"""Seconds between neighbouring anchors when a montage is planned with automatic timing."""

# Montage
MAX_ANCHORS: Final = 200
MAX_BEATS: Final = 200
MAX_SOURCES_PER_CALL: Final = 50
MAX_PROMPT_CHARS: Final = 2_000
MAX_LABEL_CHARS: Final = 80
MAX_SEED: Final = 2**63 - 1

# Media
MAX_IMAGE_BYTES: Final = 64 * 2**20
MAX_CLIP_BYTES: Final = 1024 * 2**20
MAX_IMAGE_PIXELS: Final = 100_000_000
MIN_SIDE_PX: Final = 16
MAX_CLIP_SIDE_PX: Final = 8_192
MAX_CLIP_DURATION_S: Final = 600.0
MAX_INLINE_BYTES: Final = 64 * 2**10
PROBE_TIMEOUT_S: Final = 30.0
PROBE_MEMORY_BYTES: Final = 4 * 2**30

# Answers
MAX_PICTURE_BYTES: Final = 300 * 2**10
MAX_WAIT_S: Final = 45.0
MAX_HTTP_BODY_BYTES: Final = 8 * 2**20
FILE_URL_TTL_S: Final = 3_600

# Jobs
MAX_ATTEMPTS_WITHOUT_TAKE: Final = 3
WORKER_IDLE_UNLOAD_S: Final = 60.0
WORKER_IDLE_EXIT_S: Final = 600.0
HEARTBEAT_S: Final = 2.0
MIN_FREE_DISK_BYTES: Final = 256 * 2**20
