"""From token ids to padded model inputs: what is kept of a long text, special tokens, windows, padding."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tlkit.config.text import LongTexts
from tlkit.preprocessing.tokenizers import Tokenizer

Inputs = dict[str, tf.Tensor]

_OVERLAP = 4  # consecutive windows share a quarter of their tokens


def kept_tokens(ids: tf.RaggedTensor, limits: tf.Tensor, long_texts: LongTexts) -> tf.Tensor:
    """Which tokens stay when text i may keep `limits[i]`, int32 (N,): a bool for each flat value."""
    heads = {"head": limits, "tail": tf.zeros_like(limits)}.get(long_texts, (limits + 1) // 2)
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    rows = ids.value_rowids()
    positions = tf.range(tf.size(ids.flat_values)) - tf.gather(tf.cast(ids.row_starts(), tf.int32), rows)
    tails_begin = lengths - (limits - heads)
    return (positions < tf.gather(heads, rows)) | (positions >= tf.gather(tails_begin, rows))


def truncate(ids: tf.RaggedTensor, limits: tf.Tensor, long_texts: LongTexts) -> tf.RaggedTensor:
    """Ragged ids (N, None), each text cut to its limit, int32 (N,)."""
    return tf.ragged.boolean_mask(ids, ids.with_flat_values(kept_tokens(ids, limits, long_texts)))


def tokenize_words(words: tf.RaggedTensor, tokenizer: Tokenizer) -> tf.RaggedTensor:
    """Ragged words (N, W) as ragged ids (N, W, None), each word tokenised by itself. A word that comes to
    nothing becomes the unknown token, so that every word has one and tags stay aligned."""
    ids = tokenizer.tokenize(tf.strings.join([tokenizer.word_prefix, words.values]))
    sizes = ids.row_lengths()
    # A row of one unknown token for those, an empty one for the others.
    unknown = tf.RaggedTensor.from_row_lengths(
        tf.fill([tf.reduce_sum(tf.cast(sizes == 0, tf.int32))], tokenizer.unknown_id),
        tf.cast(sizes == 0, sizes.dtype),
    )
    return words.with_values(tf.concat([ids, unknown], axis=1))


def word_starts(ids: tf.RaggedTensor, kept: tf.Tensor) -> tf.Tensor:
    """Where each word's first token is in the packed text: int32 (N, W), −1 where there is no word or where
    that token was not kept. `ids` is ragged (N, W, None), `kept` a bool for each of its flat values."""
    merged = ids.merge_dims(1, 2)
    counted = tf.cumsum(tf.cast(kept, tf.int32), exclusive=True)  # kept tokens before each one
    before_rows = tf.gather(tf.concat([counted, [0]], axis=0), merged.row_starts())
    places = 1 + counted - tf.gather(before_rows, merged.value_rowids())
    firsts = ids.values.row_starts()
    return ids.with_values(tf.gather(tf.where(kept, places, -1), firsts)).to_tensor(-1)


def share_limit(first: tf.Tensor, second: tf.Tensor, limit: int) -> tuple[tf.Tensor, tf.Tensor]:
    """How many tokens each text of a pair may keep, given both lengths, int32 (N,): the longer one is cut
    first, then both alike; an odd token goes to the longer, or to the second."""
    shorter, longer = tf.minimum(first, second), tf.maximum(first, second)
    shorter_kept = tf.minimum(shorter, limit // 2)
    longer_kept = tf.minimum(longer, limit - shorter_kept)
    first_is_longer = first > second
    return (
        tf.where(first_is_longer, longer_kept, shorter_kept),
        tf.where(first_is_longer, shorter_kept, longer_kept),
    )


def pack(ids: tf.RaggedTensor, tokenizer: Tokenizer, length: tf.Tensor) -> Inputs:
    """Ragged ids (N, None) as start + ids + end, padded: token_ids and padding_mask (N, length)."""
    return _frame(ids.to_tensor(tokenizer.pad_id), tf.cast(ids.row_lengths(), tf.int32), tokenizer, length)


def pack_pair(
    first: tf.RaggedTensor, second: tf.RaggedTensor, tokenizer: Tokenizer, length: tf.Tensor
) -> Inputs:
    """As `pack`, with separators between; segment_ids are 1 from the second text to its end token."""
    separators = tf.repeat([tokenizer.separator_ids], first.nrows(), axis=0)
    inputs = pack(tf.concat([first, separators, second], axis=1), tokenizer, length)
    second_begins = tf.cast(first.row_lengths(), tf.int32) + 1 + len(tokenizer.separator_ids)
    in_second = tf.range(length)[tf.newaxis] >= second_begins[:, tf.newaxis]
    return inputs | {"segment_ids": tf.cast(in_second, tf.int32) * inputs["padding_mask"]}


def pack_windows(
    ids: tf.RaggedTensor, tokenizer: Tokenizer, sequence_length: int, length: tf.Tensor
) -> Inputs:
    """Ragged ids (N, None) in overlapping windows, each packed: (N, windows, length).

    A text that fits takes one window; the padding_mask of windows that a text does not need is all zero.
    """
    room = sequence_length - 2
    stride = room - room // _OVERLAP
    lengths = tf.cast(ids.row_lengths(), tf.int32)[:, tf.newaxis]
    windows = 1 + tf.maximum(0, lengths - room + stride - 1) // stride
    number = tf.range(tf.reduce_max(tf.concat([windows[:, 0], [1]], axis=0)))[tf.newaxis]
    begins = number * stride
    sizes = tf.clip_by_value(lengths - begins, 0, room)
    places = begins[..., tf.newaxis] + tf.range(tf.maximum(length - 2, 0))
    places += tf.cast(ids.row_starts(), tf.int32)[:, tf.newaxis, tf.newaxis]
    values = tf.concat([ids.flat_values, [tokenizer.pad_id]], axis=0)  # there is always one to gather
    contents = tf.gather(values, tf.minimum(places, tf.size(ids.flat_values)))
    inputs = _frame(contents, sizes, tokenizer, length)
    needed = (number < windows)[..., tf.newaxis]
    return {
        "token_ids": tf.where(needed, inputs["token_ids"], tokenizer.pad_id),
        "padding_mask": tf.where(needed, inputs["padding_mask"], 0),
    }


def reach_of_windows(sequence_length: int, windows: int) -> int:
    """How many tokens of a text, special ones not counted, that many overlapping windows show."""
    room = sequence_length - 2
    return room + (windows - 1) * (room - room // _OVERLAP)


def padded_length(longest: tf.Tensor, buckets: Sequence[int]) -> tf.Tensor:
    """The smallest bucket that holds `longest` tokens, or the last one; without buckets, `longest`."""
    if not buckets:
        return longest
    sizes = tf.constant(buckets, tf.int32)
    return tf.reduce_min(tf.where(sizes >= longest, sizes, buckets[-1]))


def _frame(contents: tf.Tensor, sizes: tf.Tensor, tokenizer: Tokenizer, length: tf.Tensor) -> Inputs:
    """Contents (…, any), of which the first `sizes` (…) count, between start and end token: (…, length)."""
    missing = tf.maximum(length - 1 - tf.shape(contents)[-1], 0)
    padding = [[0, 0]] * (contents.shape.rank - 1) + [[1, missing]]
    shifted = tf.pad(contents, padding, constant_values=tokenizer.start_id)[..., :length]
    positions, ends = tf.range(length), sizes[..., tf.newaxis] + 1
    token_ids = tf.where(
        positions < ends, shifted, tf.where(positions == ends, tokenizer.end_id, tokenizer.pad_id)
    )
    return {"token_ids": token_ids, "padding_mask": tf.cast(positions <= ends, tf.int32)}
