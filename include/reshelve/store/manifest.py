"""The manifest that makes a version exist: every file's digest and size, where it comes from, what the gate said."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from reshelve.errors import DataError
from reshelve.names import RankerName, Version
from reshelve.statistics.interval import Interval
from reshelve.store.json_documents import json_object, moment
from reshelve.store.layout import models_of
from reshelve.store.signatures import Trust, check_signature
from reshelve.store.verdicts import check_verdict

MANIFEST = "manifest.json"
CLAIM = "claim.json"
ABOUT = "assets.extra/reshelve.json"
ATTEMPTS = 999

_Body = bytes  # `Manifest.bytes` is a size


def _inside(path: str) -> str:
    """A manifest may come from anywhere: its paths must stay inside the version's directory."""
    pure = PurePosixPath(path)
    if (
        not path
        or pure.is_absolute()
        or pure.as_posix() != path
        or ".." in pure.parts
        or set(path) & set("\\\0")
    ):
        raise ValueError(f"path {path!r} leaves the version's directory")
    if path in (".", MANIFEST, CLAIM):
        raise ValueError(f"path {path!r} is no file of a version")
    return path


InsidePath = Annotated[str, AfterValidator(_inside)]


class _ManifestPart(BaseModel):
    """Frozen. Unknown keys are left out, so that a host with older code can still read a newer manifest."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class FileEntry(_ManifestPart):
    """One file of a version."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="Bytes.")


class Spent(_ManifestPart):
    """What a version's counts, released with noise, cost one customer."""

    epsilon: float
    delta: float
    per_customer: int = Field(description="Pairs of query and item that were counted of one customer.")
    noise: float = Field(description="Standard deviation of the noise, in customers.")
    threshold: float = Field(description="What a count had to reach, noise included, in customers.")


class FreshCatalogue(_ManifestPart):
    """What a version that was made without training has from another, and what it has not."""

    parent: Version = Field(description="The version whose model it is.")
    products: str = Field(description="sha256 of the product list.")
    added: int
    removed: int
    retitled: int


class VersionLineage(_ManifestPart):
    """Where a version comes from."""

    partition: date
    run: str = Field(description="ranker/partition/digest; its files are under runs/.")
    spec_digest: str
    code_version: str
    base: Any = Field(None, description="The pretrained model: name, revision, digests.")
    champion: int | None = Field(None, description="The version it was compared with.")
    verdicts: dict[str, str] = Field(
        default_factory=dict, description="Partition read → digest of its verdict."
    )
    privacy: Spent | None = Field(
        None, description="Differential privacy of its counts; null where they are exact."
    )
    refreshed: FreshCatalogue | None = Field(
        None, description="The same model with a newer product list; null where a night trained it."
    )
    made_of: dict[str, str] = Field(
        default_factory=dict, description="`stage/file` of the run → sha256: what a refresh reads of it."
    )


class GateVerdict(_ManifestPart):
    """What the gate said of these bytes.

    `champion` holds the paired difference to the version that served, on the same questions: figures of two nights are of two
    sets of questions, and say nothing of each other. Manifests of earlier releases do not name their questions.
    """

    verdict: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...] = ()
    metric: str | None = None
    challenger: dict[str, Any] | None = None
    champion: dict[str, Any] | None = None
    baselines: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    queries: int | None = None
    holdout_partitions: tuple[str, ...] = ()
    question_set: str | None = None

    @property
    def asked(self) -> str:
        """Which questions the figures are of, for people: `842 questions of 2011-08-30, set 1f0c9a`; empty where it is not known."""
        days = [self.holdout_partitions[0], self.holdout_partitions[-1]] if self.holdout_partitions else []
        of = f" of {' to '.join(dict.fromkeys(days))}" if days else ""
        name = f", set {self.question_set[:6]}" if self.question_set else ""
        return f"{self.queries:,} questions{of}{name}" if self.queries is not None else ""

    def difference_to(self, version: int) -> Interval | None:
        """This version minus another, question by question; None where the gate did not ask that one beside it."""
        champion = self.champion or {}
        value, low, high = (champion.get(f"difference{end}") for end in ("", "_low", "_high"))
        if champion.get("version") != version or value is None or low is None or high is None:
            return None
        return Interval(value, low, high)


class ReleaseSteps(_ManifestPart):
    """The steps by which a version was published to be released: a release leaves none out without a person's signature."""

    shadow: bool = False
    index: bool = Field(False, description="The shop's own index has to hold the version.")
    shares: tuple[float, ...] = Field((), description="Of the canary, rising.")
    approval: bool = False
    another_person: bool = Field(False, description="Who requested the release may not approve it.")


class Manifest(_ManifestPart):
    """What makes a version exist."""

    ranker: RankerName
    version: Version
    kind: str
    created_at: datetime
    files: dict[InsidePath, FileEntry] = Field(min_length=1)
    lineage: VersionLineage
    gate: GateVerdict
    note: str = ""
    release: ReleaseSteps | None = Field(
        None, description="What its release has at least; null: of a version from before that was said."
    )
    gate_signature: dict[str, str] | None = Field(
        None, description="The gate's signature of its verdict on these files."
    )
    _body: _Body = PrivateAttr(b"")

    @classmethod
    def parse(cls, body: _Body, what: str, trusted: Trust, *, stored_at: datetime | None = None) -> Manifest:
        """A manifest from its bytes, its signature checked first. Raises DataError saying what is wrong with it.

        `stored_at`: when the store says that it was written; None where it is not the store's.
        """
        try:
            document = json_object(body)
        except ValueError as error:
            raise DataError(f"{what}: its manifest is not valid", f"no JSON object: {error}") from error
        signer = check_signature(
            document,
            f"{what}: its manifest",
            trusted,
            signed_at=moment(document.get("created_at")),
            stored_at=stored_at,
        )
        check_verdict(document, signer, f"{what}: its manifest", trusted)
        try:
            manifest = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{what}: its manifest is not valid", f"{where}: {first['msg']}") from error
        manifest._body = body
        return manifest

    @property
    def body(self) -> _Body:
        """The bytes it was read from, signature and unknown keys included; empty where it was made here."""
        return self._body

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.size for file in self.files.values())


def version_number(partition: date, attempt: int) -> int:
    """2011-08-30, 1 → 20110830001."""
    return int(f"{partition:%Y%m%d}") * 1000 + attempt


def partition_of(version: int) -> date:
    """20110830001 → 2011-08-30. Raises DataError where the integer is not a version."""
    try:
        return datetime.strptime(str(version // 1000), "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise DataError(
            f"{version} is not a version", "expected YYYYMMDD and three digits of attempt"
        ) from error


def version_prefix(ranker: str, version: int) -> str:
    """The key prefix of a version's files."""
    return f"{models_of(ranker)}{version}"
