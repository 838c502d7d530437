"""What fine-tuning on texts has to beat, on the same splits: simple models, and the backbone untrained.

    python benchmarks/text_baselines.py --data reviews.csv --seeds 0 1 2
    python benchmarks/text_baselines.py data.columns.label=score --data tweets.csv --task regress

Labels and numbers: logistic or ridge regression on TF-IDF (words and pairs of words) and on the backbone's
mean-pooled vectors; of two texts, on the differences and products of theirs. The penalty is chosen on the
validation split; training and validation together then fit the model, and the test split is read once. Tags:
every word's most frequent tag in training. Vectors: cosines of TF-IDF and of the backbone as it is.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline as make_steps
from sklearn.preprocessing import StandardScaler

from tlkit import RunConfig, build_model, load_backbone, load_config, make_head
from tlkit.backbones import source_folder
from tlkit.config import PreprocessingConfig
from tlkit.data import SPLITS, Texts, read_texts
from tlkit.evaluation import compute_metrics
from tlkit.preprocessing import make_text_preprocessing, make_tokenizer

SHOWN = {
    "classify": ("accuracy", "f1_macro"),
    "multilabel": ("f1_micro", "f1_macro"),
    "regress": ("r2", "spearman", "mae"),
    "tokens": ("entity_f1", "precision", "recall", "accuracy"),
    "embed": ("spearman", "pearson", "accuracy_at_1", "mrr"),
}
# What is weighed against the loss; vectors are standardised, TF-IDF is small numbers.
PENALTIES = {"TF-IDF": (0.3, 1.0, 3.0, 10.0, 30.0), "backbone": (1e-4, 1e-3, 1e-2, 1e-1, 1.0)}
TUNED_BY = {"classify": "accuracy", "multilabel": "f1_micro", "regress": "r2"}
BATCH = 64

Features = dict[str, Any]  # split → matrix, one row per example
Splits = dict[str, tuple[Any, Any]]  # split → (samples, targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--task", default="classify")
    parser.add_argument("--backbone", default="minilm_l6")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("overrides", nargs="*", help="as of tlkit finetune, but before the options")
    arguments = parser.parse_intermixed_args()
    options = {"data.source": arguments.data, "task": arguments.task}
    config = load_config(None, arguments.overrides, options).config
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for seed in arguments.seeds:
        objective, measured = measure(config, arguments.backbone, seed)
        for name, metrics in measured.items():
            rows[name].append(metrics)
    shown = [name for name in SHOWN[objective] if name in metrics]
    table = Table("baseline", "seed", *shown)
    for name, seeds in rows.items():
        for seed, metrics in zip(arguments.seeds, seeds, strict=True):
            table.add_row(name, str(seed), *(f"{metrics[key]:.4f}" for key in shown))
        means = (f"{np.mean([metrics[key] for metrics in seeds]):.4f}" for key in shown)
        table.add_row(name, "mean", *means, end_section=True)
    Console().print(table)


def measure(config: RunConfig, backbone: str, seed: int) -> tuple[str, dict[str, dict[str, Any]]]:
    """What is learned, and the metrics of every baseline on the test split of one seed."""
    texts = read_texts(config.data, config.task, seed=seed, pair=config.head.pair)
    splits = {
        name: (texts.content.samples[texts.splits == name], texts.labels.targets[texts.splits == name])
        for name in SPLITS
        if np.any(texts.splits == name)
    }
    if texts.objective == "tokens":
        answers = remember_words(splits)
        return "tokens", {
            "most frequent tag": compute_metrics("tokens", splits["test"][1], answers, texts.labels.classes)
        }
    vectors = embed_with(backbone, config)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit(texts.training)
    measured = {}
    for name, transform in (("TF-IDF", vectorizer.transform), ("backbone", vectors)):
        if texts.objective == "embed":
            measured[f"{name}, cosine"] = measure_cosines(transform, *splits["test"])
        else:
            features = {split: features_of(transform, samples) for split, (samples, _) in splits.items()}
            regression = "ridge" if texts.objective == "regress" else "logistic regression"
            measured[f"{name} + {regression}"] = measure_linear(name, features, splits, texts)
    return texts.objective, measured


def embed_with(name: str, config: RunConfig) -> Callable[[Sequence[str]], np.ndarray]:
    """A function from texts to vectors of length 1, float32 (n, d): the backbone's tokens, averaged."""
    backbone = load_backbone(name)
    takes = backbone.entry.input
    tokenizer = make_tokenizer(takes.tokenizer, source_folder(backbone.entry))
    spec = PreprocessingConfig(sequence_length=config.preprocessing.sequence_length)
    preprocessing = make_text_preprocessing(takes, spec, tokenizer, "classify")
    model = build_model(backbone.without_pooler(), make_head(objective="embed"))
    answer = tf.function(lambda texts: model(preprocessing.from_raw(texts), training=False))
    answer = answer.get_concrete_function(tf.TensorSpec([None], tf.string))

    def embed(texts: Sequence[str]) -> np.ndarray:
        order = np.argsort([len(text) for text in texts], kind="stable")
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        rows = [answer(tf.constant([texts[row] for row in batch])).numpy() for batch in batches]
        return np.concatenate(rows)[np.argsort(order)]

    return embed


