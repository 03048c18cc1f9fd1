"""An analyst's day in a real browser: trigger, watch, read, approve, look, roll back; and who is refused.

One story in order, on one platform, with a night that learns next to nothing: what is tested is the way through it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from playwright.sync_api import Browser, expect
from tests.e2e.browser import PHONE, Visit, chromium
from tests.e2e.shop import Shop, eventually

from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import TryAgainError
from reshelve.platform.airflow_client import DagRun
from reshelve.settings import settings
from reshelve.store.signatures import signed

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(1800)]

DAY = "2011-08-30"
FIRST, SECOND = 20110830001, 20110830002
RELEASES = "/reshelve/releases/recommend"
TINY = {
    "data": {"window_days": 6, "catalogue_days": 6},
    "examples": {"max_examples": 200},
    "model": {"max_length": 16, "layers": 1},
    "training": {"max_minutes": 0.5, "epochs": 0.2},
    "tuning": {"trials": 0},
    "compression": {"steps": []},
    "gates": {"max_queries": 50, "beats": []},
    "release": {"approval": True},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def shop(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A platform with judged data, whose ranker waits for a person before a promotion. Not started without a browser."""
    home = tmp_path_factory.mktemp("analyst")
    made = Shop(home / "home", home / "rankers")
    file = home / "rankers" / "recommend.yaml"
    document = yaml.safe_load(file.read_text())
    for section, values in TINY.items():
        document[section].update(values)
    file.write_text(yaml.safe_dump(document))
    try:
        for command in (
            ("platform", "up"),
            ("land", "--source", "retail", "--to", DAY),
            ("validate", "--source", "retail", "--from", "2011-08-25", "--to", DAY),
        ):
            done = made.command(*command)
            assert done.returncode == 0, done.stderr[-3000:]
        for dag in ("retrain_recommend", "release_recommend", "approve_recommend", "rollback_recommend"):
            made.client().wait_for_dag(dag)
        with pytest.MonkeyPatch.context() as patch:  # whose log these tests read
            patch.setenv("RESHELVE_TRUSTED_KEYS", str(made.home / "keys" / "trusted"))
            patch.setenv("RESHELVE_HOME", str(home / "reader"))
            settings.cache_clear()
            yield made
    finally:
        made.command("platform", "down", timeout=120)


@pytest.fixture(scope="module")
def analyst(browser: Browser, shop: Shop) -> Visit:
    return Visit(browser, shop.machine, "analyst")


def stable(shop: Shop) -> int | None:
    pointer = read_pointer(shop.store(), "recommend")
    return pointer.stable if pointer else None


def runs(shop: Shop, dag: str) -> list[DagRun]:
    """A DAG's runs, newest first; none while Airflow is too busy to say."""
    try:
        return shop.client().runs(dag)
    except TryAgainError:
        return []


def newest_run(shop: Shop, dag: str) -> str:
    """The id of a DAG's newest run, once it has one."""
    return eventually(f"a run of {dag}", lambda: runs(shop, dag), 180, every=1)[0].id


def test_a_plan_is_read_in_the_log_and_does_nothing(analyst: Visit, shop: Shop) -> None:
    page, client = analyst.page, shop.client()
    analyst.go("/dags/retrain_recommend")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.locator("[role=dialog][data-state=open]")
    form.locator('[name="element_partition"]').fill(DAY)
    form.locator('label:has([name="element_plan"])').click()
    expect(form.locator('[name="element_plan"]')).to_be_checked()
    form.get_by_role("button", name="Trigger").click()
    run = newest_run(shop, "retrain_recommend")
    planned = eventually(
        "the plan", lambda: next((r for r in runs(shop, "retrain_recommend")[:1] if r.ended), None), 180
    )
    states = {task.id: task.state for task in client.tasks(planned)}
    assert (states.pop("night"), set(states.values())) == ("success", {"skipped"})
    analyst.go(f"/dags/retrain_recommend/runs/{run}/tasks/night")
    expect(page.get_by_text("stages to do").first).to_be_visible()
    analyst.keep("plan")
    assert not list(shop.store().list(f"runs/recommend/{DAY}"))


