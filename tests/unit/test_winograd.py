"""Winograd's algorithm: its matrices, its packed weights, its bound, and that it is not on by itself."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from kernels import check
from kernels.codegen.header import header
from kernels.graph.planning import plan
from kernels.manifest import Measured, manifest_of
from kernels.models import catalog, read_model
from kernels.pack import pack, pack_file, read_manifest, unpack
from kernels.plan import Kernel, Packing
from kernels.schedules.tiling import Winograd
from kernels.tuning import Known, Record, signature_of
from kernels.winograd import TRANSFORMS
from tests.unit.test_listing import conv, write
from toolchains.bench.tuning import neighbours
from toolchains.pipeline import Options
from toolchains.target import all_targets, find_target

TARGET = find_target("x86_64-avx512")
PAYS = conv("filters = 128, kernel = [3, 3], padding = [1, 1, 1, 1]", "[1, 28, 28, 128]")


def chosen(folder: Path, body: str = PAYS) -> Kernel:
    """The only kernel of a listing, planned with the switch on."""
    (kernel,) = plan(read_model(write(folder, body)), TARGET, winograd=True).kernels
    return kernel


@pytest.mark.parametrize("m", TRANSFORMS)
def test_a_tile_is_that_of_the_definition(m: int) -> None:
    transforms = TRANSFORMS[m]
    data, weights, results = map(np.array, (transforms.data, transforms.weights, transforms.results))
    generator = np.random.default_rng(m)
    d, g = generator.uniform(-1, 1, (m + 2, m + 2)), generator.uniform(-1, 1, (3, 3))
    found = results @ ((weights @ g @ weights.T) * (data @ d @ data.T)) @ results.T
    for i, j in np.ndindex(m, m):
        assert found[i, j] == pytest.approx(np.sum(d[i : i + 3, j : j + 3] * g), abs=1e-12)


@pytest.mark.parametrize("m", TRANSFORMS)
def test_pairs_of_points_differ_in_the_sign_of_every_other_entry(m: int) -> None:
    signs = (-1.0) ** np.arange(m + 2)
    data, results = np.array(TRANSFORMS[m].data), np.array(TRANSFORMS[m].results)
    for first in range(1, m + 1, 2):
        assert np.array_equal(data[first] * signs, data[first + 1])
        assert np.array_equal(results[:, first] * signs[:m], results[:, first + 1])


@pytest.mark.parametrize("m", TRANSFORMS)
@pytest.mark.parametrize(("filters", "channels", "panel"), [(1, 1, 1), (5, 3, 2), (8, 7, 8)])
def test_packed_weights_are_those_of_the_definition(
    m: int, filters: int, channels: int, panel: int
) -> None:
    packing = Packing(
        permute=(1, 2, 3, 0), rows=channels, columns=filters, panel=panel, groups=1, winograd=m
    )
    weights = np.random.default_rng(0).uniform(-1, 1, (filters, 3, 3, channels)).astype(np.float32)
    packed = pack(weights, packing)
    assert packed.dtype == np.float32
    assert packed.size == packing.elements == (m + 2) ** 2 * channels * filters
    matrix = np.array(TRANSFORMS[m].weights)
    for o, c in np.ndindex(filters, channels):
        tile = matrix @ weights[o, :, :, c].astype(float) @ matrix.T
        start = o // panel * panel
        width = min(panel, filters - start)
        points = np.arange((m + 2) ** 2)
        found = packed[(start * points.size + points * width) * channels + c * width + o - start]
        assert found == pytest.approx(tile.ravel(), rel=2.0**-24, abs=1e-9)
    with pytest.raises(ValueError, match="not undone"):
        unpack(packed, packing, weights.shape)


def test_sizes_that_others_read_are_those_of_packed_weights(tmp_path: Path) -> None:
    program = read_model(write(tmp_path, PAYS))
    planned = plan(program, TARGET, winograd=True)
    (kernel,) = planned.kernels
    size = 4 * (kernel.winograd + 2) ** 2 * 128 * 128
    assert kernel.operand("w").bytes == size
    assert f"#define T_C_W_BYTES {size}\n" in header(planned, TARGET, "0")
    assert f"#define T_C_ARENA_BYTES {kernel.arena_bytes}\n" in header(planned, TARGET, "0")
    assert "By Winograd's algorithm F(4x4, 3x3)" in header(planned, TARGET, "0")
    measured = {"t_c": Measured(code_bytes=1, constant_bytes=0, stack_bytes=0)}
    manifest = manifest_of(planned, TARGET, measured, {})
    assert manifest.kernels[0].packed_weight_bytes == size
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    weights = np.ones((128, 3, 3, 128), np.float32)
    np.save(tmp_path / "w.npy", weights)
    pack_file(read_manifest(tmp_path / "manifest.json"), "c", tmp_path / "w.npy", tmp_path / "w.bin")
    assert (tmp_path / "w.bin").stat().st_size == size
    inputs = check.make_inputs(kernel, TARGET)
    assert len(check.input_bytes(kernel, inputs, TARGET)) == size + kernel.operand("x").bytes


@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.name)
def test_it_is_off_by_itself_and_its_record_counts_only_where_it_is_on(target: object) -> None:
    assert {field.name: field.default for field in msgspec.structs.fields(Options)}["winograd"] is False
    program = read_model(catalog()["resnet50"])
    kernels = plan(program, target).kernels  # type: ignore[arg-type]
    assert not [kernel.name for kernel in kernels if kernel.winograd]
    fast = [kernel for kernel in plan(program, target, winograd=True).kernels if kernel.winograd]  # type: ignore[arg-type]
    assert "conv3_3x3" in {kernel.name for kernel in fast}
    direct = {kernel.name: kernel for kernel in kernels}
    assert all(signature_of(kernel) != signature_of(direct[kernel.name]) for kernel in fast)


@pytest.mark.parametrize(
    ("attributes", "x"),
    [
        ("kernel = [3, 3], stride = [2, 2]", "[1, 28, 28, 128]"),
        ("kernel = [3, 3], dilation = [2, 2]", "[1, 28, 28, 128]"),
        ("kernel = [3, 3], groups = 2", "[1, 28, 28, 128]"),
        ("kernel = [3, 5]", "[1, 28, 28, 128]"),
        ("kernel = [3, 3]", "[1, 28, 28, 2]"),
        ("kernel = [3, 3]", "[1, 3, 3, 128]"),
    ],
)
def test_it_is_not_chosen_where_it_does_not_suit_or_pay(attributes: str, x: str, tmp_path: Path) -> None:
    assert chosen(tmp_path).winograd
    assert not chosen(tmp_path, conv(f"filters = 128, {attributes}", x)).winograd


def test_it_is_not_chosen_where_its_larger_weights_come_from_memory() -> None:
    kernels = plan(read_model(catalog()["resnet50"]), find_target("x86_64"), winograd=True).kernels
    fast = {kernel.name for kernel in kernels if kernel.winograd}
    assert fast == {"conv2_3x3", "conv3_3x3", "conv4_3x3"}, "conv5_3x3's are 38 MB, directly 9"


@pytest.mark.parametrize("m", TRANSFORMS)
@pytest.mark.parametrize("padding", ["[1, 1, 1, 1]", "[0, 2, 1, 0]"])
def test_the_bound_holds_what_rounding_does_and_no_missing_channel(
    m: int, padding: str, tmp_path: Path
) -> None:
    """With float32 arithmetic of NumPy's on the definition, and with one channel of 64 left out."""
    kernel = chosen(
        tmp_path, conv(f"filters = 128, kernel = [3, 3], padding = {padding}", "[2, 13, 30, 64]")
    )
    kernel = msgspec.structs.replace(kernel, schedule=dict(kernel.schedule) | {"m": m})
    arrays = check.make_inputs(kernel, TARGET)
    output = by_definition(arrays["x"], arrays["w"], m, tuple(map(int, padding[1:-1].split(","))))
    assert output.shape == kernel.output.shape
    verdict = check.judge(kernel, arrays, output.tobytes(), TARGET)
    assert verdict.passed, verdict.reason
    direct = check.reference(msgspec.structs.replace(kernel, schedule={}), arrays)
    estimate = check.reference(kernel, arrays)
    assert np.array_equal(direct.value, estimate.value)
    assert np.all(direct.magnitude <= estimate.magnitude * (1 + 1e-12))
    without = {**arrays, "w": arrays["w"].copy()}
    without["w"][..., 17] = 0
    missing = np.abs(estimate.value - check.reference(kernel, without).value)
    assert np.mean(missing > estimate.bound(flushes_subnormals=False)) > 0.9


