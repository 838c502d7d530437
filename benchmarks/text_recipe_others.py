"""The sides of `text_recipe.py` that are KerasHub and the Trainer of transformers."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from itertools import pairwise
from typing import Any

BATCH_SIZE = 32
HEAD_RATE = 1e-3


def run_keras_hub_128(arguments: argparse.Namespace) -> dict[str, Any]:
    return run_keras_hub(arguments, sequence_length=128)


def run_keras_hub(arguments: argparse.Namespace, sequence_length: int | None = None) -> dict[str, Any]:
    import keras
    import keras_hub
    import tensorflow as tf

    known = json.loads((arguments.scratch / "examples.json").read_text(encoding="utf-8"))
    keras.utils.set_random_seed(arguments.repeat)
    history: list[tuple[float, float]] = []
    estimated = 0.0
    started = time.perf_counter()
    model = keras_hub.models.TextClassifier.from_preset(known["folder"], num_classes=len(known["classes"]))
    if sequence_length is not None:
        model.preprocessor.sequence_length = sequence_length

    def dataset(name: str) -> tf.data.Dataset:
        split = known["splits"][name]
        examples = tf.data.Dataset.from_tensor_slices((split["texts"], split["labels"]))
        if name == "train":
            examples = examples.shuffle(len(split["labels"]))
        batches = examples.batch(BATCH_SIZE)
        return batches.take(arguments.steps) if arguments.steps else batches

    def count_left(name: str, epochs: int) -> int:
        """Batches that were not run."""
        batches = -(-len(known["splits"][name]["labels"]) // BATCH_SIZE)
        return epochs * batches - min(batches, arguments.steps)

    train, validation, test = (dataset(name) for name in ("train", "validation", "test"))
    for stage in arguments.stages:
        part, epochs = stage.split(":")
        model.backbone.trainable = part == "all"
        if part == "head":
            model.compile(keras.optimizers.Adam(HEAD_RATE))
        else:
            model.compile()
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: history.append(
                (time.perf_counter() - started, logs["val_sparse_categorical_accuracy"])
            )
        )
        clock = make_clock()
        model.fit(
            train,
            validation_data=validation,
            epochs=1 if arguments.steps else int(epochs),
            callbacks=[note, clock],
            verbose=2,
        )
        if arguments.steps:
            estimated += count_left("train", int(epochs)) * clock.step(clock.trained)
            estimated += count_left("validation", int(epochs)) * clock.step(clock.tested)
    clock = make_clock()
    measured = model.evaluate(test, callbacks=[clock], verbose=0, return_dict=True)
    if arguments.steps:
        estimated += count_left("test", 1) * clock.step(clock.tested)
    return {
        "seconds": time.perf_counter() - started + estimated,
        "test_accuracy": None if arguments.steps else measured["sparse_categorical_accuracy"],
        "sequence_length": model.preprocessor.sequence_length,
        "estimated": bool(arguments.steps),
        "history": [] if arguments.steps else history,
    }


def make_clock() -> Any:
    """A callback that notes when each batch of training and of validation ended."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.trained: list[float] = []
            self.tested: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.trained.append(time.perf_counter())

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            self.tested.append(time.perf_counter())

        @staticmethod
        def step(ends: list[float]) -> float:
            """Median seconds of a step, of those after the first, in which the graph is traced."""
            seconds = [after - before for before, after in pairwise(ends)]
            return statistics.median(seconds) if seconds else 0.0

    return Clock()


def run_trainer(arguments: argparse.Namespace) -> dict[str, Any]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    known = json.loads((arguments.scratch / "examples.json").read_text(encoding="utf-8"))
    torch.manual_seed(arguments.repeat)
    history: list[tuple[float, float]] = []
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(known["folder"])
    model = AutoModelForSequenceClassification.from_pretrained(
        known["folder"], num_labels=len(known["classes"])
    )

    def examples(name: str) -> list[dict[str, Any]]:
        split = known["splits"][name]
        encoded = tokenizer(split["texts"], truncation=True)
        return [
            {**{key: values[row] for key, values in encoded.items()}, "labels": label}
            for row, label in enumerate(split["labels"])
        ]

    def accuracy_of(predicted: Any) -> dict[str, float]:
        return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}

    class Note(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            history.append((time.perf_counter() - started, metrics["eval_accuracy"]))
            print(f"{state.epoch}: {metrics['eval_accuracy']:.4f}", file=sys.stderr, flush=True)

    train, validation, test = (examples(name) for name in ("train", "validation", "test"))
    for stage in arguments.stages:
        part, epochs = stage.split(":")
        model.base_model.requires_grad_(part == "all")
        rate = {"learning_rate": HEAD_RATE} if part == "head" else {}
        trainer = Trainer(
            model,
            TrainingArguments(
                output_dir=str(arguments.scratch / "trainer"),
                num_train_epochs=int(epochs),
                per_device_train_batch_size=BATCH_SIZE,
                per_device_eval_batch_size=BATCH_SIZE,
                eval_strategy="epoch",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=arguments.repeat,
                **rate,
            ),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=train,
            eval_dataset=validation,
            compute_metrics=accuracy_of,
            callbacks=[Note()],
        )
        trainer.train()
    measured = trainer.predict(test).metrics
    return {
        "seconds": time.perf_counter() - started,
        "test_accuracy": measured["test_accuracy"],
        "history": history,
    }
