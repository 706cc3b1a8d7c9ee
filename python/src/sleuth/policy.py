"""A policy's own tokens of a response, so that rewards come back per policy token."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

from sleuth.errors import InputError, TokenizerMismatchError

__all__ = ["PolicyStream", "PolicyTokens", "Tokenizer"]

Tokenizer = Any
"""A Hugging Face tokenizer, fast or slow."""


@dataclass(frozen=True)
class PolicyTokens:
    """A response as the policy's tokens.

    Attributes:
        text: The response, as UTF-8; what the item's response is, if that is not given.
        byte_end: Where each token ends in `text`, in bytes; never descending, the last at
            `len(text)`. A token without bytes, such as `<eos>`, ends where the one before it does:
            its coverage will be 0.
    """

    text: bytes
    byte_end: tuple[int, ...]

    def __post_init__(self) -> None:
        before = 0
        for index, end in enumerate(self.byte_end):
            if not before <= end <= len(self.text):
                raise InputError(
                    f"byte_end[{index}] is {end}: ends may not descend, nor pass the text's "
                    f"{len(self.text)} bytes"
                )
            before = end
        if before != len(self.text):
            raise TokenizerMismatchError(
                f"byte_end: the last token ends at byte {before} of a text of {len(self.text)}"
            )

    def __len__(self) -> int:
        return len(self.byte_end)

    @classmethod
    def from_ids(cls, tokenizer: Tokenizer, ids: Iterable[int]) -> PolicyTokens:
        """Tokens as the policy generated them.

        The text is what `tokenizer.decode(ids, skip_special_tokens=True)` gives, without clean-up
        of spaces. Special tokens and ids outside the vocabulary have no bytes. Bytes that are no
        UTF-8 are U+FFFD, as in the decoded text.

        Args:
            tokenizer: A Hugging Face tokenizer, fast or slow: byte-level BPE or SentencePiece
                exactly, any other by decoding every prefix.
            ids: Token ids of the response, of shape (T,): a list, an array or a tensor.

        Returns:
            T tokens.

        Raises:
            TypeError: `ids` holds something else than whole numbers.
        """
        return _Reader(tokenizer).read(_whole_numbers(ids))

    @classmethod
    def from_text(cls, tokenizer: Tokenizer, text: str) -> PolicyTokens:
        """Tokens as the tokenizer cuts a text; prefer `from_ids`, as a policy may cut otherwise.

        Raises:
            TokenizerMismatchError: The tokens do not spell the text, as with a tokenizer that
                normalises it.
        """
        tokens = cls.from_ids(tokenizer, tokenizer.encode(text, add_special_tokens=False))
        tokens.check(text)
        return tokens

    def check(self, response: str | bytes) -> None:
        """Compares the tokens with a response.

        Raises:
            TokenizerMismatchError: They spell something else; says from which byte on.
        """
        wanted = response.encode() if isinstance(response, str) else response
        if self.text == wanted:
            return
        pairs = zip(self.text, wanted, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self.text), len(wanted)))
        raise TokenizerMismatchError(
            f"policy: the tokens spell {len(self.text)} bytes and the response has {len(wanted)}; "
            f"they differ from byte {at} on. Give the tokenizer that generated the response and "
            "the ids it generated, or leave `response` out"
        )


class PolicyStream:
    """Token ids as they are generated, cut into pieces that an open item takes.

        stream = PolicyStream(tokenizer)
        with client.open(image, of_policy=True) as item:
            for ids in generate():
                part = stream.feed(ids)
                item.append(part.text, part)
            part = stream.finish()
            item.append(part.text, part)
            verdict = item.close()

    All pieces together are what `PolicyTokens.from_ids` gives of all ids. Tokens that end inside a
    character are held back until it is whole, and those without bytes until others follow.

    Args:
        tokenizer: The policy's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._reader = _Reader(tokenizer)
        self._given = PolicyTokens(b"", ())

    def feed(self, ids: Iterable[int]) -> PolicyTokens:
        """Takes more ids, and gives what is settled; perhaps no token.

        Raises:
            TypeError: `ids` holds something else than whole numbers.
            TokenizerMismatchError: The tokenizer decodes what came before otherwise now.
        """
        tokens = self._reader.read(_whole_numbers(ids))
        if tokens.text.endswith("\ufffd".encode()):
            return PolicyTokens(b"", ())
        # Of a token without bytes the next one may show that it has some, such as a space.
        before = tokens.byte_end[: bisect_left(tokens.byte_end, len(tokens.text)) + 1]
        return self._rest(PolicyTokens(tokens.text, before))

    def finish(self) -> PolicyTokens:
        """Gives what was held back: there are no more ids."""
        return self._rest(self._reader.read([]))

    def _rest(self, tokens: PolicyTokens) -> PolicyTokens:
        given, count, at = self._given, len(self._given), len(self._given.text)
        if tokens.text[:at] != given.text or tokens.byte_end[:count] != given.byte_end:
            raise TokenizerMismatchError(
                "ids: this tokenizer decodes earlier tokens otherwise when more come, so a "
                "response cannot be appended; score it as a whole"
            )
        self._given = tokens
        return PolicyTokens(tokens.text[at:], tuple(end - at for end in tokens.byte_end[count:]))


