"""Who may say that a version exists: signatures, their keys, and what happens without them."""

from __future__ import annotations

import base64
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.graphs import graph_bytes

from reshelve.agent.agent import run_agent
from reshelve.agent.disk import Disk
from reshelve.deployments.deployment_log import Offer, move_pointer
from reshelve.errors import ConfigurationError, DataError
from reshelve.settings import settings
from reshelve.store import keys, signatures, verdicts, versions
from reshelve.store.manifest import Manifest
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import make_key_pair, signing_key, signing_key_path, trust
from reshelve.store.verdicts import signed_manifest

ONE = 20110830001
KEY = f"models/recommend/{ONE}/manifest.json"


def document() -> dict[str, Any]:
    return {
        "ranker": "recommend",
        "version": ONE,
        "kind": "next_item",
        "created_at": "2011-08-31T03:00:00Z",
        "files": {"saved_model.pb": {"sha256": "0" * 64, "size": 1}},
        "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
        "gate": {"verdict": "promote", "metrics": {"recall@20": 0.1234567890123, "é": "ü"}},
    }


@pytest.fixture
def published(store: ObjectStore, tmp_path: Path) -> ObjectStore:
    """One small signed version."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "saved_model.pb").write_bytes(graph_bytes("graph"))
    files = {path: entry.model_dump() for path, entry in versions.describe_directory(source).items()}
    store.upload_directory(source, f"models/recommend/{ONE}")
    store.put_json(KEY, signed_manifest({**document(), "files": files}))
    return store


def keys_of(role: Role) -> list[str]:
    return [name for name, key in trust().keys.items() if role in key.roles]


def replace_key() -> str:
    signing_key_path().rename(signing_key_path().with_suffix(".old"))
    return make_key_pair()


def test_the_private_key_is_its_owners_alone_and_never_written_over(store: ObjectStore) -> None:
    path = signing_key_path()
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="already exists"):
        make_key_pair()
    assert path.read_bytes() == before and len(trust().keys) == len(Role)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="other users can read"):
        signing_key()


def test_a_signed_version_is_copied_and_verifies_again_without_s3(
    published: ObjectStore, tmp_path: Path
) -> None:
    disk = Disk(tmp_path / "models")
    disk.copy(published, "recommend", ONE)
    again = Disk(tmp_path / "models")
    again.start()
    assert again.of("recommend") == {ONE}


@pytest.mark.parametrize("change", ["unsigned", "edited", "another's signature", "a damaged one", "no JSON"])
def test_what_is_not_signed_is_neither_offered_nor_copied(
    published: ObjectStore, tmp_path: Path, change: str
) -> None:
    found = published.get_json(KEY)
    if change == "unsigned":
        del found["signature"]
    elif change == "edited":
        found["gate"]["verdict"] = "hold"
    elif change == "another's signature":
        found["signature"] = signed_manifest({**document(), "version": ONE + 1})["signature"]
    elif change == "a damaged one":
        found["signature"]["ed25519"] = "***"
    published.put(KEY, b"{" if change == "no JSON" else json.dumps(found).encode())
    with pytest.raises(DataError, match="manifest"):
        move_pointer(published, "recommend", Offer(ONE), by="test", reason="")
    with pytest.raises(DataError, match="manifest"):
        Disk(tmp_path / "models").copy(published, "recommend", ONE)
    assert not (tmp_path / "models" / "recommend" / str(ONE)).exists()


def test_a_manifest_swapped_on_the_disk_takes_its_version_out(published: ObjectStore, tmp_path: Path) -> None:
    """Files and manifest that fit each other, but nobody signed: not loaded, and not ours to delete."""
    disk = Disk(tmp_path / "models")
    disk.copy(published, "recommend", ONE)
    base = tmp_path / "models" / "recommend"
    (base / str(ONE) / "saved_model.pb").write_bytes(graph_bytes("grapf"))
    manifest = json.loads((base / f".manifest-{ONE}.json").read_text())
    manifest["files"] = {
        path: entry.model_dump() for path, entry in versions.describe_directory(base / str(ONE)).items()
    }
    (base / f".manifest-{ONE}.json").write_text(json.dumps(manifest))
    again = Disk(tmp_path / "models")
    again.start()
    assert again.of("recommend") == frozenset() and (base / str(ONE)).exists()


def test_keys_are_replaced_without_a_gap(published: ObjectStore) -> None:
    old = keys_of(Role.BUILD)
    new = replace_key()
    assert len(keys_of(Role.BUILD)) == 2
    assert (
        versions.read_manifest(published, "recommend", ONE) is not None
    )  # signed by the old key, still trusted
    assert keys.sign("recommend", unsigned=False)["signed"] == [ONE]
    assert keys.sign("recommend", unsigned=False)["signed"] == []
    for name in old:
        (signatures.trusted_keys_path() / f"{name}.pem").unlink()
    assert published.get_json(KEY)["signature"]["key"] == new
    assert versions.read_manifest(published, "recommend", ONE) is not None


def test_a_distrusted_key_is_named(published: ObjectStore) -> None:
    (old,) = keys_of(Role.BUILD)
    replace_key()
    (signatures.trusted_keys_path() / f"{old}.pem").unlink()
    with pytest.raises(DataError, match=f"signed by the key {old}, which is not trusted here"):
        versions.read_manifest(published, "recommend", ONE)
    assert keys.sign("recommend", unsigned=True)["signed"] == []  # a foreign signature is never replaced


def test_versions_from_before_there_were_keys_are_signed_on_request_alone(published: ObjectStore) -> None:
    found = published.get_json(KEY)
    del found["signature"]
    published.put_json(KEY, found)
    assert keys.sign("recommend", unsigned=False)["signed"] == []
    keys.sign_all(published)
    assert versions.read_manifest(published, "recommend", ONE) is not None


def test_an_installation_without_keys_says_so(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "without"))
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match="no trusted public key"):
        run_agent(str(tmp_path / "models"), "127.0.0.1:1", "a", 1)
    with pytest.raises(ConfigurationError, match="no private key to sign"):
        signatures.key_to_sign()
    made = keys.make(if_missing=True)
    assert made["made"] == list(Role) and {key["key"] for key in made["trusted"]} == {*made["signs"].values()}
    assert not keys.make(if_missing=True)["made"]
    signing_key_path(Role.PERSON).unlink()
    assert not keys.make(if_missing=True)["made"], "it is kept elsewhere"


def test_signatures_can_be_switched_off_but_a_wrong_one_never_passes(
    published: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESHELVE_SIGNATURES", "off")
    settings.cache_clear()
    found = published.get_json(KEY)
    published.put_json(KEY, {name: value for name, value in found.items() if name != "signature"})
    assert versions.read_manifest(published, "recommend", ONE) is not None
    published.put_json(KEY, {**found, "note": "edited"})
    with pytest.raises(DataError, match="changed after it was signed"):
        versions.read_manifest(published, "recommend", ONE)


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path for key, inner in value.items() for path in _paths(inner, (*prefix, key))]
    return [prefix]


@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_change_of_a_signed_manifest_passes(store: ObjectStore, data: st.DataObject) -> None:
    made = signed_manifest(document())
    path = data.draw(st.sampled_from(_paths(made)))
    changed = json.loads(json.dumps(made))
    place = changed
    for key in path[:-1]:
        place = place[key]
    value = data.draw(st.none() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False))
    if place[path[-1]] == value:
        return
    if path == ("signature", "ed25519") and isinstance(value, str):
        value = base64.b64encode(value.encode()).decode()
    place[path[-1]] = value
    with pytest.raises(DataError):
        Manifest.parse(json.dumps(changed).encode(), "it", trust())
    assert Manifest.parse(json.dumps(made).encode(), "it", trust()).lineage.partition == date(2011, 8, 30)


def with_the_builds_key_alone(found: dict[str, Any]) -> dict[str, Any]:
    return signatures.signed(found, signing_key())


@pytest.mark.parametrize(
    "change", ["no verdict", "a better verdict", "other files", "a verdict of the build's key"]
)
def test_the_builds_key_alone_makes_no_verdict(published: ObjectStore, change: str) -> None:
    """Who stole it, or trains beside it, signs a manifest: what the gate did not say of these files is not believed."""
    found = published.get_json(KEY)
    if change == "no verdict":
        del found["gate_signature"]
    elif change == "a better verdict":
        found["gate"]["metrics"] = {"recall@20": 0.99}
    elif change == "other files":
        found["files"]["saved_model.pb"]["sha256"] = "1" * 64
    else:
        statement = verdicts._statement(
            "recommend",
            {path: file["sha256"] for path, file in found["files"].items()},
            found["gate"],
            found["created_at"],
        )
        made = signatures.signed(statement, signing_key(), signatures.Signed.VERDICT)["signature"]
        found["gate_signature"] = {**made, "at": found["created_at"]}
    published.put_json(KEY, with_the_builds_key_alone(found))
    with pytest.raises(DataError, match=r"the gate|gate's verdict"):
        versions.read_manifest(published, "recommend", ONE)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.BUILD])
def test_another_roles_key_publishes_nothing(published: ObjectStore, role: Role) -> None:
    """The gate's own word is in it and whole: who signs versions is the build alone."""
    published.put_json(KEY, signatures.signed(published.get_json(KEY) or {}, signing_key(role)))
    with pytest.raises(DataError, match=f"signed by a key of the role {role.value}"):
        versions.read_manifest(published, "recommend", ONE)


