"""Who may connect: Django's tokens and cookies, the gateway's tokens, and limits that both count."""

import re
import time

import jwt

from people import events, until


def counter(world, name):
    """Returns a counter of Django's cache, as its bytes in Redis."""
    return f"app:1:{name}"


def test_a_token_of_django_works_once(world):
    person = world.person()
    token = person.token(world.daphne_url, "once")
    with person.chat(world.gateway_url, "once", connection_token=token) as chat:
        assert chat.connected["conversation_id"] == "once", chat.connected
        assert chat.connected["user_id"] in (person.id, str(person.id)), chat.connected
    assert person.refusal(world.gateway_url, "once", connection_token=token) == 401
    # Daphne does not accept it any more either, and vice versa.
    assert person.refusal(world.daphne_url, "once", connection_token=token) == 403
    token = person.token(world.gateway_url, "once")
    with person.chat(world.daphne_url, "once", connection_token=token):
        assert person.refusal(world.gateway_url, "once", connection_token=token) == 401


def test_a_bad_token_is_no_better_for_a_good_cookie(world):
    person = world.person()
    bad = {"connection_token": "A" * 43, "cookie": person.cookies["access_token"]}
    assert person.refusal(world.daphne_url, "bad", **bad) == 403
    assert person.refusal(world.gateway_url, "bad", **bad) == 401


def test_a_token_fits_only_its_conversation(world):
    person = world.person()
    token = person.token(world.daphne_url, "mine")
    assert person.refusal(world.gateway_url, "other", connection_token=token) == 403


def test_a_page_of_elsewhere_gets_no_socket(world):
    person = world.person()
    token = person.token(world.daphne_url, "origin")
    there = {"origin": "https://evil.example", "connection_token": token}
    assert person.refusal(world.gateway_url, "origin", **there) == 403
    # That attempt did not consume the token.
    with person.chat(world.gateway_url, "origin", connection_token=token):
        pass


def claims(person, **more):
    now = int(time.time())
    usual = {"token_type": "access", "exp": now + 900, "iat": now, "jti": "0" * 32, "user_id": str(person.id)}
    return {**usual, **more}


def test_a_session_of_simplejwt_in_a_cookie(world):
    person = world.person()

    def signed(**more):
        return {"cookie": jwt.encode(claims(person, **more), world.secret, "HS256")}

    # As simplejwt writes it since version 5.5, and as it did before.
    for user_id in (str(person.id), person.id):
        for url in (world.daphne_url, world.gateway_url):
            with person.chat(url, "jwt", **signed(user_id=user_id)) as chat:
                # The worker checks that it gets a number.
                chat.queue("hello")
                assert events(chat.reply())[-1] == "completed"
    refused = [
        signed(exp=int(time.time()) - 1),
        signed(token_type="refresh"),
        {"cookie": jwt.encode(claims(person), "x" * 40, "HS256")},
        {"cookie": jwt.encode(claims(person), None, "none")},
    ]
    for bad in refused:
        assert person.refusal(world.daphne_url, "jwt", **bad) == 403, bad
        assert person.refusal(world.gateway_url, "jwt", **bad) == 401, bad


def test_signing_out_everywhere_ends_a_session(world):
    person = world.person()
    session = {"cookie": person.cookies["access_token"]}
    with person.chat(world.gateway_url, "version", **session):
        pass
    answer = person.request(f"{world.daphne_url}/api/v1/auth/sign-out-everywhere/", {})
    assert answer.status == 204, answer
    assert person.refusal(world.daphne_url, "version", **session) == 403
    assert person.refusal(world.gateway_url, "version", **session) == 401


def test_the_gateway_issues_tokens_itself(world):
    person = world.person()
    own = {'issue_path = ""': 'issue_path = "/api/v1/auth/ws-connection-token/"'}
    person.request(f"{world.daphne_url}/")  # for the CSRF cookie
    with world.another_gateway(own) as gateway:
        token = person.token(gateway.url, "own")
        # Another gateway accepts the token, and so does Daphne, since the record has Django's format.
        with person.chat(world.gateway_url, "own", connection_token=token):
            pass
        assert person.refusal(gateway.url, "own", connection_token=token) == 401
        token = person.token(gateway.url, "own")
        with person.chat(world.daphne_url, "own", connection_token=token):
            pass


def fill(world, name, limit):
    """Fills a window that Django has started, except for `limit` messages."""
    key = f"app:1:{name}"
    cache = world.redis(2)
    assert 0 < cache.ttl(key) <= 3600, f"{key} is no window of Django's"
    taken = int(cache.get(key))
    cache.incrby(key, 1000 - limit - taken)


def test_messages_count_in_one_limit_over_rest_and_sockets(world):
    person = world.person()

    def rest(conversation="limit"):
        url = f"{world.daphne_url}/api/v1/chat/{conversation}/"
        return person.request(url, {"message": "/words 0"}).status

    assert rest("limit-first") == 202
    fill(world, f"rate_limit:messages:user:{person.id}", 4)
    with (
        person.chat(world.gateway_url, "limit") as through,
        person.chat(world.daphne_url, "limit-daphne") as direct,
    ):
        through.queue("/words 0")
        assert rest() == 202
        direct.queue("/words 0")
        through.reply(), through.reply()
        through.queue("/words 0")
        # The limit of four is used up: nobody may connect, and the open sockets stay open.
        assert rest() == 429
        through.reply()
        refused = through.send_message("/words 0")
        assert refused["event"] == "error" and refused["code"] == "rate_limited", refused
        assert 3000 < refused["retry_after"] <= 3600, refused
        direct.reply()
        assert "Rate limit exceeded" in direct.send_message("/words 0")["error"]
        through.expect_nothing()
    cache = world.redis(2)
    assert int(cache.get(f"app:1:rate_limit:messages:user:{person.id}")) == 1000


def test_connects_count_in_one_limit(world):
    person = world.person()
    with person.chat(world.daphne_url, "connects"):
        pass
    fill(world, f"ws_rate:user:{person.id}", 2)
    for url in (world.gateway_url, world.daphne_url):
        with person.chat(url, "connects"):
            pass
    token = person.token(world.daphne_url, "connects")
    assert person.refusal(world.gateway_url, "connects", connection_token=token) == 429
    token = person.token(world.daphne_url, "connects")
    assert person.refusal(world.daphne_url, "connects", connection_token=token) == 403


def test_what_is_no_route_is_djangos(world):
    person = world.person()
    page = person.request(f"{world.gateway_url}/")
    assert page.status == 200 and "csrftoken" in person.cookies, page
    assert person.request(f"{world.gateway_url}/api/v1/health/").json == {"status": "healthy"}
    assert person.request(f"{world.gateway_url}/api/v1/nothing/").status == 404


def test_close_codes_if_the_route_says_so(world):
    """With reject = "close" a script learns why; the close of each further refusal waits longer."""
    person = world.person()
    codes = {'reject = "http"': 'reject = "close"'}
    with world.another_gateway(codes, TIDEGATE__LOG__LEVEL="debug") as gateway:
        assert person.refusal(gateway.url, "codes", connection_token="A" * 43) == 4001
        token = person.token(world.daphne_url, "mine")
        assert person.refusal(gateway.url, "other", connection_token=token) == 4003
        token = person.token(world.daphne_url, "codes")
        there = {"origin": "https://evil.example", "connection_token": token}
        assert person.refusal(gateway.url, "codes", **there) == 4003
        waits = [int(wait) for wait in re.findall(r"delay_ms=(\d+)", gateway.read_log())]
        assert waits == sorted(set(waits)) and len(waits) == 3, waits
