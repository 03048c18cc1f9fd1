"""A person at Airflow's pages: headless Chromium of this machine, one context per person."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from reshelve.platform.configuration import Machine

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LAPTOP, PHONE = (1280, 800), (390, 844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; its profile is new and is deleted at the end. Skips the test where none is installed."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


expect.set_options(timeout=60_000)  # a busy machine draws Airflow's pages slowly


class Visit:
    """One person's window; `user` None is somebody who has not logged in."""

    def __init__(
        self, browser: Browser, machine: Machine, user: str | None, size: tuple[int, int] = LAPTOP
    ) -> None:
        self.machine = machine
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        context.set_default_timeout(60_000)
        self.page: Page = context.new_page()
        self.foreign: list[str] = []
        self.page.on("request", self._note)
        if user:
            self.page.goto(f"{machine.airflow_url}/auth/login")
            self.page.get_by_label("Username").fill(user)
            self.page.locator("input[type=password]").fill(machine.secrets.passwords[user])
            self.page.get_by_role("button", name="Sign in").click()
            self.page.wait_for_url(lambda url: "/auth/login" not in url)

    def go(self, path: str) -> int:
        """Open a page of Airflow; its status."""
        answer = self.page.goto(f"{self.machine.airflow_url}{path}")
        return 0 if answer is None else answer.status

    def post_json(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        """What this person's session gets for a post: (status, text)."""
        answer = self.page.request.post(f"{self.machine.airflow_url}{path}", data=body)
        return answer.status, answer.text()

    def post_form(self, path: str, form: dict[str, Any]) -> tuple[int, str]:
        """The same for a form."""
        answer = self.page.request.post(f"{self.machine.airflow_url}{path}", form=form)
        return answer.status, answer.text()

    def keep(self, name: str, *, whole: bool = False) -> None:
        """A screenshot for the documentation, where RESHELVE_SCREENSHOTS names a folder."""
        folder = os.environ.get("RESHELVE_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=whole, animations="disabled")

    def _note(self, request: object) -> None:
        url = str(getattr(request, "url", ""))
        if not url.startswith((self.machine.airflow_url, "data:", "blob:")):
            self.foreign.append(url)
