"""Checks of deploy/ that no existing tool makes. scripts/lint-deploy describes each.

lint.py compose | split FILE CORE OPERATOR | manifests FILE | systemd | own | configs BINARY
"""

import configparser
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yml"
# The defaults of gateway.toml; src/config defines them, and `gateway.toml` shows them.
DEFAULT_SHUTDOWN = {"drain": "30s", "grace": "5s"}
mistakes = []


def expect(condition, message):
    if not condition:
        mistakes.append(message)


def seconds(text):
    number, unit = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|sec|m|min|h)?", str(text)).groups()
    return float(number) * {"ms": 0.001, "m": 60, "min": 60, "h": 3600}.get(unit, 1)


def time_to_stop(toml, overrides=()):
    shutdown = {**DEFAULT_SHUTDOWN, **tomllib.loads(toml).get("shutdown", {}), **dict(overrides)}
    return seconds(shutdown["drain"]) + seconds(shutdown["grace"])


# --- Compose ---------------------------------------------------------------------------------------------


def compose():
    text = COMPOSE.read_text()
    found = yaml.safe_load(text)
    example = (COMPOSE.parent / "env.example").read_text()
    known = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    for name in set(re.findall(r"(?<!\$)\$\{(\w+)", text)):
        expect(name in known, f"compose.yml: {name} is not in env.example")
    networks, volumes = set(found["networks"]), set(found["volumes"])
    for name, service in found["services"].items():
        where = f"compose.yml: {name}"
        pinned = re.fullmatch(r"\S+:(\d+\.\d+\.\d+\S*|v\d+\.\d+\.\d+|\$\{TIDEGATE_TAG:-local\})", service["image"])
        expect(pinned, f"{where}: the image {service['image']} is not pinned")
        for variable, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|KEY|TOKEN", variable):
                expect(re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{where}: {variable} is in clear, or may be empty")
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        expect(limits.keys() >= {"cpus", "memory"}, f"{where}: no limits")
        expect(service.get("read_only") and service.get("cap_drop") == ["ALL"], f"{where}: not hardened")
        expect("healthcheck" in service or name == "gateway", f"{where}: no health check")
        expect(set(service.get("networks", [])) <= networks, f"{where}: unknown networks")
        for needed in service.get("depends_on", {}):
            expect(needed in found["services"], f"{where}: depends on {needed}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                expect((COMPOSE.parent / source).exists(), f"{where}: {source} is not there")
            else:
                expect(source in volumes, f"{where}: no volume {source}")
    gateway = found["services"]["gateway"]
    needs = time_to_stop((COMPOSE.parent / "gateway" / "gateway.toml").read_text())
    expect(seconds(gateway["stop_grace_period"]) > needs, f"compose.yml: the gateway may need {needs} s to stop")
    expect(not any("9000" in port for port in gateway["ports"]), "compose.yml: the admin port is published")


# --- Kubernetes ------------------------------------------------------------------------------------------


def documents(path):
    return [document for document in yaml.safe_load_all(pathlib.Path(path).read_text()) if document]


def split(path, core, operator):
    """Splits the manifests by the schemas that check them."""
    found = documents(path)
    theirs = [one for one in found if one["apiVersion"].startswith("monitoring.coreos.com/")]
    ours = [one for one in found if one not in theirs]
    expect(ours, f"{path}: nothing in it")
    pathlib.Path(core).write_text(yaml.safe_dump_all(ours))
    pathlib.Path(operator).write_text(json.dumps(theirs))


def manifests(path):
    """Checks that the objects match each other."""
    found = documents(path)
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    templates = [one["spec"]["template"] for one in found if one["kind"] == "Deployment"]
    expect(templates, f"{path}: no Deployment")
    for template in templates:
        check_pods(template, by_name)
    for pod in (one for one in found if one["kind"] == "Pod"):
        check_hardened(f"Pod/{pod['metadata']['name']}", pod["spec"])
    for (kind, name), one in by_name.items():
        where, spec = f"{kind}/{name}", one.get("spec", {})
        if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "Deployment"):
            selector = spec.get("podSelector") or spec["selector"]
            labels = selector.get("matchLabels", selector)
            selected = [t for t in templates if labels.items() <= t["metadata"]["labels"].items()]
            expect(selected, f"{where} selects no pods")
            names = {port["name"] for t in selected for c in t["spec"]["containers"] for port in c.get("ports", [])}
            targets = [port["targetPort"] for port in spec.get("ports", [])] if kind == "Service" else []
            targets += [point["port"] for point in spec.get("podMetricsEndpoints", [])]
            targets += [port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]]
            expect(set(targets) <= names, f"{where}: ports {targets} of {names}")
        if kind == "ServiceMonitor":
            labels = spec["selector"]["matchLabels"].items()
            services = [s for (k, _), s in by_name.items() if k == "Service"]
            selected = [s for s in services if labels <= s["metadata"].get("labels", {}).items()]
            ports = {port["name"] for service in selected for port in service["spec"]["ports"]}
            expect({point["port"] for point in spec["endpoints"]} <= ports, f"{where} scrapes nothing")
            expect(len(selected) == 1, f"{where}: each pod would be scraped {len(selected)} times")
        if kind == "HorizontalPodAutoscaler":
            target = (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
            expect(target in by_name, f"{where} scales nothing")
        if kind == "Ingress":
            for rule in spec["rules"]:
                for target in rule["http"]["paths"]:
                    service = target["backend"]["service"]
                    ports = by_name.get(("Service", service["name"]), {}).get("spec", {}).get("ports", [])
                    expect(service["port"]["name"] in {p["name"] for p in ports}, f"{where} leads nowhere")


def check_hardened(where, spec):
    pod = spec["securityContext"]
    expect(pod.get("runAsNonRoot") and pod.get("seccompProfile"), f"{where}: the pod is not hardened")
    for container in spec["containers"]:
        own = container["securityContext"]
        hardened = (
            own["readOnlyRootFilesystem"]
            and not own["allowPrivilegeEscalation"]
            and own["capabilities"]["drop"] == ["ALL"]
        )
        expect(hardened, f"{where}: {container['name']} is not hardened")
        tag = re.fullmatch(r"\S+(:\d\S*|@sha256:[0-9a-f]{64})", container["image"])
        expect(tag, f"{where}: the image {container['image']} is not pinned")
        expect("memory" in container["resources"]["limits"], f"{where}: {container['name']} has no limit")


def check_pods(template, by_name):
    spec, where = template["spec"], "Deployment"
    check_hardened(where, spec)
    gateway = next(one for one in spec["containers"] if "tidegate" in one["image"])
    overrides = {
        variable["name"].rsplit("__")[-1].lower(): variable["value"]
        for variable in gateway.get("env", [])
        if variable["name"].startswith("TIDEGATE__SHUTDOWN__")
    }
    config = next(volume for volume in spec["volumes"] if volume["name"] == "config")["configMap"]["name"]
    expect(("ConfigMap", config) in by_name, f"{where}: no ConfigMap {config}")
    stop = time_to_stop(by_name["ConfigMap", config]["data"]["gateway.toml"], overrides)
    waits = {
        one["name"]: one.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        for one in spec["containers"]
    }
    gone = waits[gateway["name"]] + stop
    expect(
        gone < spec["terminationGracePeriodSeconds"],
        f"{where}: preStop, drain and grace ({gone} s) do not fit {spec['terminationGracePeriodSeconds']} s",
    )
    for name, wait in waits.items():
        expect(name == gateway["name"] or wait >= gone, f"{where}: {name} is gone before the gateway has drained")
    expect("subPath" not in str(gateway["volumeMounts"]), f"{where}: a subPath is never renewed")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = {"readinessProbe": "/readyz"}.get(probe, "/livez")
        expect(gateway[probe]["httpGet"]["path"] == path, f"{where}: {probe} is not {path}")


# --- systemd ---------------------------------------------------------------------------------------------


def unit(name):
    """The keys of a unit, each with all its values."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(DEPLOY / "systemd" / name)
    return parser


def systemd():
    single, paired = unit("tidegate.service")["Service"], unit("tidegate@.service")["Service"]
    needs = sum(seconds(value) for value in DEFAULT_SHUTDOWN.values())
    for service in (single, paired):
        expect(service.get("NonBlocking") == "yes", "systemd: a start makes the sockets of the other instance blocking")
        expect(seconds(service["TimeoutStopSec"]) > needs, "systemd: TimeoutStopSec is below drain + grace")
    own = {"Sockets", "Environment"}
    expect(
        {key: value for key, value in paired.items() if key not in own}
        == {key: value for key, value in single.items() if key not in own},
        "systemd: tidegate.service and tidegate@.service have grown apart",
    )
    for path in (DEPLOY / "systemd").glob("*.socket"):
        keys = unit(path.name)["Unit"].keys()
        # A socket that stops with its service is closed while the service restarts.
        expect(not {"PartOf", "BindsTo"} & set(keys), f"systemd: {path.name} goes with its service")


# --- The rest --------------------------------------------------------------------------------------------


def in_context(path, rules):
    """Whether the path is in Docker's build context. The last matching rule of .dockerignore decides."""
    kept = True
    for rule in rules:
        pattern = rule.lstrip("!")
        parents = [path, *map(str, pathlib.PurePath(path).parents)]
        if any(fnmatch.fnmatchcase(parent, pattern) for parent in parents if parent != "."):
            kept = rule.startswith("!")
    return kept


def dockerfiles():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for name in ("Dockerfile", "deploy/compose/worker/Dockerfile"):
        text = (ROOT / name).read_text()
        for words in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
            for source in words.split()[:-1]:
                there = (ROOT / source).exists() and (source == "." or in_context(source, rules))
                expect(there, f"{name}: {source} is not in the build context")
        for image in re.findall(r"^(?:FROM|ARG RUST_IMAGE=)\s*(\S+)", text, re.MULTILINE):
            pinned = re.search(r":\d+\.\d+\.\d+", image) or image in ("scratch", "${RUST_IMAGE}")
            expect(pinned, f"{name}: the image {image} is not pinned")
        expect(re.search(r"^USER \d+", text, re.MULTILINE), f"{name}: runs as root")
    if (ROOT / "build.rs").exists():
        expect(in_context("build.rs", rules), "build.rs is not in the build context of the Dockerfile")
    # These files are compiled into the binary.
    for source in (ROOT / "src").rglob("*.rs"):
        if source.name.endswith("tests.rs"):
            continue
        for included in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', source.read_text()):
            path = os.path.relpath((source.parent / included).resolve(), ROOT)
            expect(in_context(path, rules), f"{source}: {path} is not in the build context of the Dockerfile")
        for included in re.findall(r'concat!\(\s*env!\("CARGO_MANIFEST_DIR"\),\s*"/([^"]+)"', source.read_text()):
            expect(in_context(included, rules), f"{source}: {included} is not in the build context")


def own():
    dockerfiles()
    shown = (ROOT / "gateway.toml").read_text()
    for key, value in DEFAULT_SHUTDOWN.items():
        expect(f'\n#{key} = "{value}"\n' in shown, f"gateway.toml: {key} is no longer {value} by default")
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    chart = yaml.safe_load((DEPLOY / "helm" / "tidegate" / "Chart.yaml").read_text())
    expect(chart["appVersion"] == version, f"Chart.yaml: appVersion is not {version}")
    for folder in ("standalone", "sidecar"):
        images = yaml.safe_load((DEPLOY / "kubernetes" / folder / "kustomization.yaml").read_text())["images"]
        expect([image["newTag"] for image in images] == [version], f"{folder}: newTag is not {version}")


def configs(binary):
    """Lets the gateway check each gateway.toml, with secrets where it expects them."""
    chart = DEPLOY / "helm" / "tidegate"
    found = {str(path): path.read_text() for path in DEPLOY.rglob("gateway.toml")}
    for values in [chart / "values.yaml", *chart.glob("ci/*.yaml")]:
        text = yaml.safe_load(values.read_text()).get("config")
        if text:
            found[str(values)] = text
    expect(len(found) >= 5, f"only {len(found)} configurations were found")
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        for name, text in (("jwt", "s" * 64), ("api-keys", "k" * 64), ("redis-url", "redis://:p@redis:6379/0")):
            (folder / name).write_text(text)
        secrets = {"JWT_SECRET": "s" * 64, "TIDEGATE_API_KEY": "k" * 64, "REDIS_PASSWORD": "p"}
        environment = {**os.environ, **secrets, "APP_ORIGIN": "http://localhost:3001"}
        for name, text in found.items():
            path = folder / "gateway.toml"
            path.write_text(text.replace("/etc/tidegate-secrets", directory))
            command = [binary, "check", "--config", path]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
            expect(done.returncode == 0, f"{name}: {done.stdout}{done.stderr}")
    print(f"{len(found)} gateway.toml files are good")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {
        "compose": compose,
        "split": split,
        "manifests": manifests,
        "systemd": systemd,
        "own": own,
        "configs": configs,
    }[command](*arguments)
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    sys.exit(bool(mistakes))
