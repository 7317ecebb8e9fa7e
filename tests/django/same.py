"""Runs one client script against Daphne and against the gateway: the client must receive the same.

The differences that remain are the ones of docs/migrate-from-django-channels.md, and are written down here.
"""

import json

from people import DEADLINE, events
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

# Fields that only the gateway adds; a client that does not know them can ignore them.
MORE = {"connection_id", "user_id", "epoch", "offset", "recovered", "missed", "code", "id", "retry_after"}
# The values of these fields differ from one run to the next.
ANY = {"timestamp", "task_id"}


def comparable(frame):
    return {name: type(value).__name__ if name in ANY else value for name, value in frame.items() if name not in MORE}


def transcript(person, url, conversation):
    """Yields ("step", frames) with everything that one client receives in each step."""
    steps = []

    def step(name, *frames):
        steps.append((name, [comparable(frame) for frame in frames]))

    with person.chat(url, conversation) as chat:
        step("connected", chat.connected)
        step("ping", chat.send_and_receive({"type": "ping"}))
        step("a ping that has a message", chat.send_and_receive({"type": "ping", "message": "not a message"}))
        step("message", chat.send_message("  Hello, Café 🚀\u00a0\n"), *chat.reply())
        step("image", chat.send_message("Look", image_url="https://images.example/1.png"), *chat.reply())
        step("tool", chat.send_message("/project"), *chat.reply())
        step("many", chat.send_message("/words 50"), *chat.reply())
        step("empty", chat.send_message("\u3000 "))
        step("no message", chat.send_and_receive({}))
        step("not JSON", chat.send_and_receive("{"))
        step("not an object", chat.send_and_receive("[1]"))
        step("not a string", chat.send_and_receive({"message": 5}))
        step("still open", chat.send_and_receive({"type": "ping"}))
    return steps


def test_the_same_frames(world):
    person = world.person()
    ours = transcript(person, world.gateway_url, "same")
    theirs = transcript(person, world.daphne_url, "same")
    for (name, one), (_, other) in zip(ours, theirs, strict=True):
        expected = [{**frame, **DIFFERENT.get(name, {})} for frame in other]
        assert one == expected, f"{name}: the gateway sends\n{one}\nand Daphne\n{other}"


def avatar(person, url, conversation):
    with person.chat(url, conversation) as chat:
        return [
            chat.connected,
            chat.send_message("A cat"),
            chat.send_message("A cat", session_id=7, reference_image_url="https://images.example/2.png"),
            *chat.reply("avatar_generated"),
            # Django takes the id as text as well.
            chat.send_message("A dog", session_id="8"),
            *chat.reply("avatar_generated"),
        ]


def test_conversations_that_are_answered_by_another_task(world):
    person = world.person()
    ours, theirs = (
        [comparable(frame) for frame in avatar(person, url, "avatar-1764500000000")]
        for url in (world.gateway_url, world.daphne_url)
    )
    assert theirs[1].pop("error") == "session_id is required for avatar generation", theirs
    assert ours[1].pop("error") == "session_id is required", ours
    assert ours == theirs, (ours, theirs)


def health(url):
    with connect(f"{url.replace('http', 'ws', 1)}/ws/health/", open_timeout=DEADLINE) as socket:
        frames = [json.loads(socket.recv(timeout=DEADLINE))]
        try:
            frames.append(socket.recv(timeout=DEADLINE))
        except ConnectionClosed as closed:
            return frames, closed.rcvd.code


def test_the_health_socket(world):
    ours, theirs = health(world.gateway_url), health(world.daphne_url)
    assert ours == theirs == ([{"status": "ok", "message": "WebSocket healthy"}], 1000), (ours, theirs)


def test_the_backend_finds_the_gateways_tasks(world):
    """Tasks are in the set that both write, or in the list, where the cache stores JSON."""
    person = world.person()

    def rest():
        answer = person.request(f"{world.daphne_url}/api/v1/chat/tasks/", {"message": "/words 0"})
        assert answer.status == 202, answer

    with person.chat(world.gateway_url, "tasks") as chat:
        for send in (rest, lambda: chat.send_message("/words 0"), rest, lambda: chat.send_message("/words 0")):
            send()
            assert events(chat.reply())[-1] == "completed"
    answer = person.request(f"{world.daphne_url}/api/v1/chat/tasks/clear/", {})
    assert answer.json == {"revoked": 4}, answer


# The steps in which a frame of the gateway differs, and how.
NO_TEXT = {"error": '"message" must be a non-empty string'}
DIFFERENT = {
    "empty": NO_TEXT,
    "no message": NO_TEXT,
    "not JSON": {"error": "the frame is not JSON"},
    "not an object": {"error": "the frame is not a JSON object"},
    "not a string": NO_TEXT,
}
