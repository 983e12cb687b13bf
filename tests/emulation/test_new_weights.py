"""A library whose weights lie beside it takes others, and refuses those that are not for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kernels import whole
from kernels.pack import read_manifest
from kernels.program import Network
from kernels.repack import pack_network
from tests.emulation.test_whole import HOST, QUIET, compiled, emulate, runs, unpacked
from tests.unit.test_repack import model, network_of
from toolchains.archive import file_sha256
from toolchains.making import Options
from toolchains.pipeline import REFERENCE, STAMP, Stamp, build, check_again
from toolchains.target import find_target


def beside(options: Options) -> Options:
    return msgspec.structs.replace(options, weights="file", winograd=True)


def named(network: Network, name: str) -> Network:
    return Network(program=msgspec.structs.replace(network.program, name=name), constants=network.constants)


def stamped(path: Path) -> None:
    """Take a file that was changed on purpose for what the build made; others would be refused."""
    stamp = msgspec.json.decode((path.parent / STAMP).read_bytes(), type=Stamp)
    files = {**stamp.files, path.name: file_sha256(path)}
    (path.parent / STAMP).write_bytes(msgspec.json.encode(msgspec.structs.replace(stamp, files=files)))


@pytest.mark.parametrize("name", ["armv7", "s390x"])
def test_a_library_runs_with_the_weights_of_another_model(
    name: str, options: Options, tmp_path: Path
) -> None:
    target, network = find_target(name), network_of(model(tmp_path, "exchanged"))
    built = build(network, target, beside(options), QUIET)
    assert runs(built)[0].status == "pass"
    folder = options.build / name / "exchanged"
    other = network_of(model(tmp_path, "other"))
    whole.save(whole.compose(other), folder / REFERENCE)
    stamped(folder / REFERENCE)
    assert [row.status for row in check_again(network, target, beside(options), QUIET).failed()] == [
        "wrong"
    ] * len(target.checked_on)
    weights = folder / "exchanged.weights"
    pack_network(read_manifest(folder / "manifest.json"), tmp_path / "other.onnx", weights)
    stamped(weights)
    assert not check_again(network, target, beside(options), QUIET).failed()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    stamped(weights)
    rows = check_again(network, target, beside(options), QUIET).failed()
    assert {row.kernel for row in rows} == {"run"}
    assert {row.reason for row in rows} == {"the kernel did not return 0"}


def test_the_results_are_those_of_a_library_built_with_them(options: Options, tmp_path: Path) -> None:
    other = named(network_of(model(tmp_path, "second")), "first")
    folders = {}
    for name, network in (("old", network_of(model(tmp_path, "first"))), ("new", other)):
        (tmp_path / name).mkdir()
        folders[name] = unpacked(network, beside(options), tmp_path / name)
    old, new = folders["old"], folders["new"]
    described = read_manifest(old / "manifest.json")
    assert described.network is not None
    before = (old / "first.weights").read_bytes()
    sha256 = pack_network(described, tmp_path / "second.onnx", old / "first.weights")
    assert (old / "first.weights").read_bytes() == (new / "first.weights").read_bytes() != before
    header = (new / "first.h").read_text()
    assert f'#define FIRST_WEIGHTS_SHA256 "{sha256}"' in header
    layout = f'#define FIRST_WEIGHTS_LAYOUT_SHA256 "{described.network.weights_layout}"'
    assert layout in header
    assert layout in (old / "first.h").read_text()
    assert (old / "libfirst.a").read_bytes() == (new / "libfirst.a").read_bytes()
    reference = whole.compose(other)
    plan = beside(options).plan(other, HOST).network
    assert plan is not None
    results = []
    for folder in (old, new):
        (folder / "in").write_bytes(whole.input_bytes(plan, reference, HOST))
        program = compiled(folder / "example.c", [folder])
        assert emulate(program, "in", "out", "first.weights").returncode == 0
        results.append((folder / "out").read_bytes())
    assert results[0] == results[1]
    assert whole.judge(plan, reference, results[0], HOST).passed
    content = bytearray((old / "first.weights").read_bytes())
    content[-32] ^= 0x80
    (old / "bad.weights").write_bytes(content)
    (old / "out").unlink()
    assert emulate(old / "example", "in", "out", "bad.weights").returncode == 1
    assert not (old / "out").exists()
