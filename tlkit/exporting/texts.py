"""How an exported model takes texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tlkit.config.head import Objective
from tlkit.exporting.answers import name_answers, name_tags
from tlkit.exporting.odd_texts import add_odd_texts
from tlkit.exporting.signatures import Interface, Signature, Tensors, make_batches

if TYPE_CHECKING:
    from tlkit.preprocessing import TextPreprocessing

TEXT = tf.TensorSpec([None], tf.string, name="text")
TEXT_B = tf.TensorSpec([None], tf.string, name="text_b")
WORDS = tf.TensorSpec([None], tf.string, name="words")
ROW_SPLITS = tf.TensorSpec([None], tf.int64, name="row_splits")

Text = str | bytes
Example = Text | Sequence[Text]


def text_interface(
    preprocessing: TextPreprocessing,
    predict: Callable[[Any], tf.Tensor],
    objective: Objective,
    classes: Sequence[str],
    examples: Sequence[Example],
) -> Interface:
    """The signatures for what the preprocessing's task takes; see `_single`, `_pair` and `_tokens`.

    There is no signature for tensors: a sample is a string itself, and model inputs are of no use to somebody
    who has no tokenizer.

    `examples` are strings; for `pair` pairs of them; for `tokens` lists of words, or strings.
    """
    make = {"pair": _pair, "tokens": _tokens}.get(preprocessing.task, _single)
    return make(preprocessing, predict, objective, classes, examples)


def _single(
    preprocessing: TextPreprocessing,
    predict: Callable[[Any], tf.Tensor],
    objective: Objective,
    classes: Sequence[str],
    examples: Sequence[Any],
) -> Interface:
    """`serving_default` takes `text`, strings (N,), and gives what `name_answers` does."""
    single = preprocessing.of_single_texts

    def serve_text(text: tf.Tensor) -> Tensors:
        return name_answers(predict(single.from_raw(text)), objective, classes)

    texts = add_odd_texts([_bytes(text) for text in examples])
    batches = make_batches(texts, lambda some: {"text": tf.constant(some, tf.string)})
    return _interface(preprocessing, {"serving_default": Signature((TEXT,), serve_text, batches)})


def _pair(
    preprocessing: TextPreprocessing,
    predict: Callable[[Any], tf.Tensor],
    objective: Objective,
    classes: Sequence[str],
    examples: Sequence[Any],
) -> Interface:
    """`serving_default` takes `text` and `text_b`, strings (N,), and gives what `name_answers` does."""

    def serve_pair(text: tf.Tensor, text_b: tf.Tensor) -> Tensors:
        return name_answers(
            predict(preprocessing.from_raw(tf.stack([text, text_b], axis=1))), objective, classes
        )

    def stack(pairs: list[tuple[bytes, bytes]]) -> Tensors:
        first, second = ([pair[k] for pair in pairs] for k in range(2))
        return {"text": tf.constant(first, tf.string), "text_b": tf.constant(second, tf.string)}

    firsts = add_odd_texts([_bytes(text) for text, _ in examples])
    seconds = add_odd_texts([_bytes(text) for _, text in examples])
    # The odd ones in another order, so that an odd text also meets an ordinary one and another odd one.
    n = len(examples)
    seconds = seconds[:n] + seconds[n:][::-1]
    pairs = [
        (name if place < n else f"{name} | {name_b}", (text, text_b))
        for place, ((name, text), (name_b, text_b)) in enumerate(zip(firsts, seconds, strict=True))
    ]
    signature = Signature((TEXT, TEXT_B), serve_pair, make_batches(pairs, stack))
    return _interface(preprocessing, {"serving_default": signature})


def _tokens(
    preprocessing: TextPreprocessing,
    predict: Callable[[Any], tf.Tensor],
    objective: Objective,
    classes: Sequence[str],
    examples: Sequence[Any],
) -> Interface:
    """`serving_default` takes `text`, strings (N,), in which words are found; `words` takes words that are
    already split: `words`, strings (M,), those of all examples, and `row_splits`, int64 (N + 1,), where each
    example begins and, at the end, M.

    Both give what `name_tags` does, (N, W). `serving_default` also gives `words` (N, W), "" where there is
    none, and their `starts` and `ends`, int32 (N, W), code points of the text as sent, −1 where there is
    none.
    """

    def serve_text(text: tf.Tensor) -> Tensors:
        words, starts, ends = preprocessing.split_words(text)
        inputs = preprocessing.from_raw(text)
        return {
            **name_tags(predict(inputs), inputs["word_starts"], words.row_lengths(), classes),
            "words": words.to_tensor(""),
            "starts": tf.cast(starts.to_tensor(-1), tf.int32),
            "ends": tf.cast(ends.to_tensor(-1), tf.int32),
        }

    def serve_words(words: tf.Tensor, row_splits: tf.Tensor) -> Tensors:
        rows = tf.RaggedTensor.from_row_splits(words, row_splits)
        inputs = preprocessing.from_raw(rows)
        return name_tags(predict(inputs), inputs["word_starts"], rows.row_lengths(), classes)

    def stack_words(rows: list[list[bytes]]) -> Tensors:
        ragged = tf.ragged.constant(rows, tf.string, ragged_rank=1, row_splits_dtype=tf.int64)
        return {"words": ragged.values, "row_splits": ragged.row_splits}

    split = any(not isinstance(example, str | bytes) for example in examples)
    rows = [[_bytes(word) for word in example] for example in examples] if split else []
    texts = add_odd_texts([b" ".join(row) for row in rows] if split else [_bytes(text) for text in examples])
    # By white space alone, so that odd words come, too; without any, an example without words.
    odd = [(name, text.split()[:2000]) for name, text in texts[len(rows) :]]
    by_words = [("as given", row) for row in rows] + odd
    return _interface(
        preprocessing,
        {
            "serving_default": Signature(
                (TEXT,), serve_text, make_batches(texts, lambda some: {"text": tf.constant(some, tf.string)})
            ),
            "words": Signature((WORDS, ROW_SPLITS), serve_words, make_batches(by_words, stack_words)),
        },
        measured="words" if split else "serving_default",
    )


def _interface(
    preprocessing: TextPreprocessing, signatures: dict[str, Signature], measured: str = "serving_default"
) -> Interface:
    return Interface(
        signatures=signatures,
        measured=measured,
        modules=("tensorflow_text",),
        trackables=preprocessing.trackables,
        description={
            "inputs": {
                name: {spec.name: INPUTS[spec.name] for spec in signature.inputs}
                for name, signature in signatures.items()
            },
            "inside": _describe(preprocessing),
        },
        requests={
            name: REQUESTS[tuple(spec.name for spec in signature.inputs)]
            for name, signature in signatures.items()
        },
    )


INPUTS: dict[str, dict[str, Any]] = {
    "text": {
        "dtype": "string",
        "shape": [None],
        "meaning": "one text each, in UTF-8; bytes that are not become U+FFFD; an empty one is answered, too",
    },
    "text_b": {"dtype": "string", "shape": [None], "meaning": "the second text of each pair"},
    "words": {
        "dtype": "string",
        "shape": [None],
        "meaning": "the words of all examples, one after the other",
    },
    "row_splits": {
        "dtype": "int64",
        "shape": [None],
        "meaning": "where each example's words begin, from 0 on, and at the end the number of all words",
    },
}

REQUESTS: dict[tuple[str, ...], dict[str, Any]] = {
    ("text",): {"instances": [{"text": "A text of mine."}, {"text": "Another one."}]},
    ("text", "text_b"): {"instances": [{"text": "A text of mine.", "text_b": "One to compare it with."}]},
    # Words and examples are not as many, so a request gives columns, not rows.
    ("words", "row_splits"): {
        "signature_name": "words",
        "inputs": {"words": ["Ada", "lives", "in", "London", "Hello", "Grace"], "row_splits": [0, 4, 6]},
    },
}

LONG_TEXTS = {
    "head": "the beginning of a longer text is read",
    "tail": "the end of a longer text is read",
    "head_tail": "the beginning and the end of a longer text are read, half of each",
    "windows": "a longer text is read in overlapping windows, whose outputs are averaged",
}


SPLITTER = (
    "A word is a URL; an e-mail address; a number with inner points, commas or colons; a run of letters, "
    "marks, digits and underscores, with single apostrophes and hyphens inside it, and the @ or # before "
    "it; one ideograph; one emoji; any other single character. White space and control characters are no "
    "words."
)


def _describe(preprocessing: TextPreprocessing) -> dict[str, Any]:
    facts = preprocessing.input.tokenizer
    if preprocessing.takes_strings:
        normalization = preprocessing.normalization.model_dump(mode="json")
        return {"normalization": normalization, "tokenizer": {"kind": "the backbone's own"}}
    described: dict[str, Any] = {
        "normalization": preprocessing.normalization.model_dump(mode="json"),
        "tokenizer": {"kind": facts.kind, "vocabulary_size": preprocessing.tokenizer.vocabulary_size},
        "sequence_length": preprocessing.sequence_length,
        "long_texts": f"{preprocessing.long_texts}: {LONG_TEXTS[preprocessing.long_texts]}",
    }
    return described | {"words": SPLITTER} if preprocessing.task == "tokens" else described


def _bytes(text: Text) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else text
