"""The report of a night: complete, self-contained, and there for every night whatever became of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.deployed import judged

from reshelve.errors import DataError
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.reporting.address import read_report, report_key
from reshelve.reporting.night import Night
from reshelve.reporting.report import report
from reshelve.reporting.sections.learning import tuning
from reshelve.reporting.sections.speed import latency
from reshelve.store.manifest import Spent
from reshelve.store.signatures import Signed, signed
from reshelve.store.versions import require_manifest

OLD_FIRST, FRESH_FIRST = ["old", "fresh", "spare"], ["fresh", "old", "spare"]
CHAMPION = 20110829001
VOID = {"meta", "link", "img", "br", "hr", "input", "base", "source", "track", "wbr"}


class Document(HTMLParser):
    """What a browser would load, name and number; fails where a tag is not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def said(self) -> str:
        return " ".join(" ".join(self.text).split())


def read(run) -> Document:
    result = report(run)
    body = read_report(run.store, "shelf", result["name"])
    if body is None:  # its version has no manifest in these tests: by its run, then
        body = run.store.get(result["key"]).body
    assert len(body) == result["bytes"] < 3_000_000
    return Document(body.decode())


def assert_offline(page: Document) -> None:
    """Nothing is loaded from anywhere: no script, no style sheet, no picture, no font, no form."""
    loads = {"src", "srcset", "action", "data", "poster", "background", "ping", "formaction"}
    for tag, attributes in page.tags:
        assert tag not in {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "audio",
            "video",
        }
        assert not loads & attributes.keys(), (tag, attributes)
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert attributes.get("http-equiv") in (None, "Content-Security-Policy")
        for value in attributes.values():
            assert not re.search(r"url\((?!['\"]?#)", value or ""), (tag, value)


NIGHTS = {
    "first night": {},
    "better than the champion": {"champion": OLD_FIRST, "challenger": FRESH_FIRST},
    "rejected": {"champion": FRESH_FIRST, "challenger": ["spare", "old", "fresh"]},
    "tuning left out": {"trials": False},
    "no tune stage": {"without": ("tune",)},
    "ended at training": {"without": ("train", "compress", "package", "gate", "publish")},
    "ended at the gate": {"without": ("gate", "publish")},
}


KINDS = ["next_item", "pair", "search"]
# Every kind's whole night, and each other way that a night may go.
CASES = [(kind, "better than the champion") for kind in KINDS]
CASES += [
    (KINDS[number % 3], name) for number, name in enumerate(NIGHTS) if name != "better than the champion"
]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda case: str(case))
def test_every_night_has_a_report_that_opens_offline(make_night, kind, name):
    page = read(make_night(kind, **NIGHTS[name]))
    assert_offline(page)
    identifiers = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))
    linked = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert linked <= set(identifiers)
    assert "A shelf & <more>" in page.said()
    assert "None" not in page.said() and "nan" not in page.said().split()


def test_a_whole_night_shows_everything(make_night):
    page = read(make_night(champion=OLD_FIRST))
    said = page.said()
    for heading in (
        "Data", "Examples", "Tuning", "Training", "Quality", "Slices", "Calibration", "Exposure and fairness", "Compression",
        "Latency", "Why it ranked so", "Time and cost", "Lineage",
    ):  # fmt: skip
        assert heading in said
    for words in (
        "4 trials in 1.5 minutes", "batch_size 64, learning_rate 0.0001", "training.max_minutes", "the weights of version 20110829001",
        "Demographic parity", "1.0 MB", "d0", "7 <rows>",
    ):  # fmt: skip
        assert words in said, words
    drawings = [a for tag, a in page.tags if a.get("role") == "img"]
    assert len(drawings) == 7 and all(len(a["aria-label"]) > 40 for a in drawings)


def test_figures_say_what_they_are_of(make_night):
    said = read(make_night(kind="pair", champion=OLD_FIRST)).said()
    for words in (
        "recall@1 on 70 held-out questions of 2011-08-30 in 70 clusters",
        "0.1000 before, 0.4000 after (95 % interval 0.3500 to 0.4500, on 1,254 lists)",
        "auc of all rows together",
    ):
        assert words in said, words
    few = read(make_night(champion=OLD_FIRST, **{"gates.group_queries": 36})).said()
    assert "Too few questions to compare (under 36): here (35), there (35)" in few
    assert "here (too few to say: 35 questions)" in few


def test_times_are_of_requests_whose_rows_are_said(make_night):
    run = make_night(champion=OLD_FIRST)
    gate = run.stage("gate").required()
    asked = {"requests": 27, "rows": 842, "p50": 1364.2, "p95": 2041.9, "p99": 12345.6}
    run.stage("gate").commit({**gate, "latency": {"challenger": asked, "champion": {**asked, "rows": 27}}})
    served = latency(Night.read(run)).parts[0]
    assert served.head[:3] == ("Version", "Requests", "Rows in each")
    assert served.rows[0] == ("this version", "27", "31.2", "1,364 ms", "2,042 ms", "12,346 ms")
    assert served.rows[1][2] == "1"


def test_a_best_trial_at_the_edge_of_its_range_is_named(make_night):
    run = make_night()
    assert "is at the edge" not in tuning(Night.read(run)).lead
    tuned = run.stage("tune").required()
    best = tuned["history"][1]
    edge = {**best, "values": {**best["values"], "training.learning_rate": 1e-3}}
    run.stage("tune").commit({**tuned, "history": [tuned["history"][0], edge, *tuned["history"][2:]]})
    assert "It is at the edge of the range of learning_rate" in tuning(Night.read(run)).lead


