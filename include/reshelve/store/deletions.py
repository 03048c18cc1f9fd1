"""Deleting many objects, and knowing of each what became of it: S3 answers 200 and lists the keys that it did not delete."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError

from reshelve.errors import ReshelveError, TryAgainError
from reshelve.logs import logger
from reshelve.store.clients import sends_checksums
from reshelve.store.errors import FAULTS, MISSING_KEY, NOT_KNOWN, Said, code_of, judged, our_error
from reshelve.store.puts import pause

_AT_ONCE = 1000  # keys in one call, S3's most
_ROUNDS = 3
_SIDE_BY_SIDE = 8

Left = dict[str, ReshelveError]
"""Key → why the object is still there, or may be."""


class Deletions:
    """Deletes in one bucket. A store without the call for many keys is found out once, and asked for each key."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self._bucket = client, bucket
        self._checksums = sends_checksums(client)
        self._together_known = True

    def delete(self, keys: list[str]) -> Left:
        """Delete objects; those that were not. One that is not there is no error.

        Where the store is away or refuses the call as a whole, the keys that come after are not tried.
        """
        left: Left = {}
        for start in range(0, len(keys), _AT_ONCE):
            try:
                left |= self._patiently(keys[start : start + _AT_ONCE])
            except ReshelveError as error:
                return left | dict.fromkeys(keys[start:], error)
        return left

    def _patiently(self, keys: list[str]) -> Left:
        left = self._once(keys)
        for attempt in range(_ROUNDS - 1):
            again = [key for key, error in left.items() if isinstance(error, TryAgainError)]
            if not again:
                break
            pause(attempt)
            try:
                still = self._once(again)
            except ReshelveError:
                break  # what is known of each key says more
            left = {key: error for key, error in left.items() if key not in again} | still
        return left

    def _once(self, keys: list[str]) -> Left:
        """Raises ReshelveError where the call failed as a whole."""
        if self._together_known:
            try:
                return self._together(keys)
            except FAULTS as error:
                if code_of(error) not in NOT_KNOWN:
                    raise self._ours(
                        error, f"{keys[0]} …" if len(keys) > 1 else keys[0], "DeleteObjects"
                    ) from error
                logger(bucket=self._bucket).info(
                    "the store deletes one key at a time", problem=code_of(error)
                )
                self._together_known = False
        return self._one_by_one(keys)

    def _together(self, keys: list[str]) -> Left:
        asked = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = self._client.delete_objects(Bucket=self._bucket, Delete=asked)
        return {
            said["Key"]: judged(
                Said(said.get("Code", ""), said.get("Message", ""), None, "DeleteObjects"),
                self._bucket,
                said["Key"],
                checksums=False,
            )
            for said in answer.get("Errors", ())
            if said.get("Code") not in MISSING_KEY
        }

    def _one_by_one(self, keys: list[str]) -> Left:
        away: list[ReshelveError] = []

        def one(key: str) -> ReshelveError | None:
            if away:
                return away[0]
            try:
                self._client.delete_object(Bucket=self._bucket, Key=key)
            except FAULTS as error:
                if code_of(error) in MISSING_KEY:
                    return None
                ours = self._ours(error, key, "DeleteObject")
                if not isinstance(error, ClientError):
                    away.append(ours)  # no answer at all: the others would wait as long
                return ours
            return None

        with ThreadPoolExecutor(_SIDE_BY_SIDE, "delete") as pool:
            found = zip(keys, pool.map(one, keys), strict=True)
            return {key: error for key, error in found if error is not None}

    def _ours(self, error: BaseException, key: str, action: str) -> ReshelveError:
        return our_error(error, self._bucket, key, action, checksums=self._checksums)


def what_stayed(left: Left, of: int) -> ReshelveError:
    """One error for the objects that were not deleted: a refusal before what a retry mends."""
    key, error = min(left.items(), key=lambda item: (isinstance(item[1], TryAgainError), item[0]))
    return type(error)(
        f"{len(left)} of {of} objects were not deleted, {key} first: {error.headline}", error.detail
    )
