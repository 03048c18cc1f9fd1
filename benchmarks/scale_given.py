"""What a run of `bench_scale` was told, as its processes hand it on."""

from __future__ import annotations

from pathlib import Path

import pydantic

TOP = 100
"""Items of an answer: enough for recall@100."""


class Given(pydantic.BaseModel):
    """One run's."""

    model_config = pydantic.ConfigDict(frozen=True)

    data: Path
    work: Path
    peers: Path | None
    seed: int
    threads: int
    width: int
    rounds: int
    questions: int
    vectors: str
    memory_gb: float

    @property
    def blend(self) -> Path:
        """The weights that every size is asked with."""
        return self.work / "blend.safetensors"
