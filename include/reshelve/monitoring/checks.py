"""What the checks share: a finding stands until the same check is judged again."""

from __future__ import annotations

from reshelve.monitoring.observations import Condition, Finding
from reshelve.monitoring.watch_state import Memory


def judged(memory: Memory, key: str, finding: Finding | None) -> None:
    """A check was judged: its finding stands from now on; None: it is well."""
    if finding is None:
        memory.standing.pop(key, None)
        memory.suspects.pop(key, None)
    else:
        memory.standing[key] = finding


def confirmed(memory: Memory, key: str, finding: Finding | None, looks: int = 2) -> None:
    """As `judged`, but a finding is inconclusive until it was made `looks` times in a row."""
    if finding is None:
        judged(memory, key, None)
        return
    memory.suspects[key] = memory.suspects.get(key, 0) + 1
    if memory.suspects[key] < looks:
        said = f"{finding.reason}; to be confirmed by the next look"
        finding = finding.model_copy(update={"condition": Condition.INCONCLUSIVE, "reason": said})
    judged(memory, key, finding)
