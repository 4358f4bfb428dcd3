"""Makes a release: `python .ci/release.py 0.2.0 [--dry-run]`. It never uploads or pushes anything.

All is done in a copy first: the version is set, the changelog's section is closed, wheel and sdist are built and
checked, and the wheel runs README's first program in an empty environment. Only if all of that went well, and without
--dry-run, is the version committed and tagged here, with both files in `dist/`. It needs the extra `jax-scope[dev]`.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGED = ("jscope/__init__.py", "CITATION.cff", "CHANGELOG.md")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


class Refused(Exception):  # noqa: N818 (it is told to the user, in one line)
    """What keeps the release from being made."""


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command; it must succeed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(str(part) for part in command[:4])
        raise Refused(f"`{shown} ...` failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def set_version(text: str, version: str) -> tuple[str, str]:
    """The text of `jscope/__init__.py` with another version, and the version that it had."""
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise Refused("jscope/__init__.py has no line `__version__ = ...`")
    return text[: found.start(1)] + version + text[found.end(1) :], found[1]


def check_newer(version: str, old: str) -> None:
    """Raises Refused unless the version is of three numbers, and greater than the old one."""
    new, before = _VERSION.fullmatch(version), _VERSION.fullmatch(old)
    if new is None:
        raise Refused(f"{version!r} is no version: give three numbers, such as 0.2.0")
    if before is not None and tuple(map(int, new.groups())) <= tuple(map(int, before.groups())):
        raise Refused(f"version {version} is not newer than {old}")


def close_section(changelog: str, version: str, date: str) -> str:
    """The changelog with its section `Unreleased` named after the version, and a new one above it."""
    head, heading, rest = changelog.partition("## [Unreleased]\n")
    if not heading:
        raise Refused("CHANGELOG.md has no section `## [Unreleased]`")
    if f"## [{version}]" in changelog:
        raise Refused(f"CHANGELOG.md has a section `## [{version}]` already")
    if not re.search(r"^\* ", rest.partition("\n## [")[0], re.MULTILINE):
        raise Refused("the section `## [Unreleased]` of CHANGELOG.md lists nothing")
    return f"{head}{heading}\n## [{version}] - {date}\n{rest}"


def set_all(tree: Path, version: str) -> None:
    """Sets the version in the files of a tree that have it."""
    module, citation, changelog = (tree / name for name in CHANGED)
    text, old = set_version(module.read_text(), version)
    check_newer(version, old)
    module.write_text(text)
    citation.write_text(re.sub(r"^version: .+$", f"version: {version}", citation.read_text(), flags=re.MULTILINE))
    changelog.write_text(close_section(changelog.read_text(), version, datetime.date.today().isoformat()))


def first_program(readme: str) -> str:
    """The first block of Python in the README."""
    return readme.partition("```python\n")[2].partition("```")[0]


def check_tree(root: Path, version: str) -> None:
    """Raises Refused for a tree with changes that are not committed, and for a version that has a tag."""
    if run("git", "status", "--porcelain", cwd=root).strip():
        raise Refused("the tree has changes that are not committed: commit or stash them")
    if run("git", "tag", "--list", f"v{version}", cwd=root).strip():
        raise Refused(f"the tag v{version} is there already")


def build_and_try(tree: Path, work: Path) -> list[Path]:
    """Wheel and sdist of a tree, checked; the wheel runs README's first program in an empty environment."""
    built = work / "dist"
    run(sys.executable, "-m", "build", "--outdir", built, cwd=tree)
    files = sorted(built.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=tree)
    wheel = next(file for file in files if file.suffix == ".whl")
    venv.create(work / "env", with_pip=True)
    python = work / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", wheel, cwd=work)
    program = work / "first_program.py"  # beside no checkout: what it imports is the wheel
    program.write_text(first_program((tree / "README.md").read_text()))
    run(python, program, cwd=work)
    return files


def release(root: Path, version: str, *, dry_run: bool) -> list[str]:
    """Makes the release; returns the names of the files that were built."""
    check_tree(root, version)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tree = work / "tree"
        run("git", "clone", "-q", "--no-hardlinks", root, tree, cwd=work)
        set_all(tree, version)
        files = build_and_try(tree, work)
        if not dry_run:
            for name in CHANGED:
                shutil.copy(tree / name, root / name)
            run("git", "commit", "-q", "-m", f"Version {version}", *CHANGED, cwd=root)
            run("git", "tag", f"v{version}", cwd=root)
            (root / "dist").mkdir(exist_ok=True)
            for file in files:
                shutil.copy(file, root / "dist")
        return [file.name for file in files]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Builds, checks, commits and tags a release. Uploads nothing.")
    parser.add_argument("version", help="three numbers, such as 0.2.0")
    parser.add_argument("--dry-run", action="store_true", help="check and build all, change nothing here")
    given = parser.parse_args(arguments)
    try:
        files = release(ROOT, given.version, dry_run=given.dry_run)
    except Refused as refused:
        print(f"not released: {refused}", file=sys.stderr)
        return 1
    print(f"built and tried: {', '.join(files)}")
    print("nothing is changed here" if given.dry_run else f"committed and tagged v{given.version}; files are in dist/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
