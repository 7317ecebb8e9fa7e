"""One script for a client, run against Daphne and against the gateway: what it sees must be the same.

The differences that remain are the ones of docs/migrate-from-django-channels.md, and are written down here.
"""

from people import until

# What the gateway says more than the consumer; a client that does not know them is not disturbed.
MORE = {"connection_id", "user_id", "epoch", "offset", "recovered", "missed", "code", "id", "retry_after"}
# They differ from one run to the next.
ANY = {"timestamp", "task_id"}


def seen(frame):
    return {name: type(value).__name__ if name in ANY else value for name, value in frame.items() if name not in MORE}


def transcript(person, url, conversation):
    """Everything that one client sees; ("step", frames) for each step."""
    steps = []

    def step(name, *frames):
        steps.append((name, [seen(frame) for frame in frames]))

    with person.chat(url, conversation) as chat:
        step("connected", chat.connected)
        step("ping", chat.ask({"type": "ping"}))
        step("a ping that has a message", chat.ask({"type": "ping", "message": "not a message"}))
        step("message", chat.say("  Hello, Café 🚀\u00a0\n"), *chat.reply())
        step("image", chat.say("Look", image_url="https://images.example/1.png"), *chat.reply())
        step("tool", chat.say("/project"), *chat.reply())
        step("many", chat.say("/words 50"), *chat.reply())
        step("empty", chat.say("\u3000 "))
        step("no message", chat.ask({}))
        step("not JSON", chat.ask("{"))
        step("not an object", chat.ask("[1]"))
        step("not a string", chat.ask({"message": 5}))
        step("still open", chat.ask({"type": "ping"}))
    return steps


def test_the_same_frames(world):
    person = world.person()
    ours = transcript(person, world.gateway_url, "same")
    theirs = transcript(person, world.daphne_url, "same")
    for (name, one), (_, other) in zip(ours, theirs, strict=True):
        expected = [{**frame, **DIFFERENT.get(name, {})} for frame in other]
        assert one == expected, f"{name}: the gateway sends\n{one}\nand Daphne\n{other}"


# The step, and what the gateway's frame has otherwise.
DIFFERENT = {}
