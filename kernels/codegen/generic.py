"""Kernels of nodes that no family of ours knows: TVM's importer says what they compute, loop by loop.

A node comes as an ONNX model of its own. Relax makes functions of loops over scalars of it, which are
put one after the other into one kernel of ours: what lies between them is in the arena, what a library
would be called for is written out, and no index that depends on data leaves its buffer. What that
cannot do is an InputError; nothing is left to TVM's runtime.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, relax, s_tir, tirx
from tvm.relax.frontend.onnx import from_onnx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from kernels.codegen.builder import Builder, scalar_of
from kernels.errors import InputError
from kernels.graph.memory import Block, arrange
from kernels.models.onnx_tail import decoded
from kernels.operators import elementary
from kernels.operators.binary import Pow
from kernels.plan import Kernel

MOST_CONSTANT = 64
"""Elements of a constant that TVM makes of a node: they are stored one by one."""
STACK_BYTES = 256
"""A local array that is larger lies in the arena."""
MOST_TOLD = 200
"""Characters of an error of TVM's, from its end."""
FURTHEST = 1 << 30
"""Floating-point numbers that become integers are cut to this: what is added then does not overflow."""
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ceil": elementary.ceil,
    "erf": elementary.erf,
    "exp": elementary.exp,
    "fabs": elementary.absolute,
    "floor": elementary.floor,
    "log": elementary.log,
    "nearbyint": elementary.round_even,
    "pow": lambda b, x, y: b.let(Pow().apply(b, None, x, y)),
    "sigmoid": elementary.sigmoid,
    "sqrt": lambda b, x: b.let(b.sqrt(x)),
    "tanh": elementary.tanh,
}
"""What would be a call of libm, and what computes it instead."""
PLAIN = {
    "address_of",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "buffer_data",
    "if_then_else",
    "isnan",
    "likely",
    "shift_left",
    "shift_right",
}
"""Other calls that LLVM makes instructions of."""
FIRST = (
    s_tir.transform.CanonicalizeLoop(),
    s_tir.transform.LowerInitBlock(),
    s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    s_tir.transform.ConvertBlocksToOpaque(),
    s_tir.transform.CompactBufferAllocation(),
    s_tir.transform.LowerMatchBuffer(),
    s_tir.transform.StmtSimplify(),
    s_tir.transform.LowerOpaqueBlock(),
)
"""Blocks become loops; indices have a number for each axis still."""
THEN = (
    tirx.transform.FlattenBuffer(),
    tirx.transform.NarrowDataType(32),
    tirx.transform.StmtSimplify(),
    tirx.transform.RemoveNoOp(),
    s_tir.transform.RewriteUnsafeSelect(),
)


def emit(b: Builder, kernel: Kernel) -> None:
    """Emit the body of a node's kernel, whose operands are x0, x1, ... and y."""
    try:
        _emit(b, kernel)
    except InputError:
        raise
    except Exception as error:  # TVM's share no base class
        told = " ".join(str(error).split())[-MOST_TOLD:]
        raise InputError(f"TVM cannot take the node: {told}") from error


