from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import tlkit

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "tlkit").rglob("*.py"))
LOW = ("errors", "config", "zoo", "plans", "results", "progress", "launching", "cli")


@pytest.mark.parametrize("module", LOW)
def test_the_lower_floors_and_the_shell_load_no_tensorflow(module: str) -> None:
    code = f"import sys, tlkit.{module}; assert not {{'tensorflow', 'keras'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_modules_import_only_from_floors_below(tmp_path: Path) -> None:
    pytest.importorskip("importlinter", reason="import-linter is in the dev extra; .ci/check runs it")
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    done = subprocess.run([*command, "--cache-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_says_what_it_is_for(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def test_nothing_is_left_unfinished() -> None:
    words = ("TODO", "FIXME", "XXX", "NotImplementedError", "breakpoint()")
    found = [
        (file.name, word) for file in FILES for word in words if word in file.read_text(encoding="utf-8")
    ]
    assert found == []


def test_the_project_file_is_the_one_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"tlkit": "tlkit.cli:run"}
    try:
        installed = metadata.version("tlkit")
    except metadata.PackageNotFoundError:
        pytest.skip("tlkit is not installed: pip install '.[test]'")
    assert installed == tlkit.__version__


@pytest.mark.parametrize("package", ["tensorboard", "pyarrow"])
def test_packages_that_are_imported_only_by_others_are_asked_for(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=~!\[; ]", requirement)[0] for requirement in project["dependencies"]]
    assert package in names, f"Keras or pandas imports {package} when a run needs it"


def test_the_changelog_names_the_version() -> None:
    assert f"## [{tlkit.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
