"""How smoothly the page scrolls through a long list, in Chromium: times between frames while the list moves.

usage: smooth.py ADDRESS [WORDS]      of a running server; its largest library should have 100,000 photos
"""

import json
import sys

from playwright.sync_api import sync_playwright

address, words = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""

SCROLL = """async ([speed, seconds]) => {
    const scroller = document.getElementById('results');
    const gaps = [], work = [];
    const watch = new PerformanceObserver((list) => work.push(...list.getEntries().map((entry) => entry.duration)));
    watch.observe({ entryTypes: ['longtask'] });
    let last = performance.now();
    const begun = last;
    await new Promise((resolve) => {
        const step = (now) => {
            gaps.push(now - last);
            scroller.scrollTop += (speed * (now - last)) / 1000;
            last = now;
            if (now - begun < seconds * 1000) requestAnimationFrame(step);
            else resolve();
        };
        requestAnimationFrame(step);
    });
    watch.disconnect();
    gaps.sort((a, b) => a - b);
    const at = (share) => Math.round(gaps[Math.floor((gaps.length - 1) * share)] * 10) / 10;
    return { frames: gaps.length, median: at(0.5), p95: at(0.95), p99: at(0.99), worst: at(1), long_tasks: work.length, longest: Math.round(Math.max(0, ...work)) };
}"""

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{address}/?q={words}")
    page.wait_for_selector(".cell", timeout=60_000)
    page.wait_for_function("() => document.querySelector('.cell').getAttribute('aria-setsize') > 50000 || document.getElementById('status').innerText.startsWith('100,000')", timeout=60_000)
    print("status:", page.locator("#status").inner_text())
    print("height of the list:", page.evaluate("() => document.getElementById('sheet').clientHeight"), "px")
    for name, speed in [("reading", 800), ("wheel", 4000), ("flinging", 40000)]:
        print(f"{name}, {speed} px/s:", json.dumps(page.evaluate(SCROLL, [speed, 5])))
        page.wait_for_timeout(500)
    print("to the end:", page.evaluate("""async () => {
        const begun = performance.now();
        document.getElementById('results').scrollTop = 1e9;
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
        return Math.round(performance.now() - begun);
    }"""), "ms; last photo shown:", page.evaluate("() => Math.max(...[...document.querySelectorAll('.cell:not([hidden])')].map((cell) => Number(cell.getAttribute('aria-posinset'))))"))
    print("layout of the whole list anew (size slider):", page.evaluate("""() => {
        const slider = document.getElementById('tile');
        const begun = performance.now();
        slider.value = 150;
        slider.dispatchEvent(new Event('input'));
        document.getElementById('sheet').getBoundingClientRect();
        return Math.round(performance.now() - begun);
    }"""), "ms")
    print("elements in the document:", page.evaluate("() => document.querySelectorAll('*').length"))
    print("memory of the page:", page.evaluate("() => Math.round(performance.memory.usedJSHeapSize / 1e6)"), "MB")
    browser.close()
