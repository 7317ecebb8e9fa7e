"""Tests the page of the demo in headless Chromium through its debugging protocol: browser.py BINARY CHROMIUM PNG

Types messages, waits for the whole replies in the page, takes a picture, and fails on anything that
the page wrote to the console as an error. The page's connection is cut in the middle of a reply, before
an answer reaches it, and on the way to a gateway that does not know its conversation.
"""

import base64
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

from websockets.sync.client import connect

import demo as demos
from cable import Cable

DEADLINE = 30
REPLY = (
    "You said “{message}”, which is {words} words. Each word of this reply leaves a plain HTTP endpoint as "
    "one server-sent event; the gateway publishes it to this conversation, and every tab that has it open "
    "receives the same frame."
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1280,800",
]


class Page:
    """One tab. Commands are answered in order; events that arrive in between are checked."""

    def __init__(self, url):
        self.socket = connect(url, max_size=None)
        self.last_id = 0
        self.errors = []

    def call(self, method, **params):
        self.last_id += 1
        self.socket.send(json.dumps({"id": self.last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=DEADLINE))
            if message.get("id") == self.last_id:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.note(message)

    def note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.errors.append(params["args"])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(params["entry"])

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression):
        deadline = time.monotonic() + DEADLINE
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                visible = self.evaluate("document.body.innerText")
                raise SystemExit(f"timed out waiting for {expression}; errors: {self.errors}\n{visible}")
            time.sleep(0.05)
        return value

    def picture(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))


def devtools(profile, browser):
    """Returns the address that Chromium writes to its profile when it is listening."""
    port_file = pathlib.Path(profile) / "DevToolsActivePort"
    deadline = time.monotonic() + DEADLINE
    while not (port_file.exists() and "\n" in port_file.read_text()):
        if browser.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("Chromium did not start")
        time.sleep(0.05)
    return f"127.0.0.1:{port_file.read_text().split()[0]}"


def open_page(address):
    request = urllib.request.Request(f"http://{address}/json/new?about:blank", method="PUT")
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        page = Page(json.load(answer)["webSocketDebuggerUrl"])
    for domain in ("Page", "Runtime", "Log"):
        page.call(f"{domain}.enable")
    return page


def send_message(page, message):
    page.wait_for("document.querySelector('#status')?.dataset.state === 'open'")
    page.evaluate("document.querySelector('#message').focus()")
    page.call("Input.insertText", text=message)
    page.evaluate("document.querySelector('#send').click()")
    return REPLY.format(message=message, words=len(message.split()))


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.05)


def finished(demo):
    """The number of replies that the gateway has streamed to their end."""
    line = r'^tidegate_generations_total{.*outcome="completed".*} (\d+)$'
    return sum(int(count) for count in re.findall(line, demo.metrics(), re.MULTILINE))


def last_reply(state):
    """A JavaScript expression for the text of the last reply, if it has this state."""
    box = "[...document.querySelectorAll('.reply')].at(-1)"
    return f"{box}?.dataset.state === '{state}' && {box}.querySelector('.text').textContent"


def wait_for_reply(page, text):
    page.wait_for(f"({last_reply('complete')}) === {json.dumps(text)}")


def in_the_middle(page):
    return page.wait_for(f"(({last_reply('running')}) || '').length > 20")


def frames(page, direction):
    """The frames that the page has logged, oldest first."""
    lines = f"[...document.querySelectorAll('#wire .{direction} code')].map((code) => code.textContent)"
    return [json.loads(line) for line in page.evaluate(lines)]


def count_shown(page, text):
    texts = page.evaluate("[...document.querySelectorAll('.bubble .text')].map((text) => text.textContent)")
    return texts.count(text)


def a_reply_streams(page, demo, cable):
    page.call("Page.navigate", url=f"{cable.origin}/#browser")
    reply = send_message(page, "Hello from Chromium")
    wait_for_reply(page, reply)
    assert len(frames(page, "down")) > 10
    wait_until(lambda: finished(demo) == 1, "the reply was counted")


def a_reply_that_was_cut_is_whole(page, demo, cable):
    before = finished(demo)
    reply = send_message(page, "Cut me in the middle")
    in_the_middle(page)
    cable.unplug()
    page.wait_for("document.querySelector('#status').dataset.state === 'waiting'")
    part = page.evaluate(last_reply("running"))
    assert part and reply.startswith(part) and part != reply, part
    # The reply ends while the page is disconnected: the rest comes from the history.
    wait_until(lambda: finished(demo) == before + 1, "the reply was over")
    cable.plug()
    wait_for_reply(page, reply)
    assert count_shown(page, reply) == 1
    [again] = [frame for frame in frames(page, "down") if "recovered" in frame]
    assert again["recovered"] and again["missed"] > 0, again


def an_answer_that_was_lost_is_asked_for_again(page, demo, cable):
    before = finished(demo)
    message = "Did you get this one"
    cable.mute()
    reply = send_message(page, message)
    wait_until(lambda: finished(demo) == before + 1, "the message was answered")
    assert count_shown(page, reply) == 0
    cable.unplug()
    cable.plug()
    page.wait_for("document.querySelector('#wire').textContent.includes('\"duplicate\":true')")
    wait_for_reply(page, reply)
    first, again = [frame for frame in frames(page, "up") if frame.get("message") == message]
    assert first == again and first["id"], (first, again)
    assert (count_shown(page, message), count_shown(page, reply)) == (1, 1)


def what_is_lost_is_said(page, binary, cable):
    """Starts a gateway in place of the first one, which does not know the conversation."""
    with demos.running(binary) as demo:
        lost = send_message(page, "This reply will not end")
        in_the_middle(page)
        cable.unplug()
        cable.plug(demo.port)
        page.wait_for("document.querySelector('.notice[data-state=missed]')?.textContent")
        assert page.evaluate("document.querySelectorAll('.reply[data-state=running]').length") == 0
        reply = send_message(page, "But this one does")
        wait_for_reply(page, reply)
        assert (count_shown(page, lost), count_shown(page, reply)) == (0, 1)
        # The session of the first gateway is not valid here, and Chromium logs the refusal.
        refusals = [error for error in page.errors if "401" in error.get("text", "")]
        assert len(refusals) == 1 and page.errors == refusals, page.errors
        page.errors.clear()


def main():
    binary, chromium, picture = sys.argv[1:]
    # Chromium's child processes may still write to the profile after their parent has exited.
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with demos.running(binary) as demo, temporary as profile:
        browser = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            page = open_page(devtools(profile, browser))
            cable = Cable(demo.port)
            for test in (
                a_reply_streams,
                a_reply_that_was_cut_is_whole,
                an_answer_that_was_lost_is_asked_for_again,
            ):
                test(page, demo, cable)
                print(f"ok: {test.__name__}")
                assert not page.errors, page.errors
            page.picture(pathlib.Path(picture))
            what_is_lost_is_said(page, binary, cable)
            print("ok: what_is_lost_is_said")
            page.socket.close()
        finally:
            browser.terminate()
            browser.wait()
    print(f"ok: the page's picture is in {picture}")


if __name__ == "__main__":
    main()
