"""Runs on records: the same as on files, each worker reading its own, gone on with, and never held whole.

The figures of memory and of what workers read: pytest -m slow -s tests/test_records_runs.py
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from test_resume_processes import DIES, PLACES, arguments, assert_same, finish, start

from tlkit.config import DataConfig, load_config
from tlkit.data import Examples, load, make_pipeline
from tlkit.data.batches import Share
from tlkit.data.pipeline import WHOLE
from tlkit.data.record_writer import write_records
from tlkit.errors import DataError
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing
from tlkit.results import RunFolder, write_csv
from tlkit.workflows.resume import Stopped

from conftest import make_pictures
from record_files import examples_of, small_preprocessing, write_file, write_three_files
from worker_processes import run_workers, succeeded

SIZE = 16
PROC = Path("/proc/self")
needs_proc = pytest.mark.skipif(not (PROC / "io").exists(), reason="Linux counts what a process reads")


@pytest.fixture(scope="module")
def preprocessing() -> ImagePreprocessing:
    return small_preprocessing(SIZE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def records(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, in three files."""
    return write_three_files(tmp_path_factory.mktemp("records") / "photos", photos)


def noise(side: int, seed: int = 0) -> bytes:
    """A PNG of side × side × 3 bytes: noise cannot be compressed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    raw: bytes = tf.io.encode_png(pixels).numpy()
    return raw


# The same as on files

BOTH = """
import sys
import tlkit
from tlkit.results import write_json
out, *sources = sys.argv[1:]
for number, source in enumerate(sources):
    run = tlkit.finetune(
        config={"data": {"source": source, "memory": 0, "disk": 0}}, backbone="image_cnn", image_size=32,
        batch_size=12, epochs=1, deterministic=True, export=False, out=f"{out}/{number}",
    )
write_json(f"{out}/again.json", tlkit.load(f"{out}/1").evaluate())
"""


def test_a_run_on_records_gives_what_a_run_on_files_gives_bit_by_bit(
    photos: Path, records: Path, tmp_path: Path
) -> None:
    # Nothing decoded is kept, so that every epoch reads the records. Determinism is of a whole process.
    done = subprocess.run(
        [sys.executable, "-c", BOTH, str(tmp_path), str(photos), str(records)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files, others = (np.load(tmp_path / name / "outputs.npz") for name in "01")
    np.testing.assert_array_equal(files["ids"], others["ids"])
    np.testing.assert_array_equal(files["outputs"], others["outputs"])
    assert (tmp_path / "0" / "history.csv").read_text() == (tmp_path / "1" / "history.csv").read_text()
    measured = json.loads((tmp_path / "1" / "result.json").read_text())["metrics"]["test"]
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["accuracy"] == measured["accuracy"]
    assert again["loss"] == pytest.approx(measured["loss"], rel=1e-6)


# Workers


def bytes_read() -> int:
    """What this process has read from files until now."""
    found = re.search(r"rchar: (\d+)", (PROC / "io").read_text())
    assert found is not None
    return int(found[1])


def check_shares(
    examples: Examples,
    preprocessing: ImagePreprocessing | TextPreprocessing,
    path: Path,
    training: bool,
    rel: float,
) -> None:
    """Of 25 examples in one file each of two workers reads its own, but for `rel` of the bytes."""

    def read(examples: Examples, share: Share) -> tuple[list[float], int]:
        """The targets of the rows that come, and how many bytes were read for them."""
        pipeline = make_pipeline(
            examples, preprocessing, global_batch_size=8, training=training, epochs=2, replicas=2, share=share
        )
        before = bytes_read()
        targets = [float(value) for _, batch in pipeline.as_numpy_iterator() for value in batch]
        return targets, bytes_read() - before

    read(examples, WHOLE)  # what TensorFlow reads itself at first
    targets, whole = read(examples, WHOLE)
    epochs = 2 if training else 1
    assert whole == pytest.approx(epochs * path.stat().st_size, rel=0.02)
    shares = [read(examples, Share(first=number, count=1, total=2)) for number in range(2)]
    assert sorted(shares[0][0] + shares[1][0]) == sorted(targets) == sorted([*range(25)] * epochs)
    for own, count in shares:
        assert count == pytest.approx(whole * len(own) / len(targets), rel=rel)


@needs_proc
@pytest.mark.parametrize("training", [True, False])
def test_a_worker_reads_the_records_of_its_own_rows_and_no_others(
    training: bool, preprocessing: ImagePreprocessing, tmp_path: Path
) -> None:
    path = write_file(
        tmp_path / "a.tfrecord", [{"image": noise(160, row), "label": float(row)} for row in range(25)]
    )
    spec = DataConfig(source=str(path), memory=0, disk=0)
    examples = load(spec, "regress", seed=0, preprocessing=preprocessing, only="train").splits["train"]
    check_shares(examples, preprocessing, path, training, rel=0.02)


SHARED = """
import json, os, sys
from pathlib import Path
import keras
import tensorflow as tf
import tlkit
from tlkit.data import records
source, out, strategy = sys.argv[1:]
log, read_record = Path(f"{out}-{os.getpid()}.log"), records._record_at

def read_and_log(place):
    with tf.control_dependencies([tf.print(*place, output_stream=f"file://{log}")]):
        return read_record(place)

records._record_at = read_and_log

class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.losses, self.begin, self.read = [], 0, []
    def on_train_begin(self, logs=None):
        self.begin = len(log.read_text().splitlines())  # Keras looks at a batch before any step
    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
    def on_train_end(self, logs=None):
        self.read = log.read_text().splitlines()[self.begin:]

