"""Tests the example's page in Chromium, on Daphne and on the gateway: the page is the same, unchanged."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

import browser  # noqa: E402
from people import PASSWORD  # noqa: E402

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def chromium():
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def type_into(page, selector, text):
    page.evaluate(f"document.querySelector('{selector}').focus()")
    page.call("Input.insertText", text=text)


def send_message(page, message):
    type_into(page, "#message", message)
    page.evaluate("document.querySelector('#send').click()")


def last(page, kind):
    return f"[...document.querySelectorAll('#log .{kind}')].at(-1)?.textContent"


def chat(page, url, name):
    page.call("Network.clearBrowserCookies")
    page.call("Page.navigate", url="about:blank")
    page.call("Page.navigate", url=f"{url}/#page")
    page.wait_for("!!document.querySelector('#login button')")
    type_into(page, "#login [name=username]", name)
    type_into(page, "#login [name=password]", PASSWORD)
    page.evaluate("document.querySelector('#login button').click()")
    page.wait_for("document.querySelector('#status').dataset.state === 'open'")
    send_message(page, "hello page")
    page.wait_for("document.querySelector('.reply')?.dataset.state === 'complete'")
    assert "said “hello page”" in page.evaluate(last(page, "reply")), page.evaluate("document.body.innerText")
    send_message(page, "/words 40")
    page.wait_for("document.querySelectorAll('.reply[data-state=complete]').length === 2")
    assert page.evaluate(last(page, "reply")) == "".join(f"word{number} " for number in range(40))
    send_message(page, "/project")
    page.wait_for("document.querySelectorAll('.reply[data-state=complete]').length === 3")
    assert "Café 🚀" in page.evaluate(last(page, "tool"))
    assert not page.errors, page.errors


def test_the_page(world):
    program = chromium()
    if program is None:
        print("SKIPPED: there is no Chromium, so the example's page was NOT tested in a browser")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *browser.FLAGS, f"--user-data-dir={profile}", "about:blank"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            page = browser.open_page(browser.devtools(profile, running))
            page.call("Network.enable")
            name = world.person().name
            for url in (world.daphne_url, world.gateway_url):
                chat(page, url, name)
            page.socket.close()
        finally:
            running.terminate()
            running.wait()
