"""Leaves out of the generated calls what the description cannot express."""

import re

import schemathesis

# The longest strings in bytes of UTF-8; JSON Schema counts characters.
MOST_BYTES = {"channel": 255, "cursor": 255, "prefix": 255, "user_id": 1024, "route": 1024,
              "idempotency_key": 128, "reason": 123}
# What `GET /v1/explain` takes one of.
ONE_OF = {"connection_id", "user_id", "channel"}
ORIGIN = re.compile(r"https?://[a-z][a-z0-9]*(:[1-9][0-9]{0,3})?")


def fits(name, value):
    """False if the schema and the gateway may disagree about whether the value is valid."""
    if isinstance(value, dict):
        return all(fits(*item) for item in value.items())
    if isinstance(value, list):
        return all(fits(name, item) for item in value)
    if isinstance(value, str):
        if name == "origin" and value and "://" in value:
            return bool(ORIGIN.fullmatch(value))
        # A lone surrogate is not valid text.
        return len(value.encode("utf-8", "replace")) <= MOST_BYTES.get(name, 1 << 30)
    # JSON Schema treats 1.0 as an integer; this API treats it as a number with a fraction.
    return not (isinstance(value, float) and value.is_integer())


@schemathesis.hook
def filter_case(context, case):
    path, query, body = case.path_parameters or {}, case.query or {}, case.body
    # Any JSON may be published.
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in ("data", "publications")}
    # One of three parameters, and no other of them.
    if case.operation.path == "/v1/explain" and len(ONE_OF & set(query)) != 1:
        return False
    # HTTP clients remove dot segments from a path before they send it.
    dots = {".", ".."} & set(map(str, path.values()))
    return not dots and fits("", [path, query, body])
