#!/usr/bin/env python3
"""Checks that the OpenTelemetry SDKs' own exporters need nothing but OTEL_EXPORTER_OTLP_ENDPOINT.

Runs the same small agent with the Python and the JavaScript SDK, in every encoding and compression they offer, against a
`tailspan serve` of its own, and compares what the product says about each run. The SDKs are installed once, pinned, below
target/exporters. Exits 0 when all is right, 1 when something is wrong, 3 when the SDKs cannot be had here.

    check.py path/to/tailspan
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

here = pathlib.Path(__file__).resolve().parent
target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", here.parents[1] / "target")) / "exporters"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

RUNS = [
    # what it is called, runtime, variables on top of the endpoint
    ("python protobuf", "python", {}),
    ("python protobuf gzip", "python", {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}),
    ("python protobuf deflate", "python", {"OTEL_EXPORTER_OTLP_COMPRESSION": "deflate"}),
    ("javascript protobuf", "node", {"CHECK_EXPORTER": "@opentelemetry/exporter-trace-otlp-proto"}),
    ("javascript json", "node", {"CHECK_EXPORTER": "@opentelemetry/exporter-trace-otlp-http"}),
    ("javascript protobuf gzip", "node",
     {"CHECK_EXPORTER": "@opentelemetry/exporter-trace-otlp-proto", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}),
    ("javascript json gzip", "node",
     {"CHECK_EXPORTER": "@opentelemetry/exporter-trace-otlp-http", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}),
]
EXPECTED = {
    "status": "completed", "agents": ["checker"], "input_tokens": 11, "output_tokens": 7, "total_tokens": 18,
    "total_llm_calls": 1, "total_tool_calls": 1, "errors_count": 0,
    # three spans and one log record
    "total_spans": 3, "total_events": 4,
}


def once(stamp_name, wanted, make):
    """Runs `make` unless it has run for the same wish before."""
    stamp = target / stamp_name
    if stamp.exists() and stamp.read_text() == wanted:
        return
    try:
        make()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"exporters: cannot install: {error}", file=sys.stderr)
        sys.exit(3)
    stamp.write_text(wanted)


def prepare():
    """Installs both SDKs below target; returns the command that runs the agent for each runtime."""
    node = shutil.which("node")
    if not node or not shutil.which("npm"):
        print("exporters: node and npm are not installed", file=sys.stderr)
        sys.exit(3)
    target.mkdir(parents=True, exist_ok=True)
    python = target / "python/bin/python"

    def make_python():
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", "--clear", target / "python"], check=True, timeout=120)
        requirements = here / "requirements.txt"
        subprocess.run([python, "-m", "pip", "install", *quiet, "-r", requirements], check=True, timeout=600)

    def make_node():
        shutil.copy(here / "package.json", target)
        flags = ["--silent", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(["npm", "install", *flags], check=True, timeout=600, cwd=target)

    once("python.stamp", (here / "requirements.txt").read_text(), make_python)
    once("node.stamp", (here / "package.json").read_text(), make_node)
    # Beside its packages, which is where node looks for them.
    shutil.copy(here / "agent.mjs", target)
    return {"python": [str(python), str(here / "agent.py")], "node": [node, str(target / "agent.mjs")]}


def get(url):
    with opener.open(url, timeout=10) as response:
        return json.load(response)


def summary(base, trace_id):
    """What the product says, once it says that the run has ended."""
    give_up = time.monotonic() + 15
    found = {}
    while time.monotonic() < give_up:
        try:
            found = get(f"{base}/traces/{trace_id}/summary")
            if found.get("status") == EXPECTED["status"] and found.get("total_events") == EXPECTED["total_events"]:
                break
        except urllib.error.HTTPError as error:
            found = {"error": error.code}
        time.sleep(0.2)
    return found


def check(base, command, variables):
    """Returns what is wrong, as text; empty when all is right."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    clean |= {"OTEL_EXPORTER_OTLP_ENDPOINT": base, "NO_PROXY": "127.0.0.1,localhost", **variables}
    run = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=60)
    trace_id = run.stdout.strip()
    if run.returncode or not re.fullmatch("[0-9a-f]{32}", trace_id):
        return f"the program ended with {run.returncode}: {run.stderr.strip()[-500:]}"
    found = summary(base, trace_id)
    wrong = {name: found.get(name) for name, right in EXPECTED.items() if found.get(name) != right}
    return f"{trace_id}: {wrong}" if wrong else ""


def main():
    commands = prepare()
    with tempfile.TemporaryDirectory(prefix="exporters-") as data_dir:
        serve = [sys.argv[1], "serve", "--port", "0", "--otlp-port", "0", "--data-dir", data_dir]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        try:
            lines = iter(server.stdout.readline, "")
            base = next((line.split()[-1] for line in lines if line.startswith("listening on ")), None)
            if base is None:
                sys.exit("exporters: the server did not start")
            failed = 0
            for name, runtime, variables in RUNS:
                wrong = check(base, commands[runtime], variables)
                failed += bool(wrong)
                print(f"  {name}: {wrong or 'right'}", flush=True)
        finally:
            server.terminate()
            server.wait(20)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
