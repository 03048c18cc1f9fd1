"""The keys of a platform of one's own, and what its store has from before they were made.

Once, with keys that were just made, a platform's own store is believed: its versions are signed, and its deployment logs
vouched for. Where a person's key is kept elsewhere nothing is: whoever has it vouches (`reshelve vouch`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from reshelve.deployments.vouching import vouch_for_unsigned
from reshelve.errors import TryAgainError
from reshelve.files import write_whole
from reshelve.logs import configure_logs, logger
from reshelve.store import keys
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.roles import Role
from reshelve.store.signatures import signing_key_path

_MARKER = "new-keys"
_WHY = "the log from before moves were signed, in this platform's own store"


def make_keys(home: Path, *, old_keys_sign: bool = True) -> None:
    """Make what is missing. What is new is written down first, until `take_over` is done: a start may be broken off between.

    No key is made for a role whose private key is kept elsewhere: another one is trusted. `old_keys_sign`: keys from before
    there were roles are such, too. Raises ConfigurationError where one is missing, and a file of a trusted key is none.
    """
    missing = [role for role in Role if not signing_key_path(role).exists()]
    if not missing:
        return
    known, begun = keys.trusted_roles(), _written_down(home)
    elsewhere = known if old_keys_sign else keys.trusted_roles(of_one=True)
    wanted = [role for role in missing if role in begun or role not in elsewhere]
    if new := begun | {role for role in wanted if role not in known}:
        write_whole(home / _MARKER, "\n".join(sorted(new)), durable=True)
    if wanted:
        keys.make(if_missing=False, roles=wanted)


def keys_are_new(home: Path) -> bool:
    """Whether `take_over` has something to do."""
    return (home / _MARKER).is_file()


def take_over(home: Path, store: ObjectStore, by: str = "make run") -> None:
    """Sign and vouch for what is older than the new keys, as far as they may.

    What is refused is logged, with what a person types, and stops nothing. Where the store is away the next start goes on.
    """
    made = _written_down(home)
    try:
        if Role.BUILD in made:
            keys.sign_all(store)
        if {Role.RELEASE, Role.PERSON} <= made:
            vouch_for_unsigned(store, by=by, reason=_WHY)
    except TryAgainError as error:
        logger(stage="platform").error(
            "not all that is older than the new keys is taken over; the next start goes on",
            problem=str(error),
        )
        return
    (home / _MARKER).unlink()


def _written_down(home: Path) -> set[Role]:
    path = home / _MARKER
    return {Role(word) for word in path.read_text().split()} if path.is_file() else set()


def main() -> None:
    """`python -m reshelve.platform.new_keys DIRECTORY`: what docker-compose.yaml does before it starts the rest.

    A key from before there were roles signs nothing there: its private part did not come along.
    """
    configure_logs()
    home = Path(sys.argv[1])
    make_keys(home, old_keys_sign=False)
    if keys_are_new(home):
        take_over(home, object_store(), by="docker compose")


if __name__ == "__main__":
    main()
