"""Task heads: what is attached on top of a backbone, and how it is trained and read."""

from tlkit.heads.head import Head, make_head
from tlkit.heads.losses import WordLoss
from tlkit.heads.scores import to_scores
from tlkit.heads.weights import class_weights, example_weights

__all__ = ["Head", "WordLoss", "class_weights", "example_weights", "make_head", "to_scores"]
