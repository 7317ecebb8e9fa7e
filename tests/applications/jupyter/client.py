"""Computes in a kernel: with Jupyter's client for Python, and as the page of a browser does."""

import http.cookiejar
import json
import os
import urllib.request
import uuid

import websocket
from jupyter_kernel_client import KernelClient

URL, TOKEN = os.environ["URL"], "jupyter-token"
SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"


def with_the_client():
    with KernelClient(server_url=URL, token=TOKEN) as kernel:
        answer = kernel.execute("print('counted'); 1 + 1")
        # If the client closes the socket while its thread reads, the thread notices only after ten seconds.
        client = kernel._manager.client
        client.kernel_socket.sock.send_close()
        client.connection_thread.join(60)
    assert answer["status"] == "ok", answer
    found = [(output["output_type"], output.get("text") or output["data"]["text/plain"]) for output in answer["outputs"]]
    assert found == [("stream", "counted\n"), ("execute_result", "2")], found
    return found


def call(method, path, body=None):
    request = urllib.request.Request(URL + path, method=method, headers={"Authorization": f"token {TOKEN}"})
    request.data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or "null")


def sign_in():
    """The page's cookie, which is for this host."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with opener.open(f"{URL}/login?token={TOKEN}", timeout=60):
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)


def open_socket(path, **options):
    return websocket.create_connection(URL.replace("http", "ws", 1) + path, timeout=60, **options)


def refusal(path, **options):
    try:
        open_socket(path, **options).close()
    except websocket.WebSocketBadStatusException as refused:
        return refused.status_code
    return 101


def message(session, code):
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": session, "username": "ana",
              "version": "5.4", "date": "2026-11-29T00:00:00Z"}
    return {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "buffers": [],
            "content": {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                        "allow_stdin": False, "stop_on_error": True}}


def result(socket, sent):
    """The text of the result of a message, and the messages up to the one that says that the kernel is idle."""
    found = None
    while True:
        answer = json.loads(socket.recv())
        if answer["parent_header"].get("msg_id") != sent["header"]["msg_id"]:
            continue
        if answer["msg_type"] == "execute_result":
            found = answer["content"]["data"]["text/plain"]
        if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
            return found


def as_a_page_does():
    cookie, kernel, session = sign_in(), call("POST", "/api/kernels", {"name": "python3"})["id"], uuid.uuid4().hex
    path = f"/api/kernels/{kernel}/channels?session_id={session}"
    # With a cookie, the server compares the Origin with the Host.
    socket = open_socket(path, origin=URL, cookie=cookie)
    sent = message(session, "1 + 1")
    socket.send(json.dumps(sent))
    computed = result(socket, sent)
    # 1.5 MB in one message.
    large = message(session, f"len('{'x' * 1_500_000}')")
    socket.send(json.dumps(large))
    length = result(socket, large)
    socket.close()
    # A page of another host cannot set headers: the token is in the query.
    socket = open_socket(f"{path}&token={TOKEN}", origin=URL, subprotocols=[SUBPROTOCOL])
    chosen = socket.getsubprotocol()
    socket.close()
    refused = {
        "without a token": refusal(path, origin=URL),
        "of another page": refusal(path, origin="http://other.example", cookie=cookie),
    }
    call("DELETE", f"/api/kernels/{kernel}")
    assert (computed, length, chosen) == ("2", "1500000", SUBPROTOCOL), (computed, length, chosen)
    assert set(refused.values()) == {403}, refused
    return [computed, length, chosen, refused]


print(json.dumps([with_the_client(), as_a_page_does()]))
