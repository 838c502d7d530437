"""The one way from strings to model inputs, for training, predict and export alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import tensorflow as tf

from tlkit.config.head import TEXT_TASKS, Task
from tlkit.config.preprocessing import PreprocessingConfig
from tlkit.config.text import LongTexts, Normalization
from tlkit.errors import ConfigError
from tlkit.preprocessing.text_normalization import normalize_texts, replace_invalid
from tlkit.preprocessing.text_packing import (
    Inputs,
    kept_tokens,
    pack,
    pack_pair,
    pack_windows,
    padded_length,
    reach_of_windows,
    share_limit,
    tokenize_words,
    truncate,
    word_starts,
)
from tlkit.preprocessing.text_words import split_words
from tlkit.preprocessing.tokenizers import Tokenizer
from tlkit.zoo.entry import TextInput

Texts: TypeAlias = tf.Tensor | tf.RaggedTensor
TextAugment = Callable[[Texts, tf.Tensor], Texts]
Cleaner = Callable[[Sequence[str]], list[str]]

_LONGEST_DEFAULT = 128  # tokens
_BUCKET_SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144)
# What one token takes at most, on average over a text, when only a text's head or tail is kept.
_CHARACTERS_PER_TOKEN = 256


@dataclass(frozen=True, eq=False)
class TextPreprocessing:
    """Strings → sample (normalised strings) → model inputs (int32), all in the graph.

    A backbone that takes strings itself gets the samples: `text`, strings (N,), and for `pair` `text_b`, too.

    `sequence_length` in tokens, special ones included; `buckets` are the lengths that a batch may be padded
    to, ascending, the last one `sequence_length`; without them it is padded to its longest text. A backbone
    that has no mask always gets `sequence_length`. `augmentation` changes training samples. `clean` is
    Python: whoever calls the graph runs it before.
    """

    tokenizer: Tokenizer
    input: TextInput
    sequence_length: int
    task: Task
    long_texts: LongTexts = "head"
    normalization: Normalization = field(default_factory=Normalization)
    buckets: tuple[int, ...] = ()
    augmentation: TextAugment | None = None
    clean: Cleaner | None = None
    max_windows: int = 16

    @property
    def trackables(self) -> list[Any]:
        """What a `tf.Module` must hold so that a graph with `from_raw` in it can be saved."""
        return self.tokenizer.trackables

    @property
    def takes_strings(self) -> bool:
        """Whether the backbone takes strings itself."""
        return self.tokenizer.facts.kind == "strings"

    @property
    def of_single_texts(self) -> TextPreprocessing:
        """The same for a trained model: vectors are trained on pairs, and asked for one text at a time."""
        return replace(self, task="classify") if self.task == "embed" else self

    def normalize(self, raw: tf.Tensor) -> tf.Tensor:
        """Strings of any shape, normalised. Bytes that are not UTF-8 become U+FFFD."""
        return normalize_texts(raw, self.normalization)

    def decode_batch(self, raw: Texts) -> Texts:
        """Strings (N,), or (N, 2) for `pair` and `embed`, as samples of the same shape; `tokens`: strings
        (N,) or ragged words (N, None) as ragged words, each normalised by itself, none left out."""
        if self.task != "tokens":
            return self.normalize(raw)
        words = raw if isinstance(raw, tf.RaggedTensor) else self.split_words(raw)[0]
        return words.with_values(self.normalize(words.values))

    def split_words(self, raw: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Strings (N,) as words, ragged strings (N, None), and where each begins and ends, ragged int32
        (N, None), in Unicode code points of the string as sent. See `text_words.split_words`."""
        return split_words(replace_invalid(raw))

    def augment(self, samples: Texts, seeds: tf.Tensor) -> Texts:
        """Samples changed at random for training; `seeds`, int64 (N, 2), decide how."""
        return samples if self.augmentation is None else self.augmentation(samples, seeds)

    def encode(self, samples: Texts) -> Inputs:
        """Samples as model inputs: token_ids, padding_mask and, where the backbone has them, segment_ids.

        All int32 (N, T); `embed`: (2N, T), the two texts of a pair one after the other; windows:
        (N, windows, T). `tokens` adds word_starts, int32 (N, W): the place in T of each word's first token,
        −1 where there is no word or where it was cut off.
        """
        if self.takes_strings:
            return self._pass_on(samples)
        if self.task == "pair":
            inputs = self._encode_pairs(samples)
        elif self.task == "tokens":
            inputs = self._encode_words(samples)
        else:
            inputs = self._encode_texts(tf.reshape(samples, [-1]))
        if not self.input.segments:
            inputs.pop("segment_ids", None)
        elif "segment_ids" not in inputs:
            inputs["segment_ids"] = tf.zeros_like(inputs["token_ids"])
        return inputs

    def from_raw(self, raw: Texts) -> Inputs:
        """Strings as model inputs."""
        return self.encode(self.decode_batch(raw))

    def count_tokens(self, samples: Texts) -> tf.Tensor:
        """Tokens of each sample before anything is cut, special tokens included: int32 (N,). `embed`: of the
        longer of the two texts."""
        if self.task == "tokens":
            return (
                tf.cast(tokenize_words(samples, self.tokenizer).merge_dims(1, 2).row_lengths(), tf.int32) + 2
            )
        lengths = tf.cast(self.tokenizer.tokenize(tf.reshape(samples, [-1])).row_lengths(), tf.int32)
        if self.task == "pair":
            return tf.reduce_sum(tf.reshape(lengths, [-1, 2]), axis=1) + 2 + len(self.tokenizer.separator_ids)
        if self.task == "embed":
            return tf.reduce_max(tf.reshape(lengths, [-1, 2]), axis=1) + 2
        return lengths + 2

    def _pass_on(self, texts: tf.Tensor) -> Inputs:
        if self.task == "pair":
            return {"text": texts[:, 0], "text_b": texts[:, 1]}
        return {"text": tf.reshape(texts, [-1])}

    def _encode_texts(self, texts: tf.Tensor) -> Inputs:
        room = self.sequence_length - 2
        ids = self.tokenizer.tokenize(self._within_reach(texts))
        if self.long_texts == "windows":
            ids = ids[:, : reach_of_windows(self.sequence_length, self.max_windows)]
            longest = tf.minimum(_longest(ids), room)
            return pack_windows(ids, self.tokenizer, self.sequence_length, self._padded(longest + 2))
        ids = truncate(ids, tf.fill([ids.nrows(out_type=tf.int32)], room), self.long_texts)
        return pack(ids, self.tokenizer, self._padded(_longest(ids) + 2))

    def _encode_pairs(self, pairs: tf.Tensor) -> Inputs:
        special = 2 + len(self.tokenizer.separator_ids)
        ids = self.tokenizer.tokenize(self._within_reach(tf.concat([pairs[:, 0], pairs[:, 1]], axis=0)))
        first, second = ids[: tf.shape(pairs)[0]], ids[tf.shape(pairs)[0] :]
        limits = share_limit(
            tf.cast(first.row_lengths(), tf.int32),
            tf.cast(second.row_lengths(), tf.int32),
            self.sequence_length - special,
        )
        first, second = (
            truncate(one, limit, self.long_texts) for one, limit in zip((first, second), limits, strict=True)
        )
        lengths = tf.cast(first.row_lengths() + second.row_lengths(), tf.int32)
        longest = tf.reduce_max(tf.concat([lengths, [0]], axis=0)) + special
        return pack_pair(first, second, self.tokenizer, self._padded(longest))

    def _encode_words(self, words: tf.RaggedTensor) -> Inputs:
        ids = tokenize_words(words, self.tokenizer)
        merged = ids.merge_dims(1, 2)
        limits = tf.fill([merged.nrows(out_type=tf.int32)], self.sequence_length - 2)
        kept = kept_tokens(merged, limits, self.long_texts)
        cut = tf.ragged.boolean_mask(merged, merged.with_values(kept))
        inputs = pack(cut, self.tokenizer, self._padded(_longest(cut) + 2))
        return inputs | {"word_starts": word_starts(ids, kept)}

    def _within_reach(self, texts: tf.Tensor) -> tf.Tensor:
        """Cut what is far beyond `sequence_length`, so that a text of megabytes costs what a page does."""
        most = self.sequence_length * _CHARACTERS_PER_TOKEN
        if self.long_texts == "windows":
            most *= self.max_windows
        if self.long_texts in ("head", "windows"):
            return tf.strings.substr(texts, 0, most, unit="UTF8_CHAR")
        if self.long_texts == "tail":
            begin = tf.maximum(tf.strings.length(texts, unit="UTF8_CHAR") - most, 0)
            return tf.strings.substr(texts, begin, tf.fill(tf.shape(begin), most), unit="UTF8_CHAR")
        return texts

    def _padded(self, longest: tf.Tensor) -> tf.Tensor:
        if not self.input.mask:
            return tf.constant(self.sequence_length)
        return padded_length(longest, self.buckets)


