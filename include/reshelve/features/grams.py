"""The n-grams of a text in plain Python, for counting how many there will be: `features.text` is what they really are."""

from __future__ import annotations

import re
import unicodedata

GRAMS = (2, 3, 4, 5)
LONGEST = 200  # characters of a text that are read: bounds the work that one request can cause
MOST_KEYS = 50_000  # distinct queries kept, the most asked first: bounds a version's size
_FEW, _ONE_OF = (
    1000,
    100,
)  # titles; more, or more than one of so many, tell too little for what it costs to read them
APOSTROPHES = frozenset("'’`´")

_GONE = str.maketrans("", "", "".join(APOSTROPHES))
_WORD = re.compile(r"[^\W\d_]+|\d+")
_PLURAL = re.compile(r"^(..+[^s])s$")


def tells(gram: str, titles: int, of: int) -> bool:
    """Whether candidates are looked for by an n-gram that so many `titles` have `of` all.

    A word always; else none of the longest, since who shares it shares those in it, and none that many titles have.
    """
    return gram.startswith("w:") or (len(gram) < GRAMS[-1] and titles <= max(_FEW, of // _ONE_OF))


def cut(text: str) -> tuple[str, set[str]]:
    """A text's key and its n-grams. They differ from the real ones in rare characters and Roman numerals."""
    plain = text[:LONGEST].lower().translate(_GONE)
    if not plain.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    words = [_PLURAL.sub(r"\1", word) for word in _WORD.findall(plain)]
    key = "".join(words)
    if not key:
        return text.strip(), set()
    framed = f"^{key}$"
    found = {framed[at : at + size] for size in GRAMS for at in range(len(framed) - size + 1)}
    return key, found | {f"w:{word}" for word in words}
