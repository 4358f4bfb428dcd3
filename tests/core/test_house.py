"""What a newcomer is told is true: files that are named exist, every law has its test, hooks check what CI checks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from paths import ROOT

import jscope as js

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "tests/README.md", "jscope/run/README.md")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CI = (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_and_linked_exist(page: str) -> None:
    text, folder = (ROOT / page).read_text(), (ROOT / page).parent
    named = re.findall(r"`((?:tests|jscope|docs|\.ci)/[\w./]*\w)`", text)
    named += [path for path in re.findall(r"tests/\w+/\w+\.py", text) if path not in named]
    assert not [path for path in named if not (ROOT / path).exists()]
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text)
    assert not [link for link in links if not (folder / link).exists()]


def test_every_law_names_the_tests_that_hold_it() -> None:
    rows = re.findall(r"^\| (\d)\. .*\| (.+) \|$", CONTRIBUTING, re.MULTILINE)
    assert [number for number, _ in rows] == [str(number) for number in range(1, 10)]
    held = "".join(files for _, files in rows)
    assert all(f"`tests/laws/{path.name}`" in held for path in (ROOT / "tests" / "laws").glob("test_*.py"))


def test_the_map_of_the_house_names_every_file() -> None:
    house = ROOT / "jscope"
    table = CONTRIBUTING.partition("## The house")[2].partition("## ")[0]
    for path in [*house.glob("*.py"), *house.glob("*/__init__.py")]:
        name = path.stem if path.parent == house and path.stem != "__init__" else path.parent.name
        assert name == "__main__" or name in table, path


def test_the_readme_of_the_tests_names_every_folder_and_recorder() -> None:
    text = (ROOT / "tests" / "README.md").read_text()
    folders = {
        path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith(("_", "."))
    }
    assert set(re.findall(r"^\| `(\w+)` \|", text.partition("## ")[0], re.MULTILINE)) == folders
    recorders = {path.name for path in (ROOT / "tests" / "support").glob("*record*.py")}
    assert set(re.findall(r"support/(\w*record\w*\.py)", text)) == recorders


def test_hooks_are_what_ci_checks() -> None:
    hooks = re.findall(r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert len(hooks) == 4
    assert all(hook in CI for hook in hooks)
    tools = CI.partition("ruff, pyright")[2].partition("say ")[0]
    checks = re.findall(r"^    (ruff .+|pyright|python -m mkdocs .+?(?= -d|$))", tools, re.MULTILINE)
    assert {check.split(" --pythonpath")[0] for check in checks} == set(hooks)


def lower_bounds() -> dict[str, str]:
    """name -> version of the lower bounds of all extras that a row of CI can install together."""
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"]]
    for extra in ("testing", "checkpoint", "peers", "examples", "bench", "test"):
        needed += [need for need in extras[extra] if not need.startswith("jax-scope[")]
    return dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", need).groups() for need in needed)  # type: ignore[union-attr, misc]


def test_ci_tries_the_lowest_versions_that_are_allowed() -> None:
    lines = (ROOT / ".ci" / "lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    bounds = lower_bounds()
    assert ".ci/lowest.txt" in CI
    assert pinned.keys() >= bounds.keys()
    for name, bound in bounds.items():
        assert pinned[name] == ".".join((bound + ".0.0").split(".")[:3]), name


def test_the_version_is_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {js.__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation
    assert f"## [{js.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_sources_that_are_released_hold_what_they_link() -> None:
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"][
        "include"
    ]
    assert all((ROOT / name).exists() for name in included)
    assert {path.name for path in Path(ROOT).glob("*.md")} <= set(included)
