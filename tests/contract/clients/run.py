#!/usr/bin/env python3
"""Generates typed clients from openapi/openapi.json in a directory of its own, compiles them, and uses them on a node.

    run.py SERVER TOOLS

TOOLS is where `.ci/setup` puts tools. TypeScript is compiled; Python is checked by mypy and used; Go, where it is there,
is compiled, vetted and used.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE.parent))
sys.dont_write_bytecode = True
from run import node_with_a_key  # noqa: E402

DOCUMENT = ROOT / "openapi" / "openapi.json"


def run(*command: object, cwd: Path, **environment: str) -> str:
    ran = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    if ran.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout.strip()


def typescript(place: Path) -> str:
    modules = ROOT / "web" / "node_modules" / ".bin"
    shutil.copy(HERE / "typescript" / "use.ts", place)
    run(modules / "openapi-typescript", DOCUMENT, "--output", place / "plinth.d.ts", cwd=ROOT / "web")
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    run(modules / "tsc", *options, "--lib", "es2022,dom", place / "use.ts", cwd=place)
    return "compiled"


def python(place: Path, tools: Path, node: dict[str, str]) -> str:
    bin = tools / "clients" / "bin"
    shutil.copy(HERE / "python" / "use.py", place)
    generate = [bin / "openapi-python-client", "generate", "--meta", "none"]
    paths = {"PATH": f"{bin}:{os.environ['PATH']}"}
    run(*generate, "--path", DOCUMENT, "--output-path", place / "plinth_client", cwd=place, **paths)
    # What depends on the document. `client.py` is the generator's own, and mypy has something against it.
    checked = ["use.py", "plinth_client/api", "plinth_client/models", "--follow-imports", "silent"]
    run(bin / "mypy", *checked, "--cache-dir", tools / "clients" / "mypy", cwd=place)
    return run(bin / "python", "use.py", cwd=place, **node)


def go(place: Path, tools: Path, node: dict[str, str]) -> str:
    generator = tools / "bin" / "oapi-codegen"
    if not generator.exists():
        return "left out: there is no Go"
    for name in ("go.mod", "go.sum", "main.go"):
        shutil.copy(HERE / "go" / name, place)
    run(generator, "-config", HERE / "go" / "oapi-codegen.yaml", DOCUMENT, cwd=place)
    run("go", "vet", "./...", cwd=place)
    run("go", "build", "-o", "client", ".", cwd=place)
    return run(place / "client", cwd=place, **node)


def main() -> None:
    server, tools = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory, node_with_a_key(server, directory) as node:
        used = {"URL": node.url, "KEY": node.key, "NO_PROXY": "127.0.0.1"}
        places = {name: Path(directory, name) for name in ("typescript", "python", "go")}
        for place in places.values():
            place.mkdir()
        print("typescript:", typescript(places["typescript"]))
        print("python:", python(places["python"], tools, used))
        print("go:", go(places["go"], tools, used))


if __name__ == "__main__":
    main()
