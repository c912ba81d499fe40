#!/usr/bin/env python3
"""Starts a node with a store of its own and lets schemathesis loose on it, with what is given as arguments.

    run.py SERVER SCHEMATHESIS [ARGS...]

Ends with the exit code of schemathesis, or with 1 when the server has panicked or does not end as it should.
"""
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TENANT = "contract"
SCOPES = ["admin", "publish:**", "subscribe:**", "manage:**"]


def start(server: str, root_key: str, directory: str) -> tuple[subprocess.Popen, str]:
    """A node on a free port, and its address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLINTH_")}
    environment |= {
        "PLINTH_LISTEN": "127.0.0.1:0",
        "PLINTH_STORE": f"file://{directory}/objects",
        "PLINTH_CACHE_DIR": f"{directory}/cache",
        "PLINTH_ROOT_KEY": root_key,
        "PLINTH_DRAIN_TIME": "1s",
        "PLINTH_STREAM_LONG_POLL": "1s",
    }
    log = open(f"{directory}/log", "wb")
    node = subprocess.Popen([server, "serve"], env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=log)
    for line in node.stdout:
        found = re.search(rb"http://127\.0\.0\.1:\d+", line)
        if found:
            return node, found.group().decode()
    sys.exit(f"the server did not start: {Path(directory, 'log').read_text()}")


def call(url: str, key: str, body: dict, tenant: str | None = None) -> dict:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if tenant:
        headers["Plinth-Tenant"] = tenant
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)


@dataclass
class Node:
    """A running node, the operator's key, and a key of the tenant `contract` that may do everything in it."""

    url: str
    root_key: str
    key: str


@contextmanager
def node_with_a_key(server: str, directory: str) -> Iterator[Node]:
    """A node until the block ends; it must end as it should and must not have panicked."""
    root_key = "root-" + secrets.token_hex(32)
    process, url = start(server, root_key, directory)
    try:
        call(f"{url}/v1/tenants", root_key, {"name": TENANT})
        made = call(f"{url}/v1/keys", root_key, {"name": "contract", "scopes": SCOPES}, TENANT)
        yield Node(url, root_key, made["key"])
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(timeout=60)
    log = Path(directory, "log").read_text(errors="replace")
    if "panicked" in log or ended != 0:
        sys.exit(f"the server ended with {ended}:\n{log[-5000:]}")


def main() -> int:
    server, schemathesis, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory, node_with_a_key(server, directory) as node:
        environment = os.environ | {
            "PLINTH_URL": node.url, "KEY": node.key, "ROOT_KEY": node.root_key, "TENANT": TENANT,
            "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "127.0.0.1",
        }
        command = [schemathesis, "--config-file", str(HERE / "schemathesis.toml"), "run", f"{node.url}/openapi.json"]
        return subprocess.run([*command, *arguments], env=environment, cwd=directory).returncode


if __name__ == "__main__":
    sys.exit(main())
