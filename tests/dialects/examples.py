"""Runs each example as its README says, and chats with it as its page does."""

import json
import re
import shutil
import subprocess
import sys
import traceback
import urllib.request
from pathlib import Path

import anthropic
import openai
import processes
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]

EXAMPLES = ["openai", "anthropic", "ai-sdk", "langgraph", "ag-ui"]
DEADLINE = 60
MAX_CONFIG_LINES = 30
FIELDS = """
import(process.argv[1]).then(({ fields }) => process.stdout.write(JSON.stringify(fields(JSON.parse(process.argv[2])))));
"""


class Example:
    def __init__(self, name, binary, python, node, stack):
        self.name, self.folder, self.port = name, ROOT / "examples" / name, processes.free_port()
        config = (self.folder / "gateway.toml").read_text()
        assert len(config.splitlines()) <= MAX_CONFIG_LINES, f"{name}: the config is too long"
        self.process = stack.start(
            f"example-{name}", [python, self.folder / "run"], ROOT,
            PORT=str(self.port), TIDEGATE=str(binary), PYTHON=str(python), NODE_MODULES=str(node / "node_modules"),
        )
        self.origin = f"http://localhost:{self.port}"

    def fields(self, history):
        """What the page adds to a message."""
        script = self.folder / "fields.js"
        command = ["node", "--input-type=module", "-e", FIELDS, script.as_uri(), json.dumps(history)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE).stdout)

    def check(self):
        self.process.until(lambda: "open it in two tabs" in self.process.read_log(), "address of the page")
        with urllib.request.urlopen(f"{self.origin}/", timeout=DEADLINE) as page:
            imported = re.search(r'from "\./(.*?)"', page.read().decode())[1]
        with urllib.request.urlopen(f"{self.origin}/{imported}", timeout=DEADLINE) as script:
            assert script.read() == (self.folder / imported).read_bytes()
        url = f"ws://127.0.0.1:{self.port}/ws/chat/1/"
        with connect(url, origin=self.origin) as first, connect(url, origin=self.origin) as second:
            history = [{"role": "user", "content": "hello there"}]
            first.send(json.dumps({"id": "1", "message": "hello there", **self.fields(history)}))
            for tab in (first, second):
                events = until_end(tab)
                text = "".join(event["chunk"] for event in events if event["event"] == "chunk")
                assert text == "You said: hello there", events
                assert [event["event"] for event in events].count("chunk") > 1, events
                assert (events[-1]["event"], events[-1]["finish_reason"]) == ("complete", "stop"), events
            if self.name != "ag-ui":
                assert any(event["event"] == "usage" for event in events), events
            # The other tab stops a reply.
            history += [{"role": "assistant", "content": text}, {"role": "user", "content": "word " * 100}]
            first.send(json.dumps({"id": "2", "message": "word", **self.fields(history)}))
            task = until(second, "chunk")[-1]["task_id"]
            second.send(json.dumps({"type": "cancel", "task_id": task}))
            assert until_end(first)[-1]["event"] == "cancelled"


    def check_page(self, browser, address):
        """Two tabs show a reply, and nothing fails in them."""
        pages = [browser.open_page(address) for _ in range(2)]
        for page in pages:
            page.call("Page.navigate", url=f"{self.origin}/")
            page.wait_for("document.querySelector('#state')?.textContent === 'connected'")
        pages[0].evaluate("document.querySelector('#text').focus()")
        pages[0].call("Input.insertText", text="hello there")
        pages[0].evaluate("document.querySelector('form button').click()")
        for page in pages:
            page.wait_for("document.querySelector('#log .assistant')?.textContent === 'You said: hello there'")
            page.wait_for("document.querySelector('#stop').disabled")
            assert not page.errors, page.errors
            page.socket.close()


def check(example, check):
    try:
        check()
    except Exception:
        log = example.process.read_log()[-4000:]
        print(f"FAILED: the example {example.name}\n{traceback.format_exc()}\n{log}", flush=True)
        return False
    return True


def check_pages(examples, chromium, folder):
    """Returns whether each page works in a browser."""
    sys.path.insert(0, str(ROOT / "tests" / "clients"))
    import browser

    profile = folder / "profile"
    command = [chromium, *browser.FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = browser.devtools(profile, process)
        return [check(example, lambda: example.check_page(browser, address)) for example in examples]
    finally:
        process.terminate()
        process.wait()


def run(binary, python, node, stack, threads, chromium):
    """Returns how many fail."""
    if not shutil.which("node"):
        print("SKIPPED: Node is not installed, so the examples were NOT tested")
        return 0
    examples = [Example(name, binary, python, node, stack) for name in EXAMPLES]
    checked = [threads.submit(check, example, example.check) for example in examples]
    ask_servers(python, stack)
    passed = [future.result() for future in checked]
    if chromium and all(passed):
        passed = check_pages(examples, chromium, stack.folder)
    elif not chromium:
        print("SKIPPED: there is no Chromium, so the pages of the examples were NOT tested")
    for name, is_passed in zip(EXAMPLES, passed):
        print(f"{'ok' if is_passed else 'FAILED'}: the example {name}", flush=True)
    return passed.count(False)


def ask_servers(python, stack):
    """The vendors' own client libraries accept the servers of the examples."""
    for name, ask in (("openai", ask_openai), ("anthropic", ask_anthropic)):
        port = processes.free_port()
        server = stack.start(f"server-{name}", [python, ROOT / "examples" / name / "server.py", port], ROOT)
        server.wait_for_port(port)
        assert ask(f"http://127.0.0.1:{port}") == "You said: hello there", name
        print(f"ok: the client library accepts the server of the example {name}", flush=True)


def ask_openai(url):
    asked = {"messages": [{"role": "user", "content": "hello there"}], "stream_options": {"include_usage": True}}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        with client.chat.completions.stream(model="m", **asked) as stream:
            answer = stream.get_final_completion()
    assert answer.usage.total_tokens == 6, answer
    return answer.choices[0].message.content


def ask_anthropic(url):
    messages = [{"role": "user", "content": "hello there"}]
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
        with client.messages.stream(model="m", max_tokens=100, messages=messages) as stream:
            return stream.get_final_text()


def until(socket, *names):
    events = []
    while not events or events[-1]["event"] not in names:
        events.append(json.loads(socket.recv(timeout=DEADLINE)))
    return events


def until_end(socket):
    return until(socket, "complete", "error", "cancelled")
