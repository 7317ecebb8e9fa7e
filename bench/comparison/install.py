"""Installs what registries offer of the peers, below the cache directory. The system stays as it is.

Each function returns nothing, or raises `Failed` with the reason why the peer is absent.
"""

import os
import re
import shutil
import subprocess
import sys

from .machine import CACHE, Failed

ROOT = CACHE / "root"
NODE = CACHE / "node"
VENV = CACHE / "venv"
GO = CACHE / "go"
PYTHON_PACKAGES = ["socketify", "django", "channels", "channels_redis", "daphne", "uvicorn[standard]", "redis[hiredis]"]
DEADLINE = 900


def run(command, **options):
    """Runs a command, and raises `Failed` with its last line if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: {error}") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failed(f"{os.path.basename(command[0])}: {' '.join(lines[-1].split()) if lines else 'failed'}")
    return done.stdout


def debian(*names):
    """Unpacks Debian packages and what they depend on and the system does not have."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Failed("the package is one of Debian")
    marker = ROOT / "-".join(names)
    if marker.exists():
        return
    plan = run(["apt-get", "install", "--print-uris", "--yes", "--no-install-recommends", *names])
    packages = sorted({*re.findall(r"/([^/_']+)_[^/']*\.deb'", plan), *names})
    directory = CACHE / "debs"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    run(["apt-get", "download", "--quiet", *packages], cwd=directory)
    for package in directory.glob("*.deb"):
        run(["dpkg-deb", "-x", str(package), str(ROOT)])
    shutil.rmtree(directory)
    marker.touch()


def libraries():
    """Returns the environment in which unpacked programs find their libraries and each other."""
    folders = [str(folder) for folder in (ROOT / "usr/lib").glob("*-linux-gnu*")]
    return {"LD_LIBRARY_PATH": ":".join(folders), "PATH": f"{ROOT}/usr/bin:{os.environ['PATH']}"}


def node():
    if not shutil.which("npm"):
        raise Failed("npm is not installed")
    if not (NODE / "node_modules/ioredis").is_dir():
        NODE.mkdir(parents=True, exist_ok=True)
        run(["npm", "install", "--no-fund", "--no-audit", "--prefix", str(NODE), "ws", "ioredis"])


def python():
    if (VENV / "installed").exists():
        return
    run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    run([str(VENV / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", *PYTHON_PACKAGES])
    (VENV / "installed").touch()


def go(package, binary):
    """Compiles a Go program from the module proxy."""
    if (GO / binary).exists():
        return
    compiler = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if not compiler:
        raise Failed("Go is not installed")
    environment = {**os.environ, "GOBIN": str(GO), "GOTOOLCHAIN": "auto"}
    run([compiler, "install", f"{package}@latest"], env=environment)


def python_version(package):
    """Returns the version of a package in the virtual environment."""
    found = run([str(VENV / "bin/python"), "-c", f"from importlib.metadata import version; print(version({package!r}))"])
    return found.strip()
