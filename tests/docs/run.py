"""Executes the documentation literally: run.py BINARY [CHROMIUM [PAGE…]]

Runs the marked blocks of each page in PAGES in order, in a fresh folder, against the real programs, and holds
what they print to what the page shows. Marks stand where a reader does not see them, after a fence's
language or in a comment:

    ```toml file=NAME          writes the file (append=NAME adds to it)
    ```console run             runs each `$ ` line (`> ` continues it) in one shell for the whole page
    ```console run background=NAME     the last one in the background, until it has printed what is shown;
                               what ran under that name before is stopped first
    ```console run output=NAME         what the one in the background prints from then on
    <!-- run stop: NAME -->    as Ctrl-C does
    <!-- run files: PAGE -->   begins with the files that this page writes
    <!-- run browser: URL "typed" "shown" -->     types into the page's #text, waits for what the page shows
                               and for no errors; with "" it only looks

Blocks may stand in a comment of their own, where readers need no word of them. A line of output may leave
out parts with `…`; lines that the page does not show may stand between those that it does. The pages' ports stand for free ones. All other Python of the documentation must at
least compile, and JavaScript where there is a Node. Needs redis-server, curl, and the package websockets.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "clients"))
sys.path.insert(0, str(ROOT / "examples"))
import browser  # noqa: E402
from free_port import free_port  # noqa: E402

PAGES = ["docs/getting-started.md", "docs/operating.md", "docs/server-api.md"]
PORTS = (8000, 8001, 8010, 9000, 9010, 6379)
DEADLINE = 30

BLOCK = re.compile(
    r"^```(?P<language>\w+)(?P<marks>[^\n]*)\n(?P<text>.*?)^```$|^<!-- run (?P<order>\w+): (?P<rest>.*?) -->$",
    re.MULTILINE | re.DOTALL,
)


def wait_for(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what()}")
        time.sleep(0.05)
    return value


class ExpectedOutput:
    """The lines of output that a page shows, in order."""

    def __init__(self, lines):
        self.lines = [line for line in lines if line.strip()]
        self.end = 0

    def missing(self, printed, at=0):
        """Returns the first line that `printed` does not have, in order, from `at` on."""
        for line in self.lines:
            parts = [re.escape(part.strip()) for part in line.split("…")]
            found = re.compile("[^\n]*?".join(parts)).search(printed, at)
            if found is None:
                return line
            at = found.end()
        self.end = at
        return None


def commands(text):
    """Yields each command of a console block with the lines of output below it."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (found[-1][0] + "\n" + line[2:], [])
        elif found:
            found[-1][1].append(line)
    return found


