import itertools
import json
import math
import subprocess

import numpy as np
import PIL.Image
import pytest
from serving import BINARY, CAPTION, SCENE

import sleuth


def test_rewards_are_those_of_the_command_line(client):
    verdict = client.score(SCENE, CAPTION)
    told = subprocess.run(
        [BINARY, "score", "--image", SCENE, "--response", CAPTION, "--format", "json"],
        capture_output=True,
        check=True,
    )
    wanted = json.loads(told.stdout)
    rows = [(t.start, t.end, pytest.approx(t.reward, abs=1e-6)) for t in verdict.tokens]
    assert [(t["start"], t["end"], t["reward"]) for t in wanted["tokens"]] == rows
    assert verdict.reward == pytest.approx(wanted["response"]["reward"], abs=1e-6)
    assert verdict.version == wanted["model"]["version"]
    assert "".join(t.text for t in verdict.tokens) == CAPTION
    flagged = [CAPTION[span.start : span.end] for span in verdict.flagged]
    assert flagged == [" red"] or flagged == ["red"]


def test_columns_are_arrays_of_one_length(client):
    tokens = client.score(SCENE, CAPTION).tokens
    assert tokens.start.dtype == tokens.end.dtype == np.int64
    assert tokens.reward.dtype == tokens.logit.dtype == tokens.coverage.dtype == np.float32
    assert tokens.reward.shape == tokens.logit.shape == tokens.coverage.shape == (len(tokens),)
    assert np.allclose(tokens.reward, 1 / (1 + np.exp(-tokens.logit)), atol=1e-6)
    assert (tokens.coverage == 1).all()


@pytest.fixture(scope="module")
def pictures():
    picture = PIL.Image.open(SCENE).convert("RGB")
    return {
        "str": str(SCENE),
        "path": SCENE,
        "bytes": SCENE.read_bytes(),
        "pil": picture,
        "numpy": np.asarray(picture),
        "transposed and back": np.asarray(picture).transpose(2, 0, 1).transpose(1, 2, 0),
        "encoded": sleuth.Image.of(SCENE),
    }


