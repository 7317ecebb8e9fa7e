#!/usr/bin/env python3
"""Writes grafana/dashboards/*.json from grafana/source/. `build.py --check` writes nothing and fails if a file
does not match its source."""

import json
import pathlib
import sys

from source import generations, overview, redis_and_upstreams, route

HERE = pathlib.Path(__file__).parent
DASHBOARDS = {
    "overview": overview.DASHBOARD,
    "route": route.DASHBOARD,
    "redis-and-upstreams": redis_and_upstreams.DASHBOARD,
    "generations": generations.DASHBOARD,
}


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    folder = HERE / "dashboards"
    wrong = [path for path in folder.glob("*.json") if path.stem not in DASHBOARDS]
    for name, dashboard in DASHBOARDS.items():
        path = folder / f"{name}.json"
        text = json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            wrong.append(path)
    if wrong:
        names = ", ".join(str(path) for path in wrong)
        sys.exit(f"these files do not match grafana/source/; run grafana/build.py or delete them: {names}")


main()
