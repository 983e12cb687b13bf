"""Plans of networks, run by an interpreter of their calls over real bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import check, whole
from kernels.errors import InputError
from kernels.graph.lifetimes import Pending, blocks_of
from kernels.graph.network import plan_network
from kernels.graph.storage import store
from kernels.graph.weights import packed_weights
from kernels.names import members
from kernels.pack import unpack
from kernels.plan import Operand, Place, Plan
from kernels.program import Network, Role
from tests.sketches import Sketch, branching
from toolchains.target import Target, all_targets, find_target

TARGET = find_target("riscv64")


def interpret(plan: Plan, network: Network, inputs: dict[str, Any], target: Target) -> dict[str, Any]:
    """The outputs of the planned calls: references in float64, on float32 bytes in the target's order."""
    planned = plan.network
    assert planned is not None
    weights = np.frombuffer(b"".join(packed_weights(plan, network, target.byte_order)), np.uint8)
    assert weights.size == planned.weights_bytes
    blocks = {
        "arena": [np.full(planned.arena_bytes, 0xFF, np.uint8)],
        "weights": [weights],
        "input": [
            inputs[port.name].astype(f"{target.byte_order}f4").ravel().view(np.uint8)
            for port in planned.inputs
        ],
        "output": [np.full(port.bytes, 0xFF, np.uint8) for port in planned.outputs],
    }

    def bytes_at(place: Place, operand: Operand) -> Any:
        block = blocks[place.home][place.number]
        assert place.offset + operand.bytes <= block.size
        return block[place.offset : place.offset + operand.bytes]

    for call in planned.calls:
        kernel = plan.kernel(call.kernel)
        arrays = {}
        for place, operand in zip(call.places, kernel.operands, strict=True):
            if operand.role == "output":
                break
            flat = bytes_at(place, operand).copy().view(f"{target.byte_order}f4").astype(np.float32)
            packing = operand.packing
            arrays[operand.name] = (
                unpack(flat, packing, operand.shape) if packing else flat.reshape(operand.shape)
            )
        if call.scratch is not None:
            assert call.scratch + kernel.arena_bytes <= planned.arena_bytes
            blocks["arena"][0][call.scratch : call.scratch + kernel.arena_bytes] = 0xFF
        written = (
            check.reference(kernel, arrays).value.astype(f"{target.byte_order}f4").ravel().view(np.uint8)
        )
        bytes_at(call.places[-1], kernel.output)[:] = written
    return {
        port.name: block.view(f"{target.byte_order}f4").reshape(port.shape)
        for port, block in zip(planned.outputs, blocks["output"], strict=True)
    }


def agrees(network: Network, target: Target = TARGET) -> Plan:
    """The plan of the network, which computes what its operators do one after the other."""
    plan = plan_network(network, target)
    expected = whole.compose(network)
    for name, found in interpret(plan, network, expected.inputs, target).items():
        np.testing.assert_allclose(found, expected.outputs[name], rtol=1e-4, atol=1e-4)
    assert plan_network(network, target) == plan
    return plan


