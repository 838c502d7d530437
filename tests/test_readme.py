"""Every command and every piece of Python in the README runs, on pictures that are made here."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import pandas as pd
import pytest
import yaml
from PIL import Image

import tlkit
from tlkit.cli.app import _make_app
from tlkit.cli.options import chosen_options, split_arguments
from tlkit.config import load_config

from conftest import ROOT, SHARED_DATA, make_pictures
from record_files import examples_of, write_file

README = (ROOT / "README.md").read_text(encoding="utf-8")
IMAGE_SIZE = 32

# Commands that are only parsed, and why.
NOT_RUN = {
    'pip install ".[test]" && pytest': "would run these tests inside themselves",
    "pip install . && tlkit demo": "installs, and trains for minutes; the digits stand in for it",
    "tlkit cache clear": "would clear what whoever runs the tests has stored; test_cli_cache.py has it",
    "tlkit demo --text": "trains for minutes; the test of the notebook on texts stands in for it",
    **dict.fromkeys(
        (
            "tlkit launch --workers 2 -- finetune --data photos/",
            "tlkit launch --workers 2 --restarts 3 -- finetune --data photos/ --out runs/photos",
        ),
        "start processes of their own; test_launch.py does, too",
    ),
}

# What runs with `pytest -m slow` only, by a part of the command or the Python, and the tests of it that run
# every time.
LONGER = {
    "data.columns.text=": "test_data_text_sources.py",
    "--task embed": "test_finetune_texts.py",
    "names.conll": "test_finetune_texts.py",
    "my_bert/": "test_finetune_texts.py",
    "--backbone my_model.keras": "test_backbones_own.py",
    "keras.saving.load_model(": "test_backbones_own.py",
    "my_saved_model/": "test_saved_model_runs.py",
    "--backbone my_net": "test_zoo_add.py",
    "zoo rank": "test_rank.py",
    "--task regress": "test_finetune.py",
    "preprocessing.nltk": "test_finetune_texts.py",
    "--client-preprocessing": "test_finetune_texts.py",
    "text_cnn": "test_finetune_texts.py",
    "--plan lora": "test_adapters_file.py",
    "--data records/": "test_records.py",
}

# What is added to a command that trains, so that it takes seconds.
QUICK = f"training.epochs=1 preprocessing.image_size={IMAGE_SIZE}"
SMALL_STEPS = f"--steps 10 preprocessing.image_size={IMAGE_SIZE}"
FEW_TOKENS = "training.epochs=1 preprocessing.sequence_length=16 export=false"
LORA = ("--dry-run", """plan.rank=4 'plan.targets=[query, value, "feedforward.*dense"]'""")
FEW_DIGITS = "data.split.test=0.5 data.split.validation=0.4"
ADDED = {
    "tlkit finetune --data photos/": QUICK,
    "tlkit finetune --data photos/ --dry-run": QUICK,
    "tlkit lr-find --data photos/ --seeds 3 --out rates.png": SMALL_STEPS,
    "tlkit lr-find --data photos/ --plan full --json": SMALL_STEPS,
    **{f"tlkit finetune --data reviews.csv --plan lora {rest}": FEW_TOKENS for rest in LORA},
    "tlkit demo --data digits": f"{QUICK} {FEW_DIGITS} plan=head export=false",
    "tlkit zoo rank --data digits --backbones efficientnet_lite0,mobilenet_v2_torchvision": FEW_DIGITS,
}
QUICKER = f"{QUICK} plan=head export=false"  # for all other trainings
QUICK_TEXTS = f"{FEW_TOKENS} plan=head"
NEEDS_NLTK_DATA = ("preprocessing.nltk", "--client-preprocessing")

# One process for all commands: each of its own would spend most of its time on importing TensorFlow.
RUN_COMMANDS = """
import json, sys
from tlkit.cli import main
for arguments in json.loads(sys.argv[1]):
    print("$ tlkit", *arguments, file=sys.stderr, flush=True)
    if code := main(arguments):
        sys.exit(f"exit code {code}")
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line.strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def quickened(command: str) -> str:
    """The command as it is run here: the same, with small pictures and one epoch where it trains."""
    if command in ADDED:
        return f"{command} {ADDED[command]}"
    if not command.startswith("tlkit finetune"):
        return command
    is_text = re.search(r"--data (reviews|pairs|names)\.", command)
    return f"{command} {QUICK_TEXTS if is_text else QUICKER}"


