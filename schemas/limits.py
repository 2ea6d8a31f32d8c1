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
MAX_TITLE_CHARS: Final = 80
MAX_SEED: Final = 2**63 - 1

# Media
MAX_IMAGE_BYTES: Final = 64 * 2**20
MAX_CLIP_BYTES: Final = 1024 * 2**20
MAX_SOUND_BYTES: Final = 256 * 2**20
MAX_KEPT_SOUND_BYTES: Final = 128 * 2**20
"""Ten minutes of stereo at 48 kHz fit uncompressed."""
MAX_IMAGE_PIXELS: Final = 100_000_000
MIN_SIDE_PX: Final = 16
MAX_CLIP_SIDE_PX: Final = 8_192
MAX_CLIP_DURATION_S: Final = 600.0
MAX_INLINE_BYTES: Final = 64 * 2**10
PROBE_TIMEOUT_S: Final = 30.0
PROBE_MEMORY_BYTES: Final = 4 * 2**30
PROBE_OPEN_FILES: Final = 256

# Links as sources
MAX_URL_CHARS: Final = 2_048
MAX_REDIRECTS: Final = 3
URL_CONNECT_S: Final = 10.0
URL_TIMEOUT_S: Final = 120.0
"""For the whole download: names, redirects, headers and bytes."""

# Answers
MAX_ANSWER_CHARS: Final = 30_000
"""Of text and structured content together, in bytes of UTF-8: less than 8k tokens."""
MAX_TEXT_CHARS: Final = 8_000
MAX_PICTURE_BYTES: Final = 300 * 2**10
MAX_WAIT_S: Final = 45.0
MAX_KEY_CHARS: Final = 80
ANSWER_TTL_S: Final = 7 * 24 * 3600.0
"""How long the answer to a call with an idempotency key is kept."""
MAX_HTTP_BODY_BYTES: Final = 8 * 2**20
FILE_URL_TTL_S: Final = 3_600

# The HTTP door
CALLS_PER_S: Final = 50.0
CALLS_BURST: Final = 500
CALLS_AT_ONCE: Final = 64
"""Per actor: calls a second in the long run, calls in a row, and calls under way."""
STRANGER_CALLS_PER_S: Final = 5.0
STRANGER_CALLS_BURST: Final = 100
STRANGER_CALLS_AT_ONCE: Final = 16
"""Per client address, for requests that carry no valid token: file links, uploads, refusals."""
TOKEN_RECHECK_S: Final = 5.0
"""A stream is looked at this often: does its token still open the door?"""
UPLOAD_TTL_S: Final = 600
MAX_OPEN_UPLOADS: Final = 20
"""Upload addresses of one actor that wait to be used."""
MAX_VIEWS: Final = 3
MAX_VIEW_FRAMES: Final = 24

# Jobs
MAX_TAKES: Final = 4
MAX_ATTEMPTS_WITHOUT_TAKE: Final = 3
WORKER_IDLE_UNLOAD_S: Final = 60.0
WORKER_IDLE_EXIT_S: Final = 600.0
HEARTBEAT_S: Final = 2.0
STALE_HEARTBEAT_S: Final = 60.0
"""A worker that gave no sign of life for this long is stalled: another one may take its device and its job."""
MIN_FREE_DISK_BYTES: Final = 256 * 2**20
TASK_TTL_S: Final = 7 * 86_400
TASK_POLL_MS: Final = 1_000

# Quotas: of one actor and of the whole studio, unless the studio's quotas.json says otherwise
MAX_MONTAGES_PER_ACTOR: Final = 2_000
MAX_MONTAGES: Final = 20_000
MAX_MEDIA_PER_ACTOR: Final = 5_000
MAX_MEDIA: Final = 50_000
MAX_JOBS_PER_ACTOR: Final = 50
MAX_JOBS: Final = 500
MAX_DISK_BYTES_PER_ACTOR: Final = 100 * 2**30
MAX_DISK_BYTES: Final = 400 * 2**30

# Housekeeping
TAKE_KEPT_S: Final = 7 * 86_400
"""A take that no video or choice names is kept this long, so that a cancelled render can be taken up again."""
PREVIEW_KEPT_S: Final = 86_400
