"""Asks the APIs, directly and through the gateway, and compares what is published with cases.py."""

import json
import sys
import time
import traceback
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apis
import cases
import clients
import conversation
import examples


def run(binary, servers, chosen, frameworks, stack, node, chromium):
    """Returns how many replies are not as they should be."""
    with ThreadPoolExecutor(16) as threads:
        ask_directly(servers, threads)
        text = conversation.HEAD + config(servers, chosen) + frameworks.config()
        gateway = conversation.Gateway(binary, text, stack)
        failed = Table(gateway, servers, chosen).run(threads) + frameworks.run(gateway, threads)
        return failed + examples.run(binary, Path(sys.executable), node, stack, threads, chromium)


def ask_directly(servers, threads):
    """The official client libraries accept the servers."""
    asked = [(ask, threads.submit(ask, servers.url("models"))) for ask in clients.ALL]
    for ask, future in asked:
        future.result()
        print(f"ok: the client library accepts {ask.__name__}", flush=True)


class Table:
    """Compares what is published with the tables of cases.py."""

    def __init__(self, gateway, servers, chosen):
        self.gateway, self.servers, self.chosen = gateway, servers, chosen

    def run(self, threads):
        """Returns how many differ."""
        compared = [
            threads.submit(self.compare, api, route, case, expected)
            for api in self.chosen for route in (api.name, f"{api.name}-auto")
            for case, expected in cases.EXPECTED[api.name].items()
        ]
        compared += [
            threads.submit(self.compare_native, api, case)
            for api in self.chosen if api.name in apis.REPEATABLE for case in ("text", "tool")
            if case in cases.EXPECTED[api.name]
        ]
        cancelled = [threads.submit(self.cancel, api) for api in self.chosen if api.name in cases.HANGING]
        stopped = [threads.submit(self.stop_elsewhere, api) for api in self.chosen if api.name == "langgraph"]
        failed = [future.result() for future in [*compared, *cancelled, *stopped]].count(False)
        print(f"{'ok' if not failed else 'FAILED'}: {len(compared)} replies compared, {failed} differ", flush=True)
        return failed

    def compare(self, api, route, case, expected):
        url = f"{self.gateway.url}/ws/{route}/{case}/{uuid.uuid4()}"
        # A thread has a history when it is asked again, which is no part of the reply.
        times = 2 if case == "text" and "{conversation}" in api.path else 1
        try:
            seen = [without_times(conversation.ask(url, apis.message(case))) for _ in range(times)]
        except Exception as error:
            seen = [[{"event": repr(error)}]]
        if api.server == "aimock":
            seen = [[event for event in events if not is_optional(event)] for events in seen]
        if all(events == expected for events in seen):
            return True
        seen = next(events for events in seen if events != expected)
        shown = "".join(f"\n  {json.dumps(event, ensure_ascii=False)}" for event in seen)
        print(f"FAILED: {route} {case}: published{shown}", flush=True)
        return False

    def compare_native(self, api, case):
        """A page that knows the API gets each of its objects, as the server has written it."""
        try:
            written = self.ask_server(api, case)
            url = f"{self.gateway.url}/ws/{api.name}-native/{case}/{uuid.uuid4()}"
            *seen, end = conversation.ask(url, apis.message(case))
            assert end["event"] == "complete", end
            assert [event["data"] for event in seen] == written, f"written:\n  {written}\npublished:\n  {seen}"
        except Exception:
            print(f"FAILED: {api.name} {case}, native\n{traceback.format_exc()}", flush=True)
            return False
        return True

    def ask_server(self, api, case):
        """Returns the objects that the server of an API writes."""
        url = self.servers.url(api.server) + api.path.replace("{case}", case)
        body = json.dumps(apis.filled(api.body, apis.message(case))).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        request = urllib.request.Request(url, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=conversation.DEADLINE) as answer:
            lines = answer.read().decode().splitlines()
        data = [line.removeprefix("data: ") for line in lines if line.startswith(("data: ", "{"))]
        return [json.loads(line) for line in data if line != "[DONE]"]

    def cancel(self, api):
        """One tab asks, another one stops the reply, and the server sees its connection closed."""
        url = f"{self.gateway.url}/ws/{api.name}/hang/{uuid.uuid4()}"
        try:
            with conversation.Tab(url) as first, conversation.Tab(url) as second:
                first.send(id="m", **apis.message("hang"))
                task = first.until("task_queued")[-1]["task_id"]
                first.until("chunk")
                began = time.time()
                second.send(type="cancel", task_id=task)
                ends = [tab.until(*conversation.TERMINAL)[-1] for tab in (first, second)]
                assert [(end["event"], end["task_id"]) for end in ends] == [("cancelled", task)] * 2, ends
            process = self.servers.processes[api.server]
            path = api.path.replace("{case}", "hang").split("?")[0]
            closed = process.until(lambda: self.closed(process, path), f"closed connection for {api.name}")
        except Exception:
            print(f"FAILED: {api.name} was not cancelled\n{traceback.format_exc()}", flush=True)
            return False
        after = f"{1000 * (closed - began):.0f} ms"
        print(f"ok: {api.name}: the server saw its connection closed {after} after the cancel", flush=True)
        return True

    def stop_elsewhere(self, api):
        """Somebody stops a run of LangGraph by its own API, of which its stream says nothing."""
        conversation_id = str(uuid.uuid4())
        try:
            with conversation.Tab(f"{self.gateway.url}/ws/{api.name}/hang/{conversation_id}") as tab:
                tab.send(id="m", **apis.message("hang"))
                tab.until("chunk")
                runs = f"{self.servers.url(api.server)}/threads/{conversation_id}/runs"
                with urllib.request.urlopen(runs, timeout=conversation.DEADLINE) as answer:
                    [run] = json.load(answer)
                stop = urllib.request.Request(f"{runs}/{run['run_id']}/cancel", b"{}", method="POST")
                urllib.request.urlopen(stop, timeout=conversation.DEADLINE).close()
                end = tab.until(*conversation.TERMINAL)[-1]
                assert end["event"] == "error" and end["code"] == "worker_lost", end
        except Exception:
            print(f"FAILED: {api.name} was stopped elsewhere\n{traceback.format_exc()}", flush=True)
            return False
        print(f"ok: {api.name}: a run that was stopped elsewhere is lost", flush=True)
        return True

    def closed(self, process, path):
        """When the server's log says that the connection was closed."""
        for line in process.read_log().splitlines():
            if line.startswith('{"') and line.endswith("}"):
                event = json.loads(line)
                if event.get("event") == "closed" and event["path"] in (path, "/hang"):
                    return event["at"]
        return None


def is_optional(event):
    """Whether an event is no part of what aimock is compared with."""
    return event["event"] == "usage" or event.get("state") == "arguments"


def without_times(events):
    """Leaves out what Pydantic AI tells of the time."""
    for event in events:
        if event["event"] == "native" and event["data"]["type"] == "message-metadata":
            del event["data"]["messageMetadata"]["pydantic_ai"]["timestamp"]
    return events


def config(servers, chosen):
    text = ""
    for api in chosen:
        url, body = servers.url(api.server) + api.path, f"body = {apis.toml(api.body)}\n"
        text += conversation.route(api.name, url, f'dialect = "{api.dialect}"\n{body}')
        text += conversation.route(f"{api.name}-auto", url, f'dialect = "auto"\n{body}')
        native = f'dialect = "{api.dialect}"\npublish = "native"\n{body}'
        text += conversation.route(f"{api.name}-native", url, native)
    return text
