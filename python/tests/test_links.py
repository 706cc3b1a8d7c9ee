import re

import pytest
from serving import REPOSITORY

LEFT_OUT = re.compile(r"target|node_modules|venv|\..*")


def pages(folder):
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if not LEFT_OUT.fullmatch(entry.name):
                yield from pages(entry)
        # `readme_head.md` becomes a part of a page elsewhere.
        elif entry.suffix == ".md" and entry.name != "readme_head.md":
            yield entry


PAGES = list(pages(REPOSITORY))
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ +(.*)$", FENCED.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_there_are_pages():
    assert REPOSITORY / "docs/README.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def test_every_page_of_the_documentation_is_in_its_index():
    index = (REPOSITORY / "docs/README.md").read_text()
    docs = REPOSITORY / "docs"
    for page in [*docs.glob("*.md"), *docs.glob("trainers/*.md")]:
        name = str(page.relative_to(docs))
        assert name == "README.md" or f"({name}" in index, f"{name} is not in docs/README.md"