def features_of(transform: Callable[[Sequence[str]], Any], samples: np.ndarray) -> Any:
    """A row for each text; for each pair the differences and products of the two texts' rows."""
    if samples.ndim == 1:
        return transform(samples.tolist())
    first, second = (transform(side.tolist()) for side in samples.T)
    if scipy.sparse.issparse(first):
        return scipy.sparse.hstack([abs(first - second), first.multiply(second)]).tocsr()
    return np.concatenate([np.abs(first - second), first * second], axis=1)


def measure_linear(name: str, features: Features, splits: Splits, texts: Texts) -> dict[str, Any]:
    """Metrics on the test split with the penalty that is best on the validation split."""

    def evaluate(penalty: float, fitted_on: tuple[str, ...], split: str) -> dict[str, Any]:
        parts = [features[part] for part in fitted_on]
        stacked = scipy.sparse.vstack(parts) if scipy.sparse.issparse(parts[0]) else np.concatenate(parts)
        model = make_model(texts.objective, penalty, standardise=name == "backbone")
        model.fit(stacked, np.concatenate([splits[part][1] for part in fitted_on]))
        predict = model.predict if texts.objective == "regress" else model.predict_proba
        scores = predict(features[split])
        return compute_metrics(texts.objective, splits[split][1], scores, texts.labels.classes)

    tuned_by = TUNED_BY[texts.objective]
    best = max(PENALTIES[name], key=lambda each: evaluate(each, ("train",), "validation")[tuned_by])
    return evaluate(best, ("train", "validation"), "test")


def make_model(objective: str, penalty: float, standardise: bool) -> Any:
    """A linear model, from a small `penalty` (regularised the most) to a large one."""
    if objective == "regress":
        model: Any = Ridge(alpha=1 / penalty)
    else:
        model = LogisticRegression(C=penalty, max_iter=2000)
        model = OneVsRestClassifier(model) if objective == "multilabel" else model
    return make_steps(StandardScaler(), model) if standardise else model


def measure_cosines(
    transform: Callable[[Sequence[str]], Any], samples: np.ndarray, scores: np.ndarray
) -> dict[str, Any]:
    rows = transform(samples.reshape(-1).tolist())
    return compute_metrics("embed", scores, rows.toarray() if scipy.sparse.issparse(rows) else rows, None)


def remember_words(splits: Splits) -> list[np.ndarray]:
    """The tags of the test split: a word's most frequent one in training, else the most frequent of all."""
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for split in ("train", "validation"):
        for words, tags in zip(*splits.get(split, ((), ())), strict=True):
            for word, tag in zip(words, tags.tolist(), strict=True):
                seen[word][tag] += 1
                seen[""][tag] += 1
    best = {word: counts.most_common(1)[0][0] for word, counts in seen.items()}
    return [np.array([best.get(word, best[""]) for word in words]) for words in splits["test"][0]]


if __name__ == "__main__":
    main()
