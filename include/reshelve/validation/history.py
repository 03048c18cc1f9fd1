"""What the trailing weeks were like: the profiles and items of the usable partitions before a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from reshelve.clickstream.database import connect, reader
from reshelve.store.objects import ObjectStore
from reshelve.validation.profile import Profile
from reshelve.validation.verdicts import validated_partitions

PROFILE = "profile.json"
ITEMS = "items.parquet"  # item_id, events: of the good rows


@dataclass(frozen=True)
class PartitionHistory:
    """Usable past partitions, oldest first, and the files of their items."""

    profiles: tuple[Profile, ...] = ()
    items: tuple[Path, ...] = ()

    def new_rows(self, items: Path) -> tuple[int, int]:
        """Events on any item, and events on items that no past partition had, in the items file of a day."""
        with connect() as db:
            known = f"SELECT item_id FROM {reader(self.items)}" if self.items else "SELECT '' WHERE false"
            row = db.execute(
                f"SELECT coalesce(sum(events), 0), coalesce(sum(events) FILTER (WHERE item_id NOT IN ({known})), 0)"
                f" FROM {reader([items])}"
            ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)


def load_history(
    store: ObjectStore, source: str, partition: date, weeks: int, cache: Path, *, items: bool
) -> PartitionHistory:
    """The `weeks` before `partition`; partitions judged before there were profiles are left out.

    `cache` keeps what was fetched: a verdict's files never change, and days follow each other.
    """
    if not weeks:
        return PartitionHistory()
    profiles, files = [], []
    first = partition - timedelta(weeks=weeks)
    for verdict in validated_partitions(store, source, first, partition - timedelta(days=1)):
        if not verdict.usable or not verdict.folder:
            continue
        directory = cache / source / f"{verdict.partition}-{verdict.digest}"
        for name in (PROFILE, ITEMS) if items else (PROFILE,):
            if not (directory / name).is_file():
                store.download_file(verdict.file(name), directory / name)
        profiles.append(Profile.model_validate_json((directory / PROFILE).read_bytes()))
        if items:
            files.append(directory / ITEMS)
    return PartitionHistory(tuple(profiles), tuple(files))
