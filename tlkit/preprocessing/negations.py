"""Words that turn the meaning of a text around: what changes words leaves them alone."""

from __future__ import annotations

import re

# English in full, and the commonest of other languages. One word too many does no harm.
NEGATIONS = frozenset(
    """
    no not never none nobody nothing nowhere neither nor non without hardly scarcely barely seldom rarely
    cannot nope nah no-one lack lacks lacked lacking minus nil zero unless except
    nicht nichts nie niemals niemand nirgends kein keine keinen keinem keiner keines weder ohne kaum
    ne pas jamais rien aucun aucune personne sans ni nul nulle guère
    nunca jamás tampoco nada nadie ningún ninguno ninguna sin
    não nem nenhum nenhuma ninguém sem mai niente nessuno nessuna né senza
    niet niets nooit niemand geen noch zonder inte icke ej aldrig ingen inga inget utan
    ikke aldri ingenting uten uden ei en et emme ette eivät älä ilman
    не нет ни никогда никто ничего без nigdy nikt nic bez ani není
    değil yok hiç asla δεν μην όχι ούτε χωρίς لا ليس لم لن بدون غير לא אין בלי אל
    """.split()  # noqa: SIM905
)
# isn't, isn’t, n't, and how people write them in a hurry.
_VERBS = "do|does|did|is|are|was|were|has|have|had|ca|wo|could|would|should|must|need|ai"
_CONTRACTED = rf"[a-z]*n['’]t|(?:{_VERBS})nt"


def is_negation(word: str) -> bool:
    """Whether one word is a negation, in any case."""
    return word.lower() in NEGATIONS or re.fullmatch(_CONTRACTED, word.lower()) is not None


def negation_pattern() -> str:
    """An RE2 pattern that matches the whole of a string that is a negation, or has one between its marks."""
    words = "|".join(re.escape(word) for word in sorted(NEGATIONS))
    return rf"(?is)(?:.*[^\p{{L}}\p{{M}}])?(?:{words}|{_CONTRACTED})(?:[^\p{{L}}\p{{M}}].*)?"
