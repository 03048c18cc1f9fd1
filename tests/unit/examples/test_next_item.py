from __future__ import annotations

from datetime import date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reshelve.kinds.next_item.baskets import QUESTIONS_PER_BASKET, Line, ask

START = datetime(2011, 8, 1, 9)


def bought(*events: tuple[str, str], part: str = "train", day: date = START.date()) -> list[Line]:
    """Lines of one customer: (basket, item), all at one instant, as the lines of an invoice are."""
    return [Line("ann", day, basket, part, START, item, f"title {item}", 1.0) for basket, item in events]


def test_history_is_what_was_bought_before_newest_first():
    lines = bought(("old", "a"), ("old", "b"), ("new", "c"), ("new", "d"))
    questions = {question.rest[0]: question for question in ask(lines, history_items=8, seed=1)}
    assert questions["d"].text == "title c ; title b ; title a"
    assert questions["d"].rest == ["d"]
    assert questions["c"].history == ["b", "a"]
    assert questions["c"].rest == ["c", "d"]
    assert "a" not in questions  # nothing was known before the first


def test_what_is_held_is_asked_for_only_where_it_may_come_again():
    lines = bought(("old", "a"), ("old", "b"), ("new", "b"), ("new", "c"), ("new", "a"), part="holdout")
    again = {question.id: question.rest for question in ask(lines, 8, 1)}
    without = {question.id: question for question in ask(lines, 8, 1, repeat=False)}
    assert ["b", "c", "a"] in again.values() and ["a"] in again.values()
    assert [question.rest for question in without.values()] == [["b"], ["c"], ["c"]]
    for question in without.values():
        assert not set(question.history) & set(question.rest)
        assert question.weights == [1.0] and question.held_out().relevant == question.rest


def test_a_held_out_question_asks_for_the_next_item_alone():
    lines = bought(("one", "a"), ("one", "b"), ("one", "c"), part="holdout")
    held = [question.held_out() for question in ask(lines, 8, 1)]
    assert [(query.history_items, query.relevant) for query in held] == [(["a"], ["b"]), (["b", "a"], ["c"])]


def test_an_item_taken_twice_counts_once_with_its_greatest_weight():
    lines = bought(("one", "a"), ("one", "b"), ("one", "b"), ("one", "c"))
    lines[2] = lines[2]._replace(weight=5.0)
    question = next(question for question in ask(lines, 8, 1) if question.rest[0] == "b")
    assert (question.rest, question.weights) == (["b", "c"], [5.0, 1.0])


def test_a_basket_over_midnight_takes_no_target_from_the_next_partition():
    lines = bought(("one", "a"), ("one", "b"))
    lines += bought(("one", "c"), ("one", "d"), part="holdout", day=START.date() + timedelta(days=1))
    questions = list(ask(lines, 8, 1))
    assert [question.rest for question in questions if question.part == "train"] == [["b"]]
    assert questions[-1].history == ["c", "b", "a"]


def test_a_long_basket_asks_no_more_than_a_short_one():
    lines = bought(*(("one", str(number)) for number in range(300)))
    assert len(list(ask(lines, 8, 1))) == QUESTIONS_PER_BASKET["train"]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcdef")), max_size=30), st.integers(0, 5))
def test_no_question_sees_its_own_future(events, seed):
    lines = bought(*events)
    for question in ask(lines, history_items=4, seed=seed):
        place = int(question.id.rpartition("-")[2])
        behind = [line.item for line in lines[:place]]
        assert 1 <= len(question.history) <= 4
        assert question.history == list(dict.fromkeys(reversed(behind)))[:4]
        basket = lines[place].basket
        ahead = dict.fromkeys(line.item for line in lines[place:] if line.basket == basket)
        already = {line.item for line in lines[:place] if line.basket == basket}
        assert question.rest == [item for item in ahead if item not in already]
        # The same customer, cut off at this place, was asked after the same history.
        assert question.text == " ; ".join(f"title {item}" for item in question.history)
