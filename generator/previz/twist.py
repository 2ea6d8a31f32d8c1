"""Similarities of the image plane as constant-speed screw motions, so that they can be scaled, added and continued."""

from __future__ import annotations

import cmath
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Twist:
    """Logarithm of x -> a·x + b on the complex plane; origin at the view's centre, y down, pixels.

    `spin` = log scale + i·angle (clockwise on screen, radians), `slide` = translation speed in pixels.
    """

    spin: complex = 0j
    slide: complex = 0j

    def __add__(self, other: Twist) -> Twist:
        return Twist(self.spin + other.spin, self.slide + other.slide)

    def __sub__(self, other: Twist) -> Twist:
        return self + other * -1

    def __mul__(self, factor: float) -> Twist:
        return Twist(self.spin * factor, self.slide * factor)

    def reach(self, width: float) -> float:
        """Typical way of a pixel under the whole motion, in view widths of `width` pixels."""
        return abs(self.slide) / width + abs(self.spin) / 4

    def dot(self, other: Twist, width: float) -> float:
        """Inner product in which both parts count by how far they move a pixel; squared view widths."""
        slides, spins = self.slide * other.slide.conjugate(), self.spin * other.spin.conjugate()
        return slides.real / width**2 + spins.real / 16

    def matrix(self) -> Matrix:
        """3x3 matrix of the whole motion in centred pixels."""
        return _matrix(*self._map())

    def partly(self, s: float) -> Matrix:
        """3x3 matrix after the share s of a camera's way: its centre goes straight over the picture."""
        a = cmath.exp(self.spin * s)
        return _matrix(a, -a * self._target() * s)

    def rate(self, s: float) -> Twist:
        """Speed of that way at s, seen in the view, per unit of s."""
        return Twist(self.spin, -cmath.exp(self.spin * s) * self._target())

    def _map(self) -> tuple[complex, complex]:
        a = cmath.exp(self.spin)
        return a, self.slide * ((a - 1) / self.spin if abs(self.spin) > 1e-9 else 1)

    def _target(self) -> complex:
        """The point of the first picture that the camera ends on."""
        a, b = self._map()
        return -b / a


def _matrix(a: complex, b: complex) -> Matrix:
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0, 0, 1]])


def twist_of(matrix: Matrix) -> Twist:
    """Twist whose matrix is the given similarity [2+,3] in centred pixels; the angle is taken in (-pi, pi]."""
    a, b = complex(matrix[0, 0], matrix[1, 0]), complex(matrix[0, 2], matrix[1, 2])
    spin = cmath.log(a)
    return Twist(spin, b * (spin / (a - 1) if abs(spin) > 1e-9 else 1))
