"""The keys of a machine's own platform, and what its store has from before they were made.

Once, with keys that were just made, this machine's own store is believed: its versions are signed, and its deployment logs
vouched for. Where a person's key is kept elsewhere nothing is: whoever has it vouches (`reshelve vouch`).
"""

from __future__ import annotations

from pathlib import Path

from reshelve.deployments.vouching import vouch_for_unsigned
from reshelve.files import write_whole
from reshelve.store import keys
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role

_MARKER = "new-keys"
_BY, _WHY = "make run", "the log from before moves were signed, in this machine's own store"


def make_keys(home: Path) -> None:
    """Make what is missing, and write down what is new until `take_over` is done: a start may be broken off between."""
    if made := keys.make(if_missing=True)["made"]:
        write_whole(home / _MARKER, "\n".join(made), durable=True)


def keys_are_new(home: Path) -> bool:
    """Whether `take_over` has something to do."""
    return (home / _MARKER).is_file()


def take_over(home: Path, store: ObjectStore) -> None:
    """Sign and vouch for what is older than the new keys, as far as they may."""
    made = (home / _MARKER).read_text().split()
    if Role.BUILD in made:
        keys.sign_all(store)
    if {Role.RELEASE, Role.PERSON} <= set(made):
        vouch_for_unsigned(store, by=_BY, reason=_WHY)
    (home / _MARKER).unlink()
