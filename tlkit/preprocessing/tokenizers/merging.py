"""The merging loop of byte-pair encoding, for all words of a batch at once, in the graph."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def merge_pairs(
    symbols: tf.RaggedTensor, ranks: tf.lookup.StaticHashTable, merged: Sequence[int], vocabulary_size: int
) -> tf.RaggedTensor:
    """Ragged ids (words, None), int32, with neighbours merged until no pair can be.

    In each round, every word merges all occurrences of its pair of the lowest rank, from the left. `ranks`
    gives the rank of left × `vocabulary_size` + right, or len(`merged`) where there is no such merge;
    `merged[rank]` is the id of the two together.
    """
    no_rank = len(merged)
    results = tf.constant([*merged, 0], tf.int32)
    n_words = symbols.nrows()

    def ranks_of_pairs(ids: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
        """The rank of each symbol with the one after it, int64."""
        wide = tf.cast(ids, tf.int64)
        keys = wide * vocabulary_size + tf.concat([wide[1:], [0]], axis=0)[: tf.size(wide)]
        same_word = tf.concat([words[1:] == words[:-1], [False]], axis=0)[: tf.size(wide)]
        return tf.where(same_word, ranks.lookup(keys), no_rank)

    def can_merge(ids: tf.Tensor, words: tf.Tensor, pair_ranks: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(pair_ranks < no_rank)

    def merge_once(
        ids: tf.Tensor, words: tf.Tensor, pair_ranks: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        lowest = tf.math.unsorted_segment_min(pair_ranks, words, n_words)
        chosen = (pair_ranks < no_rank) & (pair_ranks == tf.gather(lowest, words))
        # In "aaa" both pairs are chosen, but the first one uses up the middle: every other one of a run.
        places = tf.range(tf.size(ids))
        unchosen = tf.concat([[-1], tf.boolean_mask(places, ~chosen)], axis=0)
        last_unchosen = tf.gather(unchosen, tf.cumsum(tf.cast(~chosen, tf.int32)))
        chosen &= (places - last_unchosen) % 2 == 1
        ids = tf.where(chosen, tf.gather(results, pair_ranks), ids)
        stays = ~tf.concat([[False], chosen[:-1]], axis=0)[: tf.size(ids)]
        ids, words = tf.boolean_mask(ids, stays), tf.boolean_mask(words, stays)
        return ids, words, ranks_of_pairs(ids, words)

    ids, words = symbols.values, symbols.value_rowids()
    ids, words, _ = tf.while_loop(
        can_merge,
        merge_once,
        (ids, words, ranks_of_pairs(ids, words)),
        shape_invariants=(tf.TensorShape([None]),) * 3,
    )
    return tf.RaggedTensor.from_value_rowids(ids, words, n_words)
