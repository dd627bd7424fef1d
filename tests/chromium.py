"""A headless Chromium without a network, and what it noticed."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def start(profile: Path) -> Any:
    """Start Chromium with a fresh profile; skip the test where it is not installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1280,1000",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    session.set_page_load_timeout(60)
    session.set_script_timeout(30)
    session.get("about:blank")
    forget(session)  # what chromium's own first page asked for
    return session


def wait_until(ready: Callable[[], Any], seconds: float = 120) -> Any:
    """Ask until the answer is yes; return it."""
    end = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return answer


def forget(browser: Any) -> None:
    """Forget errors and requests so far."""
    browser.get_log("browser")
    browser.get_log("performance")


def quiet_requests(browser: Any, *allowed: str) -> list[str]:
    """Return what was asked for; fail if the console holds errors, or another host was asked."""
    errors = [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"
    ]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    assert errors == []
    requests = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    local = ("file:", "data:", "blob:", *allowed)
    assert [address for address in requests if not address.startswith(local)] == []
    return requests
