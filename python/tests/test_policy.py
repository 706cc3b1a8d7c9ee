import random

import numpy as np
import pytest
import tokenizers_made as made
from serving import CAPTION, SCENE

import sleuth
from sleuth import PolicyTokens

TEXTS = [
    CAPTION,
    "naïve café — 紅色の心臓 🙂🙂",
    " leading and  double  spaces \n\tand tabs",
    "<tool> and <s> as text </s>",
    "é",
]
KINDS = ["byte level", "sentencepiece", "sentencepiece with prefix", "slow", "word piece"]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return {
        "byte level": made.byte_level(),
        "sentencepiece": made.sentencepiece_fast(prefix=False),
        "sentencepiece with prefix": made.sentencepiece_fast(prefix=True),
        "slow": made.sentencepiece_slow(tmp_path_factory.mktemp("slow")),
        "word piece": made.word_piece(),
    }


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def check(tokenizer, ids):
    tokens = PolicyTokens.from_ids(tokenizer, ids)
    assert tokens.text.decode() == decoded(tokenizer, ids)
    assert len(tokens) == len(ids)
    return tokens


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_spell_what_decoding_gives(kinds, kind):
    tokenizer = kinds[kind]
    for text in TEXTS:
        check(tokenizer, tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("kind", KINDS)
def test_any_ids_are_taken_as_a_random_policy_gives_them(kinds, kind):
    tokenizer, chance = kinds[kind], random.Random(0)
    for _ in range(300):
        check(tokenizer, [chance.randrange(len(tokenizer)) for _ in range(chance.randrange(12))])


@pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])
def test_each_token_has_its_own_bytes(kinds, kind):
    tokenizer = kinds[kind]
    ids = tokenizer.encode(CAPTION, add_special_tokens=False)
    tokens = PolicyTokens.from_ids(tokenizer, ids)
    at = 0
    for i, end in zip(ids, tokens.byte_end, strict=True):
        assert tokens.text[at:end].decode() == decoded(tokenizer, [i])
        at = end


def test_a_token_may_end_inside_a_character(kinds):
    tokenizer = kinds["sentencepiece"]
    ids = tokenizer.encode("紅", add_special_tokens=False)
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids] == ["<0xE7>", "<0xB4>", "<0x85>"]
    assert PolicyTokens.from_ids(tokenizer, ids).byte_end == (1, 2, 3)