def test_a_verdict_is_of_one_rankers_files(published: ObjectStore) -> None:
    """The gate promoted these files for one ranker; who holds the build's key does not let another serve them."""
    found = {**published.get_json(KEY), "ranker": "search"}
    published.put_json(KEY.replace("recommend", "search"), with_the_builds_key_alone(found))
    with pytest.raises(DataError, match="the gate's verdict was changed"):
        versions.read_manifest(published, "search", ONE)


@pytest.mark.parametrize("ended", ["revoked", "not-after"])
@pytest.mark.parametrize("at", ["2027-06-01T00:00:00+00:00", "2019-06-01T00:00:00"], ids=["late", "no zone"])
def test_a_gate_key_that_has_ended_gives_no_verdict(published: ObjectStore, ended: str, at: str) -> None:
    """What it said before stands; a verdict of later, or of a time that is none, does not."""
    (gate,) = keys_of(Role.GATE)
    path = signatures.trusted_keys_path() / f"{gate}.pem"
    path.write_text(path.read_text().replace("-----BEGIN", f"{ended}: 2027-03-01T00:00:00Z\n-----BEGIN", 1))
    found = published.get_json(KEY)
    files = {name: file["sha256"] for name, file in found["files"].items()}
    for said, counts in (("2019-06-01T00:00:00+00:00", True), (at, False)):
        statement = verdicts._statement("recommend", files, found["gate"], said)
        made = signatures.signed(statement, signing_key(Role.GATE), signatures.Signed.VERDICT)["signature"]
        published.put_json(KEY, with_the_builds_key_alone({**found, "gate_signature": {**made, "at": said}}))
        if counts:
            assert versions.read_manifest(published, "recommend", ONE) is not None
            continue
        with pytest.raises(DataError, match=r"the gate's verdict: the key .* before this was signed"):
            versions.read_manifest(published, "recommend", ONE)


