"""Example shelves: a few questions, spread and not picked, and none that tells who asked it."""

from __future__ import annotations

from reshelve.evaluation.shelves import MOST_SHELVES, example_shelves, read_shelves, write_shelves
from reshelve.store.objects import ObjectStore

ITEMS = [f"i{number}" for number in range(8)]
TITLES = {item: item.upper() for item in ITEMS[:7]}


def asked(count: int) -> list[str]:
    return [f"question {number:02}" for number in range(count)]


def test_they_are_spread_over_the_questions_whose_first_places_differ() -> None:
    texts = asked(40)
    other = [ITEMS[::-1] if place % 2 else ITEMS for place in range(40)]
    found = example_shelves(texts, [["i7"]] * 40, [ITEMS] * 40, other, TITLES)
    assert [shelf.asked for shelf in found] == [texts[place] for place in (1, 11, 21, 29, 39)]
    assert found[0].challenger == ("I0", "I1", "I2", "I3", "I4") and found[0].champion[0] == "i7"
    assert found[0].chosen == ("i7",), "an item without a title goes by its id"


def test_a_question_is_shown_once_and_the_same_answers_only_where_too_few_differ() -> None:
    texts = ["mug", "mug", "cup", "bowl"]
    found = example_shelves(texts, [["i1"]] * 4, [ITEMS] * 4, [ITEMS, ITEMS, ITEMS[::-1], ITEMS], TITLES)
    assert [shelf.asked for shelf in found] == ["cup", "mug", "bowl"]


def test_what_may_tell_who_asked_is_left_out() -> None:
    texts = asked(9)
    found = example_shelves(texts, [[]] * 9, [ITEMS] * 9, None, TITLES, may_be_shown={texts[3]})
    assert [(shelf.asked, shelf.champion) for shelf in found] == [(texts[3], ())]
    assert len(example_shelves(texts, [[]] * 9, [ITEMS] * 9, None, TITLES)) == MOST_SHELVES


def test_they_come_back_from_the_store(store: ObjectStore, tmp_path) -> None:
    found = example_shelves(asked(2), [["i1"]] * 2, [ITEMS] * 2, None, TITLES)
    write_shelves(tmp_path, found)
    store.put("runs/shelf/2011-08-30/aa/gate/shelves.json", (tmp_path / "shelves.json").read_bytes())
    assert list(read_shelves(store, "shelf/2011-08-30/aa")) == found
    assert read_shelves(store, "shelf/2011-08-30/bb") == ()
