"""`invoke release`: archives of a commit, their sums, and a note of what changed.

All of these depend on the commit alone, as far as every zlib compresses alike. Reports tell of
one machine and lie beside, without a sum.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kernels.errors import InputError
from kernels.plan import Plan
from toolchains.archive import make_archive
from toolchains.cache import ROOT
from toolchains.making import VERSION, members
from toolchains.pipeline import Built
from toolchains.scratch import write_whole
from toolchains.source import Source

SECTION = re.compile(r"^## \[([^\]]+)\][^\n]*\n(.*?)(?=^## \[|\Z)", re.MULTILINE | re.DOTALL)
SUMS, NOTES = "SHA256SUMS", "NOTES.md"


def publish(built: Sequence[Built], build: Path, out: Path, source: Source) -> list[Path]:
    """Write the release of these builds, whose folders are in `build`; the files that have sums."""
    files = [out / each.archive.name for each in built]
    for each, path in zip(built, files, strict=True):
        place = build / each.target / each.manifest.library
        plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
        prefix = path.name.removesuffix(".tar.gz")
        make_archive(path, prefix, {name: place / name for name in members(plan)}, source.epoch)
        report = f"{prefix}.report.json"
        shutil.copyfile(each.archive.with_name(report), out / report)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    write_whole(out / NOTES, note(changelog, VERSION, source).encode())
    files.append(out / NOTES)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    write_whole(out / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode())
    return files


def note(changelog: str, version: str, source: Source) -> str:
    """The note of a release: the version's section of the changelog, or that of what is unreleased."""
    sections = dict(SECTION.findall(changelog))
    for name in (version, "Unreleased"):
        if name in sections:
            heading = version if name == version else f"{version}, not released yet"
            return f"# kernfit {heading}\n\nMade from commit {source.commit}.\n\n{sections[name].strip()}\n"
    raise InputError(f"CHANGELOG.md has no section [{version}], nor [Unreleased]; write one")
