"""Configuration and secrets mounted by Kubernetes are reloaded when they change: mounted.py BINARY

A kubelet renews a ConfigMap's or Secret's folder by another folder beside it, and by turning one link to it.
"""

import os
import re
import sys
import urllib.error
import urllib.request

from parts import Gateway, directory, eventually

CONFIG = """
[reload]
watch = "100ms"
[admin]
api_keys_file = "{secrets}/api-keys"
[[route]]
path = "/health"
reply = '{{"said":"{reply}"}}'
[[route]]
path = "/ws/{{room}}/"
channel = "room_{{room}}"
upstream = ""
auth = ["anonymous"]
"""


class Volume:
    """A volume as a kubelet writes it: NAME → ..data/NAME, ..data → ..<time>."""

    def __init__(self, path):
        self.path, self.version = path, 0
        path.mkdir()

    def renew(self, name, text):
        self.version += 1
        folder = self.path / f"..{self.version}"
        folder.mkdir()
        (folder / name).write_text(text)
        turned = self.path / "..data_tmp"
        turned.symlink_to(folder.name)
        os.rename(turned, self.path / "..data")
        if not (self.path / name).is_symlink():
            (self.path / name).symlink_to(f"..data/{name}")


def reply(gateway):
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.public}/health", timeout=5) as answer:
        return answer.read().decode()


def api_answers(gateway, key):
    publication = b'{"channel":"room_1","data":{"event":"hello"}}'
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{gateway.admin_url}/v1/publish", publication, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def reload_succeeded(gateway):
    with urllib.request.urlopen(f"{gateway.admin_url}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return re.search(r"^tidegate_config_last_reload_successful (\d)", text, re.MULTILINE).group(1) == "1"


def main():
    binary = os.path.abspath(sys.argv[1])
    with directory() as folder:
        secrets, config = Volume(folder.path / "secrets"), Volume(folder.path / "config")
        secrets.renew("api-keys", "a" * 32)
        config.renew("gateway.toml", CONFIG.format(secrets=secrets.path, reply="one"))
        gateway = Gateway(folder, "gateway", binary, config.path / "gateway.toml")
        assert "one" in reply(gateway) and api_answers(gateway, "a" * 32) == 200

        config.renew("gateway.toml", CONFIG.format(secrets=secrets.path, reply="two"))
        eventually(lambda: "two" in reply(gateway), "the new ConfigMap is taken up")
        print("ok: a ConfigMap that changes")

        secrets.renew("api-keys", "b" * 32)
        eventually(lambda: api_answers(gateway, "b" * 32) == 200, "the new Secret is taken up")
        assert api_answers(gateway, "a" * 32) in (401, 403)
        print("ok: a Secret that changes")

        config.renew("gateway.toml", CONFIG.format(secrets=secrets.path, reply="three") + "[nonsense]\n")
        eventually(lambda: not reload_succeeded(gateway), "the mistake is told")
        assert "two" in reply(gateway)
        config.renew("gateway.toml", CONFIG.format(secrets=secrets.path, reply="three"))
        eventually(lambda: "three" in reply(gateway) and reload_succeeded(gateway), "it was put right")
        print("ok: a mistake changes nothing, and is told of")


if __name__ == "__main__":
    main()
