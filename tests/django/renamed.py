"""The guide's table, line by line: a backend whose names all differ from the example's, and the preset adapted to it."""

import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import jwt

import same
from people import Person, events, until
from stack import HERE as EXAMPLE
from world import World

# What is renamed in the backend's files.
BACKEND = {
    "ws/chat/<str:conversation_id>": "ws/support/<str:ticket>",
    '["kwargs"]["conversation_id"]': '["kwargs"]["ticket"]',
    '"connected", conversation_id=': '"connected", ticket=',
    "chat_{conversation_id}": "ticket.{conversation_id}",
    'removeprefix("chat_")': 'removeprefix("ticket.")',
    "chat.message": "desk.event",
    "chat_message(": "desk_event(",
    'send("completed"': 'send("complete"',
    "ws_conn_token": "socket_token",
    "conversation_tasks:": "running:",
    "rate_limit:messages:user:": "quota:sent:",
    "ws_rate:user:": "quota:opened:",
    "session:version:": "logins:",
    "session_version": "login_number",
    '"access_token"': '"session_jwt"',
    'token["user_id"]': 'token["uid"]',
    '"ALGORITHM": "HS256",': '"ALGORITHM": "HS512", "USER_ID_CLAIM": "uid",',
    '"CACHE_KEY_PREFIX", "app"': '"CACHE_KEY_PREFIX", "office"',
    '"VERSION": 1': '"VERSION": 3',
    '"CHANNELS_PREFIX", "asgi"': '"CHANNELS_PREFIX", "support"',
    '"capacity": 1500': '"capacity": 700',
    '"expiry": 10': '"expiry": 20',
    "{REDIS_URL}/2": "{REDIS_URL}/5",
    "{REDIS_URL}/3": "{REDIS_URL}/6",
    'CELERY_BROKER_URL = f"{REDIS_URL}/0"': 'CELERY_BROKER_URL = f"{REDIS_URL}/7"',
    'CELERY_RESULT_BACKEND = f"{REDIS_URL}/0"': 'CELERY_RESULT_BACKEND = f"{REDIS_URL}/8"',
    "CELERY_TASK_TIME_LIMIT = 300": 'CELERY_TASK_TIME_LIMIT = 300\nCELERY_TASK_DEFAULT_QUEUE = "replies"',
    "from chat": "from desk",
    '"chat.authentication': '"desk.authentication',
    '    "chat",': '    "desk",',
}
# What the guide's table says about each of them.
GATEWAY = {
    'url = "${REDIS_URL}/2"': 'url = "${REDIS_URL}/5"',
    'hosts = ["${REDIS_URL}/3"]': 'hosts = ["${REDIS_URL}/6"]',
    'prefix = "asgi"': 'prefix = "support"',
    "capacity = 1500": "capacity = 700",
    'expiry = "10s"': 'expiry = "20s"',
    'types = ["chat.message"]': 'types = ["desk.event"]',
    'key_prefix = "app:1:ws_conn_token:"': 'key_prefix = "office:3:socket_token:"',
    'binding = "chat-{conversation_id}-*"': 'binding = "desk:{ticket}:*"',
    'alg = "HS256"': 'alg = "HS512"',
    'cookie = "access_token"': 'cookie = "session_jwt"',
    'user_claim = "user_id"': 'user_claim = "uid"',
    'claim = "session_version", key = "app:1:session:version:{user_id}"': (
        'claim = "login_number", key = "office:3:logins:{user_id}"'
    ),
    'path = "/ws/chat/{conversation_id}/"': 'path = "/ws/support/{ticket}/"',
    'channel = "chat_{conversation_id}"': 'channel = "ticket.{ticket}"',
    '"app:1:rate_limit:messages:user:{user_id}"': '"office:3:quota:sent:{user_id}"',
    '"app:1:ws_rate:user:{user_id}"': '"office:3:quota:opened:{user_id}"',
    'broker_url = "${REDIS_URL}/0"': 'broker_url = "${REDIS_URL}/7"',
    'result_backend_url = "${REDIS_URL}/0"': 'result_backend_url = "${REDIS_URL}/8"',
    'queue = "celery"': 'queue = "replies"',
    'task = "chat.tasks.process_chat_message_task"': 'task = "desk.tasks.process_chat_message_task"',
    'task = "chat.tasks.process_avatar_generation_task"': 'task = "desk.tasks.process_avatar_generation_task"',
    '"app:1:conversation_tasks:{conversation_id}"': '"office:3:running:{ticket}"',
    'conversation_id = "{conversation_id}"': 'conversation_id = "{ticket}"',
    'channel = "chat_avatar-*"': 'channel = "ticket.avatar-*"',
}


class Agent(Person):
    path, cookie_name, connection_id = "/ws/support", "session_jwt", "desk:{}:{}"