watch = Watch()
config = {
    "data": {"source": source, "memory": 0, "disk": 0, "split": {"validation": 0.1, "test": 0.1}},
    "preprocessing": {"augment": "none"}, "head": {"dropout": 0}, "architecture": {"dropout": 0},
    "training": {"patience": 50},
    "cache": {"mode": "off"}, "strategy": strategy,
}
run = tlkit.finetune(
    config=config, backbone="image_cnn", image_size=32, batch_size=8, epochs=3, out=out, export=False,
    callbacks=watch,
)
print(json.dumps({"losses": watch.losses, "read": watch.read}))
"""


@needs_proc
@pytest.mark.slow
def test_two_workers_read_half_of_the_records_each_and_learn_what_one_process_learns(tmp_path: Path) -> None:
    photos = make_pictures(tmp_path / "photos", per_class=13, size=200)
    examples = examples_of(photos)
    for number in range(3):
        write_file(tmp_path / "records" / f"{number}.tfrecord", examples[number::3])
    command = ["-c", SHARED, str(tmp_path / "records")]
    alone = subprocess.run(
        [sys.executable, *command, str(tmp_path / "one"), "cpu"], capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    ended = succeeded(run_workers([[*command, str(tmp_path / "two"), "multi_worker"]] * 2, seconds=600))
    one, *workers = (
        json.loads(out.splitlines()[-1]) for out in (alone.stdout, *(each.out for each in ended))
    )
    counts = [len(each["read"]) for each in (one, *workers)]
    print(f"records read while training: one process {counts[0]}, workers {counts[1:]}")
    for worker in workers:  # and at one of validation, in each epoch
        np.testing.assert_allclose(worker["losses"], one["losses"], rtol=1e-4)
        assert 0.4 * counts[0] < len(worker["read"]) < 0.6 * counts[0]
    assert {*workers[0]["read"], *workers[1]["read"]} == {*one["read"]}
    outputs = [np.load(tmp_path / name / "outputs.npz")["outputs"] for name in ("one", "two")]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-3)


# Going on


def test_records_that_changed_are_not_gone_on_with(
    photos: Path, preprocessing: ImagePreprocessing, tmp_path: Path
) -> None:
    path, examples = tmp_path / "photos.tfrecord", examples_of(photos)
    config = load_config({"data": {"source": str(path)}}).config
    stopped = Stopped(RunFolder(tmp_path / "run"), config, {})

    def prepared() -> SimpleNamespace:
        write_file(path, examples)
        dataset = load(config.data, "classify", seed=0, preprocessing=preprocessing)
        return SimpleNamespace(config=config, dataset=dataset)

    write_csv(stopped.folder.manifest, prepared().dataset.manifest.table)
    stopped.require_same_data(prepared())  # type: ignore[arg-type]
    examples[5] = {**examples[5], "image": noise(20)}
    with pytest.raises(DataError, match="of 36 examples 1 are gone or changed, 1 are new"):
        stopped.require_same_data(prepared())  # type: ignore[arg-type]
    examples[5] = examples_of(photos)[5]
    examples[6], examples[30] = examples[30], examples[6]
    with pytest.raises(DataError, match="of 36 examples 0 are gone or changed, 0 are new"):
        stopped.require_same_data(prepared())  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_on_records_that_was_killed_ends_as_the_whole_one(records: Path, tmp_path: Path) -> None:
    options = ("data.memory=0", "data.disk=0", "export=false")
    finish(arguments(records, tmp_path / "whole", *options), tmp_path / "home_a")
    out, home = tmp_path / "killed", tmp_path / "home_b"
    module, name, count = PLACES["between two steps"]
    command = [module, name, str(count), *arguments(records, out, *options)]
    with start(command, home, ("-c", DIES)) as process:
        _, messages = process.communicate()
    assert process.returncode == -signal.SIGKILL, messages
    finish(["finetune", "--out", str(out), "--resume"], home)
    assert_same(out, tmp_path / "whole")


# Memory

PEAK = """
import sys
from tlkit.config import DataConfig, PreprocessingConfig
from tlkit.data import load, make_pipeline
from tlkit.preprocessing import make_preprocessing
from tlkit.zoo.entry import ImageInput

spec = PreprocessingConfig(image_size=16, augment="none")
preprocessing = make_preprocessing(ImageInput(image_size=16, min_image_size=8), spec)
data = DataConfig(source=sys.argv[1], memory=0, disk=0)
train = load(data, "classify", seed=0, preprocessing=preprocessing).splits["train"]
for _ in make_pipeline(train, preprocessing, global_batch_size=32, training=True):
    pass
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


@needs_proc
@pytest.mark.slow
def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    pictures, peaks, sizes = [noise(240, seed) for seed in range(12)], [], []
    for count in (120, 1800):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_records(
            ({"image": pictures[number % 12], "label": number % 3} for number in range(count)), folder, "data"
        )
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) * 1024)
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    sizes_shown, peaks_shown = ([round(value / 1e6) for value in values] for values in (sizes, peaks))
    print(f"records of {sizes_shown} MB; peaks of memory {peaks_shown} MB")
    assert sizes[1] - sizes[0] > 250e6
    # What is left are batches on their way, and what an allocator keeps.
    assert peaks[1] - peaks[0] < 0.2 * (sizes[1] - sizes[0])
