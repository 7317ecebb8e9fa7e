#!/usr/bin/env python3
"""Tests the server API and the client protocol against their descriptions.

main.py BINARY CACHE: needs redis-server; what else it needs goes into a venv in CACHE.

Schemathesis reads /v1/openapi.json of a running gateway, on each engine, makes up calls out of it and
holds the answers to it. Two calls are tried by hand: a tail does not end, and a drain ends the process.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import urllib.request

NEEDS = ["schemathesis>=4.32,<5", "jsonschema>=4.23,<5", "websockets>=13,<18"]
HERE = pathlib.Path(__file__).resolve().parent
# Calls that Schemathesis generates for each operation in each of its phases; about 30 s in all for each engine.
EXAMPLES = "25"


def in_venv(cache):
    """Continues as a process of the venv, which is created if it is missing."""
    venv = pathlib.Path(cache).absolute() / "api-venv"
    if pathlib.Path(sys.prefix) == venv:
        return
    python, stamp = venv / "bin" / "python", venv / "needs"
    if not stamp.is_file() or stamp.read_text() != "\n".join(NEEDS):
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDS], check=True)
        stamp.write_text("\n".join(NEEDS))
    os.execv(python, [python, *sys.argv])


BINARY, CACHE = sys.argv[1:]
in_venv(CACHE)
import jsonschema  # noqa: E402, of the venv

import protocol  # noqa: E402
import world  # noqa: E402


def description(gateway):
    status, headers, body = gateway.call("GET", "/v1/openapi.json", key=None)
    assert status == 200 and headers["content-type"] == "application/json"
    return json.loads(body)


def operations(description):
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def check(description, value, name):
    """Checks that `value` matches the schema `name`."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def is_refused(gateway, description, key, status, code):
    """Checks every call that needs a key, without a valid one."""
    tried = 0
    for method, path, operation in operations(description):
        if operation.get("security") == []:
            continue
        body = {} if method == "POST" else None
        found, headers, answer = gateway.call(method, path.replace("{channel}", "a"), body, key=key)
        answer = json.loads(answer)
        check(description, answer, "Error")
        assert (found, answer["error"]["code"]) == (status, code), (method, path, found, answer)
        assert status != 401 or headers["www-authenticate"] == "Bearer", path
        tried += 1
    assert tried > 10, tried


def a_tail_is_as_described(gateway, description):
    path = "/v1/channels/chat_tail/tail"
    request = urllib.request.Request(gateway.url + path)
    request.add_header("X-API-Key", world.KEY)
    with urllib.request.urlopen(request, timeout=30) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        live = event(stream)
        received = json.loads(live["data"])
        assert live["event"] == "live" and received["channel"] == "chat_tail" and received["history"], live
        gateway.api("/v1/publish", {"channel": "chat_tail", "data": {"event": "chunk"}})
        received = event(stream)
        assert received["id"] == "1" and json.loads(received["data"])["event"] == "chunk", received
    for channel, query, status, code in [
        ("a%20b", "", 400, "bad_channel"), ("a", "?since=1", 400, "bad_request"),
    ]:
        found, _, answer = gateway.call("GET", f"/v1/channels/{channel}/tail{query}")
        assert (found, json.loads(answer)["error"]["code"]) == (status, code), answer


def event(stream):
    fields = {}
    while line := stream.readline().decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    return fields


def a_drain_is_as_described(gateway, description):
    status, _, answer = gateway.call("POST", "/v1/drain")
    assert status == 202, answer
    check(description, json.loads(answer), "Draining")
    code = gateway.wait_exit()
    assert code == 0, f"exit code {code}"


def schemathesis(gateway):
    arguments = [
        pathlib.Path(sys.prefix) / "bin" / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run",
        f"{gateway.url}/v1/openapi.json", "--url", gateway.url, "--no-color",
        "--header", f"Authorization: Bearer {world.KEY}",
        "--exclude-operation-id", "drain", "--exclude-operation-id", "tailChannel",
        "--checks", "all", "--continue-on-failure",
        "--max-examples", EXAMPLES, "--generation-deterministic",
        "--request-timeout", "20", "--workers", "1", "--suppress-health-check", "all",
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "hooks.py")}
    # The folder for its database of examples.
    tried = subprocess.run(arguments, env=environment, cwd=CACHE, timeout=300,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if tried.returncode != 0:
        raise SystemExit(tried.stdout)
    print(tried.stdout[tried.stdout.rindex("Test cases:"):].strip())


def the_api(binary, kind):
    with world.engine(kind) as redis:
        with world.Gateway(binary, kind, redis, keys=()) as gateway:
            is_refused(gateway, description(gateway), "any", 403, "api_disabled")
        with world.Gateway(binary, kind, redis) as gateway:
            described = description(gateway)
            is_refused(gateway, described, None, 401, "unauthorized")
            is_refused(gateway, described, "another key", 401, "unauthorized")
            with clients(gateway):
                schemathesis(gateway)
                a_tail_is_as_described(gateway, described)
            a_drain_is_as_described(gateway, described)
            errors = [line for line in gateway.log if '"ERROR"' in line]
            assert not errors, errors


def clients(gateway):
    """Connects clients, so that there is something to list."""
    stack = contextlib.ExitStack()
    for user in ("1", "ana"):
        token = gateway.token(user_id=user, username="ana", session_expires_in=900)
        stack.enter_context(gateway.open("/ws/chat/42/", connection_token=token))
    stack.enter_context(gateway.open("/ws/plain/a/"))
    for n in range(3):
        gateway.api("/v1/publish", {"channel": "chat_42", "data": {"n": n}})
    return stack


def main():
    protocol.parse(CACHE)
    for kind in ("memory", "redis"):
        print(f"Client protocol, {kind} engine")
        with world.engine(kind) as redis:
            protocol.run(BINARY, kind, redis)
        print(f"Server API, {kind} engine")
        the_api(BINARY, kind)


main()
