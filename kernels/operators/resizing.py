"""ONNX's Resize and Upsample: one axis after the other, by tables of places and shares.

All interpolations of ONNX are separable. A coordinate of the result is mapped to one of the input,
and the elements around that have shares by their distance: Keys, "Cubic convolution interpolation
for digital image processing", IEEE Trans. ASSP 29(6), 1981, equation 4, or a triangle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kernels.operators.base import Array
from kernels.operators.binary import both
from kernels.operators.node import Node, axis_of, real
from kernels.operators.sampling import resampled, taken
from kernels.program import Tensor

ROI_OPSET = 11
"""From there on there is a region of interest, and the scales are the third input."""
LARGEST = 1 << 24
"""Elements of an axis, and the scale that it may have: tables are made of each."""
ROUND: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Axis:
    """An axis of `size` elements that becomes one of `extent`, `scale` times as long."""

    size: int
    extent: int
    scale: float
    roi: tuple[float, float]


def _resize(node: Node) -> Tensor:
    """Only axes that change take time."""
    x = node.given(0)
    real(node, x)
    mode = node.attribute("mode", "nearest")
    for axis, along in _axes(node, x).items():
        if along.extent == along.size and along.scale == 1.0 and along.roi == (0.0, 1.0):
            continue
        centres, outside = _coordinates(node, along)
        if mode == "nearest" and not outside.any():
            rounded = ROUND[_rounding(node)](centres)
            x = taken(node, x, axis, np.clip(rounded, 0, along.size - 1).astype(np.int64))
            continue
        places, shares = _shares(node, mode, along, centres)
        shares[outside] = 0.0
        x = resampled(node, x, axis, places, shares)
        beyond = node.attribute("extrapolation_value", 0.0)
        if outside.any() and beyond:  # other axes keep it, for an element's shares add up to 1
            fill = np.where(outside, beyond, 0.0).reshape(-1, *(1 for _ in x.shape[axis + 1 :]))
            x = both(node, "add", x, node.constant(fill))
    return x


def _rounding(node: Node) -> str:
    older = node.opset < ROI_OPSET or node.op == "Upsample"
    return str(node.attribute("nearest_mode", "floor" if older else "round_prefer_floor"))


def _axes(node: Node, x: Tensor) -> dict[int, Axis]:
    """What each axis becomes: by scales or by sizes, as inputs or as an attribute."""
    older = node.opset < ROI_OPSET or node.op == "Upsample"
    rank = len(x.shape)
    axes = [axis_of(node, axis, rank) for axis in node.attribute("axes", range(rank))]
    roi = np.ravel(_floats(node, 1)) if not older else np.zeros(0)
    if roi.size != 2 * len(axes) or node.attribute("coordinate_transformation_mode") != CROP:
        roi = np.repeat([0.0, 1.0], len(axes))
    regions = list(zip(roi[: len(axes)].tolist(), roi[len(axes) :].tolist(), strict=True))
    scales = np.ravel(node.attribute("scales", _floats(node, 1 if older else 2))).tolist()
    sizes = [] if older else [int(size) for size in np.ravel(_floats(node, 3))]
    if len(scales or sizes) != len(axes):
        raise node.refuse("it needs a constant scale or size for each axis")
    if not all(0 < scale < LARGEST for scale in scales) or not all(map(np.isfinite, roi)):
        raise node.refuse(f"scales {scales} of the region {roi.tolist()}")
    old = [x.shape[axis] for axis in axes]
    if scales:
        sizes = [int(np.floor(size * scale)) for size, scale in zip(old, scales, strict=True)]
        if node.attribute("coordinate_transformation_mode") == CROP:
            spans = [last - first for first, last in regions]
            sizes = [int(np.floor(n * span * s)) for n, span, s in zip(old, spans, scales, strict=True)]
    else:
        scales = [size / extent for size, extent in zip(sizes, old, strict=True)]
        policy = node.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = {"not_larger": min, "not_smaller": max}[policy](scales)
            scales = [scale] * len(axes)
            sizes = [int(np.floor(scale * extent + 0.5)) for extent in old]
    if max(sizes) > LARGEST:
        raise node.refuse(f"sizes {sizes} are too large")
    if min(sizes) < 1:
        raise node.refuse(f"sizes {sizes} leave nothing")
    return {
        axis: Axis(size=size, extent=extent, scale=scale, roi=region)
        for axis, size, extent, scale, region in zip(axes, old, sizes, scales, regions, strict=True)
    }


CROP = "tf_crop_and_resize"


def _floats(node: Node, number: int) -> Array:
    """An input that may be missing, or be there without elements."""
    if number >= len(node.inputs) or node.inputs[number] is None:
        return np.zeros(0)
    value = node.value(number)
    if value is None:
        raise node.refuse(f"input {number} must be constant")
    return value.astype(np.float64)


def _coordinates(node: Node, axis: Axis) -> tuple[Array, Array]:
    """Where each element of the result lies in the input, and whether that is outside a crop."""
    older = node.opset < ROI_OPSET or node.op == "Upsample"
    mode = node.attribute("coordinate_transformation_mode", "asymmetric" if older else "half_pixel")
    y = np.arange(axis.extent, dtype=np.float64)
    length, last = axis.scale * axis.size, axis.size - 1
    inside = np.zeros(axis.extent, bool)
    if mode == "asymmetric":
        return y / axis.scale, inside
    if mode == "align_corners":
        return (y * last / (length - 1) if length != 1 else 0 * y), inside
    if mode == CROP:
        first, end = axis.roi
        span = (end - first) * last
        x = first * last + (y * span / (axis.extent - 1) if axis.extent > 1 else 0 * y + span / 2)
        return x, (x < 0) | (x > last)
    if mode == "pytorch_half_pixel" and axis.extent == 1:
        return 0 * y - 0.5, inside
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (y + 0.5) / axis.scale - 0.5, inside
    if mode == "half_pixel_symmetric":
        offset = axis.size / 2 * (1 - axis.extent / length)
        return offset + (y + 0.5) / axis.scale - 0.5, inside
    raise node.refuse(f"coordinate_transformation_mode '{mode}'")


def _shares(node: Node, mode: str, axis: Axis, centres: Array) -> tuple[Array, Array]:
    """The elements around each coordinate, and their shares: wider where an image shrinks smoothly."""
    if mode == "nearest":
        rounded = ROUND[_rounding(node)](centres)[:, None]
        return np.clip(rounded, 0, axis.size - 1), np.ones_like(rounded)
    kernels = {"linear": (1, _triangle), "cubic": (2, _keys(node.attribute("cubic_coeff_a", -0.75)))}
    if mode not in kernels:
        raise node.refuse(f"mode '{mode}'")
    radius, weigh = kernels[mode]
    narrow = min(axis.scale, 1.0) if node.attribute("antialias", 0) else 1.0
    first = int(np.floor(-radius / narrow)) + 1
    places = np.ceil(centres)[:, None] - 1 + np.arange(first, 2 - first)
    shares = weigh(np.abs(places - centres[:, None]) * narrow)
    if node.attribute("exclude_outside", 0):
        shares = np.where((places < 0) | (places >= axis.size), 0.0, shares)
    return np.clip(places, 0, axis.size - 1), shares / shares.sum(axis=1, keepdims=True)


def _triangle(distance: Array) -> Array:
    return np.clip(1.0 - distance, 0.0, 1.0)


def _keys(a: float) -> Callable[[Array], Array]:
    def weigh(d: Array) -> Array:
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((d - 5) * d + 8) * a * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))  # noqa: PLR2004 - its radius

    return weigh


ONNX = {"Resize": _resize, "Upsample": _resize}