def make_text_preprocessing(
    text_input: TextInput,
    spec: PreprocessingConfig,
    tokenizer: Tokenizer,
    task: Task,
    *,
    sequence_length: int | None = None,
    buckets: tuple[int, ...] | None = None,
    augmentation: TextAugment | None = None,
    clean: Cleaner | None = None,
) -> TextPreprocessing:
    """The preprocessing for a backbone's `entry.input` under the `preprocessing` part of a config.

    `sequence_length`: what the config leaves open, in tokens (see `default_sequence_length`); `buckets`:
    None for the usual ones, or none where `spec.bucketing` is off.

    Raises ConfigError where the config asks for more than the backbone takes, or for windows of a task that
    has none.
    """
    if text_input.tokenizer.kind == "strings":
        return _make_for_strings(text_input, spec, tokenizer, task, augmentation, clean)
    length = spec.sequence_length or sequence_length or min(text_input.sequence_length, _LONGEST_DEFAULT)
    if length > text_input.sequence_length:
        raise ConfigError(
            f"preprocessing.sequence_length: {length} tokens are too many for this backbone, "
            f"which takes {text_input.sequence_length}."
        )
    if spec.long_texts == "windows" and task in TEXT_TASKS:
        raise ConfigError(
            f"preprocessing.long_texts: windows need one score per text, the task is {task!r}. "
            "Choose head, tail or head_tail."
        )
    if buckets is None:
        buckets = bucket_sizes(length) if spec.bucketing else ()
    return TextPreprocessing(
        tokenizer,
        text_input,
        length,
        task,
        spec.long_texts,
        spec.normalize,
        buckets,
        augmentation,
        clean,
        spec.max_windows,
    )


