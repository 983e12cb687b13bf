"""A release is accepted as it is; whatever was done to it is found, and named in one line."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from kernels.errors import CheckFailedError, InputError, KernfitError, UsageError
from tests.clones import LISTING, commit, commit_of_the_project, invoke
from toolchains import verifying
from toolchains.archive import SUMS, Stored, file_sha256, make_archive
from toolchains.making import VERSION
from toolchains.progress import Progress
from toolchains.provenance import read_provenance
from toolchains.sbom import SBOM, read_sbom, write_sbom
from toolchains.signing import require_key, sign
from toolchains.target import find_target
from toolchains.unpacking import unpack
from toolchains.verifying import Again, verify_archive

TARGET = find_target("s390x")
NAME = f"small-{VERSION}-{TARGET.name}"


class Released(msgspec.Struct, frozen=True):
    """A repository, and what was released of its first commit and of its second."""

    clone: Path
    first: Path
    second: Path


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    folder = tmp_path_factory.mktemp("released")
    clone = folder / "clone"
    commit_of_the_project(clone, {"small.toml": LISTING})
    outs = folder / "first", folder / "second"
    for out in outs:
        words = ["--arch", TARGET.name, "--model", "small.toml", "--engine", "local", "--out", str(out)]
        finished = invoke(clone, "release", *words)
        assert finished.returncode == 0, finished.stdout
        commit(clone, {"note.txt": f"after {out.name}"})
    return Released(clone, *outs)


@pytest.fixture
def mine(released: Released, tmp_path: Path) -> Path:
    """A copy of the release; its archive."""
    shutil.copytree(released.first, tmp_path / "release")
    return tmp_path / "release" / f"{NAME}.tar.gz"


def quick(path: Path, key: str = "") -> list[str]:
    return list(verify_archive(path, Progress(), None, key))


def renew_sums(path: Path) -> None:
    """Let SHA256SUMS say what the archive is now."""
    sums = path.with_name(SUMS)
    others = [line for line in sums.read_text().splitlines() if not line.endswith(path.name)]
    sums.write_text("\n".join([*others, f"{file_sha256(path)}  {path.name}"]) + "\n")


def renew_provenance(path: Path) -> None:
    """Let the statement be about the archive as it is now."""
    place = path.with_name(f"{NAME}.provenance.json")
    statement = read_provenance(place.read_bytes())
    statement.subject[0].digest["sha256"] = file_sha256(path)
    place.write_bytes(msgspec.json.encode(statement))


def change(path: Path, changes: Mapping[str, Callable[[bytes], bytes]], *, sbom: bool) -> None:
    """Change members, and pack them again; so that all agrees, if the SBOM is renewed as well."""
    folder = path.parent / "members"
    folder.mkdir()
    contents = unpack(path, folder)
    for name, function in changes.items():
        (folder / name).write_bytes(function((folder / name).read_bytes()))
    if sbom:
        recipe, sums = read_sbom((folder / SBOM).read_bytes())
        sums = {name: file_sha256(folder / name) for name in sums}
        (folder / SBOM).write_bytes(write_sbom(recipe, TARGET, sums))
    make_archive(path, contents.prefix, contents.members, contents.epoch)
    renew_sums(path)
    renew_provenance(path)


def flip_code(data: bytes) -> bytes:
    """Another last instruction of the one function: the return's register."""
    at = data.rindex(b"\x07\xfe")  # br %r14 (z/Architecture, "Branch on Condition")
    return data[:at] + b"\x07\xfd" + data[at + 2 :]


def test_a_release_is_accepted(mine: Path) -> None:
    lines = quick(mine)
    assert len(lines) == 6
    assert lines[0].startswith("sbom.cdx.json: all 7 other members")


def test_a_release_is_made_again_and_is_the_same(mine: Path, released: Released) -> None:
    finished = invoke(released.clone, "verify", str(mine), "--engine", "local")
    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.splitlines()[-1].endswith(": the same bytes")


def test_what_cannot_be_released_is_refused_before_anything_is_built(
    released: Released, tmp_path: Path
) -> None:
    model = tmp_path / "mine.toml"
    model.write_text(LISTING)
    shared = ["release", "--arch", TARGET.name, "--engine", "local"]
    for words, status, told in (
        (
            ["--model", "small.toml", "--out", str(tmp_path)],
            UsageError.status,
            "something that is no release",
        ),
        (
            ["--model", str(model), "--out", str(tmp_path / "out")],
            InputError.status,
            "outside the checkout",
        ),
    ):
        finished = invoke(released.clone, *shared, *words)
        assert finished.returncode == status, finished.stdout
        assert told in finished.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


@pytest.mark.everything
def test_a_forged_object_is_found_by_making_it_again(mine: Path, released: Released) -> None:
    change(mine, {"libsmall.a": flip_code}, sbom=True)
    assert quick(mine), "all that can be read agrees"
    finished = invoke(released.clone, "verify", str(mine), "--engine", "local")
    assert finished.returncode == CheckFailedError.status, finished.stdout
    last = finished.stdout.splitlines()[-1]
    assert "differs in libsmall.a: small_product.o: section .text, byte" in last
    assert last.endswith(", in small_product")


