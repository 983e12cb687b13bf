"""`invoke release`: archives of a commit, their sums, and a note of what changed.

All of these depend on the commit alone. Reports and provenance tell of one machine and lie beside,
without a sum.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec

from kernels.errors import InputError, MissingToolError, UsageError
from kernels.models import files_of
from kernels.program import program_of
from toolchains.archive import SUMS, file_sha256, make_archive, write_sums
from toolchains.batch import Failure, build_all
from toolchains.cache import ROOT, versions
from toolchains.engines import Surroundings
from toolchains.engines.pinned import image_pins
from toolchains.making import LLVM_OF_TVM, VERSION
from toolchains.pipeline import Built
from toolchains.provenance import SUFFIX, write_provenance
from toolchains.sbom import SBOM, Recipe, write_sbom
from toolchains.scratch import remove_remains, replaced, scratch, write_whole
from toolchains.session import Session
from toolchains.signing import require_key, sign
from toolchains.source import Source, source_of, within
from toolchains.target import Target, find_target
from toolchains.unpacking import unpack

SECTION = re.compile(r"^## \[([^\]]+)\][^\n]*\n(.*?)(?=^## \[|\Z)", re.MULTILINE | re.DOTALL)
NOTES = "NOTES.md"


def source_for(out: Path) -> Source:
    """The commit that is checked out, as `source_of` gives it for a release into `out`.

    What a killed release left beside that is removed first, for it would be no part of the commit.
    """
    remove_remains(out)
    return source_of(ROOT)


def release(
    session: Session, out: Path, source: Source, key: str = ""
) -> tuple[list[Built], list[Failure]]:
    """Build every model of the session for every target, and write the release into `out`.

    With a secret `key` of minisign the sums are signed. Where a build or a check failed, nothing is
    written. What was built names the archives of the release. InputError where a model is not in
    the commit, UsageError where `out` holds anything but a release, MissingToolError where a
    package that decides bytes is not the pinned one.
    """
    if out.exists() and any(out.iterdir()) and not (out / SUMS).is_file():
        raise UsageError(f"--out {out}: the folder holds something that is no release; name another")
    _require_pinned()
    if key:
        require_key(Path(key))
    recipes = {
        (program_of(model).name, target.name): _recipe(session, source, number, target.name)
        for number, model in enumerate(session.models)
        for target in session.targets
    }
    kept = session.options.build / "release"
    options = msgspec.structs.replace(session.options, out=kept)
    built, failures = build_all(
        session.models, session.targets, options, session.progress, session.oracles()
    )
    if failures or any(each.report.failed() or each.report.broken() for each in built):
        return built, failures
    with replaced(out) as folder:
        where = {target.name: _surroundings(session, target) for target in session.targets}
        sums = {}
        for each in built:
            recipe = recipes[each.manifest.library, each.target]
            sums[each.archive.name] = _publish(each, recipe, session, where[each.target], folder)
        changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        write_whole(folder / NOTES, note(changelog, VERSION, source).encode())
        write_sums(folder, {**sums, NOTES: file_sha256(folder / NOTES)})
        if key:
            sign(folder / SUMS, Path(key))
    return [
        msgspec.structs.replace(each, archive=out / each.archive.name, sha256=sums[each.archive.name])
        for each in built
    ], failures


def _require_pinned() -> None:
    """Packages whose code decides the bytes of archives are those that are pinned."""
    pins = dict(name.split("==") for name in image_pins().wheels)
    for name, version in versions().items():
        if version != pins[name]:
            raise MissingToolError(
                f"{name} {version} is here, and {pins[name]} is pinned; run `bash .ci/setup`"
            )


def _recipe(session: Session, source: Source, number: int, target: str) -> Recipe:
    path = session.paths[number]
    return Recipe(
        source=source,
        library=program_of(session.models[number]).name,
        version=VERSION,
        target=target,
        model=within(ROOT, path),
        files={within(ROOT, file): file_sha256(file) for file in files_of(path)},
        dims=dict(session.dims),
        weights=session.options.weights,
        versions={**versions(), "llvm": LLVM_OF_TVM},
    )


def _surroundings(session: Session, target: Target) -> Surroundings:
    """What steps for the target ran in, of which is said what is not as pinned."""
    session.options.engine.prepare(target, session.progress.detail)
    where = session.options.engine.describe(target)
    for line in where.unpinned:
        session.progress.say(f"not as pinned, which archives do not depend on: {target.name}: {line}")
    return where


def _publish(each: Built, recipe: Recipe, session: Session, where: Surroundings, folder: Path) -> str:
    """The archive with its SBOM; its report and its provenance beside it. Gives its SHA-256."""
    prefix = each.archive.name.removesuffix(".tar.gz")
    target = find_target(each.target)
    with scratch(session.options.build, f"release-{prefix}") as unpacked:
        members = unpack(each.archive, unpacked).members
        sums = {name: file_sha256(path) for name, path in members.items()}
        sbom = unpacked / SBOM
        sbom.write_bytes(write_sbom(recipe, target, sums))
        path = folder / each.archive.name
        sha256 = make_archive(path, prefix, {**members, SBOM: sbom}, recipe.source.epoch)
    report = folder / f"{prefix}.report.json"
    shutil.copyfile(each.archive.with_name(report.name), report)
    provenance = write_provenance(
        (path.name, sha256), recipe, each.report, (report.name, file_sha256(report)), where
    )
    write_whole(folder / f"{prefix}{SUFFIX}", provenance)
    return sha256


def note(changelog: str, number: str, source: Source) -> str:
    """The note of a release: the version's section of the changelog, or that of what is unreleased."""
    sections = dict(SECTION.findall(changelog))
    for name in (number, "Unreleased"):
        if name in sections:
            heading = number if name == number else f"{number}, not released yet"
            return f"# kernfit {heading}\n\nMade from commit {source.commit}.\n\n{sections[name].strip()}\n"
    raise InputError(f"CHANGELOG.md has no section [{number}], nor [Unreleased]; write one")
