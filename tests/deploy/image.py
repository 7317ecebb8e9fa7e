"""Runs the files of the image as a container engine would: image.py ROOT

ROOT is what `scripts/build-static root` has made. The gateway runs with nothing but that tree, read-only, and a folder
with its configuration; as user 65532, without capabilities. Needs root, for chroot and a mount namespace.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

from parts import answers, directory, free_port

BINARY = "/usr/local/bin/tidegate"
FILES = {
    "etc/group",
    "etc/passwd",
    "etc/ssl/certs/ca-certificates.crt",
    BINARY.lstrip("/"),
}
CONFIG = """
[server]
listen = "0.0.0.0:{public}"
[admin]
listen = "0.0.0.0:{admin}"
[shutdown]
drain = "100ms"
[[route]]
path = "/health"
reply = '{{"status":"ok"}}'
[[route]]
path = "/ws/{{room}}/"
channel = "room_{{room}}"
upstream = ""
auth = ["anonymous"]
"""


def contained(root, config, *arguments):
    """A command that runs the binary in the tree with `arguments`, as a container engine would with --read-only."""
    script = """
        mount --bind "$1" "$1"
        mount --bind "$2" "$1/etc/tidegate"
        mount --options remount,bind,ro "$1/etc/tidegate"
        mount --options remount,bind,ro "$1"
        root=$1
        shift 2
        exec chroot --userspec=65532:65532 --groups= "$root" "$@"
    """
    return ["unshare", "--mount", "sh", "-euc", script, "sh", root, config, BINARY, *arguments]


def status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert found == FILES, found ^ FILES
    size = (root / BINARY.lstrip("/")).stat().st_size
    with directory() as folder:
        config = folder.path / "config"
        config.mkdir()
        public, admin = free_port(), free_port()
        (config / "gateway.toml").write_text(CONFIG.format(public=public, admin=admin))

        def ask(*arguments):
            environment = {"TIDEGATE__ADMIN__LISTEN": f"0.0.0.0:{admin}", "PATH": os.environ["PATH"]}
            command = contained(root, config, *arguments)
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

        version = ask("--version")
        assert version.returncode == 0 and "release" in version.stdout, version
        before = ask("health")
        assert before.returncode == 1, before

        command = contained(root, config, "serve", "--config", "/etc/tidegate/gateway.toml")
        gateway = folder.start("gateway", command)
        gateway.until(lambda: answers(f"http://127.0.0.1:{admin}/readyz"))
        with urllib.request.urlopen(f"http://127.0.0.1:{public}/health", timeout=5) as answer:
            assert json.load(answer) == {"status": "ok"}
        # The command of the image's HEALTHCHECK.
        health = ask("health", "--config", "/etc/tidegate/gateway.toml")
        assert health.returncode == 0 and health.stdout.startswith("ready"), health
        found = status(gateway.pid)
        assert found["Uid"].split() == ["65532"] * 4 and found["Gid"].split() == ["65532"] * 4, found
        assert found["CapEff"] == "0" * 16, found
        assert ask("check", "--config", "/etc/tidegate/gateway.toml").returncode == 0

        folder.started.remove(gateway)
        gateway.signal(signal.SIGTERM)
        until = time.monotonic() + 20
        while gateway.popen.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        code = gateway.stop()
        assert code == 0, f"{code}\n{gateway.read_log()}"
    print(f"ok: {version.stdout.strip()}, {size / 1e6:.1f} MB, runs alone, read-only, as 65532, and stops when told to")


if __name__ == "__main__":
    main()
