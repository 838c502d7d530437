"""Answers for new pictures and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlkit.progress import track
from tlkit.workflows import predict_pictures, predict_texts
from tlkit.workflows.run import Run, load_run

BATCH = 32

MODALITIES = {"image": predict_pictures, "text": predict_texts}


def predict_run(run: Run | str | Path, inputs: Any, top: int = 5) -> list[dict[str, Any]]:
    """Predict pictures or texts.

    Args:
        run: A run, or its folder.
        inputs: For a run on pictures, one or several of: a file or folder (taken with all files below),
            encoded bytes, a decoded array (H, W, 3); an array (n, H, W, 3) is n pictures.
            For a run on texts, one or several strings; a `pathlib.Path` is a file with one text; a DataFrame
            has the columns that the run's config names. For `pair`, tuples of two strings or an array (n, 2).
            For `tokens`, an item may also be a list of words.
        top: How many labels `top_k` lists.

    Returns:
        For each example a dict: `input` (and `input_b` of a pair) and what the objective gives; see
        `describe`, and for `tokens` `describe_words`. An example that cannot be used has
        `input` and `error` instead.

    Raises:
        DataError: A path does not exist, a folder holds no file, a column is missing, or an input is of a
            kind that holds no example at all.
    """
    run = run if isinstance(run, Run) else load_run(run)
    modality = MODALITIES[run.entry.modality]
    sources = modality.expand(run, inputs)
    order = sorted(range(len(sources)), key=lambda place: modality.size(sources[place]))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    answers: dict[int, dict[str, Any]] = {}
    for batch in track(batches, "Predicting"):
        read = modality.read(run, [sources[place] for place in batch])
        samples = [one.sample for one in read if one.error is None]
        described = iter(modality.answer(run, samples, top) if samples else ())
        for place, one in zip(batch, read, strict=True):
            answers[place] = one.shown | ({"error": one.error} if one.error else next(described))
    return [answers[place] for place in range(len(sources))]


def is_one(inputs: Any, run: Run) -> bool:
    """Whether this is one example for the run, not several."""
    return bool(MODALITIES[run.entry.modality].is_one(run, inputs))
