"""Answers for new pictures and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlkit.progress import track
from tlkit.workflows import predict_pictures, predict_texts
from tlkit.workflows.run import Run, as_run

BATCH = 32
MOST_CHARACTERS = 64_000  # of a batch, were all its texts as long as the longest: windows are padded so

MODALITIES = {"image": predict_pictures, "text": predict_texts}


def predict_run(
    run: Run | str | Path, inputs: Any, top: int = 5, *, trust: bool = False
) -> list[dict[str, Any]]:
    """Predict pictures or texts.

    Args:
        run: A run, or its folder.
        inputs: For a run on pictures, one or several of: a file or folder (taken with all files below),
            encoded bytes, a decoded array (H, W, 3); an array (n, H, W, 3) is n pictures.
            For a run on texts, one or several strings; a `pathlib.Path` is a file with one text; a DataFrame
            has the columns that the run's config names. For `pair`, tuples of two strings or an array (n, 2).
            For `tokens`, an item may also be a list of words.
        top: How many labels `top_k` lists.
        trust: Load a run's SavedModel whose operations read files or run code.

    Returns:
        For each example a dict: `input` (and `input_b` of a pair) and what the objective gives; see
        `describe`, and for `tokens` `describe_words`. An example that cannot be used has
        `input` and `error` instead.

    Raises:
        DataError: A path does not exist, a folder holds no file, a column is missing, or an input is of a
            kind that holds no example at all.
    """
    run = as_run(run, trust=trust)
    modality = MODALITIES[run.entry.modality]
    sources = modality.expand(run, inputs)
    answers: dict[int, dict[str, Any]] = {}
    for batch in track(_batches([modality.size(source) for source in sources]), "Predicting"):
        read = modality.read(run, [sources[place] for place in batch])
        samples = [one.sample for one in read if one.error is None]
        described = iter(modality.answer(run, samples, top) if samples else ())
        for place, one in zip(batch, read, strict=True):
            answers[place] = one.shown | ({"error": one.error} if one.error else next(described))
    return [answers[place] for place in range(len(sources))]


def is_one(inputs: Any, run: Run) -> bool:
    """Whether this is one example for the run, not several."""
    return bool(MODALITIES[run.entry.modality].is_one(run, inputs))


def _batches(sizes: Sequence[int]) -> list[list[int]]:
    """Places of all examples, the small ones first, so that those of like size are answered together."""
    batches: list[list[int]] = []
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place]):
        room = BATCH if sizes[place] == 0 else min(BATCH, MOST_CHARACTERS // sizes[place])
        if not batches or len(batches[-1]) >= room:
            batches.append([])
        batches[-1].append(place)
    return batches
