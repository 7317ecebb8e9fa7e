"""Writes records.txt: token records as Python pickles them, in every protocol. Run with CPython 3.9 or later.

Each line is `KIND NAME PROTOCOL HEX`. KIND says what the gateway has to do: `open` reads the record, `deny` refuses it
because of the field NAME.
"""

import collections
import datetime
import decimal
import enum
import fractions
import pickle
import sys
import uuid
import zoneinfo

UTC = datetime.timezone.utc
NOW = datetime.datetime(2026, 11, 29, 17, 30, 1, 250000)
SHARED = ["a", {"b": 1}]


class Colour(enum.Enum):
    RED = 1


class Model:
    """Stands for an instance of a Django model, which Django unpickles by a function of its own."""

    def __init__(self):
        self.id = 7


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def recursive():
    itself = [1]
    itself.append(itself)
    loop = {"list": itself}
    loop["loop"] = loop
    loop["tuple"] = (loop, (itself,))
    return loop


def billion_laughs():
    value = ["lol"] * 10
    for _ in range(12):
        value = [value] * 10
    return value


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


PLAIN = {
    "datetime": NOW,
    "datetime_utc": NOW.replace(tzinfo=UTC),
    "datetime_offset": NOW.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2), "X")),
    "datetime_zone": NOW.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "datetime_fold": NOW.replace(fold=1),
    "date": NOW.date(),
    "time": NOW.time(),
    "time_utc": NOW.time().replace(tzinfo=UTC),
    "timedelta": datetime.timedelta(days=1, seconds=2, microseconds=3),
    "timezone": UTC,
    "zone": zoneinfo.ZoneInfo("UTC"),
    "uuid1": uuid.uuid1(node=1, clock_seq=1),
    "uuid4": uuid.UUID("07ec14df-5b0b-4703-9e5a-b4fe3759796b"),
    "decimal": decimal.Decimal("19.99"),
    "decimal_nan": decimal.Decimal("NaN"),
    "fraction": fractions.Fraction(1, 3),
    "complex": 1 + 2j,
    "range": range(3),
    "tuple0": (),
    "tuple1": (1,),
    "tuple3": (1, "a", None),
    "tuple4": (1, (2, [3]), {"x": (4,)}, 5),
    "bytes": b"\x00\xff binary",
    "bytes_empty": b"",
    "bytes_long": bytes(300),
    "bytearray": bytearray(b"\x00\xff"),
    "bytearray_empty": bytearray(),
    "set": {"a"},
    "set_empty": set(),
    "frozenset": frozenset({("a", 1)}),
    "frozenset_empty": frozenset(),
    "ordered": collections.OrderedDict(a=1, b=NOW),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, NOW], 5),
    "class": datetime.datetime,
    "shared_list": {"one": SHARED, "two": SHARED, "three": (SHARED, [SHARED])},
    "shared_datetime": [NOW, NOW, {"x": NOW}],
    "shared_text": ["text that is shared"] * 3,
    "recursive": recursive(),
    "billion_laughs": billion_laughs(),
    "deep": nested(150),
    "large_int": 2**200,
    "negative_large_int": -(2**70),
    "u64": 2**63,
    "i64": [2**63 - 1, -(2**63), 2**31, -(2**31) - 1, 0, -1, 255, 256, 65535, 65536],
    "floats": [1.5, -0.0, 1e300, float("nan"), float("inf"), float("-inf")],
    "bools": [True, False, None],
    "text": "Jürgen\n\\ 🚀 \x00\x1a\r \\u0041 \u2028",
    "text_long": "x" * 300,
    "lone_surrogate": "a\ud83d",
    "int_keys": {1: "a", 2.5: "b", None: "c", (1, 2): "d", NOW: "e", b"x": "f"},
    "everything": {"a": [NOW, UTC, uuid.UUID(int=1), (decimal.Decimal(1), {frozenset(), (b"x",)})]},
}

# Values of fields that are read, by field: refused, because nobody knows what they mean.
NOT_READ = {
    "user_id": [uuid.UUID(int=5), decimal.Decimal(5), (5,), b"5", NOW, [5], {"a": 5}, 2**70, None, True, 1.5],
    "username": [b"ana", ("ana",), 7, "a\ud83d"],
    "connection_id": [uuid.UUID(int=5), 5],
    "used": [1, "no", b""],
    "channels": [[b"chat_1"], {NOW}, (uuid.UUID(int=1),), "chat_1", {"a": 1}, recursive()["list"], billion_laughs()],
    "origin": [b"https://a", 7],
    "session_expires_at": [NOW, datetime.timedelta(1), decimal.Decimal(9e10), "soon", float("nan"), float("inf")],
}

# Refused wherever they stand.
FORBIDDEN = {
    "os_system": Attack(__import__("os").system, "true"),
    "eval": Attack(eval, "1"),
    "exec": Attack(exec, "1"),
    "import": Attack(__import__, "os"),
    "getattr": Attack(getattr, datetime.datetime, "now"),
    "open": Attack(open, "/dev/null"),
    "enum": Colour.RED,
    "model": Model(),
    "in_a_list": [NOW, (1, {"x": Model()})],
    "in_a_datetime": Attack(datetime.datetime, Attack(eval, "1")),
    "in_a_set": Attack(set, [Model()]),
    "function": len,
    "class": Model,
}


def write(kind, name, record):
    for protocol in range(6):
        print(kind, name, protocol, pickle.dumps(record, protocol).hex())


def main():
    for module in ["Colour", "Model"]:
        globals()[module].__module__ = "app.models"
    sys.modules["app.models"] = sys.modules["app"] = sys.modules[__name__]
    for name, value in PLAIN.items():
        record = {"extra": value, "user_id": 1, "username": "Jürgen", "created_at": value, "claims": value}
        write("open", name, record | {"channels": ["chat_*"], "used": False, "more": [value]})
    channels = ["chat_1", "chat_2"]
    for name, value in {
        "list": channels,
        "tuple": tuple(channels),
        "set": set(channels),
        "frozenset": frozenset(channels),
        "none": None,
    }.items():
        write("open", f"channels_{name}", {"before": value, "user_id": "u-1", "channels": value, "after": value})
    write("open", "ordered_record", collections.OrderedDict(user_id=1, username="ana", extra=NOW))
    for field, values in NOT_READ.items():
        for value in values:
            write("deny", field, {"user_id": 1, "before": NOW, field: value, "after": (NOW,)})
    for name, value in FORBIDDEN.items():
        write("deny", f"forbidden_{name}", {"user_id": 1, "x": NOW, f"forbidden_{name}": value, "username": "ana"})
    write("deny", "user_id", {"username": "ana", "extra": NOW})


main()
