"""Going back needs a name and the store; neither a right ranker file nor anything else of the ranker."""

from __future__ import annotations

from pathlib import Path

import pytest

from reshelve.errors import ConfigurationError
from reshelve.settings import settings
from reshelve.store.deployments import pointer_key
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
        with pytest.raises(ConfigurationError, match="is no ranker's name"):
            known_name("../recommend")
    finally:
        settings.cache_clear()
