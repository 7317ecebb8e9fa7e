#!/usr/bin/env python3
"""Tests the dialects of AI APIs with what the real packages write: main.py BINARY CACHE [--all] [--chromium PROGRAM] [WORD…]

The programs of `servers/` answer with the types, encoders, helpers and servers of the vendors' own packages, and the
official client libraries must accept them as servers (clients.py). The gateway stands in front of each (apis.py), and
what it publishes for a normal reply, a tool call, a refusal, an error, a cut, and so on is compared with a table
(cases.py). Web servers and frameworks are tried in the same way (frameworks.py), and the examples are run (examples.py).
With words, only APIs, servers and frameworks whose name has one of them are asked. LiteLLM and Spring WebFlux, which take
long to install, are tried with `--all`.

Packages from PyPI and npm are installed in CACHE, in the versions of requirements.txt and package.json.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "applications"))

import apis  # noqa: E402
import packages  # noqa: E402
import processes  # noqa: E402

PYTHON_SERVERS = {
    "models": ["openai_api", "anthropic_api", "gemini_api", "ollama_api"],
    "agents": ["ag_ui_api", "pydantic_ai_app", "langserve_app"],
}
# Its packages take 750 MB.
LARGE_SERVER = "litellm"
NODE_SERVERS = {"ai_sdk": "ai_sdk.mjs", "ag_ui": "ag_ui.mjs", "aimock": "aimock.mjs", "langgraph_js": "langgraph.mjs"}


class Servers:
    """The programs of `servers/`, copied into a folder where Node finds the packages."""

    def __init__(self, stack, folder, node, cache):
        self.folder = shutil.copytree(HERE / "servers", folder / "servers")
        (self.folder / "node_modules").symlink_to(node / "node_modules")
        self.stack, self.cache, self.ports, self.processes = stack, cache, {}, {}

    def start(self, names):
        self.ports |= {name: processes.free_port() for name in names}
        for name in names:
            port = self.ports[name]
            self.processes[name] = self.stack.start(name, self.command(name, port), self.folder, PORT=str(port))
        for name in names:
            self.processes[name].wait_for_port(self.ports[name])

    def command(self, name, port):
        if name in PYTHON_SERVERS:
            return [sys.executable, "model_apis.py", *PYTHON_SERVERS[name]]
        if name in NODE_SERVERS:
            return ["node", NODE_SERVERS[name]]
        if name == LARGE_SERVER:
            return self.litellm(port)
        # The server of LangGraph for development needs neither a licence nor an account.
        program = Path(sys.executable).with_name("langgraph")
        return [program, "dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", port]

    def litellm(self, port):
        """LiteLLM's proxy in front of the fake server of OpenAI's APIs, with a model for each script."""
        place = {"api_base": f"{self.url('models')}/openai/{{}}", "api_key": "none", "model": "openai/m"}
        models = [
            {"model_name": case, "litellm_params": {**place, "api_base": place["api_base"].format(case)}}
            for case in ("text", "tool", "error", "short")
        ]
        config = {
            "model_list": models, "router_settings": {"num_retries": 0},
            "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
        }
        # JSON is YAML as well.
        (self.folder / "litellm.yaml").write_text(json.dumps(config))
        program = self.cache / "dialects-litellm" / "bin" / "litellm"
        return [program, "--config", "litellm.yaml", "--host", "127.0.0.1", "--port", port]

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}"


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--chromium", default="")
    parser.add_argument("--all", action="store_true", help="also what takes long to install: LiteLLM, Spring WebFlux")
    parser.add_argument("words", nargs="*")
    return parser.parse_intermixed_args()


def main():
    options = parse()
    cache = options.cache.resolve()
    venv = packages.python(cache / "dialects-venv", HERE / "requirements.txt")
    if Path(sys.prefix) != venv:
        os.execv(venv / "bin" / "python", [str(venv / "bin" / "python"), *sys.argv])
    # It needs the packages.
    import table
    from frameworks import Frameworks

    if options.all:
        packages.python(cache / "dialects-litellm", HERE / "requirements-litellm.txt")
    node = cache / "dialects-node"
    chosen = [api for api in apis.ALL if not options.words or any(word in api.name for word in options.words)]
    if not options.all:
        chosen = [api for api in chosen if api.server != LARGE_SERVER]
    if shutil.which("npm"):
        packages.node(node, HERE / "package.json")
    else:
        print("SKIPPED: npm is not installed, so the packages of Node were NOT tested")
        chosen = [api for api in chosen if api.server not in NODE_SERVERS]
    with tempfile.TemporaryDirectory() as folder, processes.Stack(Path(folder) / "logs") as stack:
        try:
            servers = Servers(stack, Path(folder), node, cache)
            began = time.monotonic()
            frameworks = Frameworks(Path(folder), stack, cache, options.words, options.all)
            servers.start(sorted({api.server for api in chosen} | {"models"}))
            frameworks.start()
            print(f"The servers listen ({time.monotonic() - began:.1f} s)", flush=True)
            failed = table.run(options.binary.resolve(), servers, chosen, frameworks, stack, node, options.chromium)
        except BaseException:
            print(stack.logs(), flush=True)
            raise
    if failed:
        raise SystemExit(f"{failed} failed")


if __name__ == "__main__":
    # When this process is terminated, it stops the processes that it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
