"""What a residual sees of univariate units: a sinusoid on every arc of their angles.

A unit ``relu(u(phi)^T (t, 1))``, ``u(phi) = (cos phi, sin phi)``, bends at a data point where phi
is one of 2n angles; between them ``h(phi) = sum_i z_i relu(u(phi)^T (x_i, 1))`` is a sinusoid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray

__all__ = ["Peaks", "arcs", "features", "peaks", "sinusoids"]


def features(x: FloatArray, phi: FloatArray) -> FloatArray:
    """Return the outputs at the data (rows) of the units at the angles (columns)."""
    outputs: FloatArray = np.maximum(np.outer(x, np.cos(phi)) + np.sin(phi), 0)
    return outputs


def arcs(x: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Return starts and ends of the 2n arcs without a bend at a data point, and the data point at
    each start."""
    bends = np.concatenate([-np.arctan(x), np.pi - np.arctan(x)])
    order = np.argsort(bends, kind="stable")
    starts = bends[order]
    return starts, np.append(starts[1:], starts[0] + 2 * np.pi), order % x.size


def sinusoids(x: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return amplitude and phase of h on every arc."""
    starts, ends, _ = arcs(x)
    active = features(x, (starts + ends) / 2) > 0
    linear, constant = (z * x) @ active, z @ active
    return np.hypot(linear, constant), np.arctan2(constant, linear)


@dataclass(frozen=True)
class Peaks:
    """Largest value of ``sign * h`` on every closed arc, where it is, and the data point there (-1
    in the open arc)."""

    height: FloatArray
    angle: FloatArray
    sign: FloatArray
    at_data: NDArray[np.intp]


def peaks(x: FloatArray, z: FloatArray) -> Peaks:
    """Return the peaks of both signs, arc by arc."""
    starts, ends, at_start = arcs(x)
    at_end = np.append(at_start[1:], at_start[0])
    amplitude, phase = sinusoids(x, z)
    parts = []
    for sign in (1.0, -1.0):
        top = starts + (phase + (0 if sign > 0 else np.pi) - starts) % (2 * np.pi)
        left, right = (sign * amplitude * np.cos(edge - phase) for edge in (starts, ends))
        inside = (top > starts) & (top < ends)
        height = np.where(inside, amplitude, np.maximum(left, right))
        angle = np.where(inside, top, np.where(left >= right, starts, ends))
        at_data = np.where(inside, -1, np.where(left >= right, at_start, at_end))
        parts.append((height, angle, np.full(starts.size, sign), at_data))
    height, angle, signs, at_data = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Peaks(height, angle, signs, at_data)