def test_every_block_has_a_language() -> None:
    opened = re.findall(r"^```(\w*)$", README, flags=re.MULTILINE)[::2]
    assert set(opened) == {"sh", "python", "yaml"}


def test_what_is_not_run_is_in_the_readme() -> None:
    assert set(NOT_RUN) | set(ADDED) <= set(commands())
    for part, tests in LONGER.items():
        assert any(part in text for text in (*commands(), *blocks("python"))), part
        assert (ROOT / "tests" / tests).is_file()


@pytest.mark.parametrize("command", [part for line in commands() for part in line.split(" && ")])
def test_a_command_parses(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    program, *arguments = shlex.split(command)
    if program != "tlkit":
        assert [program, *arguments] in (
            ["pip", "install", "."],
            ["pip", "install", ".[test]"],
            ["pytest"],
        )
        return
    context = parse(arguments)
    if "arguments" in context.params:
        path, overrides = split_arguments(context.params["arguments"])
        load_config(path, overrides, chosen_options(context.params))


def test_the_extras_that_the_readme_installs_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in ("test", "tfds", "datasets", "remote"):
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE)


def test_the_config_in_the_readme_is_valid() -> None:
    assert len(blocks("yaml")) == 1
    load_config(yaml.safe_load(blocks("yaml")[0]))


def test_the_table_of_the_zoo_is_that_of_the_zoo() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| (\d+) \| ([^|]+) \|$", README, flags=re.MULTILINE)
    entries = tlkit.zoo.entries()
    offline = [entry for entry in entries if entry.source.kind == "wheel" and entry.modality != "other"]
    assert rows == [(e.name, f"{e.params:,}", str(size_of(e)), e.license) for e in offline]
    counts = Counter(entry.source.kind for entry in entries)
    assert f"{counts['keras']} more entries are those of keras.applications" in README
    assert f"{counts['keras_hub']} entries are presets of KerasHub" in README
    assert f"{counts['none']} entries are trained from scratch" in README


def size_of(entry: tlkit.zoo.ZooEntry) -> int:
    """Pixels, or tokens."""
    return getattr(entry.input, "image_size", None) or entry.input.sequence_length