def test_bytes_that_are_no_text_are_replaced_as_decoding_does(kinds):
    tokenizer = kinds["byte level"]
    names = {b: made_name for made_name, b in sleuth.policy.BYTE_LEVEL.items()}
    ids = tokenizer.convert_tokens_to_ids(["A", names[0xE7], names[0xB4], "B", names[0xFF]])
    tokens = PolicyTokens.from_ids(tokenizer, ids)
    assert tokens.text.decode() == "A\ufffdB\ufffd"
    assert tokens.byte_end == (1, 1, 4, 5, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_no_bytes(kinds, kind):
    tokenizer = kinds[kind]
    ids = tokenizer.encode("The heart", add_special_tokens=False)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    tokens = check(tokenizer, [*ids, eos, pad, pad])
    assert tokens.byte_end[-4:] == (len(tokens.text),) * 4


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_come_per_policy_token(client, kinds, kind):
    tokenizer = kinds[kind]
    ids = [*tokenizer.encode(CAPTION, add_special_tokens=False), tokenizer.eos_token_id]
    policy = PolicyTokens.from_ids(tokenizer, np.array(ids))
    verdict = client.score(SCENE, policy=policy)
    assert verdict.tokens.end.tolist() == list(policy.byte_end)
    assert len(verdict.tokens) == len(ids)
    assert verdict.tokens.coverage[-1] == 0
    assert np.isnan(verdict.tokens.reward[-1])
    own = client.score(SCENE, policy.text).tokens
    # By `min`: each token has the least reward of the model's tokens that overlap it.
    for token in verdict.tokens:
        if token.coverage:
            over = [o.reward for o in own if o.start < token.end and token.start < o.end]
            assert token.reward == min(over)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_stream_of_ids_gives_the_same_tokens_in_pieces(kinds, kind, step):
    tokenizer = kinds[kind]
    # The slow one decodes bytes as `<0xE7>`, and is only exact without them.
    for text in TEXTS[: 1 if kind == "slow" else 3]:
        ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        stream = sleuth.PolicyStream(tokenizer)
        parts = [stream.feed(ids[at : at + step]) for at in range(0, len(ids), step)]
        parts.append(stream.finish())
        whole = PolicyTokens.from_ids(tokenizer, ids)
        assert b"".join(part.text for part in parts) == whole.text
        ends, before = [], 0
        for part in parts:
            ends += [before + end for end in part.byte_end]
            before += len(part.text)
        assert tuple(ends) == whole.byte_end


def test_a_tokenizer_that_takes_back_what_it_decoded_is_told(kinds):
    class Reversing:
        """Puts each token in front."""

        all_special_ids = ()
        convert_ids_to_tokens = kinds["byte level"].convert_ids_to_tokens

        def decode(self, ids, **options):
            return kinds["byte level"].decode(ids[::-1], **options)

    stream = sleuth.PolicyStream(Reversing())
    a, b = kinds["byte level"].convert_tokens_to_ids(["A", "B"])
    assert stream.feed([a]).text == b"A"
    with pytest.raises(sleuth.TokenizerMismatchError, match="response cannot be appended"):
        stream.feed([b])


def test_rewards_of_generated_ids_have_the_bits_of_the_whole(client, kinds):
    tokenizer = kinds["byte level"]
    text = "The large heart is red — naïve 🙂."
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    stream = sleuth.PolicyStream(tokenizer)
    with client.open(SCENE, of_policy=True) as item:
        for i in ids:
            part = stream.feed([i])
            item.append(part.text, part)
        part = stream.finish()
        item.append(part.text, part)
        verdict = item.close()
    whole = client.score(SCENE, policy=PolicyTokens.from_ids(tokenizer, ids))
    assert verdict.reward == whole.reward
    assert np.array_equal(verdict.tokens.reward, whole.tokens.reward, equal_nan=True)
    assert verdict.tokens.end.tolist() == whole.tokens.end.tolist()


def test_an_empty_response_is_told_as_such(client, kinds):
    tokenizer = kinds["byte level"]
    policy = PolicyTokens.from_ids(tokenizer, [tokenizer.eos_token_id])
    assert policy.byte_end == (0,)
    assert client.score(SCENE, policy=policy).reason == "response_empty"


def test_a_tokenizer_that_does_not_match_is_told(client, kinds):
    ids = kinds["byte level"].encode(CAPTION, add_special_tokens=False)
    policy = PolicyTokens.from_ids(kinds["byte level"], ids)
    other = PolicyTokens.from_ids(kinds["sentencepiece"], [i % 300 for i in ids])
    assert client.score(SCENE, CAPTION, policy=policy).valid
    with pytest.raises(sleuth.TokenizerMismatchError, match=r"the response has 78.*from byte"):
        client.score(SCENE, CAPTION, policy=other)
    with pytest.raises(sleuth.TokenizerMismatchError, match="ends at byte 3 of a text of 4"):
        PolicyTokens(b"text", (1, 3))
    with pytest.raises(sleuth.InputError, match=r"byte_end\[1\] is 1: ends may not descend"):
        PolicyTokens(b"text", (2, 1, 4))
    with pytest.raises(sleuth.InputError, match=r"byte_end\[0\] is 9"):
        PolicyTokens(b"text", (9,))


def test_a_text_is_cut_as_the_tokenizer_cuts_it(kinds):
    assert PolicyTokens.from_text(kinds["byte level"], CAPTION).text == CAPTION.encode()
    with pytest.raises(sleuth.TokenizerMismatchError):
        PolicyTokens.from_text(kinds["word piece"], "double  spaces")


def test_ids_must_be_whole_numbers(kinds):
    with pytest.raises(TypeError, match=r"ids\[1\] must be a whole number, not float"):
        PolicyTokens.from_ids(kinds["byte level"], [1, 2.0])
    with pytest.raises(TypeError, match="use from_text"):
        PolicyTokens.from_ids(kinds["byte level"], "text")
    with pytest.raises(TypeError, match=r"ids\[0\] must be a whole number, not list"):
        PolicyTokens.from_ids(kinds["byte level"], np.array([[1, 2]]))