@pytest.mark.parametrize("space", ["tuning.space", "search.space"], ids=["new name", "old name"])
def test_tuning_says_what_ended_it_by_the_names_of_today(make_night, space):
    run = make_night()
    tuned = run.stage("tune").required()
    assert "it ended by tuning.trials" in tuning(Night.read(run)).lead
    run.stage("tune").commit({**tuned, "ended": space.replace("space", "max_minutes")})
    assert "it ended by tuning.max_minutes" in tuning(Night.read(run)).lead
    run.stage("tune").commit({**tuned, "ended": space})
    assert "it tried every combination of tuning.space" in tuning(Night.read(run)).lead


def test_the_summary_says_what_became_of_the_night(make_night):
    said = read(make_night(champion=OLD_FIRST)).said()
    assert f"Against champion {CHAMPION}" in said and "recall@1 of this version 0.5714" in said
    rejected = read(make_night(challenger=["spare", "old", "fresh"], champion=FRESH_FIRST)).said()
    assert "reject The gate rejected this version; nothing was published" in rejected


def test_a_report_is_made_again_only_when_something_changed(make_night):
    run = make_night(without=("publish",))
    first = report(run)
    assert not first["reused"] and first["name"] == f"2011-08-30-{run.digest}"
    assert report(run) == {**first, "reused": True}
    run.stage("publish").commit(
        {"published": True, "version": 20110830001, "verdict": "promote", "uri": "s3://b/v"}
    )
    again = report(run)
    assert not again["reused"] and again["name"] == "20110830001"
    assert again["address"] == "reshelve/report/shelf/20110830001"


def test_a_run_without_a_stage_has_nothing_to_report(make_night):
    everything = ("examples", "tune", "train", "blend", "compress", "package", "gate", "publish")
    run = make_night(without=everything)
    assert report(run)["made"] is False
    assert not list(run.store.list(f"{run.prefix}/report"))


def test_a_report_is_found_by_its_version_and_by_its_run(make_night):
    run = make_night(without=("publish",))
    version = run.stage("package").directory / "version"
    version.mkdir()
    (version / "saved_model.pb").write_bytes(b"graph")
    run.stage("gate").commit(judged(run, run.stage("gate").required()))
    published = publish(run)
    run.stage("publish").commit(published)
    result = report(run)
    for name in (published["version"], str(published["version"]), f"2011-08-30-{run.digest}"):
        assert report_key(run.store, "shelf", name) == result["key"]
        assert read_report(run.store, "shelf", name) == run.store.get(result["key"]).body


def test_what_noise_cost_is_said_over_all_that_is_kept(make_night):
    run = make_night("search", without=("publish",))
    assert "Differential privacy" not in read(run).said()
    version = run.stage("package").directory / "version"
    version.mkdir()
    (version / "saved_model.pb").write_bytes(b"graph")
    run.stage("gate").commit(judged(run, run.stage("gate").required()))
    exact = publish(run)["version"]
    spent = {"epsilon": 2.5, "delta": 1e-6, "per_customer": 5, "noise": 5.33, "threshold": 29.4}
    run.stage("blend").commit({**run.stage("blend").required(), "privacy": spent})
    text = read(run).said()
    assert "none is published with noise yet; 1 more with exact counts, for which nothing is promised" in text
    assert "(ε, δ) = (2.5, 0.000001) for all that one customer did" in text
    for note in ("second", "third"):
        later = Run(run.ranker.with_values({"owner": note}), run.partition, run.store, run.work)
        for name in ("examples", "train", "blend", "package", "gate"):
            later.stage(name).commit({**run.stage(name).required(), "run": later.id})
        packaged = later.stage("package").directory / "version"
        packaged.mkdir()
        (packaged / "saved_model.pb").write_bytes(b"graph")
        number = publish(later)["version"]
        assert require_manifest(run.store, "shelf", number).lineage.privacy == Spent(**spent)
    assert require_manifest(run.store, "shelf", exact).lineage.privacy is None
    said = {"published": True, "version": exact, "verdict": "promote", "uri": "s3://b/v"}
    run.stage("publish").commit(said)  # a report is made anew where its night has changed
    text = read(run).said()
    assert "ε 5, δ 0.000002, the sum over 2; 1 more with exact counts" in text
    assert "ε 2.5, δ 0.000001 for one customer" in text, "the lineage"


@pytest.mark.parametrize(
    "name", ["20110830999", "../../secret", "2011-08-30-xyz", "", "2011-08-30-0123456789ab", "0" * 40]
)
def test_a_report_that_is_not_there_is_none(store, name):
    assert read_report(store, "shelf", name) is None
    assert read_report(store, "../models", name) is None


@pytest.mark.parametrize("change", ["edited", "unsigned", "another's signature"])
def test_a_report_that_the_night_did_not_make_is_not_shown(make_night, change):
    """A person approves by what it says."""
    run = make_night(without=("publish",))
    result = report(run)
    name, beside = f"2011-08-30-{run.digest}", f"{run.prefix}/report/result.json"
    assert read_report(run.store, "shelf", name) is not None
    if change == "edited":
        run.store.put(
            result["key"], run.store.get(result["key"]).body.replace(b"</h1>", b" is good</h1>", 1) + b" "
        )
    else:
        said = run.store.get_json(beside)
        stranger = signed({}, Ed25519PrivateKey.generate(), Signed.REPORT)["signature"]
        run.store.put_json(beside, {**said, "signature": None if change == "unsigned" else stranger})
    with pytest.raises(DataError, match=result["key"]):
        read_report(run.store, "shelf", name)


def test_a_report_loads_nothing_wherever_it_is_opened(make_night):
    (policy,) = (
        attributes["content"]
        for tag, attributes in read(make_night()).tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';") and "script" not in policy
