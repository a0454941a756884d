"""clip-retrieval's own clients against `tintype serve`: ClipClient, and the front in a browser.

usage: clients.py PROGRAM [SCREENSHOTS]

Both come from the package `clip-retrieval` as published, installed without its dependencies; `tests/serve/run` sets that up.
"""

import functools
import http.server
import importlib.util
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from urllib.parse import quote

import requests
from playwright.sync_api import sync_playwright

from running import index, make_photos, served

SITE = Path(sysconfig.get_path("purelib"))


def clip_client():
    """The module alone: the package around it imports torch, faiss and Flask."""
    spec = importlib.util.spec_from_file_location("clip_client", SITE / "clip_retrieval" / "clip_client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_client(address: str, photos: Path) -> None:
    module = clip_client()
    client = module.ClipClient(url=f"{address}/knn-service", indice_name="example", num_images=10)
    found = client.query(text="a red picture")
    assert isinstance(found, list) and 0 < len(found) <= 10, found
    assert {"id", "similarity", "image_path", "image", "width", "height"} <= set(found[0]), list(found[0])
    assert found == sorted(found, key=lambda entry: -entry["similarity"])
    own = next(photos.glob("blue*.ppm"))
    found = client.query(image=str(own))
    assert Path(found[0]["image_path"]).name == own.name and found[0]["similarity"] > 0.99, found[0]
    dimensions = requests.get(f"{address}/api/v1/status").json()["libraries"][0]["dimensions"]
    found = client.query(embedding_input=[0.1 * (n % 7) for n in range(dimensions)])
    assert isinstance(found, list) and 0 < len(found) <= 10, found
    refused = client.query(image="http://127.0.0.1/x.jpg")
    assert "does not fetch" in refused["message"], refused
    other = module.ClipClient(url=f"{address}/knn-service", indice_name="none", modality=module.Modality.TEXT)
    assert "example" in other.query(text="a")["message"]
    print("ClipClient: text, picture, vector and mistakes are answered as it expects")


def check_addresses(address: str, pictures: str, photos: Path) -> None:
    client = clip_client().ClipClient(url=f"{address}/knn-service", indice_name="example", num_images=10)
    own = next(photos.glob("green*.ppm"))
    found = client.query(image=f"{pictures}/{quote(own.name)}")
    assert isinstance(found, list) and Path(found[0]["image_path"]).name == own.name, found
    absent = client.query(image=f"{pictures}/none.ppm")
    assert "could not be fetched" in absent["message"], absent
    print("ClipClient: pictures are fetched from addresses where that is allowed")


def host(folder: Path) -> http.server.ThreadingHTTPServer:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    build = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), build)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def check_front(address: str, origin: str, screenshots: Path | None) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        answers = []
        page.on("response", lambda response: response.url.startswith(address) and answers.append((response.status, response.url)))
        pictures = "() => [...document.querySelector('clip-front').shadowRoot.querySelectorAll('img.pic')].filter(i => i.naturalWidth > 0).length"
        page.goto(f"{origin}/?back={address}/")
        page.wait_for_function("() => document.querySelector('clip-front')?.shadowRoot?.querySelector('select option')")
        assert page.locator("select option").first.inner_text() == "example"
        page.locator("#searchBar").fill("a green picture")
        page.locator("#searchBar").press("Enter")
        # As many as the server finds distinct among these simple pictures.
        page.wait_for_function(f"() => ({pictures})() >= 4")
        if screenshots:
            page.screenshot(path=screenshots / "clip-front.png")
        asked = len(answers)
        page.locator("img.subImageSearch").first.dispatch_event("click")
        page.wait_for_function(f"() => ({pictures})() >= 4")
        page.mouse.wheel(0, 20000)
        page.wait_for_timeout(500)
        routes = {url.removeprefix(address).replace("//", "/") for _, url in answers}
        assert {"/indices-list", "/knn-service", "/metadata"} <= routes, routes
        assert len(answers) > asked and all(status == 200 for status, _ in answers), answers
        browser.close()
    print(f"front: {len(answers)} requests from another origin, all answered")


def main() -> None:
    program = Path(sys.argv[1]).resolve()
    screenshots = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as room:
        photos, library = Path(room) / "photos", Path(room) / "library"
        make_photos(photos, 120)
        index(program, library, photos)
        front, pictures = host(SITE / "front" / "build"), host(photos)
        origin, theirs = (f"http://127.0.0.1:{server.server_address[1]}" for server in (front, pictures))
        with served(program, f"example={library}", "--allow-origin", origin, "--thumbnails", Path(room) / "small") as (address, _):
            check_client(address, photos)
            check_front(address, origin, screenshots)
        with served(program, f"example={library}", "--allow-image-url", "--allow-private-url") as (address, _):
            check_addresses(address, theirs, photos)
        for server in (front, pictures):
            server.shutdown()


main()