@pytest.mark.real
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_commands_and_the_python_of_the_readme_run(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_site(tmp_path)
    left_out = set(NOT_RUN)
    if (SHARED_DATA / "nltk_data").is_dir():
        monkeypatch.setenv("NLTK_DATA", str(SHARED_DATA / "nltk_data"))
    else:
        left_out |= {command for command in commands() if any(part in command for part in NEEDS_NLTK_DATA)}
    left_out |= {command for command in commands() if not whole and takes_longer(command)}
    lines = [shlex.split(quickened(command)) for command in commands() if command not in left_out]
    assert {line[0] for line in lines} == {"tlkit"}
    run_python(RUN_COMMANDS, tmp_path, json.dumps([line[1:] for line in lines]))

    for block in blocks("python"):
        if takes_longer(block) and not whole:
            continue
        alone = "tlkit" not in block
        quick = f"tlkit.finetune(epochs=1, image_size={IMAGE_SIZE}, plan='head', export=False, "
        code = block.replace("tlkit.finetune(", quick)
        run_python(f"{code}\nimport sys\nassert 'tlkit' not in sys.modules" if alone else code, tmp_path)

    runs = [tmp_path / "runs" / name for name in ("photos-efficientnet_lite0-1", "reviews-minilm_l6-1")]
    assert promised_files() <= {path.name for run in runs for path in run.iterdir()}


def takes_longer(text: str) -> bool:
    return any(part in text for part in LONGER)


def promised_files() -> set[str]:
    table = re.search(r"^\| file \|.*?\n\n", README, flags=re.DOTALL | re.MULTILINE)
    assert table is not None
    names = [
        name for row in table[0].splitlines() if row for name in re.findall("`(.+?)`", row.split("|")[1])
    ]
    return {name.rstrip("/") for name in names}


def parse(arguments: list[str]) -> click.Context:
    """Parse a command line down to its last subcommand, and run nothing."""
    command: click.Command = _make_app()
    context = command.make_context("tlkit", list(arguments))
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, found.make_context(found.name, rest, parent=context)
    return context


def run_python(code: str, folder: Path, *arguments: str) -> None:
    """Run code in a process of its own, with this test's tlkit; it must end without an error."""
    paths = [str(Path(tlkit.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


def make_site(folder: Path) -> None:
    """Fill a folder with what the README speaks of."""
    make_pictures(folder / "photos")
    make_pictures(folder / "photos_of_may", per_class=2, seed=1)
    make_pictures(folder / "new", per_class=1, seed=2)
    Image.open(folder / "new" / "red" / "00.png").save(folder / "new" / "one.jpg")
    (folder / "config.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    write_file(folder / "records" / "photos.tfrecord", examples_of(folder / "photos"))
    write_cells(folder)
    write_texts(folder)
    write_model(folder)


def write_model(folder: Path) -> None:
    """`my_model.keras`, a small classifier, and `my_saved_model/`, its body."""
    import keras

    from small_models import own_model

    own_model(IMAGE_SIZE).save(folder / "my_model.keras")
    body: keras.Model = own_model(IMAGE_SIZE, head=False)
    body.export(folder / "my_saved_model", verbose=False)


def write_texts(folder: Path) -> None:
    """`reviews.csv`, `new.csv`, `pairs.csv`, `names.conll`, and `my_bert/`, a tiny Hugging Face folder."""
    words = {"good": "a fine and moving film", "bad": "a dull and empty film"}
    reviews = [
        {"text": f"{text} number {n}", "review": f"{text}, {n} times", "label": label, "stars": label}
        for n in range(12)
        for label, text in words.items()
    ]
    pd.DataFrame(reviews).to_csv(folder / "reviews.csv", index=False)
    pd.DataFrame(reviews[:2]).to_csv(folder / "new.csv", index=False)
    pairs = [
        {"text": f"{n} men sleep", "text_b": f"{n % 7} persons sleep", "label": n % 7 / 2, "score": n % 5}
        for n in range(24)
    ]
    pd.DataFrame(pairs).to_csv(folder / "pairs.csv", index=False)
    sentence = "Ada\tB-person\nmet\tO\nGrace\tB-person\nHopper\tI-person\nin\tO\nroom\tO\n{n}\tO\n"
    (folder / "names.conll").write_text("\n".join(sentence.format(n=n) for n in range(24)), encoding="utf-8")
    shutil.copytree(ROOT / "tests" / "fixtures" / "text" / "bert", folder / "my_bert")


def write_cells(folder: Path) -> None:
    """`cells.csv`: a table with a label of every kind, and the module that a cell belongs to."""
    rows = []
    for index, path in enumerate(sorted((folder / "photos").rglob("*.png"))):
        kind = path.parent.name
        rows.append(
            {
                "file": str(path.relative_to(folder)),
                "kind": kind,
                "cracked": int(kind == "red"),
                "dark": index % 2,
                "power": 1.5 + index % 5,
                "module": index % 9,
            }
        )
    pd.DataFrame(rows).to_csv(folder / "cells.csv", index=False)
