"""ONNX's Einsum: sums, transpositions and batched products, two operands at a time."""

from __future__ import annotations

from math import prod

from kernels.operators.binary import both
from kernels.operators.gemm import multiplied
from kernels.operators.node import Node, reshaped, transposed
from kernels.program import Tensor


def _einsum(node: Node) -> Tensor:
    """Operands are joined from the left; a label is summed over as soon as nobody needs it."""
    equation = str(node.attribute("equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation:
        raise node.refuse(f"an ellipsis in '{equation}'")
    if not arrow:
        right = "".join(sorted(label for label in set(left) - {","} if left.count(label) == 1))
    operands = [node.given(number) for number in range(len(node.inputs))]
    if len(terms) != len(operands) or any(len(set(t)) < len(t) for t in (*terms, right)):
        raise node.refuse(f"'{equation}' for {len(operands)} operands; a label may be once in each")
    if any(len(t) != len(x.shape) for t, x in zip(terms, operands, strict=True)) or set(right) - set(left):
        raise node.refuse(f"'{equation}' does not fit its operands")
    labels, total = terms[0], operands[0]
    for number, (other, x) in enumerate(zip(terms[1:], operands[1:], strict=True), 1):
        needed = set(right).union(*terms[number + 1 :])
        labels, total = _joined(node, (labels, total), (other, x), needed)
    labels, total = _summed(node, labels, total, set(right))
    return transposed(node, total, tuple(labels.index(label) for label in right))


def _summed(node: Node, labels: str, x: Tensor, needed: set[str]) -> tuple[str, Tensor]:
    """Without the axes that nobody needs."""
    axes = tuple(axis for axis, label in enumerate(labels) if label not in needed)
    if not axes:
        return labels, x
    y = node.call("reduce_sum", {"x": x}, {"axes": axes})
    kept = "".join(label for label in labels if label in needed)
    return kept, reshaped(node, y, tuple(x.shape[labels.index(label)] for label in kept))


def _joined(
    node: Node, first: tuple[str, Tensor], second: tuple[str, Tensor], needed: set[str]
) -> tuple[str, Tensor]:
    """A batch of products over the labels that both have and nobody else needs."""
    a_labels, a = _summed(node, *first, needed | set(second[0]))
    b_labels, b = _summed(node, *second, needed | set(first[0]))
    extents = dict(zip(b_labels, b.shape, strict=True)) | dict(zip(a_labels, a.shape, strict=True))
    if any(extents[label] != extent for label, extent in zip(b_labels, b.shape, strict=True)):
        raise node.refuse(f"operands of shapes {list(a.shape)} and {list(b.shape)} do not fit")
    shared = [label for label in a_labels if label in b_labels]
    batch = [label for label in shared if label in needed]
    inner = [label for label in shared if label not in needed]
    rows = [label for label in a_labels if label not in b_labels]
    columns = [label for label in b_labels if label not in a_labels]

    def arranged(x: Tensor, labels: str, *groups: list[str]) -> Tensor:
        order = tuple(labels.index(label) for group in groups for label in group)
        shape = tuple(prod(extents[label] for label in group) for group in groups)
        return reshaped(node, transposed(node, x, order), shape)

    left, right = arranged(a, a_labels, batch, rows, inner), arranged(b, b_labels, batch, inner, columns)
    y = multiplied(node, left, right) if inner else both(node, "mul", left, right)
    made = "".join([*batch, *rows, *columns])
    return made, reshaped(node, y, tuple(extents[label] for label in made))


ONNX = {"Einsum": _einsum}
