"""Who requests a release and who approves it, where the two may not be one person.

A person is known by Airflow's log-in, or in a shell by the name that the trusted keys give to the person's key there. What
somebody typed (`--by`) proves nothing, and so approves nothing that asks for another person.
"""

from __future__ import annotations

from reshelve.deployments.deployment_log import Pointer
from reshelve.errors import ConfigurationError
from reshelve.store.keys import holder


def requester(user: str | None, by: str) -> str:
    """Who requests a release; empty: nobody, as where a schedule does.

    `user`: who is logged in to Airflow, empty for nobody, None in a shell. There the name of the person's key counts, else
    what was typed: to name oneself falsely keeps the other one from approving, and nobody else.
    """
    return user if user is not None else holder() or by


def approver(pointer: Pointer, user: str | None, by: str) -> str:
    """The name by which an approval is logged: where another person is asked for, one that is known.

    `user` as above. Raises ConfigurationError where nobody is known, or it is who requested the release.
    """
    if not pointer.plan.another_person:
        return by
    name = holder() if user is None else user
    if not name:
        raise ConfigurationError(
            f"{pointer.ranker}: another person has to approve version {pointer.canary}, and it is not known who approves",
            "approve it in Airflow, logged in as yourself, or in a shell with a person's key that has your name "
            "(reshelve keys make --role person --name NAME)",
        )
    require_another_person(pointer, name)
    return name


def require_another_person(pointer: Pointer, name: str) -> None:
    """Raises ConfigurationError where somebody of that name may not approve the release under way."""
    if not pointer.plan.may_approve(name):
        raise ConfigurationError(
            f"{pointer.ranker}: {name} requested the release of version {pointer.canary}, and another person has to approve it",
            "the ranker file says release.approval: another_person",
        )
