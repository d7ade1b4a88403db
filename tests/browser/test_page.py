"""The live page and the API page, in a real browser against a real server."""

import os
import shutil
from collections.abc import Iterator
from random import Random

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from stream_infer.serving.live import PREDICTION
from stream_infer.serving.services import Services
from tests.browser.feeding import feed, prediction
from tests.serving.support import ThreadedServer, shop_services

pytestmark = [pytest.mark.browser, pytest.mark.redis]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("STREAM_INFER_TEST_CHROMIUM") or next(
        (found for name in PROGRAMS if (found := shutil.which(name))), None
    )
    if program is None:
        pytest.fail(
            "no Chromium: install one (Debian: apt-get install chromium), or name the program in "
            "STREAM_INFER_TEST_CHROMIUM; `-m 'not browser'` leaves these tests out"
        )
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing may be said on the console, nor asked of another server."""
    said: list[str] = []
    opened = browser.new_page(viewport={"width": 400, "height": 800})
    opened.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: said.append(f"error: {error}"))
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith("http://127.0.0.1:") else said.append(request.url)
        ),
    )
    yield opened
    opened.close()
    allowed = ("401 (Unauthorized)",)  # The browser itself says so when the token is asked for.
    assert [text for text in said if not any(part in text for part in allowed)] == []


@pytest.fixture
def served(
    page: Page, redis_url: str, unique: str
) -> Iterator[tuple[ThreadedServer, Services, str]]:
    """A server that outlives what the page shows of it: it would be looked for, and missed."""
    services, _, _ = shop_services(unique, redis_url, http_port=0)
    with ThreadedServer(services) as server:
        yield server, services, unique
        page.goto("about:blank")


def test_predictions_errors_and_latencies_arrive_on_the_page(
    page: Page, served: tuple[ThreadedServer, Services, str]
) -> None:
    server, services, name = served
    page.goto(server.url)
    expect(page.locator("#state")).to_have_text("live")
    expect(page.locator("#empty")).to_be_visible()
    server.call(feed, services.hub, name, 30, 5, Random(3))
    expect(page.locator("#rows tr")).to_have_count(20)
    expect(page.locator("#empty")).to_be_hidden()
    expect(page.locator("#rows tr").first).to_contain_text("boosted_trees")
    expect(page.locator("#outcomes")).to_have_text("150 outcomes")
    expect(page.locator("#total")).to_contain_text("150")
    expect(page.locator("#p99")).to_contain_text("ms")
    painted = page.evaluate(
        "() => [...document.querySelectorAll('canvas')].map(c => c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data.some(v => v))"
    )
    assert painted == [True, True]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_content_of_events_is_shown_as_text(
    page: Page, served: tuple[ThreadedServer, Services, str]
) -> None:
    server, services, name = served
    page.goto(server.url)
    expect(page.locator("#state")).to_have_text("live")
    key = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    server.call(services.hub.publish, name, PREDICTION, prediction(name, 1, Random(1), key))
    expect(page.locator("#rows .key-cell").first).to_have_text(key)
    assert page.locator("#rows img, #rows script").count() == 0


def test_the_page_says_that_it_lost_the_server(
    page: Page, served: tuple[ThreadedServer, Services, str]
) -> None:
    server, services, _ = served
    page.goto(server.url)
    expect(page.locator("#state")).to_have_text("live")
    server.call(services.hub.close)
    expect(page.locator("#state")).to_have_text("disconnected")
    expect(page.locator("#notice")).to_contain_text("Trying again")


def test_the_page_asks_for_the_token_and_follows_with_it(
    page: Page, redis_url: str, unique: str
) -> None:
    services, _, _ = shop_services(unique, redis_url, http_port=0, http_token="secret")
    with ThreadedServer(services) as server:
        page.goto(server.url)
        expect(page.locator("#token-form")).to_be_visible()
        page.fill("#token", "secret")
        page.click("#token-form button")
        expect(page.locator("#state")).to_have_text("live")
        expect(page.locator("#token-form")).to_be_hidden()
        page.goto("about:blank")


def test_every_route_can_be_tried_from_the_api_page(
    page: Page, served: tuple[ThreadedServer, Services, str]
) -> None:
    server, _, _ = served
    page.goto(f"{server.url}/docs")
    routes = page.locator(".route")
    expect(routes.first).to_be_visible()
    assert routes.count() >= 11
    for place in range(3):  # The routes that take events, each with its example.
        routes.nth(place).locator("summary").click()
        routes.nth(place).locator("button").click()
        expect(routes.nth(place).locator("small")).to_contain_text("200 OK")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