def test_an_image_in_any_form_gives_the_same_bits(client, pictures):
    rewards = {name: client.score(p, CAPTION).tokens.logit for name, p in pictures.items()}
    for name, logits in rewards.items():
        assert (logits == rewards["path"]).all(), name


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 4)])
def test_arrays_become_png_without_loss(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    import io

    read = np.asarray(PIL.Image.open(io.BytesIO(sleuth.Image.of(array).data)))
    assert (read == array.reshape(read.shape)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pil_images_become_png_without_loss(mode):
    import io

    picture = PIL.Image.open(SCENE).convert("RGB").convert(mode)
    read = PIL.Image.open(io.BytesIO(sleuth.Image.of(picture).data))
    assert (np.asarray(read.convert("RGBA")) == np.asarray(picture.convert("RGBA"))).all()


def test_a_batch_has_the_order_of_its_items_and_a_bad_item_spoils_no_other(client):
    texts = [f"There are {n} objects." for n in range(40)]
    items = [sleuth.Item(SCENE, text) for text in texts]
    items[7] = sleuth.Item(b"no image", "text")
    items[9] = {"image": SCENE, "response": ""}
    verdicts = client.score_batch(items)
    assert [v.reason for v in verdicts if not v.valid] == [
        "image_format_unsupported",
        "response_empty",
    ]
    assert not verdicts[7].valid
    assert not verdicts[9].valid
    for n in (0, 13, 39):
        assert verdicts[n].tokens.response == texts[n].encode()
        assert verdicts[n].reward == client.score(SCENE, texts[n]).reward


def test_items_are_taken_only_as_others_end(server):
    settings = sleuth.Settings(max_in_flight=4)
    taken = itertools.count()
    items = (sleuth.Item(SCENE, f"There are {next(taken)} objects.") for _ in range(1000))
    with sleuth.Client(server.url, settings=settings) as client:
        verdicts = client.score_many(items)
        first = [next(verdicts) for _ in range(3)]
        assert all(v.valid for v in first)
        assert next(taken) <= 3 + 4
        verdicts.close()


def test_as_scored_tells_which_item(client):
    texts = ["There is a heart.", "There is a triangle.", "There is nothing."]
    told = dict(client.as_scored({"image": SCENE, "response": text} for text in texts))
    assert {n: v.tokens.response.decode() for n, v in told.items()} == dict(enumerate(texts))


def test_options_reach_the_server(client):
    mean = client.score(SCENE, CAPTION, aggregation="mean", threshold=0.0, sentences="unicode")
    assert mean.aggregation == "mean"
    assert mean.flagged == ()
    assert mean.reward == pytest.approx(float(mean.tokens.reward.mean()), abs=1e-6)
    asked = client.score(SCENE, CAPTION, "What is in the picture?")
    default, own = client.score(SCENE, CAPTION), client.get_model().prompt
    assert (asked.tokens.logit != default.tokens.logit).any()
    assert (client.score(SCENE, CAPTION, own).tokens.logit == default.tokens.logit).all()
    other = client.score(SCENE, CAPTION, required_version="another")
    assert other.reason == "version_mismatch"


def test_a_group_is_computed_behind_one_prefix(serve):
    server = serve()
    with sleuth.Client(server.url) as client:
        group = sleuth.Group("g", size=8, expected_response_tokens=6)
        items = [sleuth.Item(SCENE, f"There are {n}.", group=group) for n in range(8)]
        verdicts = client.score_batch(items)
    assert all(v.valid for v in verdicts)
    assert server.prefixes() == 1
    assert {v.version for v in verdicts} == {verdicts[0].version}


def test_an_image_is_put_once(serve, monkeypatch):
    server = serve()
    puts = []
    messages = sleuth._images.messages
    monkeypatch.setattr(
        sleuth._images, "messages", lambda d, data: puts.append(d) or messages(d, data)
    )
    with sleuth.Client(server.url) as client:
        items = [sleuth.Item(SCENE, f"There are {n} objects.") for n in range(20)]
        assert all(v.valid for v in client.score_batch(items))
        image = client.put_image(SCENE)
        other = sleuth.Image.of(np.zeros((9, 9, 3), np.uint8))
        assert client.has_images([image, other]) == [True, False]
        assert client.score(sleuth.Image.known(image.blake3), "There is a heart.").valid
        unknown = client.score(sleuth.Image.known(other.blake3), "There is a heart.")
        assert unknown.reason == "image_unknown"
    assert puts == [image.blake3]
    assert server.metric("sleuth_images") == 1


def test_a_large_image_is_asked_for_before_it_is_put(serve, monkeypatch):
    server = serve()
    noise = np.random.default_rng(1).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    image = sleuth.Image.of(noise)
    assert len(image.data) > sleuth._images.ASK_BYTES
    with sleuth.Client(server.url) as first:
        reward = first.score(image, "There is a heart.").reward
    monkeypatch.setattr(sleuth._images, "messages", lambda *_: pytest.fail("put again"))
    with sleuth.Client(server.url) as second:
        assert second.score(image, "There is a heart.").reward == reward


def test_the_same_key_is_scored_once(serve):
    server = serve()
    with sleuth.Client(server.url) as client:
        one = client.score(SCENE, CAPTION, idempotency_key="one")
        two = client.score(SCENE, CAPTION, idempotency_key="one")
        other = client.score(SCENE, "Another.", idempotency_key="one")
    assert (one.tokens.logit == two.tokens.logit).all()
    assert other.reason == "idempotency_conflict"
    assert server.computed() == 1


def test_token_rewards_are_nan_where_there_are_none(client):
    verdicts = client.score_batch([sleuth.Item(SCENE, t) for t in ("A heart.", "", CAPTION)])
    table = sleuth.token_rewards(verdicts)
    assert table.shape == (3, len(verdicts[2].tokens))
    assert np.isnan(table[1]).all()
    length = len(verdicts[0].tokens)
    assert (table[0, :length] == verdicts[0].tokens.reward).all()
    assert np.isnan(table[0, length:]).all()
    with pytest.raises(sleuth.InputError, match="length: a response has"):
        sleuth.token_rewards(verdicts, 2)
    assert not math.isnan(table[2].sum())
