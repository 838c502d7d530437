"""HTML in texts: tags are taken out and entities become their characters, in the graph."""

from __future__ import annotations

from html.entities import codepoint2name

import tensorflow as tf

# Tags inside a line of text leave nothing behind; all others separate words.
_INLINE = (
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd mark q s samp small span "
    "strike strong sub sup time tt u var wbr"
)
_OTHER = (
    "address area article aside audio base blockquote body br button canvas caption center col colgroup "
    "datalist dd details dialog div dl dt embed fieldset figcaption figure footer form frame frameset h1 "
    "h2 h3 h4 h5 h6 head header hr html iframe img input label legend li link main map meta meter nav "
    "noscript object ol optgroup option output p param picture pre progress section select source summary "
    "svg table tbody td template textarea tfoot th thead title tr track ul video"
)
# Attributes have a value, or are one of a few: so `a<b and c>d` is no tag.
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"'<>]+)"""
_BARE = "async|autoplay|checked|controls|defer|disabled|hidden|loop|multiple|muted|nowrap|readonly|selected"
_ATTRIBUTES = rf"(?:[\s/]+(?:[a-z][a-z0-9:_.-]*\s*=\s*{_VALUE}|{_BARE}))*\s*/?"
_HIDDEN = r"(?is)<!--.*?-->|<!doctype[^<>]*>|<script\b[^<>]*>.*?</script\s*>|<style\b[^<>]*>.*?</style\s*>"

# Written as characters in HTML, hence always entities in a text.
_CHARACTERS = [
    *range(0xA0, 0x100),  # Latin-1: accented letters, signs
    *(ord(sign) for sign in "\"'<>–—‘’‚“”„†‡•…‰‹›€™Œœ←→↑↓♥"),
]


def strip_tags(texts: tf.Tensor) -> tf.Tensor:
    """Strings of any shape without HTML tags and comments, and without scripts and styles."""
    texts = tf.strings.regex_replace(texts, _HIDDEN, " ")
    texts = tf.strings.regex_replace(texts, _tags(_INLINE), "")
    return tf.strings.regex_replace(texts, _tags(_OTHER), " ")


def decode_entities(texts: tf.Tensor) -> tf.Tensor:
    """Strings of any shape with HTML's entities of Latin-1 and punctuation, by name or by number, as their
    characters. Once: `&amp;lt;` is `&lt;`."""
    has_some = tf.reduce_any(tf.strings.regex_full_match(texts, r"(?s).*&[#a-zA-Z][a-zA-Z0-9]*;.*"))
    return tf.cond(has_some, lambda: _decode(texts), lambda: texts)


def _decode(texts: tf.Tensor) -> tf.Tensor:
    for code_point in [*_CHARACTERS, ord("&")]:  # `&` last, so that nothing is decoded twice
        name = {ord("'"): "apos"}.get(code_point) or codepoint2name[code_point]
        entity = rf"&(?:{name}|#0*{code_point}|#[xX]0*(?i:{code_point:x}));"
        texts = tf.strings.regex_replace(texts, entity, chr(code_point).replace("\\", r"\\"))
    return texts


def _tags(names: str) -> str:
    return rf"(?i)</?(?:{'|'.join(names.split())}){_ATTRIBUTES}>"
