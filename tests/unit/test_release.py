"""A release is made from a commit alone: its time, its cleanliness, its note."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kernels.errors import InputError, MissingToolError, UsageError
from toolchains import release
from toolchains.archive import make_archive
from toolchains.engines.pinned import image_pins
from toolchains.owner import here
from toolchains.release import note, source_for
from toolchains.source import Source, parse_epoch, source_of, within

SOURCE = Source(commit="c0ffee", epoch=7)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit, of the year 2001."""
    (tmp_path / "a").write_text("a", encoding="utf-8")
    when = "1000000000 +0000"
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        names = {
            f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        env = {**names, "GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when, "PATH": "/usr/bin:/bin"}
        subprocess.run(["git", *words], cwd=tmp_path, env=env, check=True)
    return tmp_path


def test_the_time_is_the_commits_or_what_the_environment_says(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert source_of(checkout).epoch == 1_000_000_000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12")
    assert source_of(checkout).epoch == 12


def test_a_dirty_checkout_is_refused_by_the_names_of_its_files(checkout: Path) -> None:
    (checkout / "a").write_text("b", encoding="utf-8")
    (checkout / "new").touch()
    with pytest.raises(InputError, match="differ from it: a, new; commit"):
        source_of(checkout)


def test_files_that_the_users_own_settings_hide_are_seen(checkout: Path) -> None:
    subprocess.run(["git", "config", "status.showUntrackedFiles", "no"], cwd=checkout, check=True)
    (checkout / "neü").touch()
    with pytest.raises(InputError, match="neü"):
        source_of(checkout)


def test_a_model_that_the_commit_does_not_hold_is_refused(checkout: Path, tmp_path_factory: Any) -> None:
    assert within(checkout, checkout / "a") == "a"
    (checkout / ".git" / "info" / "exclude").write_text("*.onnx", encoding="utf-8")
    (checkout / "m.onnx").touch()
    source_of(checkout)
    with pytest.raises(InputError, match=r"m\.onnx: .* not in it; commit it"):
        within(checkout, checkout / "m.onnx")
    outside = tmp_path_factory.mktemp("outside") / "m.onnx"
    outside.touch()
    (checkout / "link.onnx").symlink_to(outside)
    for path in (outside, checkout / "link.onnx"):
        with pytest.raises(InputError, match="outside the checkout; commit it in there"):
            within(checkout, path)


def test_a_folder_without_a_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a git checkout"):
        source_of(tmp_path)


@pytest.mark.parametrize("word", ["", "-1", "1.5", "today", " 1", "1e9", "99999999999", "\u0661"])
def test_a_malformed_time_is_an_error(word: str) -> None:
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        parse_epoch(word)


def test_a_note_is_the_section_of_the_version() -> None:
    text = "# C\n\n## [Unreleased]\n\n- soon\n\n## [0.2.0] - 2026-01-01\n\n- now\n\n## [0.1.0]\n\n- old\n"
    assert note(text, "0.2.0", SOURCE).endswith("- now\n")
    assert note(text, "0.3.0", SOURCE).endswith("- soon\n")
    with pytest.raises(InputError, match="no section"):
        note("# C\n", "1.0.0", SOURCE)


def test_an_archive_has_the_time_it_is_given_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("m", encoding="utf-8")
    sums = [make_archive(tmp_path / "x", "p", {"m": tmp_path / "m"}, epoch) for epoch in (1, 1, 2)]
    assert sums[0] == sums[1] != sums[2]


def test_a_package_that_is_not_the_pinned_one_makes_no_release(monkeypatch: pytest.MonkeyPatch) -> None:
    release._require_pinned()
    pins = image_pins()
    wheels = {re.sub(r"^numpy==.*", "numpy==1.0", name): hashes for name, hashes in pins.wheels.items()}
    monkeypatch.setattr(release, "image_pins", lambda: msgspec.structs.replace(pins, wheels=wheels))
    with pytest.raises(MissingToolError, match=r"numpy \S+ is here, and 1\.0 is pinned"):
        release._require_pinned()


def test_what_a_killed_release_left_is_removed_before_the_checkout_is_looked_at(tmp_path: Path) -> None:
    left = tmp_path / f".mine.{here()}-1-0-0"  # the first process did not begin with the machine's clock
    left.mkdir()
    with suppress(InputError):  # this checkout may hold what is in no commit
        source_for(tmp_path / "mine")
    assert not left.exists()
