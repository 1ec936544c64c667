"""Generates the Python stubs of the wire contract, or checks that they are fresh.

The generator is pinned and runs in a virtual environment of its own: it wants an old protobuf,
and the stubs that it makes import on every protobuf that the project supports.
`python proto/generate.py` writes the stubs next to the `.proto` files; `--check` writes nothing
and exits 1 when they differ.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path


GENERATOR = "grpcio-tools==1.71.2"
PROTO_ROOT = Path(__file__).resolve().parent
# Kept between runs, because installing it takes far longer than running it.
GENERATOR_VENV = PROTO_ROOT.parent / "build" / f"generator-{GENERATOR.replace('==', '-')}"


def generator_python() -> Path:
    """Returns the interpreter that has the pinned generator, installing it on first use.

    Raises:
        subprocess.CalledProcessError: the package registry cannot be reached.
    """
    python = GENERATOR_VENV / "bin" / "python"
    marker = GENERATOR_VENV / ".installed"
    if not marker.exists():
        venv.create(GENERATOR_VENV, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--retries=1", GENERATOR]
        subprocess.run(install, check=True)
        marker.touch()
    return python


def generate(python: Path, target: Path) -> list[Path]:
    """Writes the stubs of every `.proto` file and returns their paths relative to `target`."""
    sources = sorted(path.relative_to(PROTO_ROOT) for path in PROTO_ROOT.rglob("*.proto"))
    outputs = [f"--{kind}={target}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    command = [str(python), "-m", "grpc_tools.protoc", f"--proto_path={PROTO_ROOT}", *outputs]
    subprocess.run([*command, *map(str, sources)], check=True)
    # A file without services gets a stub without content; it would only be in the way.
    for stub in target.rglob("*_pb2_grpc.py"):
        if "_pb2 as " not in stub.read_text():
            stub.unlink()
    return sorted(path.relative_to(target) for path in target.rglob("*_pb2*.py*"))


def stale_stubs(python: Path) -> list[Path]:
    """Returns the stubs that are missing, left over or not what the generator makes now."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = set(generate(python, Path(scratch)))
        present = {path.relative_to(PROTO_ROOT) for path in PROTO_ROOT.rglob("*_pb2*.py*")}
        _, mismatch, errors = filecmp.cmpfiles(scratch, PROTO_ROOT, fresh & present, shallow=False)
        return sorted((fresh ^ present) | set(map(Path, [*mismatch, *errors])))


def main() -> int:
    """Runs the command line and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when the stubs are stale")
    is_check = parser.parse_args().check
    try:
        python = generator_python()
    except subprocess.CalledProcessError:
        if is_check and os.environ.get("CI") != "true":
            sys.stderr.write(f"skipped: {GENERATOR} cannot be installed here\n")
            return 0
        raise
    if not is_check:
        generate(python, PROTO_ROOT)
        return 0
    stale = stale_stubs(python)
    for path in stale:
        sys.stderr.write(f"stale: proto/{path}; run `make proto`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
