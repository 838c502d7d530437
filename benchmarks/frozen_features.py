"""Logistic regression on frozen features: what fine-tuning has to beat, on the same splits.

    python benchmarks/frozen_features.py --data elpv --seeds 0 1 2

The features are the backbone's average-pooled map. The penalty is chosen on the validation split; training
and validation together then fit the classifier, and the test split is read once.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline as make_steps
from sklearn.preprocessing import StandardScaler

from tlkit import load_backbone, load_data, make_preprocessing
from tlkit.config import DataConfig, PreprocessingConfig
from tlkit.data import make_pipeline

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="elpv")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    table = Table("seed", "C", "test accuracy", "macro F1")
    accuracies = []
    for seed in arguments.seeds:
        penalty, accuracy, f1 = measure(arguments.data, arguments.backbone, seed)
        accuracies.append(accuracy)
        table.add_row(str(seed), f"{penalty:g}", f"{accuracy:.4f}", f"{f1:.4f}")
    table.add_row("mean", "", f"{statistics.mean(accuracies):.4f}", "")
    Console().print(table)


def measure(data: str, name: str, seed: int) -> tuple[float, float, float]:
    """Penalty, test accuracy and macro F1 on the splits of one seed."""
    backbone = load_backbone(name)
    preprocessing = make_preprocessing(backbone.entry.input, PreprocessingConfig(augment="none"))
    dataset = load_data(DataConfig(source=data), "classify", seed=seed, preprocessing=preprocessing)
    features, targets = {}, {}
    for split, examples in dataset.splits.items():
        batches = make_pipeline(examples, preprocessing, global_batch_size=32, training=False)
        maps = backbone.model.predict(batches, verbose=0)
        features[split], targets[split] = maps.mean(axis=(1, 2)), examples.targets

    def fit(penalty: float, *splits: str) -> LogisticRegression:
        steps = make_steps(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))
        return steps.fit(
            np.concatenate([features[split] for split in splits]),
            np.concatenate([targets[split] for split in splits]),
        )

    best = max(
        PENALTIES,
        key=lambda penalty: fit(penalty, "train").score(features["validation"], targets["validation"]),
    )
    predicted = fit(best, "train", "validation").predict(features["test"])
    accuracy = float(np.mean(predicted == targets["test"]))
    return best, accuracy, float(f1_score(targets["test"], predicted, average="macro"))


if __name__ == "__main__":
    main()
