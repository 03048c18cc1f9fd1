"""Texts cut into numbered n-grams, against each text cut alone; and the memory of it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from reshelve.features import cut_texts as module
from reshelve.features.cut_texts import cut_texts
from reshelve.features.text import TextKeys

TEXTS = ["Red lantern", "", "red red", "böhm", "!?", "山田 mug", "Gears of War III", "red lantern", "x" * 300]


@pytest.mark.parametrize("batch", [1, 2, 4, 100])
def test_each_text_has_the_n_grams_that_it_has_alone(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(module, "_BATCH", batch)
    cut = cut_texts(TEXTS)
    assert cut.grams == sorted(set(cut.grams)) and cut.found.width == len(cut.grams)
    for number, text in enumerate(TEXTS):
        alone = TextKeys().keys(tf.constant([text]))
        assert cut.compact[number] == alone.compact.numpy()[0].decode()
        places = cut.found.columns[cut.found.starts[number] : cut.found.starts[number + 1]]
        assert (np.diff(places) > 0).all()
        assert [cut.grams[place] for place in places] == sorted({g.decode() for g in alone.grams.numpy()})


def test_no_texts_have_no_n_grams() -> None:
    cut = cut_texts([])
    assert (cut.compact, cut.grams, cut.found.starts.tolist()) == ([], [], [0])


def test_memory_is_little_more_than_that_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 256)
    random = np.random.default_rng(0)
    words = ["lantern", "gnome", "kettle", "basket", "clock", "vintage", "wooden", "garden", "metal", "paper"]
    texts = [" ".join(random.choice(words, 5)) for _ in range(12_000)]
    cut_texts(texts[:256])
    tracemalloc.start()
    postings = len(cut_texts(texts).found.columns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Four bytes each, twice while they get their places; eight for each text, and what one batch and the strings take.
    assert postings > 1_000_000 and peak < 14 * postings
