"""A target is one file: code is generated, linked and checked for one that is nowhere else."""

from __future__ import annotations

from pathlib import Path

from kernels.models import read_model
from tests.unit.test_listing import conv, gemm, write
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.target import TARGETS, all_targets


def test_adding_a_target_is_writing_one_file(tmp_path: Path, options: Options) -> None:
    text = (TARGETS / "aarch64.toml").read_text(encoding="utf-8")
    changed = text.replace('name = "aarch64"', 'name = "mycore"').replace(
        "vector_registers = 32", "vector_registers = 16"
    )
    (tmp_path / "mycore.toml").write_text(changed, encoding="utf-8")
    target = all_targets(tmp_path)["mycore"]
    body = gemm(m="9", n="40", k="11") + conv("filters = 4, kernel = [3, 3]")
    built = build(read_model(write(tmp_path, body)), target, options, Progress())
    assert built.archive.name.endswith("-mycore.tar.gz")
    assert built.archive.is_file()
    assert {row.status for row in built.report.rows} == {"pass"}
    assert not built.report.broken()
