"""Installs packages from PyPI and npm in folders of the cache, unless they are there."""

import shutil
import subprocess
import sys


def installed(folder, wanted, install):
    """Installs into a folder, unless what is `wanted` is there."""
    mark = folder / "installed"
    if not mark.is_file() or mark.read_text() != wanted:
        print(f"Installing in {folder}", flush=True)
        mark.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        install(folder)
        mark.write_text(wanted)
    return folder


def python(folder, requirements):
    """A virtual environment with the packages of a requirements file."""
    def install(folder):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # Most of the modules are never imported, so compiling all of them takes longer than it saves.
        subprocess.run([*pip, "--no-compile", "-r", requirements], check=True)

    return installed(folder, requirements.read_text(), install)


def node(folder, package):
    """A folder with the packages of a package.json."""
    def install(folder):
        shutil.copy(package, folder)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder]
        subprocess.run(npm, check=True)

    return installed(folder, package.read_text(), install)
