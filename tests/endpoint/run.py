#!/usr/bin/env python3
"""Has `sleuth correct` repair a response by llama.cpp's OpenAI-compatible server.

    cargo build --bin sleuth
    python3 tests/endpoint/run.py --sleuth target/debug/sleuth

Installs the pinned server into `.venv-endpoint` beside this file, makes a tiny model that knows the
right description of `docs/scene.png`, serves it on a free port of loopback, and checks what comes of
a wrong description: a repair that is kept, a repair that is dropped, and a key that is wrong.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VENV = HERE / ".venv-endpoint"
RIGHT = "The blue triangle is on the left. The large heart is white. There are two objects."
WRONG = "The blue triangle is on the left. The large heart is red. There are two objects."
OTHER = "There is no sign in the image. The large heart is red."
KEY = "sk-of-this-test"


def inside_venv() -> None:
    """Runs this script again with the pinned packages."""
    python = VENV / "bin" / "python"
    if not python.exists():
        venv.create(VENV, with_pip=True)
    install = [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"]
    subprocess.run(install, check=True)
    os.execv(python, [str(python), *sys.argv])


def serve(model: Path):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = ["one-answer"]
    params.port = 0
    params.n_ctx = 8192
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.api_keys = [KEY]
    params.use_jinja = True
    params.sampling.temp = 0.0
    return xllamacpp.Server(params)


def correct(sleuth: str, url: str, response: str, key: Path) -> tuple[int, dict]:
    command = [sleuth, "correct", "--image", "docs/scene.png", "--response", response]
    command += ["--corrector", "endpoint", "--endpoint-url", url, "--endpoint-model", "one-answer"]
    command += ["--endpoint-key-file", str(key), "--endpoint-image", "false", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not done.stdout:
        sys.exit(f"no result: {done.stderr}")
    return done.returncode, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sleuth", default="target/debug/sleuth")
    arguments = parser.parse_args()
    if Path(sys.prefix) != VENV:
        inside_venv()
    sys.path.insert(0, str(HERE))
    import tiny_model

    sleuth = str(Path(arguments.sleuth).resolve())
    with tempfile.TemporaryDirectory() as folder:
        model, good, bad = (Path(folder) / name for name in ["tiny.gguf", "key", "bad-key"])
        tiny_model.write(str(model), RIGHT)
        good.write_text(KEY)
        bad.write_text("sk-wrong")
        server = serve(model)
        url = server.listening_address + "/v1"

        code, kept = correct(sleuth, url, WRONG, good)
        assert (code, kept["response"], kept["kept"]) == (0, RIGHT, 1), kept
        assert [c["after"]["text"] for c in kept["changes"]] == ["white"], kept
        assert kept["reward"] > kept["reward_before"], kept

        code, dropped = correct(sleuth, url, OTHER, good)
        assert (code, dropped["response"], dropped["kept"]) == (0, OTHER, 0), dropped
        assert [a["response"] for a in dropped["attempts"]] == [RIGHT], dropped

        code, refused = correct(sleuth, url, WRONG, bad)
        assert (code, refused["response"]) == (3, WRONG), refused
        assert "status 401" in refused["stopped"]["detail"], refused
        del server
    print("3 passed: a repair kept, a repair dropped, a key refused")


if __name__ == "__main__":
    main()
