"""A release is refused for each thing that is missing, and changes nothing until all of it has been tried."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT


@pytest.fixture
def release() -> Any:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(tree: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with the files that a release reads."""
    tree = tmp_path / "tree"
    for name in ("jscope/__init__.py", "CITATION.cff", "CHANGELOG.md", "README.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    git(tmp_path, "init", "-q", str(tree))
    for name in ("user.name", "user.email"):
        git(tree, "config", name, "a")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "first")
    return tree


CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n* More.\n\n## [0.1.0]\n\n* All.\n"


def test_the_section_of_the_changelog_is_closed(release: Any) -> None:
    closed = release.close_section(CHANGELOG, "0.2.0", "2026-11-26")
    assert closed == CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n## [0.2.0] - 2026-11-26\n")
    with pytest.raises(release.Refused, match="lists nothing"):
        release.close_section(closed, "0.3.0", "2026-11-27")
    with pytest.raises(release.Refused, match="already"):
        release.close_section(CHANGELOG, "0.1.0", "2026-11-26")
    with pytest.raises(release.Refused, match="no section"):
        release.close_section("# Changelog\n", "0.2.0", "2026-11-26")


@pytest.mark.parametrize("version", ["0.1", "v0.2.0", "0.2.0rc1", "0.1.0", "0.0.9", ""])
def test_only_newer_versions_are_made(release: Any, version: str) -> None:
    with pytest.raises(release.Refused):
        release.check_newer(version, "0.1.0")
    release.check_newer("0.10.0", "0.9.0")


def test_trees_with_changes_and_tags_that_are_there_are_refused(release: Any, tree: Path) -> None:
    release.check_tree(tree, "9.0.0")
    git(tree, "tag", "v9.0.0")
    with pytest.raises(release.Refused, match=r"v9\.0\.0 is there"):
        release.check_tree(tree, "9.0.0")
    (tree / "new.py").write_text("")
    with pytest.raises(release.Refused, match="not committed"):
        release.check_tree(tree, "9.1.0")


def test_a_release_that_fails_changes_nothing(release: Any, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise release.Refused("the wheel does not run")

    before = git(tree, "rev-parse", "HEAD")
    monkeypatch.setattr(release, "build_and_try", fails)
    monkeypatch.setattr(release, "ROOT", tree)
    assert release.main(["9.0.0"]) == 1
    assert (git(tree, "rev-parse", "HEAD"), git(tree, "status", "--porcelain"), git(tree, "tag")) == (before, "", "")


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_release_is_committed_and_tagged(
    release: Any, tree: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    def builds(copy: Path, work: Path) -> list[Path]:
        assert '__version__ = "9.0.0"' in (copy / "jscope" / "__init__.py").read_text()
        assert "version: 9.0.0" in (copy / "CITATION.cff").read_text()
        wheel = work / "jscope-9.0.0.whl"
        wheel.write_text("a wheel")
        return [wheel]

    monkeypatch.setattr(release, "build_and_try", builds)
    monkeypatch.setattr(release, "ROOT", tree)
    assert release.main(["9.0.0", *["--dry-run"] * dry_run]) == 0
    assert git(tree, "tag").strip() == ("" if dry_run else "v9.0.0")
    assert (tree / "dist" / "jscope-9.0.0.whl").exists() is not dry_run
    assert ("## [9.0.0]" in (tree / "CHANGELOG.md").read_text()) is not dry_run
    assert git(tree, "log", "-1", "--format=%s").strip() == ("first" if dry_run else "Version 9.0.0")


def test_the_first_program_is_the_readmes(release: Any) -> None:
    program = release.first_program((ROOT / "README.md").read_text())
    assert "js.transform(" in program
    compile(program, "first_program.py", "exec")


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("twine"), reason="needs the extra jax-scope[dev]")
def test_wheel_and_sdist_are_built_and_the_wheel_runs(tmp_path: Path) -> None:
    """In a copy of what is committed here."""
    copy = tmp_path / "copy"
    git(ROOT, "clone", "-q", "--no-hardlinks", str(ROOT), str(copy))
    done = subprocess.run(
        [sys.executable, ".ci/release.py", "99.0.0", "--dry-run"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "jax_scope-99.0.0-py3-none-any.whl" in done.stdout
    assert "jax_scope-99.0.0.tar.gz" in done.stdout
    assert not git(copy, "status", "--porcelain")
