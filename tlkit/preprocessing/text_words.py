"""The one splitter of strings into words, for tagging: in training, in prediction and in serving."""

from __future__ import annotations

import tensorflow as tf

from tlkit.preprocessing.text_pieces import split_pieces, without_marks

# RE2 knows no subtraction: "not (not a letter, or an ideograph)".
_LETTER = r"(?:[^\P{L}\p{Han}]|[\p{M}\p{N}_])"
_SPACE = r"[\s\p{Z}\p{C}]"
_NO_SPACE = r"[^\s\p{Z}\p{C}]"
_SKIN_TONES = r"\x{1F3FB}-\x{1F3FF}"
_TAGS = r"\x{E0020}-\x{E007F}"

_URL = rf"(?i:https?://|www\.){_NO_SPACE}*[\p{{L}}\p{{N}}_/#=&-]"
_EMAIL = r"[\p{L}\p{N}_.+-]*[\p{L}\p{N}_]@[\p{L}\p{N}_-]+(?:\.[\p{L}\p{N}_-]+)+"
_NUMBER = r"\p{Nd}+(?:[.,:]\p{Nd}+)+"
_IDEOGRAPH = r"\p{Han}\p{M}*"
_WORD = rf"[@#]?{_LETTER}(?:(?:\p{{Cf}}+|['’‐‑-])?{_LETTER})*"
_FLAG = r"[\x{1F1E6}-\x{1F1FF}]{2}"
_SIGN = rf"{_NO_SPACE}[\p{{M}}{_SKIN_TONES}{_TAGS}]*(?:\x{{200D}}{_NO_SPACE}[\p{{M}}{_SKIN_TONES}]*)*"
_SPACES = f"{_SPACE}+"
_PIECE = "|".join((_URL, _EMAIL, _NUMBER, _WORD, _IDEOGRAPH, _FLAG, _SIGN, _SPACES))


def split_words(texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    """Strings (N,), valid UTF-8, as words, ragged strings (N, None), and where each begins and ends (after
    its last character), ragged int32 (N, None), in code points of the text.

    A word is, whichever comes first at a place: a URL; an e-mail address; a number with inner points,
    commas or colons; a run of letters, marks, digits and underscores, with single apostrophes and hyphens
    inside it, and with the `@` or `#` before it; one ideograph; one emoji with all that is joined to it; any
    other single character. White space and control characters separate and are no words.
    """
    # All that is between two words is a piece, too: so the lengths add up to places in the text.
    pieces = split_pieces(without_marks(texts), _PIECE)
    sizes = pieces.with_values(tf.strings.length(pieces.values, unit="UTF8_CHAR"))
    before = tf.cumsum(sizes.values, exclusive=True)
    row_begins = tf.gather(tf.concat([before, [0]], axis=0), sizes.row_starts())
    starts = before - tf.gather(row_begins, sizes.value_rowids())
    is_word = pieces.with_values(~tf.strings.regex_full_match(pieces.values, _SPACES))
    return (
        tf.ragged.boolean_mask(pieces, is_word),
        tf.ragged.boolean_mask(pieces.with_values(starts), is_word),
        tf.ragged.boolean_mask(pieces.with_values(starts + sizes.values), is_word),
    )
