"""Plan: the kernels that a Program becomes on one target, with everything decided.

Made by `kernels.graph` without TVM, so that a build can tell from it what is cached.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

import msgspec

from kernels.program import Attribute, ElementType

ARENA_ALIGNMENT = 64
"""Alignment of the arena in bytes: a cache line, and the widest vector, of every target."""


Identifier = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""A name in C, and of a file: it never leads to another folder."""
Extent = Annotated[int, msgspec.Meta(ge=1)]
"""Of something that there is at least one of."""
Tuned = dict[str, int | str]
"""A schedule's parameters by name."""


class Packing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an operand is stored so that a kernel reads it front to back.

    The tensor's axes are permuted by `permute`, the result is read as a row-major matrix
    of `rows` x `columns`, and the matrix is cut into panels of `panel` columns (the last
    one narrower), each stored contiguously, row after row (Goto and Van de Geijn, ACM
    TOMS 34(3), 2008, section 4). Of several `groups`, each has its share of the columns
    and panels of its own.

    With `winograd` = m > 0 the permuted tensor [3, 3, rows, columns] is transformed for tiles
    of m x m results first (`kernels.winograd`), which makes (m + 2)^2 such matrices of it: first
    comes the first panel of each, in order.
    """

    permute: tuple[int, ...]
    rows: Extent
    columns: Extent
    panel: Extent
    groups: Extent
    winograd: Annotated[int, msgspec.Meta(ge=0, le=4, multiple_of=2)] = 0

    @property
    def elements(self) -> int:
        """Number of elements that are stored."""
        matrices = (self.winograd + 2) ** 2 if self.winograd else 1
        return matrices * self.rows * self.columns

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of that shape can be stored so."""
        taps = 9 if self.winograd else 1
        same = prod(shape) == taps * self.rows * self.columns and self.columns % self.groups == 0
        window = not self.winograd or tuple(shape[axis] for axis in self.permute[:2]) == (3, 3)
        return sorted(self.permute) == list(range(len(shape))) and same and window


class Operand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pointer in a kernel's signature. `role` is what the caller thinks of it."""

    name: Identifier
    role: str
    shape: tuple[int, ...]
    layout: str
    dtype: ElementType = ElementType.FLOAT32
    packing: Packing | None = None

    def __post_init__(self) -> None:
        """ValueError for a tensor that cannot be packed so."""
        if self.packing is not None and not self.packing.fits(self.shape):
            raise ValueError(f"'{self.name}' of shape {list(self.shape)} cannot be packed so")

    @property
    def elements(self) -> int:
        """Number of elements of the tensor."""
        return prod(self.shape)

    @property
    def stored(self) -> int:
        """Number of elements in memory, packed where it is packed."""
        return self.packing.elements if self.packing else self.elements

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.stored * self.dtype.bytes


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An element-wise operator fused into the epilogue; `operand` names its second input."""

    kind: str
    attributes: dict[str, Attribute] = {}
    operand: str = ""


class Kernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One C function with static shapes. `operands` are in the order of its signature.

    `in_place` names the one input, if any, whose buffer may be the output's own: the very
    same pointer. `record` names the record of tuning that the schedule is from, if it is from one.
    """

    name: Identifier
    symbol: Identifier
    kind: str
    attributes: dict[str, Attribute]
    epilogue: tuple[Step, ...]
    operands: tuple[Operand, ...]
    schedule: Tuned
    arena_bytes: int
    flops: int
    count: int = 1
    in_place: str = ""
    record: str = ""

    def operand(self, name: str) -> Operand:
        """The operand of that name; KeyError if there is none."""
        for operand in self.operands:
            if operand.name == name:
                return operand
        raise KeyError(name)

    def by_role(self, role: str) -> tuple[Operand, ...]:
        """Operands of one role, in order."""
        return tuple(operand for operand in self.operands if operand.role == role)

    @property
    def winograd(self) -> int:
        """The m of Winograd's F(m x m, 3 x 3) if the schedule chose it, else 0."""
        return int(self.schedule.get("m", 0))

    @property
    def output(self) -> Operand:
        """The operand that the kernel writes."""
        return self.by_role("output")[0]


WeightsMode = Literal["embed", "file", "symbol"]
"""Where a network's weights are: in the library, in a file beside it, or left to the linker."""


class Port(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input or output of a network: `name` is the model's own, `identifier` is C's."""

    name: str
    identifier: str
    shape: tuple[int, ...]
    layout: str
    dtype: ElementType = ElementType.FLOAT32

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.elements * self.dtype.bytes


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a pointer of a call points: to input or output `number`, or bytes into a block."""

    home: Literal["input", "output", "arena", "weights"]
    number: int = 0
    offset: int = 0


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of a kernel, for the model's node `node`.

    `places` and `tensors` (the network's own names) are in the order of the kernel's
    operands; `scratch` is the offset of the kernel's own memory in the arena, if it needs any.
    """

    node: str
    kernel: str
    tensors: tuple[str, ...]
    places: tuple[Place, ...]
    scratch: int | None = None


class Weight(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A constant in the network's weights, stored as operand `operand` of `kernel` wants it.

    `sha256` is that of the unpacked values, little-endian.
    """

    tensor: str
    kernel: str
    operand: str
    offset: int
    bytes: int
    sha256: str


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `<library>_run` does: calls in order over one arena and one block of weights.

    `live_bytes` is the largest sum of tensors that are live at once: no arena is smaller.
    `weights_layout` is the SHA-256 of how weights that are not in the library lie, in hexadecimal;
    its bytes are the last of theirs (`kernels.graph.weights`). It is empty where they are in it.
    `dims` are the program's.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    calls: tuple[Call, ...]
    arena_bytes: int
    live_bytes: int
    weights: tuple[Weight, ...]
    weights_bytes: int
    weights_mode: WeightsMode = "embed"
    weights_layout: str = ""
    dims: dict[str, int] = {}


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All kernels of one library for one target, and how a network calls them, if it is one."""

    library: Identifier
    target: str
    source: str
    kernels: tuple[Kernel, ...]
    network: NetworkPlan | None = None

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name; KeyError if there is none."""
        for kernel in self.kernels:
            if kernel.name == name:
                return kernel
        raise KeyError(name)
