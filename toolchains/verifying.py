"""`invoke verify`: whether an archive is what its name, its SBOM and its provenance say.

The quick half reads it and what lies beside it. The other half makes it again, from the commit that
it names, and compares.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from kernels.codegen.driver import weights_symbol
from kernels.errors import CheckFailedError, EngineError, InputError, MissingToolError, UsageError
from kernels.manifest import Manifest
from toolchains.archive import SUMS, file_sha256, make_archive, read_sums
from toolchains.bundle import no_bundle
from toolchains.cache import ROOT
from toolchains.comparing import archive_members, first_difference
from toolchains.engines.choose import require_engine
from toolchains.inspection import ALLOWED_UNDEFINED, inspect_library
from toolchains.limits import limit
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.provenance import SUFFIX, read_provenance
from toolchains.sbom import SBOM, Recipe, read_sbom
from toolchains.signing import require_signature
from toolchains.source import commit_of
from toolchains.target import Target, find_target
from toolchains.unpacking import Contents, unpack

Say = Callable[[str], None]


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """How to make it again: with which engine; and from which bundle, where there is no network."""

    engine: str = "auto"
    offline: str = ""


def verify_archive(path: Path, progress: Progress, again: Again | None, key: str = "") -> Iterator[str]:
    """What holds of an archive, line by line; with `again`, also whether its commit makes it again.

    Where a public `key` of minisign is given, it must have signed the sums. CheckFailedError, in
    one line, at the first thing that does not hold; InputError where it is no archive of a release,
    or one that could do harm; UsageError and InputError where nothing could be made again like that.
    """
    if again is not None:
        _require(again)
    with tempfile.TemporaryDirectory(prefix="kernfit-verify-") as scratch:
        folder = Path(scratch)
        theirs, ours = folder / "theirs", folder / "ours"
        theirs.mkdir()
        ours.mkdir()
        contents = unpack(path, theirs)
        recipe = _sbom(path, contents)
        yield f"{SBOM}: all {len(contents.members) - 1} other members have the hashes that it says"
        sha256 = file_sha256(path)
        _form(path, contents, recipe, sha256, folder / path.name)
        yield "form: members, owners, modes and times are as a release has them"
        _sums(path, sha256)
        yield f"{SUMS}: {sha256}"
        if key:
            require_signature(path.with_name(SUMS), key)
            yield f"signature: {SUMS} is signed by {key}"
        _provenance(path, contents.prefix, sha256, recipe)
        yield f"provenance: made from commit {recipe.source.commit}"
        yield _tag(path, recipe)
        objects = _library(path, theirs, contents, _target(path, recipe))
        yield f"objects: all {objects} keep what kernfit promises for {recipe.target}"
        if again is None:
            return
        rebuilt = _rebuilt(recipe, path.name, again, folder, progress)
        if file_sha256(rebuilt) != sha256:
            _difference(path, recipe, contents, unpack(rebuilt, ours), progress.say)
    yield f"rebuilt from commit {recipe.source.commit}: the same bytes"


# -- what can be read ----------------------------------------------------------------


def _sbom(path: Path, contents: Contents) -> Recipe:
    """What the SBOM says that the archive was made from; it must fit the members."""
    if SBOM not in contents.members:
        raise CheckFailedError(
            f"{path}: no {SBOM} in it: no archive of a release, or one that was stripped"
        )
    recipe, sums = read_sbom(contents.members[SBOM].read_bytes())
    present = contents.members.keys() - {SBOM}
    for name in sorted(sums.keys() | present):
        if name not in sums:
            raise CheckFailedError(f"{path}: the member {name} is not in {SBOM}")
        if name not in present:
            raise CheckFailedError(f"{path}: the member {name} is missing, which {SBOM} names")
        if file_sha256(contents.members[name]) != sums[name]:
            raise CheckFailedError(f"{path}: the member {name} has another hash than {SBOM} says")
    return recipe


def _form(path: Path, contents: Contents, recipe: Recipe, sha256: str, again: Path) -> None:
    """The archive is written as `invoke release` writes it, and bears the name of what it holds."""
    named = f"{recipe.library}-{recipe.version}-{recipe.target}"
    if contents.prefix != named:
        raise CheckFailedError(f"{path}: it holds {named}, as {SBOM} says, and not what its name says")
    if contents.epoch != recipe.source.epoch:
        raise CheckFailedError(f"{path}: its members have another time than {SBOM} says")
    try:
        packed = make_archive(again, contents.prefix, contents.members, contents.epoch)
    except ValueError:  # a name or a time that no release has, nor could have
        packed = ""
    if packed != sha256:
        raise CheckFailedError(f"{path}: its members are not packed as a release packs them")


def _target(path: Path, recipe: Recipe) -> Target:
    try:
        return find_target(recipe.target)
    except UsageError as error:
        raise InputError(f"{path}: this version of kernfit does not know its target: {error}") from error


def _sums(path: Path, sha256: str) -> None:
    try:
        listed = read_sums(path.parent)
    except OSError as error:
        raise InputError(f"{path}: no {SUMS} beside it; fetch that of the release too") from error
    except ValueError as error:
        raise InputError(f"{path.with_name(SUMS)}: damaged ({error}); fetch it again") from error
    if path.name not in listed:
        raise CheckFailedError(f"{path}: {SUMS} does not name it")
    if listed[path.name] != sha256:
        raise CheckFailedError(f"{path}: its hash is {sha256}, and {SUMS} says {listed[path.name]}")


def _provenance(path: Path, prefix: str, sha256: str, recipe: Recipe) -> None:
    """The statement beside it is about these bytes, this recipe, and checks of which none failed."""
    place = path.with_name(f"{prefix}{SUFFIX}")
    if not place.is_file():
        raise InputError(f"{path}: no {place.name} beside it; fetch that of the release too")
    statement = read_provenance(place.read_bytes())
    subjects = {each.name: each.digest.get("sha256") for each in statement.subject}
    if subjects.get(path.name) != sha256:
        raise CheckFailedError(f"{path}: {place.name} is about another file of this name")
    made = statement.predicate.build_definition
    told = made.external_parameters
    commits = {
        each.digest["gitCommit"] for each in made.resolved_dependencies if "gitCommit" in each.digest
    }
    for commit in (told.source.commit, *commits):
        if commit != recipe.source.commit:
            raise CheckFailedError(
                f"{path}: {place.name} says commit {commit}, and {SBOM} {recipe.source.commit}"
            )
    if told != recipe:
        raise CheckFailedError(f"{path}: {place.name} says that it was made otherwise than {SBOM} says")
    for each in statement.predicate.run_details.byproducts:
        for cpu, counts in each.annotations.get("checks", {}).items():
            failed = sorted(counts.keys() - {"pass", "skipped"})
            if failed:
                raise CheckFailedError(
                    f"{path}: {place.name} says that checks failed on {cpu}: {failed[0]}"
                )
        report = path.with_name(each.name)
        if report.is_file() and file_sha256(report) != each.digest.get("sha256"):
            raise CheckFailedError(f"{path}: {report.name} is not the report that {place.name} names")


def _tag(path: Path, recipe: Recipe) -> str:
    """The version's tag, where this checkout has it, names the same commit."""
    tag = f"v{recipe.version}"
    commit = commit_of(ROOT, tag)
    if not commit:
        return f"tag: not compared, for this checkout has no {tag}"
    if commit != recipe.source.commit:
        raise CheckFailedError(
            f"{path}: made from commit {recipe.source.commit}, and {tag} is commit {commit}"
        )
    return f"tag: {tag} is that commit"


