"""Misspelt training texts: a ranker that has seen `latern` does not need to be told that it is a lantern.

One word of a text is misspelt the way fingers do it: two letters swapped, one left out, one doubled, one hit beside
(Damerau, "A technique for computer detection and correction of spelling errors", 1964, found four in five to be such).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from reshelve.examples.sampling import stable_hash

_SHORTEST = 4  # letters: a shorter word misspelt is too often another word
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    letter: "".join(row[place + step] for step in (-1, 1) if 0 <= place + step < len(row))
    for row in _ROWS
    for place, letter in enumerate(row)
}


@dataclass(frozen=True)
class Misspelling:
    """Misspells `share` of the texts. Whether and how depends on seed and text alone: equal texts stay equal."""

    share: float
    seed: int

    def of(self, text: str) -> str:
        """The text as it is read in training."""
        if not self.share:
            return text
        random = Random(stable_hash(self.seed, "misspelling", text))
        if random.random() >= self.share:
            return text
        words = text.split(" ")
        able = [place for place, word in enumerate(words) if len(word) >= _SHORTEST and word.isalpha()]
        if not able:
            return text
        chosen = random.choice(able)
        words[chosen] = _misspelt(words[chosen], random)
        return " ".join(words)


def _misspelt(word: str, random: Random) -> str:
    place = random.randrange(1, len(word) - 1)  # the first letter is seldom wrong
    before, letter, after = word[:place], word[place], word[place + 1 :]
    beside = _BESIDE.get(letter.lower(), letter)
    forms = (
        before + after[0] + letter + after[1:],
        before + after,
        before + 2 * letter + after,
        before + random.choice(beside) + after,
    )
    return random.choice([form for form in forms if form != word])
