"""What a kind of ranker has to answer. Whatever is particular to one is in its folder; everybody else asks its object.

A kind is `KIND` in its folder's `__init__.py`. What needs torch, TensorFlow or DuckDB is in a facet: a module beside it, of the
facet's name, whose `FACET` is imported when it is first asked for. A DAG file or a shop's client loads none of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # what facets are given and give; a kind's own modules import it
    from datetime import date
    from pathlib import Path

    import numpy as np
    from duckdb import DuckDBPyConnection
    from torch import Tensor

    from reshelve.client.client import Answer
    from reshelve.config.ranker import Ranker
    from reshelve.evaluation.scoring import Served, ServedModel
    from reshelve.examples.changed_catalogue import CatalogueChange
    from reshelve.examples.drafts import Draft, SourceContents
    from reshelve.examples.event_counts import EventCounts
    from reshelve.examples.formats import HoldoutQuery
    from reshelve.examples.workspace import Workspace
    from reshelve.export.catalogue import PackagedCatalogue
    from reshelve.export.heldout import HeldOutQuestion
    from reshelve.export.layers import Layers
    from reshelve.export.module import RankerModule
    from reshelve.export.version import VersionBuilder
    from reshelve.model.graph_size import GraphTables
    from reshelve.model.trained import TrainedModel
    from reshelve.protocol.version_items import Item
    from reshelve.training.batches import Batch, TokenisedExamples

Inputs = dict[str, list[str]]  # of one request, by the signature's names


@dataclass(frozen=True)
class KindStage:
    """A stage of one kind alone, between train and compress. `work` is `module:function` of a run, as of every stage."""

    name: str
    work: str
    does: str


class Kind(ABC):
    """One kind of ranker."""

    name: ClassVar[str]  # in ranker files, model.json and manifests; the folder's or entry point's too
    stages: ClassVar[tuple[KindStage, ...]] = ()  # the DAG, `reshelve plan` and the verbs add them
    scores_catalogue: ClassVar[
        bool
    ]  # the model's head: a row per catalogue item, or one number per pair of texts
    two_texts: ClassVar[bool]  # whether the model reads two at once: the base's tokenizer has to know how
    reads_titles: ClassVar[bool] = False  # whether items may be scored by the vectors of their titles
    listed: ClassVar[bool] = (
        True  # whether an item that nobody has chosen yet is a candidate: the examples stage
    )

    refreshed_from: ClassVar[
        tuple[str, ...]
    ] = ()  # stages that, beside a catalogue, make a version; none: it takes training

    noisy_counts: ClassVar[bool] = (
        False  # whether `remember.privacy` gives noise to all counts of behaviour that its versions hold
    )

    @abstractmethod
    def check(self, ranker: Ranker) -> None:
        """Asked while a ranker file is loaded. Raises `config.yaml_models.misfit` for keys that do not go with the kind."""

    @abstractmethod
    def may_show_text(self, ranker: Ranker) -> bool:
        """Whether a question's text says nothing of one person: the gate's shelves and the report's explanations."""

    @cached_property
    def requests(self) -> Requests:
        """Imports numpy alone."""
        return self._facet("requests")

    @cached_property
    def examples(self) -> Examples:
        """Imports DuckDB."""
        return self._facet("examples")

    @cached_property
    def learning(self) -> Learning:
        """Imports torch."""
        return self._facet("learning")

    @cached_property
    def explanation(self) -> Explanation:
        """Imports torch."""
        return self._facet("explanation")

    @cached_property
    def export(self) -> Export:
        """Imports TensorFlow."""
        return self._facet("export")

    @cached_property
    def evaluation(self) -> Evaluation:
        """Imports numpy and DuckDB."""
        return self._facet("evaluation")

    @cached_property
    def refresh(self) -> Refresh:
        """Of kinds with `refreshed_from` alone. Imports TensorFlow and torch."""
        return self._facet("refresh")

    def _facet(self, name: str) -> Any:
        return import_module(f"{type(self).__module__}.{name}").FACET


class Requests(ABC):
    """What is sent to a served version, and what comes back."""

    unit: ClassVar[str]  # of which a request holds several, in the report's table
    rows: ClassVar[int]  # of an ordinary request: what compression and tuning time
    tokens: ClassVar[int]  # and of its longest text

    @abstractmethod
    def of_questions(self, questions: Sequence[HeldOutQuestion], size: int, start: int = 0) -> Inputs:
        """A request of batch `size`, from question `start` on: export's warm-up and checks, compression's timing."""

    def of_titles(self, titles: Sequence[str], place: int, like: str) -> str:
        """A text that is no customer's, in the form of `like`: the catalogue's titles from `place` on. A version keeps it."""
        return titles[place % len(titles)]

    def titles_in(self, text: str) -> list[str]:
        """The items' titles that a request's text is made of; none where it is somebody's own words."""
        return []

    @abstractmethod
    def of_log(self, text: str) -> Inputs | None:
        """The request log's `text`, to be asked again; None where the log does not hold all of it. The shadow asks."""

    @abstractmethod
    def probe(self, items: list[Item]) -> Inputs:
        """A sensible question about a version's own catalogue: the release's and the watch's probes."""

    @abstractmethod
    def problem(self, inputs: Inputs, outputs: Mapping[str, Any]) -> str | None:
        """What is wrong with the form of an answer that has finite scores, or None: the release's probe."""

    @abstractmethod
    def agreement(self, old: Answer, new: Answer) -> float | None:
        """How alike two versions answer, 1 being the same; None where nothing compares: the shadow."""

    @abstractmethod
    def demonstrate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
        """`{"history" or "query": text}` of one of the held-out `rows`, for the night's summary."""

    @abstractmethod
    def check_question(self, ranker: str, history: str | None, query: str | None, items: Any) -> None:
        """Raises ConfigurationError where `reshelve predict` was asked what the kind does not answer."""

    @abstractmethod
    def candidates_signature(self) -> str | None:
        """The signature that scores a query's named items; None where there is none: `reshelve predict`."""

    @abstractmethod
    def of_text(self, text: str) -> Inputs | None:
        """The request that orders the whole catalogue for one text; None where there is none: `reshelve predict`."""


