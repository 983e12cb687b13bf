"""Elements as NumPy and as a target's memory hold them, for every element type."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels.program import ElementType

Array: TypeAlias = NDArray[Any]
Order: TypeAlias = Literal["<", ">"]
"""Byte order, least or most significant byte first."""

OWN_TYPES = {ElementType.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}
"""What NumPy does not know by itself."""


def numpy_type(dtype: ElementType) -> np.dtype[Any]:
    """NumPy's type of an element."""
    return OWN_TYPES.get(dtype) or np.dtype(dtype.value)


def element_of(dtype: np.dtype[Any]) -> ElementType | None:
    """The element type of an array's; None if there is none."""
    return ElementType(dtype.name) if dtype.name in set(ElementType) else None


def to_bytes(array: Array, order: Order) -> bytes:
    """The elements, in rows, in a byte order."""
    bits = np.ascontiguousarray(array).view(f"u{array.itemsize}")
    return bits.astype(f"{order}u{array.itemsize}", copy=False).tobytes()


def from_bytes(raw: bytes, dtype: ElementType, order: Order) -> Array:
    """The elements that bytes of a byte order hold, one after the other; ValueError for part of one."""
    bits = np.frombuffer(raw, dtype=f"{order}u{dtype.bytes}")
    return bits.astype(f"u{dtype.bytes}").view(numpy_type(dtype))
