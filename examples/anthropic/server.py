#!/usr/bin/env python3
"""A small server that is compatible with Anthropic's Messages API, without a model: it repeats what it is asked.

    server.py PORT
"""

import http.server
import json
import sys
import time


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/messages":
            return self.refuse(404, "not_found_error", f"there is no {self.path}")
        if not self.headers.get("x-api-key") and not self.headers.get("Authorization"):
            return self.refuse(401, "authentication_error", "x-api-key header is required")
        if not self.headers.get("anthropic-version"):
            return self.refuse(400, "invalid_request_error", "anthropic-version: header is required")
        if not body.get("stream"):
            return self.refuse(400, "invalid_request_error", "this server only streams")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.stream(body)
        self.wfile.write(b"0\r\n\r\n")

    def stream(self, body):
        asked = body["messages"][-1]["content"]
        asked = asked if isinstance(asked, str) else asked[-1]["text"]
        words = f"You said: {asked}".split(" ")
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [],
            "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": len(asked.split()), "output_tokens": 1},
        }
        self.send("message_start", message=message)
        self.send("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for at, word in enumerate(words):
            time.sleep(0.05)
            text = word if at == 0 else f" {word}"
            self.send("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        self.send("content_block_stop", index=0)
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        self.send("message_delta", delta=delta, usage={"output_tokens": len(words)})
        self.send("message_stop")

    def send(self, event, **fields):
        data = f"event: {event}\ndata: {json.dumps({'type': event, **fields})}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def refuse(self, status, kind, message):
        data = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