class Session:
    """One page's folder, shell and programs."""

    def __init__(self, folder, binary, chromium):
        self.folder, self.chromium = folder, chromium
        self.ports = {port: free_port() for port in PORTS}
        self.running = {}
        self.read = {}  # how far a page has read what these have printed
        path = os.pathsep.join([str(binary.parent), str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
        environment = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        self.shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, bufsize=1, start_new_session=True,
        )

    def here(self, text):
        """Returns the text with the ports of this session."""
        for port, free in self.ports.items():
            text = re.sub(rf"(?<=[:\s]){port}(?!\d)", str(free), text)
            text = text.replace(f'("127.0.0.1", {port})', f'("127.0.0.1", {free})')
        if re.search(r"tidegate demo$", text):
            text += f" --listen 127.0.0.1:{self.ports[8000]} --admin 127.0.0.1:{self.ports[9000]}"
        return text

    def write(self, name, text, mode):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(("\n" if mode == "a" else "") + self.here(text))

    def files(self, page):
        for block in BLOCK.finditer((ROOT / page).read_text()):
            if name := re.search(r"\bfile=(\S+)", block["marks"] or ""):
                self.write(name[1], block["text"], "w")

    def run(self, command):
        """Runs a command and returns its output. If it fails, the page is wrong."""
        mark = f"end of the command {time.monotonic_ns()}"
        self.shell.stdin.write(f"{command}\nprintf '\\n%s %s\\n' '{mark}' \"$?\"\n")
        lines = []
        for line in self.shell.stdout:
            if line.startswith(mark):
                code = int(line.split()[-1])
                printed = "".join(lines)
                assert code == 0, f"exit code {code} of: {command}\n{printed}"
                return printed
            lines.append(line)
        raise SystemExit(f"the shell ended in: {command}\n{''.join(lines)}")

    def foreground(self, text):
        for command, output in commands(text):
            printed = self.run(self.here(command))
            missing = ExpectedOutput(self.here(line) for line in output).missing(printed)
            assert missing is None, f"{command}\ndid not print\n{missing}\nbut\n{printed}"

    def background(self, name, text):
        self.stop(name)
        *before, (command, output) = commands(text)
        for earlier, _ in before:
            self.run(self.here(earlier))
        log = self.folder / f".{name}.log"
        log.write_text("")
        self.read[name] = 0
        started = self.run(f"{{ {self.here(command)}\n}} >{shlex.quote(str(log))} 2>&1 & echo $!")
        process = int(started.split()[-1])
        self.running[name] = (process, log, command)
        self.await_output(name, output)

    def await_output(self, name, output):
        process, log, _ = self.running[name]
        expected = ExpectedOutput(self.here(line) for line in output)

        def complete():
            ended = not alive(process)  # looked at first: it may print its last at its end
            if expected.missing(log.read_text(), self.read[name]) is None:
                return True
            if ended:
                raise SystemExit(f"{name} has ended without {missing()}")
            return False

        def missing():
            return f"{expected.missing(log.read_text(), self.read[name])} of {name}:\n{log.read_text()}"

        wait_for(complete, missing)
        self.read[name] = expected.end

    def stop(self, name):
        if name not in self.running:
            return
        process, log, command = self.running.pop(name)
        ended_by_itself = not alive(process)
        # The child of the shell may be another shell that waits for the program.
        for child in children(process) or [process]:
            interrupt(child, signal.SIGTERM)
        code = int(self.run(f"wait {process}; echo $?").split()[-1])
        good = (0,) if "tidegate" in command else (0, 128 + signal.SIGTERM)
        assert ended_by_itself or code in good, f"{name} ended with {code}:\n{log.read_text()}"

    def browse(self, rest):
        url, typed, expected = shlex.split(self.here(rest))
        if self.chromium is None:
            return print(f"   SKIPPED: no Chromium for {url}")
        # Chromium's child processes may still write to the profile after their parent has exited.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            process = subprocess.Popen(
                [self.chromium, *browser.FLAGS, f"--user-data-dir={profile}", "about:blank"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            try:
                page = browser.open_page(browser.devtools(profile, process))
                page.call("Page.navigate", url=url)
                if typed:
                    page.wait_for("document.querySelector('#state')?.textContent === 'connected'")
                    page.evaluate("document.querySelector('#text').focus()")
                    page.call("Input.insertText", text=typed)
                    page.evaluate("document.querySelector('#form button').click()")
                page.wait_for(f"document.body?.innerText.includes({json.dumps(expected)})")
                # Chromium logs a request that is refused.
                assert not (typed and page.errors), page.errors
                page.socket.close()
            finally:
                process.terminate()
                process.wait()

    def end(self):
        for name in reversed(list(self.running)):
            self.stop(name)
        self.shell.stdin.close()
        self.shell.wait(DEADLINE)

    def kill(self):
        """Kills what is still running: the shell and its children are a process group of their own."""
        try:
            os.killpg(self.shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def alive(process):
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children(process):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def interrupt(process, number):
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def follow(page, session):
    done = 0
    for block in BLOCK.finditer(page):
        if order := block["order"]:
            step = {"stop": session.stop, "files": session.files, "browser": session.browse}[order]
            print(f"   {order}: {block['rest']}", flush=True)
            step(block["rest"])
        else:
            marks = dict((mark.split("=", 1) + [""])[:2] for mark in block["marks"].split())
            text = block["text"]
            if "file" in marks:
                session.write(marks["file"], text, "w")
            elif "append" in marks:
                session.write(marks["append"], text, "a")
            elif "run" not in marks:
                continue
            elif "output" in marks:
                session.await_output(marks["output"], text.splitlines())
            else:
                print("  ", text.splitlines()[0], flush=True)
                if "background" in marks:
                    session.background(marks["background"], text)
                else:
                    session.foreground(text)
        done += 1
    return done


def compile_all():
    """Compiles the code that is shown but not run."""
    node, count = shutil.which("node"), 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in BLOCK.finditer(path.read_text()):
            if block["language"] == "python":
                compile(block["text"], f"{path.name}: {block['text'].splitlines()[0]}", "exec")
            elif block["language"] == "js" and node:
                check = [node, "--input-type=module", "--check"]
                subprocess.run(check, input=block["text"], text=True, check=True)
            else:
                continue
            count += 1
    print(f"ok: {count} blocks of code compile", flush=True)


def main():
    compile_all()
    binary = pathlib.Path(sys.argv[1]).resolve()
    chromium = sys.argv[2] or None if len(sys.argv) > 2 else None
    pages = sys.argv[3:] or PAGES
    for name in pages:
        print(name, flush=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            session = Session(pathlib.Path(folder), binary, chromium)
            try:
                done = follow((ROOT / name).read_text(), session)
                session.end()
            finally:
                session.kill()
        assert done, f"{name} has nothing to run"
        print(f"ok: {done} blocks of {name}", flush=True)


if __name__ == "__main__":
    main()