class Examples(ABC):
    """What the examples stage writes of a window's events."""

    @abstractmethod
    def expected(self, ranker: Ranker) -> str:
        """What events have to give, in words: for the error where they give none."""

    def prepare(self, ranker: Ranker, connection: DuckDBPyConnection, begins: date) -> None:  # noqa: B027 - most need nothing
        """Whatever the window's tables need before the catalogue is made of them; `begins` is the first held-out day."""

    @abstractmethod
    def write(self, work: Workspace) -> dict[str, int]:
        """Write train, validation and holdout.parquet, as `examples.formats` has them; the rows of each."""

    def tables(self, work: Workspace) -> GraphTables | None:
        """What a version's graph holds beside its model; None where the kind does not count it, and no size is foretold."""
        return None

    @abstractmethod
    def held_out(self, work: Workspace) -> list[HoldoutQuery]:
        """The held-out questions alone: `reshelve evaluate`."""

    @abstractmethod
    def draft(self, seen: SourceContents) -> Draft:
        """What `reshelve new ranker` writes for a source that holds this."""


class Learning(ABC):
    """What training minimises and validates."""

    metric: ClassVar[str]  # of the validation examples

    @abstractmethod
    def read(self, path: Path) -> TokenisedExamples:
        """The examples in `path`. Raises OSError, KeyError or ValueError where the file is not as agreed."""

    @abstractmethod
    def losses(self, loss: str, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The losses of a batch, in nats, and their weights: one per example, or one per group of them."""

    @abstractmethod
    def validated(self, loss: str, scored: Iterable[tuple[Batch, Tensor]]) -> dict[str, float]:
        """`loss` and the metric of batches and their logits, this process's share of them; every process gets the same."""

    @abstractmethod
    def from_teacher(self, logits: Tensor, said: Tensor) -> Tensor:
        """How far each example's logits are from the teacher's [B]: distillation."""


@dataclass(frozen=True)
class Prediction:
    """An answer of the model for the example at `place`. No two with the same `about` are explained."""

    chance: float
    place: int
    answer: int
    about: int
    came_true: bool


class Explanation(ABC):
    """How the report explains a prediction by its words."""

    score: ClassVar[str]  # what the words add to, in words

    @abstractmethod
    def left_out(self, ranker: Ranker) -> str:
        """What the words do not explain, in a sentence; empty where that is nothing."""

    @abstractmethod
    def predictions(self, logits: Tensor, known: Any, places: np.ndarray) -> Iterator[Prediction]:
        """The likeliest answer to each of the examples `places` of `known`, whose logits these are."""

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """What is explained of `logits`: one number a row [B], or one per item [B, C]."""

    @abstractmethod
    def target(self, answer: int) -> int | None:
        """The column of `scores` that is explained; None where there is one number."""

    @abstractmethod
    def named(self, answer: int, titles: Sequence[str], right_text: str) -> str:
        """What the page calls the answer."""


class Export(ABC):
    """The graph of a version."""

    @abstractmethod
    def module(self, builder: VersionBuilder, model: TrainedModel, layers: Layers) -> RankerModule:
        """The graph that takes strings. Raises DataError where a stage before it left something out."""

    @abstractmethod
    def texts(self, inputs: Inputs, catalogue: PackagedCatalogue) -> list[str] | list[tuple[str, str]]:
        """What the model reads of a request, row by row: to compare the graph with torch, and steps with each other."""


class Refresh(ABC):
    """How what was trained gets another catalogue, without training."""

    @abstractmethod
    def write(
        self,
        before: Mapping[str, Path],
        after: Mapping[str, Path],
        change: CatalogueChange,
        read: Callable[[Path, Sequence[str]], np.ndarray],
    ) -> None:
        """From the directories of the stages `refreshed_from` of one run to those of another.

        `read`: a train stage's directory and titles → their vectors by its encoder, float32 [N, D].
        """

    @abstractmethod
    def remembered(self, stages: Mapping[str, Path], most: int) -> list[str]:
        """Up to `most` texts that the version remembers, the most asked first: what it says to them has to stay."""


class Evaluation(ABC):
    """How the gate, `reshelve evaluate` and compression ask and count."""

    whole_lists: ClassVar[
        bool
    ]  # all of an answer is its prediction (a shortlist's order), not its best alone
    questions: ClassVar[int]  # whose ranking the compression verdict compares

    @abstractmethod
    def answers(self, served: ServedModel, queries: Sequence[HoldoutQuery]) -> Iterator[Served]:
        """Ask `served` all of it: (items, best first, their scores, whether all are numbers) of each query."""

    @abstractmethod
    def subject(self, query: HoldoutQuery) -> str:
        """What was asked, for the slices: the query, or what stands for it."""

    @abstractmethod
    def familiar(self, past: EventCounts, queries: Sequence[HoldoutQuery]) -> Mapping[str, float]:
        """By subject: the share of the past's weight that more frequent ones carry, in [0, 1)."""

    @abstractmethod
    def together(self, past: EventCounts) -> Any:
        """The co-occurrence baseline's keys of a query, `(query, by_words) → list of float64[C]`; `by_words(query)` are those of its words."""
