"""Known GPUs: the bfloat16 peak of their matrix units, from the makers' data sheets, dense and with float32 sums."""

from __future__ import annotations

import re
from typing import Final

TFLOPS: Final = {
    "B200": 2250.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L40": 181.0,
    "RTX 6000 Ada": 182.0, "RTX A6000": 155.0, "L4": 121.0, "A10": 125.0, "A40": 150.0, "RTX 5090": 209.0,
    "RTX 5080": 113.0, "RTX 4090": 165.0, "RTX 4080": 97.0, "RTX 3090": 71.0, "RTX 3080": 60.0,
}  # fmt: skip
"""By a part of the driver's name, in 10¹² operations a second."""
UNKNOWN: Final = 60.0
"""What is assumed of another GPU: a consumer's of some years ago, so that an estimate errs on the long side."""


def known_tflops(name: str) -> float | None:
    """The bfloat16 peak of a GPU by the name that its driver tells, in 10¹² operations a second; None: not known."""
    found = [part for part in TFLOPS if re.search(rf"\b{part}(?!\d)", name)]
    return TFLOPS[max(found, key=len)] if found else None


def peak_tflops(name: str) -> float:
    """The same, and what is assumed of a GPU that is not known."""
    return known_tflops(name) or UNKNOWN