class _Reader:
    """Spells ids of one tokenizer; those that come later behind those that came before."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._silent = _silent_ids(tokenizer)
        self._ids: list[int] = []
        self._names: list[str | None] = []

    def read(self, ids: list[int]) -> PolicyTokens:
        """Takes more ids, and gives the tokens of all so far."""
        names = self._tokenizer.convert_ids_to_tokens(ids)
        self._ids += ids
        self._names += [
            None if i in self._silent else name for i, name in zip(ids, names, strict=True)
        ]
        text = self._decode(self._ids)
        for spell in (_byte_level, _sentencepiece):
            tokens = _spelled([b"" if n is None else spell(n) for n in self._names], text)
            if tokens is not None:
                return tokens
        return _by_prefixes(self._ids, self._silent, text, self._decode)

    def _decode(self, ids: Sequence[int]) -> str:
        decode = self._tokenizer.decode
        return str(decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _whole_numbers(ids: Iterable[int]) -> list[int]:
    if isinstance(ids, (str, bytes)):
        raise TypeError("ids must be token ids, not text: use from_text for a text")
    listed = list(getattr(ids, "tolist", lambda: ids)())
    for index, i in enumerate(listed):
        if not isinstance(i, int) or isinstance(i, bool):
            raise TypeError(f"ids[{index}] must be a whole number, not {type(i).__name__}")
    return listed


def _silent_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """What decoding skips."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {i for i, token in added.items() if getattr(token, "special", False)}
    return frozenset(special | set(tokenizer.all_special_ids))


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable characters, and the bytes they stand for."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


BYTE_LEVEL = _byte_level_alphabet()


# As many names as a vocabulary has: a policy says the same ones again and again.
@lru_cache(maxsize=1 << 18)
def _byte_level(name: str) -> bytes:
    """`Ġred` as bytes; added tokens stand for themselves."""
    if all(c in BYTE_LEVEL for c in name):
        return bytes(BYTE_LEVEL[c] for c in name)
    return name.encode()


@lru_cache(maxsize=1 << 18)
def _sentencepiece(name: str) -> bytes:
    """`▁red` and `<0x0A>` as bytes."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes.fromhex(name[3:5])
    return name.replace("\u2581", " ").encode()


def _spelled(parts: list[bytes], text: str) -> PolicyTokens | None:
    """The tokens, if these bytes are what decoding gives; SentencePiece's first space may lack."""
    raw = b"".join(parts)
    ends = list(accumulate(map(len, parts)))
    if raw == text.encode():
        return PolicyTokens(raw, tuple(ends))
    cuts = (0, 1) if raw.startswith(b" ") else (0,)
    read = [(cut, *_lossy(raw[cut:])) for cut in cuts]
    # SentencePiece itself leaves spaces at the end out, too; what spells all of it goes first.
    for cut, readable, place in sorted(read, key=lambda r: r[1] != text):
        if readable.startswith(text) and not readable[len(text) :].strip(" "):
            whole = text.encode()
            places = tuple(min(place(max(end - cut, 0)), len(whole)) for end in ends)
            return PolicyTokens(whole, places)
    return None


def _lossy(raw: bytes) -> tuple[str, Callable[[int], int]]:
    """Bytes as text, and where a place in the bytes is in the text's UTF-8.

    A place inside of what becomes U+FFFD is in front of it.
    """
    faults: list[tuple[int, int]] = []
    text, rest, base = "", raw, 0
    while True:
        try:
            text += rest.decode()
            break
        except UnicodeDecodeError as error:
            text += rest[: error.start].decode() + "\ufffd"
            faults.append((base + error.start, base + error.end))
            rest, base = rest[error.end :], base + error.end

    def place(at: int) -> int:
        moved = at
        for start, end in faults:
            if end <= at:
                moved += 3 - (end - start)
            elif start < at:
                moved -= at - start
        return moved

    return text, place


def _by_prefixes(
    ids: Sequence[int], silent: frozenset[int], text: str, decode: Callable[[Sequence[int]], str]
) -> PolicyTokens:
    """A token ends where what is decoded up to it stops to agree with the whole text."""
    ends: list[int] = []
    end = 0
    for count, i in enumerate(ids, start=1):
        if i not in silent:
            part = decode(ids[:count])
            same = next(
                (n for n, (a, b) in enumerate(zip(part, text, strict=False)) if a != b),
                min(len(part), len(text)),
            )
            end = max(end, len(text[:same].encode()))
        ends.append(end)
    whole = len(text.encode())
    last = max((n for n, i in enumerate(ids) if i not in silent), default=-1)
    if last >= 0:
        ends[last:] = [whole] * (len(ends) - last)
    return PolicyTokens(text.encode(), tuple(ends))
