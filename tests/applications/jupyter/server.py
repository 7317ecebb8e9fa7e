"""Jupyter Server with its own token, as `jupyter server` starts it."""

import os
import sys

os.execv(sys.executable, [
    sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser",
    "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={os.environ['PORT']}", "--ServerApp.port_retries=0",
    "--IdentityProvider.token=jupyter-token", f"--ServerApp.root_dir={os.getcwd()}",
])
