"""THIRD-PARTY.md says what archives really contain, and what makes them."""

from __future__ import annotations

import io
import re
import tarfile
import tomllib
from importlib.metadata import metadata

from elftools.elf.elffile import ELFFile

from tests.conftest import ROOT
from toolchains.inspection import ALLOWED_UNDEFINED
from toolchains.pipeline import Built
from toolchains.target import Target

NOTICE = (ROOT / "THIRD-PARTY.md").read_text(encoding="utf-8")


def test_every_package_that_makes_an_archive_is_listed_with_its_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dependencies = [re.split(r"[<>=;]", each)[0] for each in project["project"]["dependencies"]]
    listed = dict(re.findall(r"^\| ([a-z-]+) \| (.+) \|$", NOTICE, re.MULTILINE))
    del listed["package"]
    assert list(listed) == sorted(dependencies)
    for name, licence in listed.items():
        told = metadata(name)
        classifiers = " ".join(told.get_all("Classifier") or [])
        words = f"{told.get('License-Expression')} {told.get('License')} {classifiers}".lower()
        assert licence.lower() in words or licence.split("-")[0].lower() in words, (name, words)


def test_objects_hold_what_kernfit_wrote_alone(built: tuple[Target, Built]) -> None:
    result = built[1]
    with tarfile.open(result.archive) as archive:
        (member,) = (each for each in archive if each.name.endswith(".so"))
        file = archive.extractfile(member)
        assert file is not None
        shared = ELFFile(io.BytesIO(file.read()))
    kernels = {kernel.symbol for kernel in result.manifest.kernels}
    symbols = {
        symbol.name: symbol
        for section in shared.iter_sections()
        if section["sh_type"] in ("SHT_SYMTAB", "SHT_DYNSYM")
        for symbol in section.iter_symbols()
        if symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT", "STT_NOTYPE")
    }
    functions = {name for name, symbol in symbols.items() if symbol["st_info"]["type"] == "STT_FUNC"}
    # A linker may put a stub of this name before what is called outside (ppc64le).
    functions = {name.removeprefix("__plt_") for name in functions}
    assert functions - ALLOWED_UNDEFINED == kernels
    undefined = {name for name, symbol in symbols.items() if name and symbol["st_shndx"] == "SHN_UNDEF"}
    assert undefined <= ALLOWED_UNDEFINED
    comment = shared.get_section_by_name(".comment")
    authors = {each for each in comment.data().decode().split("\0") if each} if comment else set()
    assert all("LLD" in author for author in authors), authors
