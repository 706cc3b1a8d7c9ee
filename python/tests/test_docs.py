import re
import subprocess
import sys

import pytest
from serving import REPOSITORY, SCENE

import sleuth

PAGE = (REPOSITORY / "docs/python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def block(words):
    found = [b for b in BLOCKS if words in b]
    assert len(found) == 1, words
    return found[0].replace('"docs/scene.png"', repr(str(SCENE)))


def test_the_first_lines_print_what_a_verdict_says(server, capsys, client):
    exec(block("import sleuth").replace("http://127.0.0.1:50051", server.url), {})
    told = float(capsys.readouterr().out)
    assert told == client.score(SCENE, "The large heart is red.").reward
    assert str(told).startswith(re.search(r"verdict\.reward +# (0\.\d+)", PAGE)[1])


def test_a_verdict_is_as_shown(client):
    for line in block("verdict.reason").splitlines():
        code, _, shown = line.partition("#")
        names = {"client": client, "verdict": locals().get("verdict")}
        if code.startswith("verdict ="):
            exec(code, names)
            verdict = names["verdict"]
        elif "InvalidRewardError" in shown:
            with pytest.raises(sleuth.InvalidRewardError) as raised:
                eval(code, names)
            words = shown.split(":", 1)[1].strip().rstrip(".")
            assert str(raised.value).startswith(words)
        elif code.strip():
            value = eval(code, names)
            if shown.strip() in ("True", "False", "None", "'response_empty'"):
                assert repr(value) == shown.strip()


def test_many_items_are_scored_as_shown(client):
    names = {"client": client, "sleuth": sleuth, "image": SCENE, "prompt": None}
    names["responses"] = ["There is a heart.", "There is a triangle."]
    exec(block("client.as_scored(items)"), names)
    assert [v.valid for v in names["verdicts"]] == [True, True]


def test_a_response_is_appended_as_shown(client):
    import tokenizers_made

    tokenizer = tokenizers_made.byte_level()
    ids = tokenizer.encode("The large heart is red.", add_special_tokens=False)
    names = {"client": client, "sleuth": sleuth, "image": SCENE, "prompt": None}
    names |= {"tokenizer": tokenizer, "generate": lambda: [ids[:3], ids[3:]]}
    exec(block("PolicyStream"), names)
    assert names["verdict"].reward == client.score(SCENE, "The large heart is red.").reward


def test_settings_have_the_defaults_that_are_told():
    settings = sleuth.Settings()
    for names, values in re.findall(
        r"^\| (`(?:max_in|connect|keep|retry).*?) \|.*\| (.*?) \|$", PAGE, re.M
    ):
        told = [float(value) for value in values.split(", ")]
        for name, value in zip(re.findall(r"`(.*?)`", names), told, strict=True):
            owner = settings.retry if name.startswith("retry.") else settings
            assert getattr(owner, name.removeprefix("retry.")) == value


def test_the_first_example_prints_what_the_quickstart_shows(server):
    page = (REPOSITORY / "docs/quickstart.md").read_text()
    shown = re.search(r"```text\n(.*?)```", page, re.S)[1]
    example = REPOSITORY / "python/examples/first.py"
    done = subprocess.run(
        [sys.executable, example, server.url], capture_output=True, text=True, check=True
    )
    assert done.stdout == shown
