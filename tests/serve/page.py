"""The page of `tintype serve` in a browser: what a person does, by mouse, keyboard and finger.

usage: page.py PROGRAM [SCREENSHOTS]; the environment variable AXE names axe.min.js
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from running import index, make_photos, served

COUNT = 400


class Checks:
    def __init__(self, browser, address, screenshots):
        self.address, self.screenshots = address, screenshots
        self.axe = Path(os.environ["AXE"]).read_text()
        self.browser = browser
        self.foreign, self.faults = [], []

    def open(self, path="/", **settings):
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "accept_downloads": True, **settings})
        page = context.new_page()
        page.on("request", lambda request: request.url.startswith((self.address, "blob:", "data:")) or self.foreign.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda line: line.type == "error" and "400" not in line.text and self.faults.append(line.text))
        page.goto(self.address + path)
        page.wait_for_selector(".cell.ready")
        return page

    def picture(self, page, name):
        if self.screenshots:
            page.screenshot(path=self.screenshots / f"{name}.png")

    def accessible(self, page, state):
        # axe is handed over by the test, which the page's own policy rightly forbids: it runs as an isolated evaluation.
        page.evaluate(self.axe + "; undefined")
        found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v => [v.id, v.impact, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))]))")
        assert not found, f"{state}: {json.dumps(found, indent=1)}"


def status(page):
    return page.locator("#status").inner_text()


def shown(page):
    return page.evaluate("() => [...document.querySelectorAll('.cell:not([hidden])')].length")


def first_id(page):
    return page.evaluate("() => new URL(document.querySelector('.cell:not([hidden])[aria-posinset=\"1\"] img').src).searchParams.get('id')")


def ask(page, words):
    with page.expect_response(lambda response: "/api/v1/rank" in response.url):
        page.locator("#words").fill(words)
    page.wait_for_timeout(150)


def desktop(checks):
    page = checks.open()
    assert "photos" in status(page), status(page)
    page.wait_for_function("() => document.getElementById('status').innerText.startsWith('400 photos')")
    assert shown(page) < 120, "only what is on screen is in the document"
    checks.picture(page, "page-all")
    checks.accessible(page, "all photos")
    ask(page, "red")
    assert "scores" in status(page), status(page)
    checks.picture(page, "page-words")
    checks.accessible(page, "results")
    assert "q=red" in page.url
    ask(page, "red after:2024-99")
    page.wait_for_function("() => document.getElementById('mistake').innerText.includes('a date looks like')")
    assert shown(page) > 0, "a mistake does not take the results away"
    ask(page, "red")
    page.wait_for_function("() => document.getElementById('mistake').innerText === ''")

    # Keyboard all the way: from the words into the photos, along them, into one, and back.
    page.locator("#words").press("ArrowDown")
    for key in ["ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft"]:
        page.keyboard.press(key)
    focused = "() => Number(document.activeElement.closest('.cell')?.getAttribute('aria-posinset'))"
    page.wait_for_function(f"() => ({focused})() === 2")
    page.keyboard.press("End")
    page.wait_for_function(f"() => ({focused})() >= 300")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[open]")
    page.wait_for_function("() => document.querySelector('#detail-image').naturalWidth > 0 && document.querySelector('#detail-name').innerText")
    first = page.locator("#detail-name").inner_text()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("first => document.querySelector('#detail-name').innerText !== first", arg=first)
    checks.picture(page, "page-detail")
    checks.accessible(page, "one photo")
    page.keyboard.press("Escape")
    page.wait_for_function(f"() => ({focused})() === 2")  # back where one was

    # More like this, plus and minus, weights.
    page.keyboard.press("m")
    page.wait_for_selector("#parts li")
    assert page.locator("#words").input_value() == ""
    page.wait_for_timeout(400)
    before = first_id(page)
    page.locator("#parts button[title='Turn the sign']").click()
    page.wait_for_function("before => new URL(document.querySelector('.cell:not([hidden])[aria-posinset=\"1\"] img').src).searchParams.get('id') !== before", arg=before)
    assert page.locator("#parts li.minus").count() == 1
    page.locator("#parts button[title='Change the weight']").click()
    assert "×2" in page.locator("#parts li").inner_text()
    page.locator(".cell").nth(3).hover()
    page.locator(".cell").nth(3).get_by_role("button", name="Add to the query").click()
    assert page.locator("#parts li").count() == 2
    ask(page, "blue")
    checks.picture(page, "page-mixed")
    checks.accessible(page, "a mixed query")
    while page.locator("#parts li").count():
        page.locator("#parts button[title='Remove']").first.click()
    page.locator("#words").fill("")

    # A picture that is dropped, and one that is pasted.
    for event, target in [("drop", "dataTransfer"), ("paste", "clipboardData")]:
        page.evaluate("""async ([event, target]) => {
            const id = new URL(document.querySelector('.cell:not([hidden])[aria-posinset="7"] img').src).searchParams.get('id');
            const file = new File([await (await fetch(`/api/v1/thumbnail?id=${id}`)).blob()], 'x.jpg', { type: 'image/jpeg' });
            const data = new DataTransfer();
            data.items.add(file);
            const made = event === 'drop' ? new DragEvent('drop', { dataTransfer: data, bubbles: true }) : new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
            document.body.dispatchEvent(made);
        }""", [event, target])
        page.wait_for_selector("#parts li img[alt='x.jpg']")
        page.wait_for_function("() => document.getElementById('status').innerText.includes('scores')")
        page.locator("#parts button[title='Remove']").click()
        page.wait_for_function("() => !document.querySelector('#parts li')")

    # Filters, the slider, near duplicates, the list as a file.
    page.locator("body").press("Escape")
    page.locator("#filters-open").click()
    page.wait_for_selector("#folder option:nth-child(2)", state="attached")
    page.locator("#folder").select_option(label=next(label for label in page.locator("#folder option").all_inner_texts() if "trip" in label))
    page.wait_for_function("() => document.getElementById('status').innerText.startsWith('100 photos')")
    assert page.locator("#filters-count").inner_text() == "1"
    ask(page, "green")
    page.locator("#score").fill("700")
    page.wait_for_function("() => !document.getElementById('score-value').innerText.includes('any')")
    fewer = status(page)
    assert not fewer.startswith("100 photos"), fewer
    checks.picture(page, "page-filters")
    checks.accessible(page, "filters")
    for name, begins in [("json", "{"), ("csv", "id,score,path")]:
        with page.expect_download() as download:
            page.locator(f"#{name}").click()
        text = Path(download.value.path()).read_bytes().decode()
        assert text.startswith(begins), text[:80]
        rows = len(json.loads(text)["items"]) if name == "json" else text.count("\r\n") - 1
        assert rows == int(fewer.split()[0]), (rows, fewer)
    page.locator("#distinct").check()
    page.wait_for_timeout(400)
    page.locator("#clear").click()
    page.wait_for_function("() => document.getElementById('filters-count').hidden")
    page.locator("#after").fill("2099-01-01")
    page.wait_for_selector("#empty:not([hidden])")
    checks.picture(page, "page-empty")
    checks.accessible(page, "nothing")
    page.locator("#help-open").click()
    checks.picture(page, "page-help")
    checks.accessible(page, "help")
    page.context.close()


def dark(checks):
    page = checks.open("/?q=yellow", color_scheme="dark")
    page.locator("#filters-open").click()
    checks.picture(page, "page-dark")
    checks.accessible(page, "dark")
    page.locator("#look").select_option("light")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(246, 245, 243)"
    page.context.close()


def phone(checks):
    page = checks.open("/?q=blue", viewport={"width": 390, "height": 800}, device_scale_factor=3, is_mobile=True, has_touch=True)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
    checks.picture(page, "phone")
    checks.accessible(page, "phone")
    page.locator("#filters-open").tap()
    checks.picture(page, "phone-filters")
    page.locator("#filters-open").tap()
    page.locator(".cell button").first.tap()
    page.wait_for_selector("#detail[open]")
    page.wait_for_function("() => document.querySelector('#detail-image').naturalWidth > 0")
    checks.picture(page, "phone-detail")
    checks.accessible(page, "phone, one photo")
    page.context.close()


def main() -> None:
    program = Path(sys.argv[1]).resolve()
    screenshots = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as room, sync_playwright() as playwright:
        photos, library = Path(room) / "photos", Path(room) / "library"
        make_photos(photos, COUNT - 100)
        make_photos(photos / "trip", 100)
        index(program, library, photos)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        with served(program, library, "--thumbnails", Path(room) / "small") as (address, _):
            checks = Checks(browser, address, screenshots)
            for check in (desktop, dark, phone):
                check(checks)
                print(f"page: {check.__name__} works")
            assert not checks.foreign, f"requests to elsewhere: {checks.foreign}"
            assert not checks.faults, checks.faults
        browser.close()


main()
