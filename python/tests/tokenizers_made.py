"""Small tokenizers of each kind, made here: nothing is downloaded."""

from __future__ import annotations

import functools
from pathlib import Path

import sentencepiece
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import BertGenerationTokenizer, PreTrainedTokenizerFast

TEXTS = [
    "The blue triangle is on the left. The large heart is red. There is a triangle.",
    "naïve café — 紅色の心臓 🙂🙂 ÄÖÜ\n\ttabs and  double  spaces",
    "There are two objects. One is a small green circle, the other a large square.",
] * 20
SPECIAL = ["<pad>", "<s>", "</s>", "<|im_end|>"]


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.add_tokens([AddedToken("<|im_end|>", special=True), AddedToken("<tool>", special=False)])
    return fast


@functools.cache
def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return wrap(tokenizer)


@functools.cache
def sentencepiece_fast(prefix: bool) -> PreTrainedTokenizerFast:
    """As Gemma (without a space in front) and Llama 2 (with one)."""
    vocabulary = {name: n for n, name in enumerate([*SPECIAL, "<unk>"])}
    vocabulary |= {f"<0x{b:02X}>": len(vocabulary) + b for b in range(256)}
    base = byte_fallback_vocabulary()
    for piece in base:
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [(a, b) for a, b in pairs(base) if a in vocabulary and b in vocabulary]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    steps = [normalizers.Replace(" ", "▁")]
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.insert(0, normalizers.Prepend("▁"))
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(parts)
    return wrap(tokenizer)


def byte_fallback_vocabulary() -> list[str]:
    letters = sorted({c for text in TEXTS[:3] for c in text.replace(" ", "▁") if c.isascii()})
    words = ["th", "he", "▁the", "▁t", "re", "▁a", "an", "le", "in", "▁i", "▁is", "is"]
    return [*letters, "▁", *words]


def pairs(pieces: list[str]) -> list[tuple[str, str]]:
    return [(p[:n], p[n:]) for p in pieces if len(p) > 1 for n in range(1, len(p))]


@functools.cache
def word_piece() -> PreTrainedTokenizerFast:
    """As BERT: what decoding gives is not what the pieces spell."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=[*SPECIAL, "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return wrap(tokenizer)


def sentencepiece_slow(folder: Path) -> BertGenerationTokenizer:
    """A model of the sentencepiece library itself, which transformers reads with it."""
    (folder / "texts").write_text("\n".join(TEXTS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts"),
        model_prefix=str(folder / "model"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        minloglevel=2,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pad_id=3,
    )
    return BertGenerationTokenizer(str(folder / "model.model"))
