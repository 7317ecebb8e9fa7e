"""A module is replaced in an open page of Chromium, without loading the page again."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, os.environ["CLIENTS"])
import browser  # noqa: E402

URL = os.environ["URL"]
FILE = pathlib.Path("site/text.js")


def write(text):
    FILE.write_text(f"export const text = {json.dumps(text)};")


def shows(page, text):
    page.wait_for(f"document.querySelector('#text')?.textContent === {json.dumps(text)}")


def use(page):
    write("first")
    if token := os.environ["TOKEN"]:
        page.call("Network.setCookie", name="access_token", value=token, url=URL)
    page.call("Page.navigate", url=URL)
    shows(page, "first")
    page.evaluate("window.loadedOnce = true")
    # Vite's client is connected as soon as the server answers it.
    page.wait_for("window.ask?.('Are you there'), document.title === 'Are you there, yes'")
    write("second")
    shows(page, "second")
    assert page.evaluate("window.loadedOnce"), "the page was loaded again"
    hosts = page.evaluate("[...new Set(performance.getEntriesByType('resource').map(({ name }) => new URL(name).origin))]")
    assert hosts == [URL], hosts
    assert not page.errors, page.errors
    return ["first", "second"]


def main():
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with temporary as profile:
        chromium = subprocess.Popen(
            [os.environ["CHROMIUM"], *browser.FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            seen = use(browser.open_page(browser.devtools(profile, chromium)))
        finally:
            chromium.terminate()
            chromium.wait()
    print(json.dumps(seen))


main()
