"""What a text is remembered under."""

from __future__ import annotations

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.features.grams import LONGEST
from reshelve.features.text import Keys, TextKeys

pytestmark = pytest.mark.slow

TEXTS = TextKeys()
TRACED = tf.function(
    TEXTS.keys, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
).get_concrete_function()


def strings(*texts: str) -> tf.Tensor:
    return tf.constant([text.encode() for text in texts], tf.string)


def said(tensor: tf.Tensor) -> list[str]:
    return [value.decode() for value in tensor.numpy()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("Café CRÈME brûlée", "cafe creme brulee", id="accents"),
        pytest.param("Cafe\u0301", "cafe", id="accent of its own"),
        pytest.param("Men's l’été ’n’", "men lete n", id="apostrophes vanish, then the plural"),
        pytest.param("Halo: Reach", "halo reach", id="what is neither parts"),
        pytest.param("red-blue_green/3.5", "red blue green 3 5", id="every other sign parts"),
        pytest.param("xbox360 4gb a1b2", "xbox 360 4 gb a 1 b 2", id="letters and digits part"),
        pytest.param("II III IV VI VII VIII IX", "2 3 4 6 7 8 9", id="Roman numerals"),
        pytest.param("I V X XI civ", "i v x xi civ", id="not those that are words"),
        pytest.param("Ⅷ ½ x²", "8 1 2 x 2", id="compatibility forms"),
        pytest.param("games wars keys", "game war key", id="plural"),
        pytest.param("glass bus as s", "glass bus as s", id="no plural"),
        pytest.param("日本語 文 2", "日本語 文 2", id="Han"),
        pytest.param("Привет МИР", "привет мир", id="Cyrillic"),
        pytest.param("ΑΒΓ", "αβγ", id="Greek"),
        pytest.param("ＦＵＬＬ５", "full 5", id="full width"),
        pytest.param("", "", id="empty"),
        pytest.param(" \t\n ", "", id="blank"),
        pytest.param("?! … 🎉", "", id="no letter"),
        pytest.param("a\x00b\u200bc", "a b c", id="control characters part"),
    ],
)
def test_words_are_plain(text: str, words: str) -> None:
    found, rows = TEXTS.words(strings(text))
    assert " ".join(said(found)) == words
    assert rows.numpy().tolist() == [0] * len(words.split())


@pytest.mark.parametrize(
    "spellings",
    [
        ("Halo: Reach", "halo reach", "haloreach", "HALO-REACH", " halo  reach "),
        ("Gears of War III", "gear of war 3", "gears of war3"),
        ("Café's", "cafes", "cafe"),
        ("?!", " ?! "),
    ],
)
def test_spellings_of_one_thing_are_one_key(spellings: tuple[str, ...]) -> None:
    (key,) = set(said(TEXTS.keys(strings(*spellings)).compact))
    assert key != ""


@pytest.mark.parametrize("others", [("halo 2", "halo 3"), ("?!", "!?"), ("日", "本"), ("ab", "ba")])
def test_different_things_are_different_keys(others: tuple[str, ...]) -> None:
    assert len(set(said(TEXTS.keys(strings(*others)).compact))) == len(others)


def test_the_grams_of_a_short_word() -> None:
    keys = TEXTS.keys(strings("", "Cat", "b"))
    of_row = [[], [], []]
    for gram, row in zip(said(keys.grams), keys.gram_rows.numpy(), strict=True):
        of_row[row].append(gram)
    assert of_row == [
        [],
        ["^c", "ca", "at", "t$", "^ca", "cat", "at$", "^cat", "cat$", "^cat$", "w:cat"],
        ["^b", "b$", "^b$", "w:b"],
    ]


def test_grams_run_over_words() -> None:
    grams = said(TEXTS.keys(strings("red cup")).grams)
    assert {"dc", "edcu", "w:red", "w:cup"} <= set(grams)
    assert not any(" " in gram for gram in grams)


@pytest.mark.parametrize("character", ["a", "!", "日", "1"])
def test_a_text_of_any_length_costs_no_more_than_its_beginning(character: str) -> None:
    long, cut = TEXTS.keys(strings(character * 50_000)), TEXTS.keys(strings(character * LONGEST))
    assert said(long.compact) == said(cut.compact) and said(long.grams) == said(cut.grams)


def test_bytes_that_are_no_text_spoil_no_neighbour() -> None:
    keys = TEXTS.keys(tf.constant([b"\xff\xfe", b"red\xc3", b"cup"]))
    assert said(keys.words) == ["red", "cup"] and keys.word_rows.numpy().tolist() == [1, 2]


@given(st.lists(st.text(max_size=40), max_size=6))
@settings(deadline=None, max_examples=150)
def test_a_graph_says_what_was_said_when_the_tables_were_made(texts: list[str]) -> None:
    eager, traced = TEXTS.keys(strings(*texts)), Keys(*TRACED(strings(*texts)))
    for name in Keys._fields:
        assert getattr(eager, name).numpy().tolist() == getattr(traced, name).numpy().tolist(), name


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
@settings(deadline=None, max_examples=100)
def test_a_text_says_the_same_in_any_company(texts: list[str]) -> None:
    together = Keys(*TRACED(strings(*texts)))
    for row, text in enumerate(texts):
        alone = Keys(*TRACED(strings(text)))
        assert said(alone.compact)[0] == said(together.compact)[row]
        for values, rows in (("words", "word_rows"), ("grams", "gram_rows")):
            mine = getattr(together, rows).numpy() == row
            assert getattr(together, values).numpy()[mine].tolist() == getattr(alone, values).numpy().tolist()


# Joined words may end in an s, or be a numeral, that none of them was.
@given(st.text(alphabet="abcdeghkmnéÜ 0123-'", max_size=20))
@settings(deadline=None, max_examples=100)
def test_a_key_is_its_own_key(text: str) -> None:
    (key,) = said(Keys(*TRACED(strings(text))).compact)
    assert said(Keys(*TRACED(strings(key))).compact) == [key]