@pytest.mark.parametrize(
    ("name", "function", "where"),
    [
        ("libsmall.a", flip_code, r"small_product\.o: section \.text, byte \d+, in small_product"),
        ("libsmall.so", flip_code, r"section \.text, byte \d+, in small_product"),
        ("small.h", lambda data: data.replace(b"int32_t", b"int64_t"), r"line \d+"),
    ],
)
def test_a_rebuild_that_differs_tells_where(
    name: str,
    function: Callable[[bytes], bytes],
    where: str,
    mine: Path,
    released: Released,
    tmp_path: Path,
) -> None:
    change(mine, {name: function}, sbom=True)
    assert quick(mine), "all that can be read agrees"
    folders = [tmp_path / which for which in ("theirs", "ours")]
    pair = []
    for folder, path in zip(folders, (mine, released.first / mine.name), strict=True):
        folder.mkdir()
        pair.append(unpack(path, folder))
    recipe, _ = read_sbom(pair[0].members[SBOM].read_bytes())
    with pytest.raises(CheckFailedError, match=rf"differs in {name}: {where}$"):
        verifying._difference(mine, recipe, *pair, print)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("libsmall.a", flip_code),
        ("small.h", lambda data: data.replace(b"#define", b"#undef")),
        ("manifest.json", lambda data: data.replace(b'"flops": 1', b'"flops": 2')),
    ],
)
def test_a_changed_member_is_named(name: str, function: Callable[[bytes], bytes], mine: Path) -> None:
    change(mine, {name: function}, sbom=False)
    with pytest.raises(
        CheckFailedError, match=f"the member {name} has another hash than sbom.cdx.json says"
    ):
        quick(mine)


def test_a_flipped_bit_is_found_wherever_it_is(mine: Path) -> None:
    data = mine.read_bytes()
    for at in range(0, len(data), 97):
        mine.write_bytes(data[:at] + bytes((data[at] ^ 4,)) + data[at + 1 :])
        with pytest.raises(KernfitError):
            quick(mine)


def test_a_changed_sbom_is_refused(mine: Path) -> None:
    change(mine, {SBOM: lambda data: data.replace(b"s390x", b"s390y")}, sbom=False)
    with pytest.raises(KernfitError, match="its serial number is not that of its content"):
        quick(mine)


def test_a_stripped_sbom_is_missed(mine: Path, tmp_path: Path) -> None:
    contents = unpack(mine, tmp_path)
    del contents.members[SBOM]
    make_archive(mine, contents.prefix, contents.members, contents.epoch)
    renew_sums(mine)
    renew_provenance(mine)
    with pytest.raises(CheckFailedError, match=r"no sbom\.cdx\.json in it"):
        quick(mine)


def test_the_archive_of_another_commit_is_refused(mine: Path, released: Released) -> None:
    assert quick(released.second / mine.name), "in its own place it is fine"
    shutil.copyfile(released.second / mine.name, mine)
    with pytest.raises(CheckFailedError, match="and SHA256SUMS says"):
        quick(mine)
    renew_sums(mine)
    with pytest.raises(CheckFailedError, match="is about another file of this name"):
        quick(mine)
    renew_provenance(mine)
    with pytest.raises(CheckFailedError, match=r"provenance\.json says commit [0-9a-f]{40}, and sbom"):
        quick(mine)


def test_the_tag_of_the_version_names_the_commit(mine: Path, released: Released) -> None:
    def told() -> subprocess.CompletedProcess[str]:
        return invoke(released.clone, "verify", str(mine), "--no-rebuild")

    for commits, status, words in (
        ("HEAD~2", 0, f"tag: v{VERSION} is that commit"),
        ("HEAD~1", CheckFailedError.status, f"and v{VERSION} is commit"),
    ):
        subprocess.run(["git", "tag", "--force", f"v{VERSION}", commits], cwd=released.clone, check=True)
        finished = told()
        assert finished.returncode == status, finished.stdout
        assert words in finished.stdout
    subprocess.run(["git", "tag", "--delete", f"v{VERSION}"], cwd=released.clone, check=True)


def test_a_truncated_archive_is_refused(mine: Path) -> None:
    data = mine.read_bytes()
    for size in (len(data) - 1, len(data) // 2, 100):
        mine.write_bytes(data[:size])
        with pytest.raises(KernfitError, match="truncated; fetch it again"):
            quick(mine)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (f"{NAME}/../../escaped", tarfile.REGTYPE, "escaped' is not in the archive's folder"),
        (f"{NAME}/link", tarfile.SYMTYPE, "link' is a symbolic link to '/etc/passwd'"),
        (f"{NAME}/link", tarfile.LNKTYPE, "link' is a hard link to '/etc/passwd'"),
    ],
)
def test_an_archive_that_could_do_harm_is_refused(name: str, kind: bytes, message: str, mine: Path) -> None:
    added = tarfile.TarInfo(name)
    added.type, added.linkname = kind, "" if kind == tarfile.REGTYPE else "/etc/passwd"
    repack(mine, lambda archive: archive.addfile(added))
    with pytest.raises(KernfitError, match=message):
        quick(mine)
    assert not list(mine.parent.parent.glob("**/escaped"))


