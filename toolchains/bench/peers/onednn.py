"""oneDNN through its C interface (version 3): weights in the layout that it asks for."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from kernels.errors import EngineError
from kernels.operators.window import WindowAttributes
from kernels.plan import Kernel
from toolchains.bench.harness import Array, Call, Contestant, address, aligned
from toolchains.bench.peers.base import GROUP, PACKAGES, Arrays, Fused, fused, open_library

# dnnl_types.h and dnnl_common_types.h
CPU, IN_ORDER, FLOAT32, ANY, INFERENCE = 1, 1, 3, 1, 96
CONVOLUTION = {"direct": 0x1, "winograd": 0x2}
MAX_POOLING, SOFTMAX_ACCURATE, RELU, CLIP = 0x1FF, 0x30000, 0x20, 0x2F
SOURCE, WEIGHTS, BIAS, SCALE, SHIFT, TARGET, WORKSPACE, SCRATCHPAD = 1, 33, 41, 51, 52, 17, 64, 80
USE_SCALE, USE_SHIFT = 2, 4
QUERY_WEIGHTS, QUERY_SCRATCHPAD = 131, 136
SCRATCHPAD_USER = 1
DIMENSIONS = 12


class _Argument(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_int), ("memory", ctypes.c_void_p))


def _dims(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * DIMENSIONS)(*values)


class Onednn:
    """Products, convolutions, pooling, softmax and layer normalisation."""

    name, title = "onednn-packed", "oneDNN, packed"

    def __init__(self) -> None:
        """Open the library, and make an engine and a stream."""
        self._library = open_library(PACKAGES / "libdnnl.so.3", "libdnnl.so.3", get=GROUP)
        self._engine, self._stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._do("engine_create", ctypes.byref(self._engine), CPU, ctypes.c_size_t(0))
        self._do("stream_create", ctypes.byref(self._stream), self._engine, IN_ORDER)

    def _do(self, what: str, *arguments: Any) -> None:
        status = getattr(self._library, f"dnnl_{what}")(*arguments)
        if status != 0:
            raise EngineError(f"oneDNN: {what} ended with status {status}")

    def contestants(self, kernel: Kernel, arrays: Arrays) -> list[Contestant]:
        """One primitive for the kernel, if there is one; convolutions also by Winograd's way."""
        after = fused(kernel, arrays)
        if after is None:
            return []
        made = {
            "gemm": self._product,
            "conv2d": self._convolutions,
            "depthwise_conv2d": self._convolutions,
            "max_pool": self._pool,
            "softmax": self._softmax,
            "layer_norm": self._layer_norm,
        }.get(kernel.kind)
        return made(kernel, arrays, after) if made else []

    def _convolutions(self, kernel: Kernel, arrays: Arrays, after: Fused) -> list[Contestant]:
        found = [self._convolution(kernel, arrays, after, CONVOLUTION["direct"])]
        with contextlib.suppress(EngineError):
            found.append(self._convolution(kernel, arrays, after, CONVOLUTION["winograd"]))
        return found

    # -- descriptions and memory -----------------------------------------------------

    def _plain(self, dims: Sequence[int], axes: Sequence[int] | None = None) -> ctypes.c_void_p:
        """A description of dense memory; `axes` is the order in which they lie, slowest first."""
        strides = [0] * len(dims)
        step = 1
        for axis in reversed(axes or range(len(dims))):
            strides[axis] = step
            step *= dims[axis]
        made = ctypes.c_void_p()
        self._do(
            "memory_desc_create_with_strides",
            ctypes.byref(made),
            len(dims),
            _dims(dims),
            FLOAT32,
            _dims(strides),
        )
        return made

    def _free(self, dims: Sequence[int]) -> ctypes.c_void_p:
        """A description whose layout oneDNN chooses."""
        made = ctypes.c_void_p()
        self._do("memory_desc_create_with_tag", ctypes.byref(made), len(dims), _dims(dims), FLOAT32, ANY)
        return made

    def _memory(self, description: ctypes.c_void_p, array: Array) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._do(
            "memory_create",
            ctypes.byref(made),
            description,
            self._engine,
            ctypes.c_void_p(array.ctypes.data),
        )
        return made

    def _attributes(self, after: Fused | None) -> ctypes.c_void_p:
        made, steps = ctypes.c_void_p(), ctypes.c_void_p()
        self._do("primitive_attr_create", ctypes.byref(made))
        self._do("primitive_attr_set_scratchpad_mode", made, SCRATCHPAD_USER)
        if after is None:
            return made
        self._do("post_ops_create", ctypes.byref(steps))
        one = ctypes.c_float(1.0)
        if after.residual is not None:
            self._do("post_ops_append_sum", steps, one, 0, FLOAT32)
        if after.clamp and np.isinf(after.most):
            self._do("post_ops_append_eltwise", steps, RELU, ctypes.c_float(0.0), ctypes.c_float(0.0))
        elif after.clamp:
            self._do(
                "post_ops_append_eltwise", steps, CLIP, ctypes.c_float(0.0), ctypes.c_float(after.most)
            )
        self._do("primitive_attr_set_post_ops", made, steps)
        return made

    def _query(self, primitive: ctypes.c_void_p, what: int) -> ctypes.c_void_p:
        query = self._library.dnnl_primitive_desc_query_md
        query.restype = ctypes.c_void_p
        return ctypes.c_void_p(query(primitive, what, 0))

    def _bytes(self, description: ctypes.c_void_p) -> int:
        size = self._library.dnnl_memory_desc_get_size
        size.restype = ctypes.c_size_t
        return int(size(description))

    def _execute(
        self, primitive: ctypes.c_void_p, arguments: dict[int, ctypes.c_void_p]
    ) -> tuple[Call, Any]:
        table = (_Argument * len(arguments))(*(_Argument(key, memory) for key, memory in arguments.items()))
        made = ctypes.c_void_p()
        self._do("primitive_create", ctypes.byref(made), primitive)
        call = Call(
            function=address(self._library.dnnl_primitive_execute),
            integers=(
                int(made.value or 0),
                int(self._stream.value or 0),
                len(arguments),
                ctypes.addressof(table),
            ),
        )
        return call, table

    def _contestant(
        self, primitive: ctypes.c_void_p, arguments: dict[int, ctypes.c_void_p], output: Array, alive: Any
    ) -> Contestant:
        description = self._query(primitive, QUERY_SCRATCHPAD)
        scratch = aligned(np.zeros(self._bytes(description) // 4 + 16, dtype=np.float32))
        call, table = self._execute(primitive, arguments | {SCRATCHPAD: self._memory(description, scratch)})
        return Contestant(
            name=self.name, calls=[call], output=output, alive=(table, scratch, output, alive)
        )

    def _reordered(
        self, primitive: ctypes.c_void_p, plain: ctypes.c_void_p, array: Array
    ) -> tuple[Any, Array]:
        """The weights in the layout that the primitive chose."""
        wanted = self._query(primitive, QUERY_WEIGHTS)
        packed = aligned(np.zeros(self._bytes(wanted) // 4 + 16, dtype=np.float32))
        memory, source = self._memory(wanted, packed), self._memory(plain, array)
        reorder = ctypes.c_void_p()
        self._do(
            "reorder_primitive_desc_create",
            ctypes.byref(reorder),
            plain,
            self._engine,
            wanted,
            self._engine,
            None,
        )
        made = ctypes.c_void_p()
        self._do("primitive_create", ctypes.byref(made), reorder)
        table = (_Argument * 2)(_Argument(SOURCE, source), _Argument(TARGET, memory))
        self._do("primitive_execute", made, self._stream, 2, table)
        self._do("stream_wait", self._stream)
        return memory, packed

    # -- primitives ------------------------------------------------------------------

    def _product(self, kernel: Kernel, arrays: Arrays, after: Fused) -> list[Contestant]:
        if kernel.attributes["transpose"] != "nn" or arrays["a"].ndim != 2 or after.residual is not None:  # noqa: PLR2004
            return []
        (m, k), n = arrays["a"].shape, kernel.output.shape[-1]
        a, b = aligned(arrays["a"]), aligned(arrays["b"])
        c = aligned(np.zeros((m, n), dtype=np.float32))
        source, target, plain = self._plain((m, k)), self._plain((m, n)), self._plain((k, n))
        bias = self._plain((1, n)) if after.bias is not None else None
        primitive = ctypes.c_void_p()
        self._do(
            "matmul_primitive_desc_create",
            ctypes.byref(primitive),
            self._engine,
            source,
            self._free((k, n)),
            bias,
            target,
            self._attributes(after),
        )
        weights, packed = self._reordered(primitive, plain, b)
        arguments = {SOURCE: self._memory(source, a), WEIGHTS: weights, TARGET: self._memory(target, c)}
        if after.bias is not None and bias is not None:
            arguments[BIAS] = self._memory(bias, after.bias)
        return [self._contestant(primitive, arguments, c, (a, packed, after))]

    def _convolution(self, kernel: Kernel, arrays: Arrays, after: Fused, algorithm: int) -> Contestant:
        window, source, target = self._image(kernel)
        depthwise = kernel.kind == "depthwise_conv2d"
        x, w = aligned(arrays["x"]), arrays["w"]
        groups = w.shape[0] if depthwise else int(kernel.attributes.get("groups", 1))  # type: ignore[arg-type]
        filters, height, width, channels = w.shape
        inner = (filters // groups, channels, height, width)
        dims = (groups, *inner) if groups > 1 else inner
        array = aligned(w.reshape(groups, filters // groups, height, width, channels))
        axes = (0, 1, 3, 4, 2) if groups > 1 else (0, 2, 3, 1)
        plain = self._plain(dims, axes)
        bias = self._plain((filters,)) if after.bias is not None else None
        top, left, bottom, right = window.padding or (0, 0, 0, 0)
        primitive = ctypes.c_void_p()
        self._do(
            "convolution_forward_primitive_desc_create",
            ctypes.byref(primitive),
            self._engine,
            INFERENCE,
            algorithm,
            source,
            self._free(dims),
            bias,
            target,
            _dims(window.stride or (1, 1)),
            _dims([each - 1 for each in window.dilation or (1, 1)]),
            _dims((top, left)),
            _dims((bottom, right)),
            self._attributes(after),
        )
        y = aligned(
            after.residual if after.residual is not None else np.zeros(kernel.output.shape, np.float32)
        )
        weights, packed = self._reordered(primitive, plain, array)
        arguments = {SOURCE: self._memory(source, x), WEIGHTS: weights, TARGET: self._memory(target, y)}
        if after.bias is not None and bias is not None:
            arguments[BIAS] = self._memory(bias, after.bias)
        made = self._contestant(primitive, arguments, y, (x, packed, after))
        made.before = after.residual
        return made

    def _image(self, kernel: Kernel) -> tuple[WindowAttributes, Any, Any]:
        """The window; descriptions of x and y, channels innermost."""
        window = msgspec.convert(
            {
                key: kernel.attributes[key]
                for key in WindowAttributes.__struct_fields__
                if key in kernel.attributes
            },
            WindowAttributes,
        )
        found = []
        for shape in (kernel.operand("x").shape, kernel.output.shape):
            batch, height, width, channels = shape
            found.append(self._plain((batch, channels, height, width), (0, 2, 3, 1)))
        return window, found[0], found[1]

    def _pool(self, kernel: Kernel, arrays: Arrays, after: Fused) -> list[Contestant]:
        window, source, target = self._image(kernel)
        x, y = aligned(arrays["x"]), aligned(np.zeros(kernel.output.shape, dtype=np.float32))
        top, left, bottom, right = window.padding or (0, 0, 0, 0)
        primitive = ctypes.c_void_p()
        self._do(
            "pooling_forward_primitive_desc_create",
            ctypes.byref(primitive),
            self._engine,
            INFERENCE,
            MAX_POOLING,
            source,
            target,
            _dims(window.stride or (1, 1)),
            _dims(window.kernel),
            _dims([each - 1 for each in window.dilation or (1, 1)]),
            _dims((top, left)),
            _dims((bottom, right)),
            self._attributes(after),
        )
        arguments = {SOURCE: self._memory(source, x), TARGET: self._memory(target, y)}
        return [self._contestant(primitive, arguments, y, x)]

    def _softmax(self, kernel: Kernel, arrays: Arrays, after: Fused) -> list[Contestant]:
        x, y = aligned(arrays["x"]), aligned(np.zeros(kernel.output.shape, dtype=np.float32))
        plain = self._plain(x.shape)
        axis = int(kernel.attributes.get("axis", -1)) % x.ndim  # type: ignore[arg-type]
        primitive = ctypes.c_void_p()
        self._do(
            "softmax_forward_primitive_desc_create",
            ctypes.byref(primitive),
            self._engine,
            INFERENCE,
            SOFTMAX_ACCURATE,
            plain,
            plain,
            axis,
            self._attributes(None),
        )
        arguments = {SOURCE: self._memory(plain, x), TARGET: self._memory(plain, y)}
        return [self._contestant(primitive, arguments, y, x)]

    def _layer_norm(self, kernel: Kernel, arrays: Arrays, after: Fused) -> list[Contestant]:
        x, y = aligned(arrays["x"]), aligned(np.zeros(kernel.output.shape, dtype=np.float32))
        scale, shift = (aligned(arrays[name]) for name in ("scale", "shift"))
        plain, vector, statistics = (
            self._plain(x.shape),
            self._plain(x.shape[-1:]),
            self._plain(x.shape[:-1]),
        )
        primitive = ctypes.c_void_p()
        self._do(
            "layer_normalization_forward_primitive_desc_create",
            ctypes.byref(primitive),
            self._engine,
            INFERENCE,
            plain,
            plain,
            statistics,
            ctypes.c_float(float(kernel.attributes["epsilon"])),  # type: ignore[arg-type]
            USE_SCALE | USE_SHIFT,
            self._attributes(None),
        )
        arguments = {
            SOURCE: self._memory(plain, x),
            TARGET: self._memory(plain, y),
            SCALE: self._memory(vector, scale),
            SHIFT: self._memory(vector, shift),
        }
        return [self._contestant(primitive, arguments, y, (x, scale, shift))]
