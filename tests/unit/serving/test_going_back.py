"""Going back needs a name and the store, not a right ranker file; and whoever waits for what it took back waits no longer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from reshelve.deployments.deployment_log import (
    Change,
    MovedError,
    Offer,
    Revert,
    Withdraw,
    move_pointer,
    pointer_key,
)
from reshelve.errors import ConfigurationError
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.rollout.fleet import wait_for_agents
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.verbs.options import known_name


@pytest.mark.parametrize("text", ["schedule: 0 25 * * *", "{", None])
def test_a_ranker_whose_file_is_wrong_or_gone_is_known_while_it_is_deployed(
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
) -> None:
    monkeypatch.setenv("RESHELVE_RANKERS_DIR", str(tmp_path))
    settings.cache_clear()
    try:
        if text is not None:
            (tmp_path / "recommend.yaml").write_text(text)
        store.put(pointer_key("recommend"), b"{}")
        assert known_name("recommend") == "recommend"
        with pytest.raises(ConfigurationError, match="no ranker 'recomend'"):
            known_name("recomend")
        with pytest.raises(ConfigurationError, match="is not a valid ranker name"):
            known_name("../recommend")
    finally:
        settings.cache_clear()


@pytest.mark.parametrize("how", ["withdrawn", "rolled back"])
def test_a_release_does_not_go_on_waiting_for_what_was_taken_back(
    store: ObjectStore, publish: Callable[..., int], make_stable: Callable[..., object], how: str
) -> None:
    one, two, three = (publish(date(2011, 8, day), "no_model") for day in (29, 30, 31))
    for version in (one, two):
        make_stable(store, "recommend", version)
    back: Change = Withdraw(three) if how == "withdrawn" else Revert(one)
    offered = move_pointer(store, "recommend", Offer(three), by="night", reason="")
    report = Report(
        agent="a", server="127.0.0.1:1", at=datetime.now(UTC), sequence=offered.sequence, serving=Serving()
    )
    write_report(store, "recommend", report)
    looks = 0

    def taken_back_meanwhile(_: Report) -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            move_pointer(store, "recommend", back, by="anna", reason="not this one")
        return False

    with pytest.raises(MovedError) as told:
        wait_for_agents(store, "recommend", offered, three, taken_back_meanwhile, 60, "loading")
    assert "by anna: not this one" in str(told.value.detail) and looks == 1