@pytest.mark.parametrize("made", signatures.Signed, ids=lambda kind: kind.name.lower())
def test_a_signature_of_one_thing_is_none_of_another(store: ObjectStore, made: signatures.Signed) -> None:
    signed = signatures.signed({"ranker": "recommend"}, signing_key(), made)
    for read in signatures.Signed:
        if read is made:
            assert signatures.check_signature(signed, "it", trust(), kind=read) is not None
            continue
        with pytest.raises(DataError, match="changed after it was signed"):
            signatures.check_signature(signed, "it", trust(), kind=read)


def test_keys_from_before_there_were_roles_go_on(published: ObjectStore) -> None:
    """A public key without lines of its own signs versions, and its word on the verdict counts; a new one takes over."""
    (build,) = keys_of(Role.BUILD)
    path = signatures.trusted_keys_path() / f"{build}.pem"
    path.write_text(path.read_text()[path.read_text().index("-----BEGIN") :])
    gate = signing_key_path(Role.GATE).rename(signing_key_path(Role.GATE).with_suffix(".away"))
    found = {name: value for name, value in published.get_json(KEY).items() if name != "gate_signature"}
    published.put_json(KEY, signed_manifest(found))
    assert "gate_signature" not in found and published.get_json(KEY)["gate_signature"] is None
    assert versions.read_manifest(published, "recommend", ONE) is not None
    replace_key()
    gate.rename(signing_key_path(Role.GATE))
    assert keys.sign("recommend", unsigned=False)["signed"] == [ONE]
    path.unlink()
    assert versions.read_manifest(published, "recommend", ONE) is not None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("role: king\n", "role"),
        ("name: anna\n", "role"),
        ("role: person\nrole: gate\n", ":2: 'role: gate'"),
        ("role: person\nnot-after: tomorrow\n", "not-after"),
        ("role: person\nnot-after: 2027-01-01T00:00:00\n", "not-after"),
        ("role: person\nrevokd: 2027-01-01T00:00:00Z\n", "revokd"),
        ("person\n", ":1: 'person'"),
    ],
)
def test_a_trusted_key_that_says_something_else_does_not_count(
    store: ObjectStore, capsys: pytest.CaptureFixture[str], lines: str, said: str
) -> None:
    """A misspelt `revoked` must not leave the key in force, nor take the others out."""
    path = next(signatures.trusted_keys_path().glob("*.pem"))
    path.write_text(lines + path.read_text()[path.read_text().index("-----BEGIN") :])
    assert len(trust().keys) == len(Role) - 1 and path.stem not in trust().keys
    logged = "".join(capsys.readouterr())
    assert path.name in logged and said in logged
    with pytest.raises(ConfigurationError) as refused:
        keys.make(if_missing=True)  # which has to know which roles have a key
    assert path.name in str(refused.value) and said in str(refused.value)