class RenamedWorld(World):
    person_class, queue = Agent, "replies"

    def home(self):
        home = self.directory / "backend"
        shutil.copytree(EXAMPLE, home, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3"))
        (home / "chat").rename(home / "desk")
        files = {path: path.read_text() for path in home.rglob("*.py")}
        for old, new in BACKEND.items():
            assert any(old in text for text in files.values()), f"the example has no {old}"
            files = {path: text.replace(old, new) for path, text in files.items()}
        for path, text in files.items():
            path.write_text(text)
        return home

    def text(self):
        text = super().text()
        for old, new in GATEWAY.items():
            assert old in text, f"the preset has no {old}"
            text = text.replace(old, new)
        return text


def test_the_adapted_preset_has_no_names_of_the_example(world):
    text = world.text()
    names = ["app:1", '"chat_', "/ws/chat", "{conversation_id}", "access_token", 'queue = "celery"', '"chat.']
    for name in names + [f"${{REDIS_URL}}/{number}" for number in (0, 2, 3)]:
        assert name not in text, name


def test_the_same_frames_under_other_names(world):
    same.test_the_same_frames(world)
    same.test_conversations_that_are_answered_by_another_task(world)


def ended(world):
    """How many replies the gateway no longer waits for."""
    with urllib.request.urlopen(f"{world.gateway.admin_url}/metrics") as page:
        counts = re.findall(r"^tidegate_generations_total{.*} (\d+)", page.read().decode(), re.MULTILINE)
    return sum(map(int, counts))


def test_one_complete(world):
    """The worker says complete, and the result says SUCCESS."""
    person, before = world.person(), ended(world)
    with person.chat(world.gateway_url, "ends") as chat, person.chat(world.gateway_url, "ends") as tab:
        ids = []
        for _ in range(2):
            ids.append(chat.queue("/words 3")["task_id"])
            for each in (chat, tab):
                assert events(each.reply()) == ["processing_started", *["chunk"] * 3, "complete"]
        until(lambda: all(world.redis(8).exists(f"celery-task-meta-{id}") for id in ids), "the results")
        until(lambda: ended(world) == before + 2, "the ends of the replies")
        for each in (chat, tab):
            each.expect_nothing()


def test_tokens_and_their_binding(world):
    person = world.person()
    token = person.token(world.daphne_url, "token")
    assert world.redis(5).exists(f"office:3:socket_token:{token}")
    with person.chat(world.gateway_url, "token", connection_token=token):
        pass
    assert person.refusal(world.gateway_url, "token", connection_token=token) == 401
    token = person.token(world.daphne_url, "token")
    assert person.refusal(world.gateway_url, "another", connection_token=token) == 403


def test_sessions_and_their_version(world):
    person = world.person()
    now = int(time.time())
    session = {"token_type": "access", "exp": now + 900, "iat": now, "jti": "0" * 32, "uid": str(person.id)}

    def signed(**more):
        return {"cookie": jwt.encode({**session, **more}, world.secret, "HS512")}

    for url in (world.daphne_url, world.gateway_url):
        with person.chat(url, "session", **signed(login_number=0)):
            pass
    answer = person.request(f"{world.daphne_url}/api/v1/auth/sign-out-everywhere/", {})
    assert answer.status == 204, answer
    assert int(world.redis(5).get(f"office:3:logins:{person.id}")) == 1
    assert person.refusal(world.gateway_url, "session", **signed(login_number=0)) == 401
    with person.chat(world.gateway_url, "session", **signed(login_number=1)):
        pass


def test_counters_and_task_ids(world):
    person = world.person()
    sent, opened = (f"office:3:quota:{name}:{person.id}" for name in ("sent", "opened"))
    for number, url in enumerate((world.daphne_url, world.gateway_url), start=1):
        with person.chat(url, "counts") as chat:
            chat.queue("/words 0")
            chat.reply()
        assert [int(world.redis(5).get(key)) for key in (sent, opened)] == [number, number], url
    answer = person.request(f"{world.daphne_url}/api/v1/chat/counts/clear/", {})
    assert answer.json == {"revoked": 2}, answer


def test_what_the_guide_says_about_check(world):
    """The preset's own line of the table that cannot be seen in a reply: its routes and its warnings."""
    config = world.preset()
    environment = {**world.environment(), "DJANGO_URL": world.daphne_url, "ORIGIN": world.gateway_url}
    environment["CHANNELS_WIRE"] = {"core": "channels-core", "pubsub": "channels-pubsub"}[world.layer]
    command = [Path(world.binary).resolve(), "check", "--config", config]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert checked.stdout == f"{config}: ok, 2 routes (1 with a fixed reply), 1 upstream\n", checked