def by_definition(x: np.ndarray, w: np.ndarray, m: int, padding: tuple[int, ...]) -> np.ndarray:
    """The result in float32, tile by tile."""
    transforms = TRANSFORMS[m]
    data, results = (np.array(matrix, np.float32) for matrix in (transforms.data, transforms.results))
    whole = np.array(transforms.weights)
    weights = np.einsum("ih,ohwc,jw->ijco", whole, w.astype(float), whole).astype(np.float32)
    top, left, bottom, right = padding
    height, width = x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
    padded = np.pad(x, ((0, 0), (top, bottom + m), (left, right + m), (0, 0)))
    y = np.zeros((len(x), height + m, width + m, len(w)), np.float32)
    for row in range(0, height, m):
        for column in range(0, width, m):
            tile = padded[:, row : row + m + 2, column : column + m + 2]
            transformed = np.einsum("ih,nhwc,jw->ijnc", data, tile, data)
            products = transformed @ weights
            y[:, row : row + m, column : column + m] = np.einsum(
                "ih,hwno,jw->nijo", results, products, results
            )
    return np.ascontiguousarray(y[:, :height, :width])


def test_a_search_keeps_the_algorithm_and_records_it_as_such(tmp_path: Path) -> None:
    program = read_model(write(tmp_path, PAYS))
    kernel = chosen(tmp_path)
    found = neighbours(kernel, TARGET, "time")
    assert {each["m"] for each in found} == {kernel.winograd}
    assert {each["lines"] for each in found} > {kernel.schedule["lines"]}
    for schedule in found[:3]:
        record = Record(
            kernel=signature_of(kernel), schedule=schedule, gain=1.1, by="time", cpu="", date=""
        )
        records = {signature_of(kernel): Known(record=record, file="f.toml")}
        (fast,) = plan(program, TARGET, records, winograd=True).kernels
        assert (fast.schedule, fast.record) == (schedule, "f.toml")
        (direct,) = plan(program, TARGET, records).kernels
        assert (direct.winograd, direct.record) == (0, "")


def test_a_schedule_is_read_back_as_it_was(tmp_path: Path) -> None:
    kernel = chosen(tmp_path)
    assert msgspec.to_builtins(msgspec.convert(kernel.schedule, Winograd)) == kernel.schedule
