"""Rules for the tree that no linter knows. Files that git does not ignore are checked, those not yet committed too."""

import re
import shutil
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The first prefix that fits: lines at which a file is printed, lines at which the test fails.
SIZE_LIMITS = {
    "src/convsmith/zoo/": (150, 160),
    "src/convsmith/search/strategies/": (150, 160),
    "src/convsmith/cli/demo_steps.py": (160, 180),
    "src/convsmith/cli/": (80, 120),
    "src/convsmith/nn/": (120, 200),
    "src/": (250, 400),
}
# Written so that they do not find themselves.
NOTES_TO_SELF = re.compile(r"\b(TO[D]O|FIX[M]E|X[X]X)\b")
LOCK_FILES = re.compile(r"(^|/)(uv\.lock|poetry\.lock|pdm\.lock|Pipfile\.lock|pylock.*\.toml|package-lock\.json)$")
REGISTRY_ADDRESSES = re.compile(r"https?://\S+(\.whl|/simple\b)|index[-_]url|find[-_]links|--hash[=]", re.IGNORECASE)


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Every file of the tree, as paths from its root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: only git knows which files belong to the tree")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    paths = [Path(name) for name in sorted(listed.split("\0")) if name and (ROOT / name).is_file()]
    assert Path("tests/test_style.py") in paths
    return paths


def matches(files: list[Path], pattern: re.Pattern[str]) -> list[str]:
    """Lines in which the pattern occurs, as `path:line: text`."""
    found = []
    for path in files:
        text = (ROOT / path).read_bytes().decode(errors="replace")
        if "\0" not in text and pattern.search(text):
            lines = enumerate(text.splitlines(), start=1)
            found += [f"{path}:{number}: {line.strip()[:120]}" for number, line in lines if pattern.search(line)]
    return found


def test_nothing_is_left_for_later(files):
    assert matches(files, NOTES_TO_SELF) == []


def test_files_are_short(files):
    over_hard_limit = []
    for path in files:
        limits = next((limits for prefix, limits in SIZE_LIMITS.items() if path.as_posix().startswith(prefix)), None)
        if path.suffix != ".py" or limits is None:
            continue
        # A list of imports may be as long as its folder.
        soft, hard = SIZE_LIMITS["src/"] if path.name == "__init__.py" else limits
        lines = len((ROOT / path).read_text().splitlines())
        if lines > soft:
            print(f"{path}: {lines} lines, meant to be at most {soft}")
        if lines > hard:
            over_hard_limit.append(f"{path}: {lines} lines, allowed are {hard}")
    assert over_hard_limit == []


def test_no_registry_is_recorded(files):
    assert [path.as_posix() for path in files if LOCK_FILES.search(path.as_posix())] == []
    assert matches(files, REGISTRY_ADDRESSES) == []


def test_constraints_are_names_and_versions_in_order():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.+]*( ; .+)?", line)] == []
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_every_dependency_has_its_version_in_the_constraints():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    groups = [pyproject["build-system"]["requires"], project["dependencies"]]
    groups += [*project["optional-dependencies"].values(), *pyproject["dependency-groups"].values()]
    needed = {re.match(r"[\w.-]+", requirement)[0].lower() for group in groups for requirement in group} - {"convsmith"}
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert needed - pinned == set()


def test_tests_cannot_reach_the_network():
    with pytest.raises(RuntimeError, match="no network"):
        socket.getaddrinfo("host.invalid", 80)
    # An address reserved for documentation (RFC 5737): nothing would answer if the hook let it through.
    with pytest.raises(RuntimeError, match="no network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