def _make_for_strings(
    text_input: TextInput,
    spec: PreprocessingConfig,
    tokenizer: Tokenizer,
    task: Task,
    augmentation: TextAugment | None,
    clean: Cleaner | None,
) -> TextPreprocessing:
    length = text_input.sequence_length
    if task == "tokens":
        raise ConfigError(
            "task: 'tokens' needs a backbone that answers for every word; this one takes texts as strings."
        )
    if spec.sequence_length not in (None, length) or spec.long_texts != "head":
        raise ConfigError(
            "preprocessing.sequence_length and long_texts: this backbone takes strings and cuts them itself. "
            "Leave them out."
        )
    return TextPreprocessing(
        tokenizer, text_input, length, task, "head", spec.normalize, (), augmentation, clean
    )


def default_sequence_length(text_input: TextInput, lengths: Sequence[int]) -> int:
    """Enough tokens for 95 % of the training texts, whose `lengths` count special tokens; at most 128, or
    what the backbone takes; at least 8, and a multiple of 8 below the most."""
    most = min(text_input.sequence_length, _LONGEST_DEFAULT)
    if not len(lengths):
        return most
    enough = sorted(lengths)[min(len(lengths) - 1, int(0.95 * len(lengths)))]
    return min(most, max(8, -(-enough // 8) * 8))


def bucket_sizes(sequence_length: int) -> tuple[int, ...]:
    """The lengths that batches are padded to, in tokens: few, so that a graph is traced only a few times."""
    return (*(size for size in _BUCKET_SIZES if size < sequence_length), sequence_length)


def _longest(ids: tf.RaggedTensor) -> tf.Tensor:
    return tf.reduce_max(tf.concat([tf.cast(ids.row_lengths(), tf.int32), [0]], axis=0))
