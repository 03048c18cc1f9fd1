from __future__ import annotations

from reshelve.examples.titles import TextIndex, trigrams, words


def test_the_nearest_titles_share_words():
    index = TextIndex(["Halo: Reach", "Gears of War 3", "Halo 3", "Dead Island"])
    assert index.nearest("HALO 3", 5) == [2, 0, 1]
    assert index.nearest("minecraft", 5) == []
    assert index.nearest("", 5) == []


def test_misspellings_share_letters():
    assert TextIndex(["minecraft", "madden"], trigrams).nearest("mindcraft", 1) == [0]


def test_texts_without_a_word_are_no_error():
    assert TextIndex(["", "…"]).scores("lamp").tolist() == [0, 0]
    assert words("Café №5") == ["café", "5"]
