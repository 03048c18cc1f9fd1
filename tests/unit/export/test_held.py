"""What a history holds has no chance in the answer that is served."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.held import HeldItems
from reshelve.export.layers import FloatLayers
from reshelve.kinds.next_item.export import NextItemModule
from reshelve.lineage.run import Run
from reshelve.model.trained import TrainedModel

CATALOGUE = PackagedCatalogue(
    ["lamp", "old lamp", "cup", "café", "kit"],
    ["Red  Lamp", "red lamp", "blue cup; saucer", "CAFÉ sign", "kit"],
    [1] * 5,
    [["LAMP, RED"], [], [], [], ["Kit of 3"]],
)


@pytest.mark.parametrize(
    ("history", "held"),
    [
        pytest.param("kit", {"kit"}, id="a title"),
        pytest.param("a title of nobody ; KIT", {"kit"}, id="beside an unknown one"),
        pytest.param("red lamp", {"lamp", "old lamp"}, id="a title of two items, however blanks stand"),
        pytest.param("café SIGN ; kit", {"café", "kit"}, id="letters beyond ASCII"),
        pytest.param("x ; blue cup ; saucer ; y", {"cup"}, id="a title with the separator in it"),
        pytest.param("blue cup", set(), id="a part of a title"),
        pytest.param("lamp, red ; kit of 3", {"lamp", "kit"}, id="another title that it was seen with"),
        pytest.param("kit;red lamp", {"kit", "lamp", "old lamp"}, id="no blanks around the separator"),
        pytest.param("red bag ; Cup", {"cup"}, id="an id, as a line without a title is written"),
        pytest.param("", set(), id="nothing"),
    ],
)
def test_a_history_holds_what_it_names(history: str, held: set[str]) -> None:
    logits = HeldItems(CATALOGUE).left_out(tf.zeros([2, 5]), tf.constant([history, "nothing known"])).numpy()
    chance = tf.nn.softmax(logits).numpy()
    assert {item for item, p in zip(CATALOGUE.items, chance[0], strict=True) if p == 0} == held
    assert (chance[1] > 0).all(), "each row is its own"


def test_who_holds_everything_gets_numbers_all_the_same() -> None:
    everything = " ; ".join(CATALOGUE.titles)
    logits = HeldItems(CATALOGUE).left_out(tf.ones([1, 5]), tf.constant([everything]))
    assert np.isfinite(tf.nn.softmax(logits).numpy()).all()


def test_the_served_answer_leaves_out_what_is_held(trained_run: Callable[..., Run]) -> None:
    run = trained_run("next_item", "cls")
    model = TrainedModel.load(run.stage("train").directory)
    catalogue = PackagedCatalogue.load(run.stage("examples").directory / "catalogue.parquet")
    tokenizer = run.stage("train").directory / "tokenizer.json"

    def answer(history: str, repeat: bool) -> tuple[list[str], np.ndarray]:
        module = NextItemModule(model, FloatLayers(model), tokenizer, catalogue, 5, repeat)
        found = module.serving_default(history=tf.constant([history]))
        return [item.decode() for item in found["item"].numpy()[0]], found["score"].numpy()[0]

    # The best that is answered goes into the basket: the others move up.
    first, _ = answer("Red gift bag no 0", repeat=True)
    title = catalogue.titles[catalogue.items.index(first[0])]
    again, _ = answer(f"Red gift bag no 0 ; {title}", repeat=True)
    without, new_scores = answer(f"Red gift bag no 0 ; {title}", repeat=False)
    held = {"sku0", first[0]}
    assert not held & set(without) and len(without) == 5
    assert without[: 5 - len(held & set(again))] == [item for item in again if item not in held]
    assert (np.diff(new_scores) <= 0).all() and new_scores[-1] > 0
    assert held & set(again), "or nothing was left out"