def test_a_wrong_value_is_refused_and_the_form_starts_a_night(analyst: Visit, shop: Shop) -> None:
    page = analyst.page
    analyst.go("/dags/retrain_recommend")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.locator("[role=dialog][data-state=open]")
    epochs = form.locator('[name="element_epochs"]')
    epochs.fill("500")
    form.locator('[name="element_partition"]').fill(DAY)
    expect(form.get_by_text("More than 0 to 100.")).to_be_visible()
    expect(epochs).to_have_value("500")  # refused when it is sent, not changed before
    form.locator('[name="element_note"]').fill("the analyst's day")
    form.locator('[name="element_partition"]').scroll_into_view_if_needed()
    analyst.keep("trigger-form")
    status, said = analyst.post_json(
        "/api/v2/dags/retrain_recommend/dagRuns", {"logical_date": None, "conf": {"epochs": 500}}
    )
    assert status == 400 and "500" in said and "maximum" in said, said
    assert len(runs(shop, "retrain_recommend")) == 1  # the plan
    epochs.fill("0.2")
    form.get_by_role("button", name="Trigger").click()
    eventually("the night's run", lambda: len(runs(shop, "retrain_recommend")) == 2, 60)
    run = newest_run(shop, "retrain_recommend")
    analyst.go(f"/dags/retrain_recommend/runs/{run}")
    expect(page.get_by_text("publish", exact=True).first).to_be_visible()
    analyst.keep("night")


def test_the_night_publishes_and_waits_for_a_person(analyst: Visit, shop: Shop) -> None:
    client = shop.client()

    def over() -> bool:
        run, *_ = runs(shop, "retrain_recommend") or [None]
        if run is None or not run.ended:
            return False
        assert run.state == "success", [
            (task.id, client.log(task)) for task in client.tasks(run) if task.state == "failed"
        ]
        return True

    def waits() -> bool:
        return any(
            task.state == "awaiting_input"
            for run in runs(shop, "release_recommend")
            for task in client.tasks(run)
        )

    eventually("the night", over, 900, every=2)
    eventually("the release waits", waits, 300, every=2)
    run = newest_run(shop, "release_recommend")
    task = f"/dags/release_recommend/runs/{run}/tasks/approval/required_actions"
    assert stable(shop) is None
    analyst.go(task)
    expect(analyst.page.get_by_text(f"Promote recommend version {FIRST}?").first).to_be_visible()
    analyst.keep("approval")


def test_the_report_opens_and_loads_nothing(analyst: Visit) -> None:
    assert analyst.go(RELEASES) == 200
    analyst.page.get_by_role("link", name=f"report of version {FIRST}").click()
    expect(analyst.page.get_by_role("heading").first).to_be_visible()
    assert f"/reshelve/report/recommend/{FIRST}" in analyst.page.url
    analyst.keep("report")
    assert analyst.foreign == []


def test_the_day_s_validation_opens_and_leads_to_its_data_docs(analyst: Visit) -> None:
    assert analyst.go(f"/reshelve/validation/retail/{DAY}/report.html") == 200
    expect(analyst.page.get_by_role("heading").first).to_contain_text(f"retail {DAY}")
    analyst.keep("validation")
    analyst.page.get_by_role("link", name="Results of Great Expectations").click()
    expect(analyst.page.get_by_text("expectations hold")).to_be_visible()
    assert analyst.page.url.endswith(f"/validation/retail/{DAY}/data_docs.html")
    assert analyst.foreign == []


def test_the_approved_version_is_on_the_releases_page(analyst: Visit, shop: Shop) -> None:
    page = analyst.page
    run = newest_run(shop, "release_recommend")
    analyst.go(f"/dags/release_recommend/runs/{run}/tasks/approval/required_actions")
    why = page.locator('[name="element_why"]')
    expect(why).to_have_value("")  # an answer is nobody else's
    why.fill("the numbers are good")
    page.get_by_role("button", name="Approve").click()
    confirm = page.get_by_role("button", name="Confirm")
    if confirm.count():
        confirm.first.click()
    eventually("the first version is stable", lambda: stable(shop) == FIRST, 180)
    analyst.go(RELEASES)
    expect(page.get_by_role("region", name="Stable")).to_contain_text(str(FIRST))
    expect(page.get_by_role("table", name="Every move of the pointer")).to_contain_text(
        "the numbers are good"
    )


