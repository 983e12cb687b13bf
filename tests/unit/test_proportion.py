"""What is large takes time and memory in proportion to its size."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kernels import graph
from kernels.codegen.driver import driver_text
from kernels.graph.fuse import MOST_STEPS
from kernels.graph.network import plan_network
from tests import networks
from tests.unit.test_bad_models import TARGET, most_memory, saved
from tests.unit.test_onnx import read

TIMES = 4
"""How much larger the larger of two models is."""
LESS_THAN_SQUARED = 9.0
"""What takes time in proportion takes 4 times as much for such a model; by pairs it would take 16."""


def in_proportion(of: Callable[[int], object], count: int) -> bool:
    """Whether `count` takes less of the processor than a square would, beside a fourth of it.

    Others at work on the machine make either longer, so that one of three comparisons is enough;
    what goes by pairs passes none.
    """

    def cost(number: int) -> float:
        begin = time.process_time()
        of(number)
        return time.process_time() - begin

    cost(count // TIMES)  # what is imported and cached comes first
    return any(cost(count) < LESS_THAN_SQUARED * cost(count // TIMES) for _ in range(3))


@pytest.mark.parametrize("kinds", [("Relu", "Sigmoid", "Neg"), ("Softmax", "Relu")])
@pytest.mark.parametrize("count", [6_000, pytest.param(200_000, marks=pytest.mark.everything)])
def test_many_nodes_take_time_in_proportion(count: int, kinds: tuple[str, ...], tmp_path: Path) -> None:
    def take(count: int) -> None:
        network = graph.optimise(read(chain(count, kinds, tmp_path)))
        assert len(network.program.operators) == count
        plan = plan_network(network, TARGET)
        assert len(plan.kernels) < 5
        assert max(len(kernel.epilogue) for kernel in plan.kernels) <= MOST_STEPS
        assert plan.network is not None
        text = driver_text("define i32 @stub() {\n}\n", plan, TARGET)
        assert text.count(" call ") > len(plan.network.calls) > count // (MOST_STEPS + 2)

    assert in_proportion(take, count)


@pytest.mark.parametrize("kinds", [("Relu", "Sigmoid", "Neg"), ("Softmax", "Relu")])
def test_many_nodes_take_memory_in_proportion(kinds: tuple[str, ...], tmp_path: Path) -> None:
    def held(count: int) -> int:
        path = chain(count, kinds, tmp_path)
        return most_memory(lambda: plan_network(graph.optimise(read(path)), TARGET))

    held(500)
    assert held(2000) < 1.5 * TIMES * held(500)


def chain(count: int, kinds: tuple[str, ...], folder: Path) -> Path:
    """A model of so many nodes, each of which reads the one before."""
    nodes = [
        helper.make_node(kinds[number % len(kinds)], [f"t{number}"], [f"t{number + 1}"])
        for number in range(count)
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_value_info(f"t{count}", TensorProto.FLOAT, (2, 3))],
        [numpy_helper.from_array(np.ones(1, np.float32), "unused")],
    )
    return saved(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder)


def test_many_tensors_that_live_at_once_take_time_in_proportion(tmp_path: Path) -> None:
    def take(count: int) -> None:
        nodes = [helper.make_node("Softmax", ["x"], [f"t{n}"], axis=n % 2) for n in range(count)]
        nodes.append(helper.make_node("MatMul", ["t0", "t1"], ["s1"]))
        nodes += [helper.make_node("MatMul", [f"s{n - 1}", f"t{n}"], [f"s{n}"]) for n in range(2, count)]
        path = saved(networks.model(nodes, {"x": (3, 3)}, [f"s{count - 1}"]), tmp_path)
        planned = plan_network(graph.optimise(read(path)), TARGET).network
        assert planned is not None
        assert planned.arena_bytes <= 1.1 * planned.live_bytes

    assert in_proportion(take, 3000)


def test_a_split_into_many_takes_time_in_proportion(tmp_path: Path) -> None:
    def take(count: int) -> None:
        names = [f"t{number}" for number in range(count)]
        nodes = [helper.make_node("Split", ["x"], names, axis=0), helper.make_node("Sum", names, ["y"])]
        path = saved(networks.model(nodes, {"x": (count, 3)}, ["y"]), tmp_path)
        assert len(graph.optimise(read(path)).program.operators) == 2 * count - 1

    assert in_proportion(take, 4000)