@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.name)
def test_the_calls_of_a_plan_compute_the_network(target: Target) -> None:
    plan = agrees(branching(), target)
    planned = plan.network
    assert planned is not None
    assert planned.arena_bytes <= 1.1 * planned.live_bytes
    assert {kernel.name: kernel.count for kernel in plan.kernels if kernel.count > 1} == {"one": 2}
    assert len(planned.calls) == len(plan.kernels) + 1
    assert [port.identifier for port in planned.inputs] == ["image_0", "extra"]
    assert all(entry.offset % 64 == 0 for entry in planned.weights)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Operators that move and add up matrices of one size, in any order, with several outputs."""
    s = Sketch("random")
    values = [s.input("x0", 4, 6), s.input("x1", 4, 6), s.constant("k", 4, 6)]
    constants = 0
    for number in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["relu", "add", "concat", "flat", "gemm", "transpose", "rows", "tall"]))
        a = draw(st.sampled_from(values))
        b = draw(st.sampled_from(values))
        name = f"{kind} {number}"
        if kind == "flat":
            values.append(s.reshape(f"{name}b", s.reshape(name, a, 24), 4, 6))
        elif kind == "relu":
            values.append(s.operator(name, "relu", {"x": a}, inputs={"x": [4, 6]}))
        elif kind == "add":
            values.append(s.operator(name, "add", {"a": a, "b": b}, inputs={"a": [4, 6], "b": [4, 6]}))
        elif kind == "concat":
            both = s.operator(name, "concat", {"x0": a, "x1": b}, inputs=[[4, 6], [4, 6]])
            ends = {"starts": [0, 2], "ends": [4, 8]}
            values.append(
                s.operator(f"{name}s", "slice", {"x": both}, inputs={"x": [4, 12]}, attributes=ends)
            )
        elif kind == "rows":
            first = draw(st.integers(0, 2))
            part = s.part(name, a, (first, first + 2), (0, 6))
            cell = s.part(f"{name}c", part, (1, 2), (2, 5))
            row = s.operator(f"{name}j", "concat", {"x0": cell, "x1": cell}, inputs=[[1, 3]] * 2)
            rest = s.part(f"{name}r", b, (0, 1), (0, 6))
            parts = {"x0": part, "x1": row, "x2": rest}
            shapes = [[2, 6], [1, 6], [1, 6]]
            values.append(s.operator(f"{name}a", "concat", parts, inputs=shapes, attributes={"axis": 0}))
        elif kind == "tall":
            both = s.operator(
                name, "concat", {"x0": a, "x1": b}, inputs=[[4, 6]] * 2, attributes={"axis": 0}
            )
            first = draw(st.integers(0, 4))
            values.append(s.part(f"{name}p", both, (first, first + 4), (0, 6)))
        elif kind == "transpose":
            turned = s.operator(
                name, "transpose", {"x": a}, inputs={"x": [4, 6]}, attributes={"permute": [1, 0]}
            )
            values.append(s.reshape(f"{name}r", turned, 4, 6))
        else:
            constants += 1
            w = s.constant(f"w{constants}", 6, 6)
            values.append(
                s.operator(name, "gemm", {"a": a, "b": w}, group=f"g{number}", m=4, n=6, k=6, weights=["b"])
            )
    made = values[3:]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True)) if made else []
    if not outputs:
        outputs = [
            s.operator("last", "add", {"a": values[-1], "b": "x0"}, inputs={"a": [4, 6], "b": [4, 6]})
        ]
    return s.network(**{f"y{number}": value for number, value in enumerate(outputs)})


@given(networks())
@settings(max_examples=150, deadline=None)
def test_random_networks_keep_every_tensor_until_its_last_reader(network: Network) -> None:
    agrees(network)


def test_an_output_is_written_where_it_belongs_through_a_reshape() -> None:
    s = Sketch("t")
    y = s.operator("relu", "relu", {"x": s.input("x", 2, 3)}, inputs={"x": [2, 3]})
    plan = agrees(s.network(y=s.reshape("flat", y, 6)))
    assert plan.network is not None
    assert plan.network.arena_bytes == 0
    assert [call.places[-1].home for call in plan.network.calls] == ["output"]


def test_parts_whose_elements_lie_together_stay_where_they_are() -> None:
    """Rows of an input and of a result, and a piece of a row; but not a part of each row."""
    s = Sketch("t")
    x = s.input("x", 40, 64)
    y = s.operator("relu", "relu", {"x": x}, inputs={"x": [40, 64]})
    row = s.part("row", y, (3, 4), (0, 64))
    piece = s.part("piece", row, (0, 1), (8, 16))
    own = s.part("own", x, (5, 6), (16, 24))
    added = s.operator("add", "add", {"a": piece, "b": own}, inputs={"a": [1, 8], "b": [1, 8]})
    columns = s.part("columns", y, (0, 40), (2, 10))
    total = s.operator("total", "add", {"a": columns, "b": added}, inputs={"a": [40, 8], "b": [1, 8]})
    late = s.part("late", y, (7, 8), (0, 8))
    flat = s.reshape("flat", s.part("first", s.input("z", 2, 4), (1, 2), (0, 4)), 4)
    last = s.operator("last", "add", {"a": total, "b": late}, inputs={"a": [40, 8], "b": [1, 8]})
    plan = agrees(s.network(y=last, f=flat))
    assert plan.network is not None
    assert [call.kernel for call in plan.network.calls] == [
        "relu",
        "add",
        "columns",
        "total",
        "late",
        "flat",
        "total",
    ]
    (add,) = (call for call in plan.network.calls if call.kernel == "add")
    assert add.places[1] == Place(home="input", number=0, offset=4 * (5 * 64 + 16))
    assert add.places[0].offset % 64 == 4 * 8


def test_a_large_tensor_is_not_kept_for_a_part_that_is_needed_longer() -> None:
    """Through a reshape too."""
    s = Sketch("t")
    x = s.operator("relu", "relu", {"x": s.input("x", 64, 64)}, inputs={"x": [64, 64]})
    row = s.reshape("row", s.part("first", x, (0, 1), (0, 64)), 64)
    y = s.operator("all", "reduce_sum", {"x": x}, inputs={"x": [64, 64]}, attributes={"axes": [0]})
    large = s.operator("wide", "concat", {"x0": y, "x1": y}, inputs=[[1, 64]] * 2, attributes={"axis": 0})
    z = s.operator("sum", "add", {"a": large, "b": row}, inputs={"a": [2, 64], "b": [64]})
    plan = agrees(s.network(z=z))
    assert "first" in [call.kernel for call in plan.network.calls] if plan.network else False


def test_what_is_left_of_a_tensor_is_not_overwritten() -> None:
    """A function of its last row could be in place there; but not where the whole is due again."""
    s = Sketch("t")
    y = s.operator("relu", "relu", {"x": s.input("x", 4, 6)}, inputs={"x": [4, 6]})
    row = s.part("row", y, (3, 4), (0, 6))
    z = s.operator("twice", "add", {"a": row, "b": row}, inputs={"a": [1, 6], "b": [1, 6]})
    w = s.operator("other", "negative", {"x": row}, inputs={"x": [1, 6]})
    agrees(s.network(a=s.operator("sum", "add", {"a": y, "b": z}, inputs={"a": [4, 6], "b": [1, 6]}), b=w))


def test_equal_constants_are_stored_once() -> None:
    s = Sketch("t")
    x = s.input("x", 4, 6)
    values = np.arange(36, dtype=np.float32).reshape(6, 6)
    for number in range(3):
        w = s.value(f"w{number}", values if number < 2 else values.T.copy())
        x = s.operator(f"fc{number}", "gemm", {"a": x, "b": w}, m=4, n=6, k=6)
    plan = agrees(s.network(y=x))
    assert plan.network is not None
    assert len(plan.kernels) == 1
    assert [entry.tensor for entry in plan.network.weights] == ["w0", "w2"]
    assert [call.places[1].offset for call in plan.network.calls] == [0, 0, 192]


def test_a_group_is_called_when_its_last_operand_is_there() -> None:
    s = Sketch("t")
    x = s.input("x", 4, 6)
    y = s.operator("fc", "gemm", {"a": x, "b": s.constant("w", 6, 6)}, group="fc", m=4, n=6, k=6)
    late = s.operator("late", "relu", {"x": x}, inputs={"x": [4, 6]})
    plan = agrees(s.network(y=s.fuse("fc+", "add", y, late, group="fc")))
    assert plan.network is not None
    assert [call.kernel for call in plan.network.calls] == ["late", "fc"]


def test_limits_and_names_that_collide_are_refused() -> None:
    with pytest.raises(InputError, match="arena of 10432 bytes, over the limit of 10000"):
        plan_network(branching(), TARGET, max_arena=10_000)
    assert plan_network(branching(), TARGET, max_arena=10_432).network is not None
    s = Sketch("t")
    y = s.operator(
        "add",
        "add",
        {"a": s.input("x/1", 2), "b": s.input("x.1", 2)},
        inputs={"a": [2], "b": [2]},
    )
    with pytest.raises(InputError, match=r"inputs 'x/1' and 'x\.1' would both be 'x_1' in C"):
        plan_network(s.network(y=y), TARGET)


def test_weights_that_are_computed_are_packed_in_the_arena() -> None:
    s = Sketch("t")
    x = s.input("x", 1, 4, 4, 2, layout="NHWC")
    w = s.tensor("w", (3, 1, 1, 2), Role.INPUT)
    attributes = {"filters": 3, "kernel": [1, 1]}
    y = s.operator("conv", "conv2d", {"x": x, "w": w}, inputs={"x": [1, 4, 4, 2]}, attributes=attributes)
    (kernel,) = plan_network(s.network(y=y), TARGET).kernels
    assert kernel.operand("w").packing is None
    assert kernel.arena_bytes == 4 * 3 * 2


def test_names_of_tensors_become_members() -> None:
    given = {"data_0": "data_0", "x:0": "x_0", "0": "n0", "_y": "y", "float": "float_", "é": "x"}
    assert members(list(given), "the inputs") == given
    long = "/".join(["StatefulPartitionedCall"] * 9)
    assert members([f"{long}/1", f"{long}/2"], "the inputs")[f"{long}/2"].endswith("Call_2")


def test_kernels_never_take_the_networks_own_symbols() -> None:
    s = Sketch("t")
    x = s.input("x", 4)
    for name in ("run", "Weights", "relu", "RELU"):
        kind = {"run": "relu", "Weights": "exp", "relu": "tanh", "RELU": "erf"}[name]
        x = s.operator(name, kind, {"x": x}, inputs={"x": [4]})
    names = [kernel.name for kernel in plan_network(s.network(y=x), TARGET).kernels]
    assert names == ["run_2", "Weights_2", "relu", "RELU_2"]


def test_plans_of_networks_are_written_and_read() -> None:
    plan = plan_network(branching(), TARGET)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_an_output_takes_over_an_input_that_dies_where_the_kernel_says_so() -> None:
    s = Sketch("t")
    x = s.operator("first", "relu", {"x": s.input("x", 4)}, inputs={"x": [4]})
    y = s.operator("second", "relu", {"x": x}, inputs={"x": [4]})
    both = s.operator("both", "add", {"a": x, "b": y}, inputs={"a": [4], "b": [4]})
    twice = s.operator("twice", "add", {"a": both, "b": both}, inputs={"a": [4], "b": [4]})
    last = s.operator("last", "relu", {"x": twice}, inputs={"x": [4]})
    program = s.network(out=last).program
    kernels = {
        "relu": {"in_place": "x", "operands": ("x", "y")},
        "add": {"in_place": "b", "operands": ("a", "b", "y")},
    }

    def kernel(kind: str) -> Any:
        operands = [SimpleNamespace(name=name) for name in kernels[kind]["operands"]]
        return SimpleNamespace(in_place=kernels[kind]["in_place"], operands=operands, arena_bytes=0)

    calls = [
        Pending(node=each.name, kernel=kernel(each.kind), tensors=(*each.inputs, *each.outputs))
        for each in program.operators
    ]
    blocks, shared = blocks_of(program, store(program), calls)
    assert shared == {x: x, y: y, both: y, twice: twice}
    lives = {block.name: (block.first, block.last) for block in blocks}
    assert lives == {x: (0, 2), y: (1, 3), twice: (3, 4)}