def test_what_is_packed_otherwise_is_refused(mine: Path) -> None:
    def owner(entry: tarfile.TarInfo) -> None:
        entry.uid = 1000

    repack(mine, lambda _: None, owner)
    renew_sums(mine)
    renew_provenance(mine)
    with pytest.raises(CheckFailedError, match="not packed as a release packs them"):
        quick(mine)


def repack(
    path: Path,
    after: Callable[[tarfile.TarFile], None],
    each: Callable[[tarfile.TarInfo], None] = lambda _: None,
) -> None:
    """Write the archive again, with its members changed, and something after them."""
    raw = io.BytesIO()
    with (
        tarfile.open(path) as old,
        Stored(raw) as stored,
        tarfile.open(fileobj=stored, mode="w|", format=tarfile.USTAR_FORMAT) as new,  # type: ignore[call-overload]
    ):
        for entry in old:
            each(entry)
            new.addfile(entry, old.extractfile(entry))
        after(new)
    path.write_bytes(raw.getvalue())


@pytest.mark.parametrize("name", [SUMS, f"{NAME}.provenance.json"])
def test_what_lies_beside_it_is_missed(name: str, mine: Path) -> None:
    mine.with_name(name).unlink()
    with pytest.raises(KernfitError, match=f"no {name} beside it"):
        quick(mine)


def test_sums_that_are_none_are_refused(mine: Path) -> None:
    sums = mine.with_name(SUMS)
    for damaged in (sums.read_bytes()[:40], b"\xff"):
        sums.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{SUMS}: damaged \(.*\); fetch it again"):
            quick(mine)


def test_a_report_of_other_checks_is_refused(mine: Path) -> None:
    mine.with_name(f"{NAME}.report.json").write_text("{}")
    with pytest.raises(CheckFailedError, match="is not the report that"):
        quick(mine)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A public key and its secret one, without a password."""
    if shutil.which("minisign") is None:
        pytest.skip("minisign is not here: `invoke setup` brings it where it may install packages")
    public, secret = tmp_path / "key.pub", tmp_path / "key"
    words = ["minisign", "-G", "-W", "-p", str(public), "-s", str(secret)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return public, secret


def test_a_release_is_signed_and_the_signature_is_checked(mine: Path, keys: tuple[Path, Path]) -> None:
    public, secret = keys
    with pytest.raises(CheckFailedError, match="it is not signed"):
        quick(mine, str(public))
    require_key(secret)
    sign(mine.with_name(SUMS), secret)
    words = public.read_text().splitlines()[-1]
    for key in (str(public), words):
        assert f"signature: SHA256SUMS is signed by {key}" in quick(mine, key)
    renamed = mine.with_name(SUMS).read_text().replace("NOTES", "notes")
    mine.with_name(SUMS).write_text(renamed)
    with pytest.raises(CheckFailedError, match=r"not signed by .*Signature verification failed"):
        quick(mine, str(public))
    with pytest.raises(InputError, match="minisign did not sign"):
        sign(mine.with_name(SUMS), public)
    with pytest.raises(UsageError, match="no such file"):
        require_key(public / "none")


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (Again(engine="podman"), "unknown engine 'podman'"),
        (Again(engine="local", offline="none"), "none: not a bundle"),
    ],
)
def test_a_wrong_word_about_the_rebuild_is_said_first(again: Again, message: str, tmp_path: Path) -> None:
    with pytest.raises(KernfitError, match=message):
        next(verify_archive(tmp_path / "none.tar.gz", Progress(), again))


def test_a_commit_that_is_not_here_cannot_be_built(mine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "members"
    folder.mkdir()
    contents = unpack(mine, folder)
    recipe, sums = read_sbom((folder / SBOM).read_bytes())
    source = msgspec.structs.replace(recipe.source, commit="0" * 40)
    (folder / SBOM).write_bytes(write_sbom(msgspec.structs.replace(recipe, source=source), TARGET, sums))
    make_archive(mine, contents.prefix, contents.members, contents.epoch)
    renew_sums(mine)
    place = mine.with_name(f"{NAME}.provenance.json")
    place.write_bytes(place.read_bytes().replace(recipe.source.commit.encode(), b"0" * 40))
    renew_provenance(mine)
    with pytest.raises(KernfitError, match="is not in this checkout; `git fetch` it"):
        list(verify_archive(mine, Progress(), Again(engine="local")))
