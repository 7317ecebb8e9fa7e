"""The environment of the tests: the processes of the example for one combination of channel layer and cache."""

import contextlib
import itertools
import os
import sys
from pathlib import Path

import redis

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples" / "django"))

from people import PASSWORD, Person  # noqa: E402
from stack import HERE as EXAMPLE
from stack import PRESET, Stack, free_port  # noqa: E402

USERS = [f"user{number}" for number in range(64)]
# The limits of the example suit people who try it; a test of a limit fills it first.
LIMITS = {"MESSAGES_PER_HOUR": "1000", "CONNECTS_PER_MINUTE": "1000", "CONNECTIONS_PER_USER": "1000"}
HIGHER = {
    'limit = "50/1h"': 'limit = "1000/1h"',
    'limit = "10/1m"': 'limit = "1000/1m"',
    "connections_per_user = 5 ": "connections_per_user = 1000 ",
}


class World:
    """Redis, Django, a worker and a gateway with the preset, which run until the context ends."""

    person_class, queue = Person, "celery"

    def __init__(self, binary, directory, redis_url, layer, cache):
        self.binary, self.directory, self.layer, self.cache = binary, directory, layer, cache
        self.names = iter(USERS)
        self.gateways = itertools.count(1)
        settings = {"CHANNEL_LAYER": layer, "CACHE": cache, "SECRET_KEY": "tests-" + "0123456789abcdef" * 3}
        settings["DATABASE"] = str(directory.parent / "db.sqlite3")
        self.stack = Stack(sys.executable, directory, redis_url, home=self.home(), **settings, **LIMITS)
        self.secret = self.stack.settings["SECRET_KEY"]
        self.daphne_url, self.gateway_url = self.stack.django_url, self.stack.url

    def __enter__(self):
        with contextlib.ExitStack() as started:
            started.push(self.stack)
            self.stack.redis()
            self.redis(0).flushall()
            self.stack.django()
            self.worker = self.stack.worker(queue=self.queue)
            self.gateway = self.stack.gateway(self.binary, self.preset())
            started.pop_all()
        return self

    def __exit__(self, *failure):
        self.stack.__exit__(*failure)

    def home(self):
        """The directory of the backend."""
        return EXAMPLE

    def text(self):
        """The preset for this backend."""
        return PRESET.read_text()

    def environment(self):
        """The environment variables of a program that uses the backend."""
        return {**os.environ, **self.stack.settings}

    def redis(self, database):
        return redis.Redis.from_url(f"{self.stack.redis_url}/{database}")

    def person(self):
        """Signs in a user that no other test uses."""
        return self.person_class(next(self.names), self.gateway_url).sign_in(self.daphne_url)

    def preset(self, replaced={}):
        """Returns the preset with the limits of the tests, and with parts of its text replaced."""
        text = self.text()
        for old, new in {**HIGHER, **replaced}.items():
            assert old in text, f"the preset has no {old}"
            text = text.replace(old, new)
        path = self.directory / f"gateway{next(self.gateways)}.toml"
        path.write_text(text)
        return path

    @contextlib.contextmanager
    def another_gateway(self, replaced={}, wait_for="/readyz", **variables):
        """Starts another gateway with the configuration of the test, and waits until this health check succeeds."""
        name = f"gateway{next(self.gateways)}"
        config = self.preset(replaced)
        process = self.stack.gateway(self.binary, config, name, free_port(), wait_for, **variables)
        try:
            yield process
        finally:
            if process in self.stack.processes:
                self.stack.stop(process)


def database(directory, python):
    """Creates one database with all users, which all tests copy."""
    Stack(python, directory, DATABASE=str(directory / "db.sqlite3")).database(*USERS, password=PASSWORD)
