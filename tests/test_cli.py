from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tlkit
from tlkit import zoo
from tlkit.cli import main
from tlkit.cli.app import COMMANDS
from tlkit.cli.quiet import _stderr_on_failure_only
from tlkit.errors import DataCheckError, InternalError


def run_python(code: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **kwargs)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run a command that must fail with one line on standard error and nothing on standard output."""
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["zoo", "list"], ["zoo", "--help"], ["finetune", "--help"]]
)
def test_quick_commands_load_nothing_heavy(arguments: list[str]) -> None:
    done = run_python(
        f"""
import sys
from tlkit.cli import main
assert main({arguments!r}) == 0
heavy = {{"tensorflow", "keras", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "PIL", "numpy"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "click" in sys.modules
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_tensorflow_is_loaded_without_noise() -> None:
    code = "import sys; from tlkit.cli.quiet import load_tensorflow; load_tensorflow(); "
    code += "import tensorflow as tf; tf.zeros(2); assert 'keras' in sys.modules"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = run_python(code, env=environment)
    assert done.returncode == 0
    assert (done.stdout, done.stderr) == ("", "")


def test_noise_is_not_shown_on_ctrl_c(capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with _stderr_on_failure_only():
            os.write(2, b"noise")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("arguments", [[], ["zoo"], ["data"]])
def test_without_a_command_the_help_is_shown(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    help_lines = capsys.readouterr().err.splitlines()
    assert help_lines[0].startswith("Usage: tlkit")
    assert "Commands:" in help_lines


def test_noise_is_shown_when_tensorflow_does_not_load() -> None:
    code = "import sys, os; from tlkit.cli import quiet; "
    code += "quiet.importlib.import_module = lambda name: os.write(2, b'libcuda is broken') and 1 / 0; "
    code += "quiet.load_tensorflow()"
    done = run_python(code)
    assert done.returncode == 1
    assert "libcuda is broken" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"Usage: tlkit {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tlkit {tlkit.__version__}\n"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "tlkit", "--version"], capture_output=True, text=True)
    assert done.stdout == f"tlkit {tlkit.__version__}\n"


def test_an_unknown_command_or_option_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Unknown command 'finetun'. Did you mean 'finetune'?" in fails(capsys, "finetun")
    assert "Unknown command 'lst'. Did you mean 'list'?" in fails(capsys, "zoo", "lst")
    error = fails(capsys, "finetune", "--bakcbone", "x")
    assert "No such option" in error
    assert "--backbone" in error
    assert "See: tlkit finetune --help" in error


def test_a_wrong_kind_of_option_value_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'abc' is not a valid integer" in fails(capsys, "finetune", "--epochs", "abc")


def test_finetune_says_what_it_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "No data. Add --data FOLDER" in fails(capsys, "finetune")
    assert f"is a folder, not a config. To train on what is in it: --data {tmp_path}" in fails(
        capsys, "finetune", str(tmp_path)
    )
    assert "One config at most" in fails(capsys, "finetune", "a.yaml", "b.yaml")
    assert "Cannot read a.yaml: No such file" in fails(capsys, "finetune", "a.yaml")


def test_all_config_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(capsys, "finetune", "--data", "x", "--plan", "haed", "hed.dropout=1", "--epochs", "0")
    assert "Did you mean 'head'?" in error
    assert "unknown key 'hed'" in error
    assert "training.epochs" in error


def test_an_unknown_sample_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Unknown sample 'elpvv'. Did you mean 'elpv'?" in fails(capsys, "demo", "--data", "elpvv")


def test_zoo_list_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "list", "--json"]) == 0
    captured = capsys.readouterr()
    assert [entry["name"] for entry in json.loads(captured.out)] == [entry.name for entry in zoo.entries()]
    assert captured.err == ""


def test_zoo_list_and_search_are_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "search", "lite0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["name", "family"]
    assert lines[1].startswith("efficientnet_lite0 ")
    assert len(lines) == 2


def test_zoo_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "info", "efficientnet_lite0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["license"] == "Apache-2.0"
    assert "Did you mean 'efficientnet_lite0'?" in fails(capsys, "zoo", "info", "efficentnet_lite0")


def test_zoo_fetch_knows_backbones_and_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'elpv'?" in fails(capsys, "zoo", "fetch", "elpvv")
    assert "Did you mean 'efficientnet_lite0'?" in fails(capsys, "zoo", "fetch", "efficientnet_lte0")


def test_zoo_fetch_offline_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path))
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    assert "TLKIT_OFFLINE" in fails(capsys, "zoo", "fetch", "efficientnet_lite0")


def test_zoo_verify_of_an_empty_cache(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path))
    assert main(["zoo", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["efficientnet_lite0"] == "not fetched"


def test_config_shows_every_value_and_where_it_came_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 3\n")
    assert main(["config", str(file), "--epochs", "2", "plan=head"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["seed", "3", str(file)] in rows
    assert ["training.epochs", "2", "option", "training.epochs"] in rows
    assert ["plan.name", "head", "override", "plan"] in rows
    assert ["head.dropout", "0.2", "default"] in rows
    assert main(["config", "seed=4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["config"]["seed"], document["origins"]["seed"]) == (4, "override seed")


def test_config_yaml_is_a_config_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "plan=gradual", "head.dropout=0.5", "--yaml"]) == 0
    file = tmp_path / "c.yaml"
    file.write_text(capsys.readouterr().out)
    assert main(["config", str(file), "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["plan"]["name"], config["head"]["dropout"]) == ("gradual", 0.5)


def test_runs_of_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"No runs in {tmp_path}.\n"
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert "Cannot list the runs" in fails(capsys, "runs", str(tmp_path / "missing"))


def test_doctor_says_what_works_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tlkit"] == tlkit.__version__
    assert facts["cpu_devices"][0].endswith("works")
    assert facts["pip"].startswith("pip ")


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [(DataCheckError("two bad files"), 3, 1), (KeyboardInterrupt(), 130, 2), (OSError("disk"), None, 0)],
)
def test_an_error_has_its_exit_code(
    error: BaseException,
    code: int | None,
    lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(zoo, "entries", fail)
    if code is None:
        with pytest.raises(type(error)):  # a bug keeps its traceback
            main(["zoo", "list"])
        return
    assert main(["zoo", "list"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == lines
    assert "Traceback" not in captured.err


def test_our_own_fault_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise InternalError("it moved")

    monkeypatch.setattr(zoo, "entries", fail)
    assert main(["zoo", "list"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("Error: it moved\n")


def test_a_reader_that_stops_early_is_no_error() -> None:
    code = "import sys; from tlkit.cli import main; sys.exit(main(['zoo', 'list', '--json']))"
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -c "{code}" | head -c 20 >/dev/null'],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