def test_the_releases_page_is_in_airflow_s_menu(analyst: Visit) -> None:
    page = analyst.page
    analyst.go("/dags/retrain_recommend")
    page.get_by_role("button", name="Browse").first.click()
    with page.expect_popup() as opened:
        page.get_by_role("menuitem", name="Releases").click()
    tab = opened.value
    tab.get_by_role("link", name="recommend").first.click()
    expect(tab.get_by_role("region", name="Stable")).to_contain_text(str(FIRST))
    tab.close()


def test_another_version_is_promoted_and_taken_back_from_the_page(analyst: Visit, shop: Shop) -> None:
    publish_again(shop)
    page = analyst.page
    analyst.go(RELEASES)
    page.get_by_text("Promote a published version", exact=True).click()
    page.get_by_label("Version", exact=True).select_option(str(SECOND))
    page.locator("form[action$='/release']").get_by_label("Reason").fill("the second of the day")
    page.get_by_role("button", name="Start the release").click()
    expect(page.get_by_role("status")).to_contain_text("release_recommend was started")

    def waits() -> bool:
        analyst.go(RELEASES)
        return page.get_by_role("button", name=f"Promote {SECOND}").count() == 1

    eventually("the second release waits", waits, 300, every=3)
    analyst.keep("releases-laptop")
    approve = page.locator("form[action$='/approve']")
    approve.get_by_label("Reason").fill("better titles")
    approve.get_by_role("button").click()
    expect(page.get_by_role("status")).to_contain_text("release_recommend")
    eventually("the second version is stable", lambda: stable(shop) == SECOND, 180)

    analyst.go(RELEASES)
    page.get_by_text("Roll back", exact=True).first.click()
    back = page.locator("form[action$='/rollback']")
    back.get_by_label("Reason").fill("customers complain")
    back.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status")).to_contain_text("rollback_recommend was started")
    eventually("the first version is stable again", lambda: stable(shop) == FIRST, 180)
    analyst.go(RELEASES)
    expect(page.get_by_role("region", name="Stable")).to_contain_text(str(FIRST))
    log = page.get_by_role("table", name="Every move of the pointer")
    expect(log.get_by_role("row").nth(1)).to_contain_text("customers complain")
    analyst.keep("after-the-rollback")


def test_the_page_fits_a_phone_and_works_by_keyboard(browser: Browser, shop: Shop) -> None:
    visit = Visit(browser, shop.machine, "analyst", PHONE)
    visit.go(RELEASES)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    visit.keep("releases-phone")
    visit.page.keyboard.press("Tab")
    expect(visit.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    summary = visit.page.locator("summary", has_text="Roll back")
    summary.focus()
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("form[action$='/rollback']").get_by_label("Reason")).to_be_visible()
    assert visit.foreign == []


def test_a_viewer_looks_and_nobody_is_sent_to_log_in(browser: Browser, shop: Shop) -> None:
    viewer = Visit(browser, shop.machine, "viewer")
    assert viewer.go(RELEASES) == 200
    expect(viewer.page.get_by_text("You may look")).to_be_visible()
    assert viewer.page.locator("form").count() == 0
    status, _ = viewer.post_form(f"{RELEASES}/rollback", {"to": str(SECOND), "reason": "no"})
    assert status == 403 and stable(shop) == FIRST
    nobody = Visit(browser, shop.machine, None)
    assert nobody.go(RELEASES) == 401
    expect(nobody.page.get_by_role("link", name="Log in to Airflow")).to_be_visible()


def publish_again(shop: Shop) -> None:
    """The first version's very files as another version: a second night would cost minutes and test nothing more."""
    from cryptography.hazmat.primitives import serialization

    store, old, new = shop.store(), f"models/recommend/{FIRST}/", f"models/recommend/{SECOND}/"
    for key, _ in store.list(old):
        found = store.get(key)
        if found is not None and not key.endswith("manifest.json"):
            store.put(new + key.removeprefix(old), found.body)
    manifest = {**store.get_json(old + "manifest.json"), "version": SECOND}
    key = serialization.load_pem_private_key((shop.home / "keys" / "signing.pem").read_bytes(), None)
    store.put_json(new + "manifest.json", signed(manifest, key))