def _emit(b: Builder, kernel: Kernel) -> None:
    model = decoded(str(kernel.attributes["model"]))
    flow = Flow([each.name for each in model.graph.input])
    flow.follow(_legalised(model))
    arena = Arena(flow, kernel)
    pointers = {name: buffer.data.data for name, buffer in b.buffers.items() if name != "arena"}
    for place, offset in arena.offsets.items():
        address = tirx.address_of(b.buffers["arena"].data[b.index(offset // 4)])
        pointers[place] = T.bind(address)
    for place, array in flow.constants.items():
        _store(array, pointers[place])
    for step in flow.steps:
        step.emit(b, pointers)


def _store(array: Any, pointer: Any) -> None:
    """Store a constant in the arena, element by element."""
    buffer = T.decl_buffer((array.size,), array.dtype.name, data=pointer)
    for number, value in enumerate(array.ravel().tolist()):
        T.buffer_store(buffer, tirx.const(value, array.dtype.name), [number])


def _legalised(model: Any) -> Any:
    """Functions of loops, and `main`, which calls them."""
    with contextlib.redirect_stdout(io.StringIO()):  # the importer prints what it thinks of a node
        module = from_onnx(model, keep_params_in_input=False)
    module = relax.transform.DecomposeOpsForInference()(module)
    module = relax.transform.LegalizeOps()(module)
    module = relax.transform.DeadCodeElimination()(module)
    module = tvm.transform.Sequential(FIRST)(module)
    bounded = {
        name: _bounded(function) if isinstance(function, tirx.PrimFunc) else function
        for name, function in module.functions.items()
    }
    return tvm.transform.Sequential(THEN)(tvm.IRModule(bounded))


# -- what is called, on what -----------------------------------------------------------


class Step:
    """One call: a function, the places that its parameters are, and its own large arrays."""

    def __init__(self, function: Any, places: list[str], number: int) -> None:
        """`places` are what its parameters are, in order; it is call `number` of its kernel."""
        self.function, self.places = _plain(s_tir.renew_defs(function)), places
        self.local: dict[str, int] = {}
        """Bytes of its arrays that lie in the arena, by place."""
        self._names: dict[Any, str] = {}

        def note(allocation: Any) -> None:
            size = _bytes(allocation.buffer)
            if size > STACK_BYTES:
                place = f"local {number}.{len(self.local)}"
                self.local[place] = size
                self._names[allocation.buffer] = place

        tvm_ffi.structural_walk(self.function.body, (tirx.AllocBuffer, note))

    def emit(self, b: Builder, pointers: Mapping[str, Any]) -> None:
        """Its loops, on these pointers."""
        given = {
            parameter.name: pointers[place]
            for parameter, place in zip(self.function.params, self.places, strict=True)
        }
        body = _written_out(b, self.function.body)

        def declared(statement: Any) -> Any:
            return tirx.DeclBuffer(statement.buffer, data=given[statement.data.args[0].name])

        def placed(statement: Any) -> Any:
            place = self._names.get(statement.buffer)
            return statement if place is None else tirx.DeclBuffer(statement.buffer, data=pointers[place])

        mapped = tvm_ffi.structural_map(body, ((tirx.DeclBuffer, declared), (tirx.AllocBuffer, placed)))
        T.add_to_parent(mapped)


def _plain(function: Any) -> Any:
    """The function in one thread, on buffers that begin where their pointers point."""
    zero = {parameter.ty.elem_offset for parameter in function.params}

    def variable(value: Any) -> Any:
        return tirx.const(0, str(value.ty.dtype)) if value in zero else value

    def loop(value: Any) -> Any:
        return tirx.For(value.loop_var, value.min, value.extent, tirx.ForKind.SERIAL, value.body)

    body = tvm_ffi.structural_map(
        function.body,
        ((tirx.Var, variable), (tirx.For, loop), (tirx.AttrStmt, lambda statement: statement.body)),
    )
    return function.with_body(body)


class Flow:
    """The calls of a Relax function, in order, and the bytes of what lies between them.

    `constants` are values that calls take, by place.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        """No calls yet, on inputs of these names."""
        self.steps: list[Step] = []
        self.between: dict[str, int] = {}
        self.constants: dict[str, Any] = {}
        self._inputs = inputs
        self._known: dict[Any, Any] = {}

    def follow(self, module: Any) -> None:
        """Take the calls of `main`; its result is the place y."""
        main = module["main"]
        self._known = dict(zip(main.params, self._inputs, strict=True))
        for block in main.body.blocks:
            for binding in block.bindings:
                self._known[binding.var] = self._value(module, binding.value)
        result = self._place(main.body.body)
        if result not in self.between:
            raise InputError("TVM gives an input or a constant as it is")
        del self.between[result]
        for step in self.steps:
            step.places = ["y" if place == result else place for place in step.places]

    def _value(self, module: Any, value: Any) -> Any:
        if isinstance(value, ir.Call):
            if value.op.name != "relax.call_tir" or len(value.args) != 2:  # noqa: PLR2004 - function, operands
                raise InputError(f"TVM leaves {value.op.name.removeprefix('relax.')} to its runtime")
            function, operands = value.args
            given = [self._place(operand) for operand in operands]
            many = isinstance(value.ty, relax.TupleType)
            made = [self._fresh(each) for each in (value.ty.fields if many else [value.ty])]
            self.steps.append(Step(module[function], given + made, len(self.steps)))
            return made if many else made[0]
        if isinstance(value, relax.TupleGetItem):
            return self._known[value.tuple_value][value.index]
        if isinstance(value, relax.Tuple):
            return [self._place(field) for field in value.fields]
        return self._place(value)

    def _place(self, value: Any) -> Any:
        if isinstance(value, ir.GenericConst):
            array = value.value.numpy()
            if array.size > MOST_CONSTANT:
                raise InputError(f"TVM makes a constant of {array.size} elements of the node")
            name = f"constant {len(self.constants)}"
            self.constants[name], self.between[name] = array, array.nbytes
            return name
        if value not in self._known:
            raise InputError(f"TVM makes {type(value).__name__} of the node, which is not supported")
        return self._known[value]

    def _fresh(self, kind: Any) -> str:
        shape = [int(extent) for extent in kind.shape]
        name = f"between {len(self.between)}"
        self.between[name] = max(1, prod(shape)) * _width(str(kind.dtype))
        return name


class Arena:
    """Where everything lies that is neither an input nor the output."""

    def __init__(self, flow: Flow, kernel: Kernel) -> None:
        """Arrange it by when it is live; InputError where the kernel's arena is too small."""
        lives: dict[str, list[int]] = {}
        for number, step in enumerate(flow.steps):
            for place in (*step.places, *step.local):
                lives.setdefault(place, [0] if place in flow.constants else []).append(number)
        sizes = dict(flow.between)
        for step in flow.steps:
            sizes |= step.local
        blocks = [
            Block(name=name, bytes=size, first=min(lives[name]), last=max(lives[name]))
            for name, size in sizes.items()
            if name in lives
        ]
        arrangement = arrange(blocks)
        if arrangement.bytes > kernel.arena_bytes:
            raise InputError(
                f"TVM needs {arrangement.bytes} bytes of scratch memory for the node, more than the "
                f"{kernel.arena_bytes} that are known ahead"
            )
        self.offsets = arrangement.offsets


# -- indices that depend on data -------------------------------------------------------


def _bounded(function: Any) -> Any:
    """The function with each index that is made of data cut to its axis, before axes become one."""
    loops = set()
    tvm_ffi.structural_walk(function.body, (tirx.For, lambda loop: loops.add(loop.loop_var)))

    def load(value: Any) -> Any:
        return tirx.BufferLoad(value.source, _indices(value.source, value.indices, loops))

    def store(statement: Any) -> Any:
        return tirx.BufferStore(
            statement.buffer, statement.value, _indices(statement.buffer, statement.indices, loops)
        )

    body = tvm_ffi.structural_map(function.body, ((ir.TensorLoad, load), (tirx.BufferStore, store)))
    return function.with_body(body)


def _indices(buffer: Any, indices: Sequence[Any], loops: set[Any]) -> list[Any]:
    pairs = zip(indices, buffer.ty.shape, strict=True)
    return [_cut(index, extent) if _depends(index, loops) else index for index, extent in pairs]


def _cut(index: Any, extent: Any) -> Any:
    kind = str(index.ty.dtype)
    last = tirx.const(int(extent) - 1, kind)
    return tirx.max(tirx.min(index, last), tirx.const(0, kind))


def _depends(index: Any, loops: set[Any]) -> bool:
    """Whether an index is made of more than the variables of loops."""
    found: list[Any] = []

    def variable(value: Any) -> None:
        if value not in loops:
            found.append(value)

    tvm_ffi.structural_walk(index, ((ir.TensorLoad, found.append), (tirx.Var, variable)))
    return bool(found)


# -- what LLVM would call a library for ------------------------------------------------


def _written_out(b: Builder, body: Any) -> Any:
    """Statements with the functions of FUNCTIONS, and what processors leave open, as plain arithmetic.

    An expression's functions are computed just before its statement, of elements that need not be
    there: so what they read is cut to its buffer.
    """
    rewriting = Rewriting(b)

    def store(statement: Any, _: Any) -> Any:
        return rewriting.around(
            (statement.value, *statement.indices),
            lambda value, *indices: tirx.BufferStore(statement.buffer, value, list(indices)),
        )

    def bind(statement: Any, _: Any) -> Any:
        return rewriting.around((statement.value,), lambda value: tirx.Bind(statement.var, value))

    def branch(statement: Any, mutator: Any) -> Any:
        then = mutator.mutate(statement.then_case)
        other = None if statement.else_case is None else mutator.mutate(statement.else_case)
        return rewriting.around(
            (statement.condition,), lambda condition: tirx.IfThenElse(condition, then, other)
        )

    written = tvm_ffi.structural_mutate(
        body, ((tirx.BufferStore, store), (tirx.Bind, bind), (tirx.IfThenElse, branch))
    )
    if rewriting.refused:
        raise InputError(f"TVM {rewriting.refused[0]}")
    return written


class Rewriting:
    """Expressions, rewritten; the values that they need first are emitted by the builder."""

    def __init__(self, b: Builder) -> None:
        """Rewriting into what `b` emits."""
        self._b = b
        self.refused: list[str] = []
        self._rules = (
            (ir.Call, self._call),
            (tirx.Cast, self._cast),
            (tirx.NE, self._differ),
            ((tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod), self._divide),
            (tirx.Let, self._let),
        )

    def around(self, values: Sequence[Any], statement: Callable[..., Any]) -> Any:
        """The statement on the rewritten values, behind what they need."""

        def emit() -> None:
            T.add_to_parent(statement(*(tvm_ffi.structural_map(value, self._rules) for value in values)))

        return _statements(emit)

    def _call(self, call: Any) -> Any:
        name = call.op.name.rpartition(".")[2]
        if name in PLAIN:
            return call
        if name not in FUNCTIONS:
            return self._refuse(call, f"leaves {name} to a library")
        if scalar_of(call) != "float32":
            return self._refuse(call, f"computes {name} in {scalar_of(call)}")
        return FUNCTIONS[name](self._b, *(self._ahead(argument) for argument in call.args))

    def _cast(self, cast: Any) -> Any:
        """Between integers as it is; a float to an integer is cut; to floats by what 32 bits can do."""
        b, value = self._b, cast.value
        wanted, given = scalar_of(cast), scalar_of(value)
        if "float64" in (wanted, given) or "float16" in (wanted, given):
            return self._refuse(cast, f"computes with {wanted} and {given}")
        if wanted == "float32" and given == "int64":
            return b.let(b.real(self._ahead(value)))
        if given != "float32" or wanted in ("float32", "bool"):
            return cast
        value = self._ahead(value)
        far, zero = b.like(float(FURTHEST), value), b.like(0.0, value)
        number = b.let(b.select(b.differ(value, value), zero, value))
        number = b.let(b.select(number > far, far, number))
        number = b.let(b.select(number < zero - far, zero - far, number))
        return tirx.Cast(wanted, b.cast(number, "int32"))

    def _differ(self, comparison: Any) -> Any:
        return self._b.differ(comparison.a, comparison.b)

    def _divide(self, division: Any) -> Any:
        """By an instruction, or by a constant of 32 bits, which LLVM multiplies instead.

        What was widened to 64 bits is divided before that, for its quotient is no wider.
        """
        kind, a, b = scalar_of(division), division.a, division.b
        if kind == "float32" or self._b.divides:
            return division
        narrow = isinstance(a, tirx.Cast) and scalar_of(a.value) == "int32"
        if kind == "int64" and narrow and isinstance(b, tirx.IntImm) and 0 < b.value < FURTHEST:
            return tirx.Cast(kind, type(division)(a.value, tirx.const(b.value, "int32")))
        if kind == "int64" or not isinstance(b, tirx.IntImm):
            return self._refuse(division, f"divides {kind}, for which 32-bit processors call a library")
        return division

    def _let(self, let: Any) -> Any:
        return self._refuse(let, "names parts of an expression")

    def _refuse(self, value: Any, why: str) -> Any:
        """Note why, and go on: an error that is raised here would have to pass through TVM."""
        self.refused.append(why)
        return value

    def _ahead(self, value: Any) -> Any:
        """A value computed before its statement, whatever condition it was under."""

        def load(access: Any) -> Any:
            pairs = zip(access.indices, access.source.ty.shape, strict=True)
            cut = [i if isinstance(i, tirx.IntImm) else _cut(i, extent) for i, extent in pairs]
            return tirx.BufferLoad(access.source, cut)

        return self._b.let(tvm_ffi.structural_map(value, (ir.TensorLoad, load)))


def _statements(emit: Callable[[], None]) -> Any:
    """What `emit` emits, as statements."""
    with IRBuilder() as built, T.prim_func(is_private=False, s_tir=False):
        T.func_name("part")
        emit()
    return built.get().body


def _bytes(buffer: Any) -> int:
    return prod(int(extent) for extent in buffer.ty.shape) * _width(str(buffer.ty.dtype))


def _width(dtype: str) -> int:
    """Bytes of an element by TVM's name of its type."""
    return 1 if dtype == "bool" else int(tvm.DataType(dtype).bits) // 8
