from __future__ import annotations

from datetime import date

import pytest

from reshelve.config.ranker import Data
from reshelve.errors import DataError
from reshelve.examples.partitions import choose_partitions, split_by_time
from reshelve.validation.verdicts import PartitionDecision


def days(*numbers: int) -> tuple[date, ...]:
    return tuple(date(2011, 8, number) for number in numbers)


def test_time_splits_available_partitions_not_calendar_days():
    data = Data(source="shop", holdout_partitions=2, validation_partitions=1)
    split = split_by_time(usable=dict.fromkeys(days(1, 3, 4, 8, 9), "d"), excluded={}, data=data)
    assert (split.train, split.validation, split.holdout) == (days(1, 3), days(4), days(8, 9))
    assert [split.part(day) for day in split.days] == ["train", "train", "validation", "holdout", "holdout"]


def test_a_window_without_training_days_says_what_is_needed():
    data = Data(source="shop", holdout_partitions=1, validation_partitions=2)
    with pytest.raises(DataError, match=r"3 usable partitions .*too few") as error:
        split_by_time(usable=dict.fromkeys(days(1, 2, 3), "d"), excluded={}, data=data)
    assert "more than 3" in error.value.detail


def test_the_window_ends_with_the_partition_and_leaves_stopped_days_out(shop, day_of):
    for number in range(8):
        shop.write(day_of(number), [], PartitionDecision.STOP if number == 4 else PartitionDecision.WARN)
    split = choose_partitions(shop.run("next_item", day_of(6), window_days=6))
    assert split.days == tuple(day_of(n) for n in (1, 2, 3, 5, 6))
    assert split.excluded == {day_of(4): "stop"}
    assert split.digests[day_of(6)] == f"d{day_of(6)}"


def test_a_missing_partition_is_bad_data(shop, day_of):
    shop.write(day_of(0), [])
    with pytest.raises(DataError, match=r"partition 2011-08-02 of shop is missing"):
        choose_partitions(shop.run("next_item", day_of(1)))


def test_a_stopped_partition_blocks_the_night_with_its_headline(shop, day_of):
    for number in range(5):
        shop.write(day_of(number), [], PartitionDecision.STOP if number == 4 else PartitionDecision.PASS)
    with pytest.raises(DataError, match=r"2011-08-05 of shop was stopped\nsaid by the test"):
        choose_partitions(shop.run("next_item", day_of(4)))
