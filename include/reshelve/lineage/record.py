"""Which run did a stage of which identity: `runs/<ranker>/<partition>/stages/<stage>/<digest>.json`, beside that day's runs.

Only runs of one day share results, and housekeeping deletes a day's runs together: no record outlives what it names.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from reshelve.lineage.stage import StageIdentity
from reshelve.store.layout import runs_of
from reshelve.store.objects import ObjectStore


class StageRecord(BaseModel):
    """A stage that is done."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: str
    at: datetime
    identity: StageIdentity


def _prefix(ranker: str, partition: date, stage: str) -> str:
    return f"{runs_of(ranker)}{partition.isoformat()}/stages/{stage}/"


def read_record(store: ObjectStore, identity: StageIdentity) -> StageRecord | None:
    """Who did it, where somebody has."""
    return _read(
        store, f"{_prefix(identity.ranker, identity.partition, identity.stage)}{identity.digest}.json"
    )


def write_record(store: ObjectStore, identity: StageIdentity, run: str) -> None:
    """Say that `run` has done it. Its result is there by now."""
    record = StageRecord(run=run, at=datetime.now(UTC), identity=identity)
    key = f"{_prefix(identity.ranker, identity.partition, identity.stage)}{identity.digest}.json"
    store.put_json(key, record.model_dump(mode="json"))


def newest_record(store: ObjectStore, ranker: str, partition: date, stage: str) -> StageRecord | None:
    """The newest of a day's; None where no run of that day has done it, or only code of before there were records."""
    read = (_read(store, key) for key, _ in store.list(_prefix(ranker, partition, stage)))
    return max((record for record in read if record), key=lambda record: record.at, default=None)


def _read(store: ObjectStore, key: str) -> StageRecord | None:
    """One that this code cannot read is none: the stage is done again."""
    found = store.get_json(key)
    try:
        return None if found is None else StageRecord.model_validate(found)
    except ValidationError:
        return None