def _library(path: Path, folder: Path, contents: Contents, target: Target) -> int:
    """The manifest fits the archive, and objects hold what the C ABI promises; how many there are."""
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
        if f"{manifest.library}-{manifest.versions['kernfit']}-{manifest.target}" != contents.prefix:
            raise CheckFailedError(f"{path}: manifest.json is of another library, version or target")
        for each in inspect_library(folder, manifest, target, ()):
            if not each.passed:
                raise CheckFailedError(f"{path}: lib{manifest.library}.so: {each.name}: {each.detail}")
        return 1 + _static(path, folder / f"lib{manifest.library}.a", manifest, target)
    except (OSError, ValueError, KeyError, AttributeError, ELFError) as error:
        raise CheckFailedError(f"{path}: the library or its manifest cannot be read: {error}") from error


def _static(path: Path, library: Path, manifest: Manifest, target: Target) -> int:
    """Objects of the `.a` are the target's, and define and need what they should; their number."""
    name = manifest.library
    ours = {kernel.symbol for kernel in manifest.kernels} | {weights_symbol(name)}
    if manifest.network is not None:
        ours.add(manifest.network.symbol)
    defined: set[str] = set()
    needed: set[str] = set()
    objects = [each for each in archive_members(library.read_bytes()) if not each[0].startswith("/")]
    for member, data in objects:
        elf = ELFFile(io.BytesIO(data))
        if elf["e_machine"] != target.elf_machine or elf.elfclass != target.pointer_bits:
            raise CheckFailedError(f"{path}: {library.name}: {member} is of another machine")
        for symbol in elf.get_section_by_name(".symtab").iter_symbols():
            if symbol["st_info"]["bind"] != "STB_LOCAL" and symbol.name:
                (needed if symbol["st_shndx"] == "SHN_UNDEF" else defined).add(symbol.name)
    # What one object of a network has for another is hidden, and bears the library's prefix.
    strange = {symbol for symbol in defined - ours if not symbol.startswith(f"{name}_")}
    missing = {kernel.symbol for kernel in manifest.kernels} - defined
    foreign = needed - defined - ALLOWED_UNDEFINED - {weights_symbol(name)}
    for what, names in (("defines", strange), ("lacks", missing), ("needs", foreign)):
        if names:
            raise CheckFailedError(f"{path}: {library.name} {what} the symbol {min(names)}")
    return len(objects)


