"""Listings: what is accepted, and that each fault is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels.errors import InputError, UsageError
from kernels.graph.planning import plan
from kernels.models import catalog, find_model, read_model
from kernels.program import Role
from toolchains.target import find_target

HEAD = 'name = "t"\nsource = "test"\n\n'


def write(folder: Path, body: str, head: str = HEAD) -> Path:
    """A listing in a file."""
    path = folder / "t.toml"
    path.write_text(head + body, encoding="utf-8")
    return path


def gemm(**changes: str) -> str:
    """A [[kernel]] of a matrix product, with some keys changed or added."""
    keys = {"name": '"g"', "op": '"gemm"', "m": "2", "n": "3", "k": "4"} | changes
    return "[[kernel]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def conv(attributes: str, x: str = "[1, 8, 8, 3]") -> str:
    """A [[kernel]] of a convolution."""
    return (
        f'[[kernel]]\nname = "c"\nop = "conv2d"\ninputs = {{ x = {x} }}\nattributes = {{ {attributes} }}\n'
    )


@pytest.mark.parametrize("name", catalog())
def test_the_catalogue_can_be_read(name: str) -> None:
    program = read_model(catalog()[name])
    assert program.name == name
    assert program.source
    assert plan(program, find_target("riscv64")).kernels


def test_resnet50_has_its_published_number_of_operations() -> None:
    planned = plan(read_model(catalog()["resnet50"]), find_target("x86_64"))
    products = [k for k in planned.kernels if k.kind in ("conv2d", "gemm")]
    assert sum(kernel.count for kernel in products) == 54
    fused = sum(len(k.epilogue) * k.output.elements * k.count for k in products)
    multiply_adds = (sum(kernel.flops * kernel.count for kernel in products) - fused) / 2
    assert multiply_adds == pytest.approx(4.1e9, rel=0.01)  # torchvision's v1.5: 4.09 GMAC


@pytest.mark.parametrize(("name", "gigaflops"), [("mobilenet_v1", 0.569), ("mobilenet_v2", 0.300)])
def test_mobilenets_have_their_published_number_of_multiply_adds(name: str, gigaflops: float) -> None:
    planned = plan(read_model(catalog()[name]), find_target("x86_64"))
    products = [k for k in planned.kernels if k.kind in ("conv2d", "gemm", "depthwise_conv2d")]
    fused = sum(len(k.epilogue) * k.output.elements * k.count for k in products)
    assert (sum(k.flops * k.count for k in products) - fused) / 2e9 == pytest.approx(gigaflops, rel=0.02)


def test_fused_operators_become_a_chain_of_one_group(tmp_path: Path) -> None:
    path = write(tmp_path, conv("filters = 4, kernel = [3, 3]") + 'fuse = ["bias", "add", "relu"]\n')
    program = read_model(path)
    assert [(op.kind, op.group) for op in program.operators] == [
        ("conv2d", "c"),
        ("add", "c"),
        ("add", "c"),
        ("relu", "c"),
    ]
    assert program.tensor("c.bias").role is Role.CONSTANT
    (kernel,) = plan(program, find_target("aarch64")).kernels
    assert [(o.name, o.role) for o in kernel.operands] == [
        ("x", "input"),
        ("w", "weight"),
        ("bias", "bias"),
        ("residual", "residual"),
        ("y", "output"),
    ]
    assert kernel.operand("bias").shape == (4,)
    assert kernel.operand("residual").shape == kernel.output.shape == (1, 6, 6, 4)


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        (gemm(k="-4"), 9, "must be positive"),
        (gemm(k="0"), 9, "must be positive"),
        (gemm(k='"four"'), 9, "Expected `int`"),
        (gemm(kk="4"), 10, "unknown key 'kk'; did you mean 'k'?"),
        (gemm(op='"gem"'), 6, "unknown operator 'gem'; did you mean 'gemm'?"),
        (gemm(op="3"), 6, "a kernel needs an operator"),
        (gemm(transpose='"tx"'), 10, "Invalid enum value 'tx'"),
        (gemm(name='"2x"'), 5, "not a C identifier"),
        (gemm(name='"run"'), 5, "is reserved"),
        (gemm(count="0"), 10, "count = 0 must be positive"),
        (gemm(fuse='["rely"]'), 10, "did you mean 'relu'?"),
        (gemm(fuse='["relu", "relu"]'), 10, "fuse names 'relu' twice"),
        (gemm() + gemm(), 11, "taken by an earlier kernel"),
        (gemm() + gemm(name='"G"'), 11, "taken by an earlier kernel"),
        (gemm(m="100000", n="100000"), 4, "beyond a 32-bit address space"),
        (gemm(m="99999999999999999999"), 4, "beyond a 32-bit address space"),
        (conv("filters = 4, kernel = [9, 9]"), 8, "larger than the padded image of 8 x 8"),
        (conv("filters = 4, kernel = [3, 3], padding = [3, 1, 1, 1]"), 8, "padding must be smaller"),
        (conv("filters = 4, kernel = [3, 3], padding = [-1, 1, 1, 1]"), 8, "must not be negative"),
        (conv("filters = 4, kernel = [3, 3], stride = [0, 1]"), 8, "stride = [0, 1] must be positive"),
        (conv("filters = 4, kernel = [3]"), 8, "needs 2 numbers for conv2d"),
        (conv("filters = 4, kernel = [3, 3], strid = [1, 1]"), 8, "did you mean 'stride'?"),
        (conv("filters = 4, kernel = [3, 3]", x="[8, 8, 3]"), 7, "has 3 numbers, but needs 4"),
        ('[[kernel]]\nname = "g"\nop = "concat"\ninputs = [[2, 3, 4], [2, 3]]\n', 7, "axis 2 alone"),
        ("x = [\n", 4, ""),
        ("", 1, "at least one [[kernel]]"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, body: str, line: int, message: str) -> None:
    path = write(tmp_path, body)
    with pytest.raises(InputError) as caught:
        read_model(path)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert text.startswith((f"{path}:{line}: ", f"{path}: "))
    if text.startswith(f"{path}: "):
        assert body in ("", "x = [\n")


def test_binary_files_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_bytes(b'name = "b"\n\xff\xfe')
    with pytest.raises(InputError, match=r"b\.toml:2: not a text file"):
        read_model(tmp_path / "b.toml")
    (tmp_path / "b.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"no reader for '\.bin' files"):
        read_model(tmp_path / "b.bin")
    with pytest.raises(UsageError, match="did you mean 'resnet50'"):
        find_model("resnet5")
