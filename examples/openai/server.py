#!/usr/bin/env python3
"""A small server that is compatible with OpenAI's Chat Completions, without a model: it repeats what it is asked.

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
        if self.path != "/v1/chat/completions":
            return self.refuse(404, "invalid_request_error", f"there is no {self.path}")
        if not self.headers.get("Authorization", "").startswith("Bearer "):
            return self.refuse(401, "invalid_api_key", "no API key was sent")
        if not body.get("stream"):
            return self.refuse(400, "invalid_request_error", "this server only streams")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.stream(body)

    def stream(self, body):
        asked = body["messages"][-1]["content"]
        words = f"You said: {asked}".split(" ")
        self.send(body, {"role": "assistant", "content": ""})
        for at, word in enumerate(words):
            time.sleep(0.05)
            self.send(body, {"content": word if at == 0 else f" {word}"})
        self.send(body, {}, finish="stop")
        if (body.get("stream_options") or {}).get("include_usage"):
            count = {"prompt_tokens": len(asked.split()), "completion_tokens": len(words)}
            self.send(body, usage={**count, "total_tokens": sum(count.values())})
        self.write("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def send(self, body, delta=None, finish=None, usage=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": int(time.time()), "model": body["model"],
            "choices": [] if usage else [choice], "usage": usage,
        }
        self.write(f"data: {json.dumps(chunk)}\n\n")

    def write(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def refuse(self, status, code, message):
        data = json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
