"""XNNPACK's operators, created and set up beforehand, run without a thread pool."""

from __future__ import annotations

import ctypes
from typing import Any

import msgspec
import numpy as np

from kernels.errors import EngineError
from kernels.operators.window import WindowAttributes
from kernels.plan import Kernel
from toolchains.bench.harness import Array, Call, Contestant, address, aligned
from toolchains.bench.peers import debian
from toolchains.bench.peers.base import Arrays, Fused, fused
from toolchains.target import Target

DEPTHWISE = 1
"""XNN_FLAG_DEPTHWISE_CONVOLUTION (xnnpack.h)."""


def _size(value: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(value)


def _pointer(array: Array | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data if array is not None else None)


class Xnnpack:
    """Products, convolutions without a residual, pooling and softmax."""

    name, title = "xnnpack", "XNNPACK"

    def __init__(self, target: Target) -> None:
        """Open and initialise; EngineError where it does not know the processor."""
        self._library = debian.load(target, "XNNPACK", "libXNNPACK.so.0")
        if self._library.xnn_initialize(None) != 0:
            raise EngineError("XNNPACK does not run on this processor")

    def contestants(self, kernel: Kernel, arrays: Arrays) -> list[Contestant]:
        """One operator for the kernel, if there is one."""
        made = {
            "gemm": self._product,
            "conv2d": self._convolution,
            "depthwise_conv2d": self._convolution,
            "max_pool": self._pool,
            "softmax": self._softmax,
        }.get(kernel.kind)
        after = fused(kernel, arrays)
        if made is None or after is None or after.residual is not None:
            return []
        output = aligned(np.zeros(kernel.output.shape, dtype=np.float32))
        operator = ctypes.c_void_p()
        alive = made(kernel, arrays, after, operator, output)
        if alive is None:
            return []
        call = Call(
            function=address(self._library.xnn_run_operator), integers=(int(operator.value or 0), 0)
        )
        return [Contestant(name=self.name, calls=[call], output=output, alive=(operator, output, alive))]

    def _done(self, status: int, what: str) -> None:
        if status != 0:
            raise EngineError(f"XNNPACK: {what} ended with status {status}")

    def _product(self, kernel: Kernel, arrays: Arrays, after: Fused, made: Any, output: Array) -> Any:
        if kernel.attributes["transpose"] != "nn" or arrays["a"].ndim != 2:  # noqa: PLR2004 - a matrix
            return None
        (m, k), n = arrays["a"].shape, kernel.output.shape[-1]
        a, b = aligned(arrays["a"]), aligned(arrays["b"].T)
        least, most = _bounds(after)
        self._done(
            self._library.xnn_create_fully_connected_nc_f32(
                _size(k),
                _size(n),
                _size(k),
                _size(n),
                _pointer(b),
                _pointer(after.bias),
                least,
                most,
                0,
                ctypes.byref(made),
            ),
            "creating a product",
        )
        self._done(
            self._library.xnn_setup_fully_connected_nc_f32(
                made, _size(m), _pointer(a), _pointer(output), None
            ),
            "setting up a product",
        )
        return a, b, after

    def _convolution(self, kernel: Kernel, arrays: Arrays, after: Fused, made: Any, output: Array) -> Any:
        window = msgspec.convert(
            {
                key: kernel.attributes[key]
                for key in WindowAttributes.__struct_fields__
                if key in kernel.attributes
            },
            WindowAttributes,
        )
        x, w = aligned(arrays["x"]), arrays["w"]
        batch, height, width, channels = x.shape
        depthwise = kernel.kind == "depthwise_conv2d"
        groups = channels if depthwise else int(kernel.attributes.get("groups", 1))  # type: ignore[arg-type]
        filters = kernel.output.shape[-1]
        weights = aligned(np.moveaxis(w, 0, -1) if depthwise else w)
        top, left, bottom, right = window.padding or (0, 0, 0, 0)
        least, most = _bounds(after)
        self._done(
            self._library.xnn_create_convolution2d_nhwc_f32(
                top,
                right,
                bottom,
                left,
                *window.kernel,
                *(window.stride or (1, 1)),
                *(window.dilation or (1, 1)),
                groups,
                *map(_size, (channels // groups, filters // groups, channels, filters)),
                _pointer(weights),
                _pointer(after.bias),
                least,
                most,
                DEPTHWISE if depthwise else 0,
                ctypes.byref(made),
            ),
            "creating a convolution",
        )
        self._done(
            self._library.xnn_setup_convolution2d_nhwc_f32(
                made, _size(batch), _size(height), _size(width), _pointer(x), _pointer(output), None
            ),
            "setting up a convolution",
        )
        return x, weights, after

    def _pool(self, kernel: Kernel, arrays: Arrays, after: Fused, made: Any, output: Array) -> Any:
        window = msgspec.convert(
            {
                key: kernel.attributes[key]
                for key in WindowAttributes.__struct_fields__
                if key in kernel.attributes
            },
            WindowAttributes,
        )
        x = aligned(arrays["x"])
        batch, height, width, channels = x.shape
        top, left, bottom, right = window.padding or (0, 0, 0, 0)
        self._done(
            self._library.xnn_create_max_pooling2d_nhwc_f32(
                top,
                right,
                bottom,
                left,
                *window.kernel,
                *(window.stride or (1, 1)),
                *(window.dilation or (1, 1)),
                *map(_size, (channels, channels, channels)),
                *_bounds(after),
                0,
                ctypes.byref(made),
            ),
            "creating a pooling",
        )
        self._done(
            self._library.xnn_setup_max_pooling2d_nhwc_f32(
                made, _size(batch), _size(height), _size(width), _pointer(x), _pointer(output), None
            ),
            "setting up a pooling",
        )
        return x, after

    def _softmax(self, kernel: Kernel, arrays: Arrays, after: Fused, made: Any, output: Array) -> Any:
        if kernel.attributes.get("axis", -1) not in (-1, arrays["x"].ndim - 1):
            return None
        x = aligned(arrays["x"])
        channels = x.shape[-1]
        self._done(
            self._library.xnn_create_softmax_nc_f32(
                *map(_size, (channels, channels, channels)), 0, ctypes.byref(made)
            ),
            "creating a softmax",
        )
        self._done(
            self._library.xnn_setup_softmax_nc_f32(
                made, _size(x.size // channels), _pointer(x), _pointer(output), None
            ),
            "setting up a softmax",
        )
        return x, after


def _bounds(after: Fused) -> tuple[ctypes.c_float, ctypes.c_float]:
    least = 0.0 if after.clamp else float("-inf")
    return ctypes.c_float(least), ctypes.c_float(after.most)
