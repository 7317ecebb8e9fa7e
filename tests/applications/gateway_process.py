"""A process of the gateway that is ready, with its addresses and its log."""

import json
import urllib.request


class GatewayProcess:
    def __init__(self, binary, config, stack, **variables):
        path = stack.folder / "gateway.toml"
        path.write_text(config)
        self.process = stack.start("gateway", [binary, "serve", "--config", path], stack.folder, **variables)
        listening = self.process.until(self.listening, "listening address")
        self.public, self.admin = listening["public"], f"http://{listening['admin']}"
        self.process.until(self.is_ready, "readiness")

    def events(self):
        lines = self.process.read_log().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def listening(self):
        return next((event for event in self.events() if event.get("event") == "listening"), None)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"{self.admin}/readyz", timeout=5):
                return True
        except OSError:
            return False
