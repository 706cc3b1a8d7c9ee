"""helm/sleuth/README.md from values.yaml and its comments: `readme.py [--check]`.

A comment that begins with `# --` above a key is the key's description; a key without one is listed too.
A described map whose keys have no words of their own is one row.
"""

import json
import re
import sys
from pathlib import Path

import yaml

from rendering import CHART

PAGE = CHART / "README.md"
HEAD = Path(__file__).with_name("readme_head.md")


def comments(lines, line):
    """The comment right above a line, from its `# --` on."""
    found = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().lstrip("#").strip())
        if found[0].startswith("-- "):
            return " ".join(found)[3:]
    return ""


def rows(node, lines, path=()):
    for key, value in node.value:
        at = (*path, key.value)
        if isinstance(value, yaml.MappingNode) and value.value:
            about = comments(lines, key.start_mark.line)
            if about and not any(words for _, _, words in rows(value, lines, at)):
                yield at, value, about
                continue
            if about:
                yield at, None, about
            yield from rows(value, lines, at)
        else:
            yield at, value, comments(lines, key.start_mark.line)


def default(value):
    if value is None:
        return ""
    plain = yaml.SafeLoader("").construct_document(value)
    shown = json.dumps(plain, ensure_ascii=False)
    return f"`{shown}`" if len(shown) <= 120 else "see values.yaml"


def table():
    text = (CHART / "values.yaml").read_text()
    found = ["| value | what it is for | default |", "|---|---|---|"]
    for path, value, about in rows(yaml.compose(text), text.splitlines()):
        name = ".".join(path)
        found.append(f"| `{name}` | {re.sub(r'[|]', chr(92) + '|', about)} | {default(value)} |")
    return "\n".join(found) + "\n"


def page():
    return HEAD.read_text() + table()


def main(check):
    now = page()
    if PAGE.exists() and PAGE.read_text() == now:
        return 0
    if not check:
        PAGE.write_text(now)
    print(f"helm/sleuth/README.md {'differs from values.yaml: run tests/chart/render' if check else 'is written'}")
    return int(check)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