# -- what is made again --------------------------------------------------------------


def _require(again: Again) -> None:
    """The engine and the bundle that are named exist: said at once, and not by what makes it again."""
    require_engine(again.engine)
    if again.offline and not (Path(again.offline) / SUMS).is_file():
        raise no_bundle(Path(again.offline))


def _rebuilt(recipe: Recipe, name: str, again: Again, folder: Path, progress: Progress) -> Path:
    """The archive of that name, made in a clone of the commit; with Docker, in a fresh image."""
    commit = recipe.source.commit
    if commit_of(ROOT, commit) != commit:
        raise InputError(
            f"commit {commit}, which the archive names, is not in this checkout; `git fetch` it"
        )
    clone = folder / "clone"
    bundle = str(Path(again.offline).resolve()) if again.offline else ""
    _git("clone", "--quiet", "--no-checkout", str(ROOT), str(clone))
    _git("-C", str(clone), "checkout", "--quiet", "--detach", commit)
    python = sys.executable
    requirements = Path(".ci") / "requirements.txt"
    if (clone / requirements).read_bytes() != (ROOT / requirements).read_bytes():
        progress.say("rebuild: packages are those of the commit, which are not those that are here")
        _tool(["bash", ".ci/setup", *([bundle] if bundle else [])], clone, progress.detail)
        python = str(clone / ".venv" / "bin" / "python")
    invoke = [python, "-m", "invoke"]
    first = ["images", "--anew", "--arch", recipe.target, "--engine", again.engine]
    if bundle:
        first = ["setup", "--offline", bundle]
    _tool([*invoke, *first], clone, progress.detail)
    out = folder / "release"
    words = [*recipe.words(), "--engine", again.engine, "--check", "sample", "--out", str(out)]
    _tool([*invoke, "release", *words], clone, progress.detail, SOURCE_DATE_EPOCH=str(recipe.source.epoch))
    return out / name


def _git(*words: str) -> None:
    finished = run(["git", *words], timeout=limit("rebuild"))
    if finished.status != 0:
        raise EngineError(f"git {' '.join(words)}: {finished.output}")


def _tool(command: list[str], clone: Path, say: Say, **more: str) -> None:
    finished = run(
        command,
        timeout=limit("rebuild"),
        cwd=clone,
        env={**os.environ, **more},
        on_line=lambda line: say(line.strip()),
    )
    if finished.status == MissingToolError.status:
        raise MissingToolError(f"the rebuild lacks a tool: {finished.output.splitlines()[-1]}")
    if finished.status != 0:
        raise EngineError(f"the rebuild failed with status {finished.status}: {finished.output}")


def _difference(path: Path, recipe: Recipe, theirs: Contents, ours: Contents, say: Say) -> None:
    """CheckFailedError with the first member that differs, and where; diffoscope's words before it."""
    for name in sorted(theirs.members.keys() | ours.members.keys(), key=lambda name: (name == SBOM, name)):
        pair = [part.members.get(name) for part in (ours, theirs)]
        if pair[0] is None or pair[1] is None:
            raise CheckFailedError(f"{path}: only one of it and its rebuild has the member {name}")
        where = first_difference(pair[0].read_bytes(), pair[1].read_bytes())
        if where:
            if shutil.which("diffoscope"):
                run(["diffoscope", "--text", "-", *map(str, pair)], timeout=limit("rebuild"), on_line=say)
            raise CheckFailedError(
                f"{path}: a rebuild from commit {recipe.source.commit} differs in {name}: {where}"
            )
    raise CheckFailedError(f"{path}: a rebuild from commit {recipe.source.commit} is packed differently")
