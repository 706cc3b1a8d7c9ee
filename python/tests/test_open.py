import threading

import pytest
from serving import CAPTION, SCENE, until

import sleuth


def test_pieces_have_the_bits_of_the_whole(client):
    text = "The large heart is red — naïve, 紅色 🙂. There is a triangle."
    whole = client.score(SCENE, text)
    data = text.encode()
    for step in (1, 3, 7):
        with client.open(SCENE) as item:
            for at in range(0, len(data), step):
                item.append(data[at : at + step])
            verdict = item.close()
        assert verdict.reward == whole.reward
        assert (verdict.tokens.logit == whole.tokens.logit).all()
        assert (verdict.tokens.end == whole.tokens.end).all()


def test_tokens_come_while_the_response_is_written(client):
    with client.open(SCENE) as item:
        seen, came = [], threading.Event()

        def read():
            for token in item:
                seen.append(token.text)
                came.set()

        reader = threading.Thread(target=read)
        reader.start()
        item.append("The blue triangle is on the left. ")
        assert came.wait(20)
        early = len(item.tokens)
        assert early > 0
        item.append("The large heart is red.")
        verdict = item.close()
        reader.join(20)
    assert "".join(seen) == "The blue triangle is on the left. The large heart is red."
    assert len(verdict.tokens) > early


def test_policy_tokens_are_counted_from_the_start_of_each_append(client):
    pieces = [("The large", (3, 9)), (" heart", (6,)), (" is red.", (3, 7, 8, 8))]
    ends, at = [], 0
    with client.open(SCENE, of_policy=True) as item:
        for text, part in pieces:
            item.append(text, sleuth.PolicyTokens(text.encode(), part))
            ends += [at + end for end in part]
            at += len(text)
        verdict = item.close()
    whole = "The large heart is red."
    once = client.score(SCENE, policy=sleuth.PolicyTokens(whole.encode(), tuple(ends)))
    assert verdict.tokens.end.tolist() == ends
    assert verdict.tokens.coverage.tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert verdict.tokens.reward[:-1].tolist() == once.tokens.reward[:-1].tolist()


def test_leaving_without_close_gives_the_item_up(serve):
    server = serve()
    with sleuth.Client(server.url) as client:
        with client.open(SCENE) as item:
            item.append("The large heart")
            until(lambda: server.metric("sleuth_open_items") == 1)
        try:
            with client.open(SCENE) as item:
                item.append("The large heart")
                until(lambda: server.metric("sleuth_open_items") == 1)
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert not item._ticket.closed
        assert client.score(SCENE, CAPTION).valid
        cancelled = {"class": "cancelled"}
        until(lambda: server.metric("sleuth_verdicts_total", **cancelled) == 2)
        until(lambda: server.metric("sleuth_open_items") == 0)


def test_a_cut_connection_loses_nothing(client):
    whole = client.score(SCENE, CAPTION)
    with client.open(SCENE) as item:
        for n, word in enumerate(CAPTION.split(" ")):
            item.append(word if n == 0 else " " + word)
            if n % 5 == 2:
                client._session.cut()
        verdict = item.close()
    assert verdict.attempts > 1
    assert (verdict.tokens.logit == whole.tokens.logit).all()


def test_what_is_wrong_with_an_append_is_told(client):
    with client.open(SCENE) as item:
        with pytest.raises(TypeError, match="text must be str or bytes, not int"):
            item.append(3)
        with pytest.raises(sleuth.InputError, match="of_policy=False, so no append"):
            item.append("A", sleuth.PolicyTokens(b"A", (1,)))
        item.append("A heart.")
        assert item.close().valid
        with pytest.raises(sleuth.ClosedError, match="nothing can be appended"):
            item.append("more")
    with client.open(SCENE, of_policy=True) as item:
        with pytest.raises(sleuth.InputError, match="of_policy=True, so every append"):
            item.append("A")
        with pytest.raises(sleuth.TokenizerMismatchError, match="differ from byte 0"):
            item.append("A", sleuth.PolicyTokens(b"B", (1,)))


def test_bytes_that_are_no_text_end_the_item_and_nothing_else(client):
    with client.open(SCENE) as item:
        item.append(b"\xff\xfe")
        assert item.close().reason == "response_not_utf8"
    assert client.score(SCENE, CAPTION).valid
