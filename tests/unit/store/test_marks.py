"""How far a log was followed, as it is kept on a machine's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from reshelve.deployments.marks import Mark, MarkFile
from reshelve.deployments.pointer import Pointer

BUCKET, RANKER = "reshelve", "recommend"


def mark(sequence: int, bucket: str = BUCKET) -> Mark:
    pointer = Pointer(ranker=RANKER, sequence=sequence)
    return Mark(bucket=bucket, sequence=sequence, digest=f"{sequence:064x}", pointer=pointer)


def test_what_was_seen_is_never_taken_back(tmp_path: Path) -> None:
    """Two processes of a host share the place: the one that is behind must not make it forget."""
    ahead, behind = MarkFile(tmp_path, BUCKET, RANKER), MarkFile(tmp_path, BUCKET, RANKER)
    ahead.write(mark(7))
    behind.write(mark(6))
    assert behind.read() == mark(7)
    behind.write(mark(8))
    assert ahead.read() == mark(8)


@pytest.mark.parametrize(("bucket", "ranker"), [("another", RANKER), (BUCKET, "search")])
def test_it_is_of_one_bucket_and_one_ranker(tmp_path: Path, bucket: str, ranker: str) -> None:
    """A host that is given another bucket begins anew: there an older move is no log that was put back."""
    MarkFile(tmp_path, BUCKET, RANKER).write(mark(7))
    (tmp_path / "recommend.json").rename(tmp_path / f"{ranker}.json")
    other = MarkFile(tmp_path, bucket, ranker)
    assert other.read() is None
    if ranker == RANKER:
        other.write(mark(3, bucket))
        assert other.read() == mark(3, bucket)
