import numpy as np
import PIL.Image
import pytest
from serving import CAPTION, SCENE

import sleuth

TYPES = {
    "image must be a path, an encoded file as bytes, a PIL image": {"image": 3},
    "image must be a path.*not builtins.list": {"image": [SCENE]},
    "response must be str or bytes, not int": {"response": 3},
    "prompt must be str or bytes, not list": {"prompt": ["p"]},
    "policy must be PolicyTokens, not list; make them with": {"policy": [1, 2]},
    "group must be a Group or its id, not int": {"group": 3},
    "group.size must be int, not str": {"group": sleuth.Group("g", size="8")},
    "timeout must be seconds, not str": {"timeout": "1s"},
    "priority must be int, not float": {"priority": 1.5},
    "adapter must be str, not int": {"adapter": 3},
    "idempotency_key must be str, not int": {"idempotency_key": 3},
}
VALUES = {
    "response: give one, or policy tokens": {"response": None},
    "response: character 1 is half of a surrogate pair": {"response": "a\ud800"},
    "response: 5000000 bytes; servers take 64 KiB": {"response": "x" * 5_000_000},
    "image: the file is empty": {"image": b""},
    r"image: an array must be uint8, not float32.*\* 255": {"image": np.zeros((9, 9), np.float32)},
    r"image: an array must have the shape.*not \(3, 9, 8\).*transpose": {
        "image": np.zeros((3, 9, 8), np.uint8)
    },
    r"image: an array must have the shape.*not \(0, 9, 3\)": {
        "image": np.zeros((0, 9, 3), np.uint8)
    },
    r"image: PNG does not hold mode 'CMYK' without loss.*convert": {
        "image": PIL.Image.new("CMYK", (9, 9))
    },
    "group.id: at least one byte": {"group": ""},
    "group.id: at most 256 bytes": {"group": "g" * 257},
    "group.size: -1 is out of range": {"group": sleuth.Group("g", size=-1)},
    "timeout: seconds from 0 on, not -1": {"timeout": -1},
    "aggregation: 'average' is none of mean_log, product_bits": {"aggregation": "average"},
    "sentences: 'line' is none of period, unicode": {"sentences": "line"},
    "realignment: 'max' is none of min, mean, product": {"realignment": "max"},
    "threshold: a number from 0 to 1, not 2": {"threshold": 2},
    "idempotency_key: at most 256 bytes": {"idempotency_key": "k" * 257},
}


@pytest.mark.parametrize("message", TYPES)
def test_a_wrong_type_names_the_field(client, message):
    with pytest.raises(TypeError, match=message):
        client.score_batch([{"image": SCENE, "response": CAPTION, **TYPES[message]}])


@pytest.mark.parametrize("message", VALUES)
def test_a_wrong_value_names_the_field_and_what_to_do(client, message):
    with pytest.raises(sleuth.InputError, match=message):
        client.score_batch([{"image": SCENE, "response": CAPTION, **VALUES[message]}])


def test_what_is_too_large_is_told_and_spoils_nothing_else(client):
    large = {
        "response_too_large": {"response": "x " * 1_500_000},
        "prompt_too_large": {"prompt": "x " * 1_500_000},
        "image_too_large": {"image": bytes(17 << 20)},
    }
    items = [{"image": SCENE, "response": CAPTION, **fields} for fields in large.values()]
    good, *bad = client.score_batch([{"image": SCENE, "response": CAPTION}, *items])
    assert good.valid
    assert [verdict.reason for verdict in bad] == list(large)
    assert {verdict.refusal.error_class for verdict in bad} == {"too_large"}


def test_a_mixed_batch_names_the_item(client):
    good = {"image": SCENE, "response": CAPTION}
    with pytest.raises(TypeError, match=r"items\[1\] must be an Item or a dict, not str"):
        client.score_batch([good, "text"])
    with pytest.raises(sleuth.InputError, match=r"items\[0\]: no field 'respnse'; there are image"):
        client.score_batch([{"image": SCENE, "respnse": CAPTION}])
    with pytest.raises(sleuth.InputError, match=r"items\[2\]: has no image"):
        client.score_batch([good, good, {"response": CAPTION}])
    assert client.score(SCENE, CAPTION).valid


def test_a_file_that_is_not_there_is_an_os_error(client):
    with pytest.raises(FileNotFoundError):
        client.score("nowhere.png", CAPTION)


def test_a_wrong_call_says_so(client):
    with pytest.raises(TypeError, match="unexpected keyword argument 'tiemout'"):
        client.score(SCENE, CAPTION, tiemout=3)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("127.0.0.1:50051", {}, "is no address of a server; give one such as http://"),
        ("http://", {}, "is no address of a server"),
        ("grpc://host:1", {}, "is no address of a server"),
        ("http://host:1/path", {}, "is no address of a server"),
        ("http://host:1", {"ca": b"pem"}, "certificates are for https"),
        ("https://host:1", {"certificate": b"pem"}, "certificate, key: give both or neither"),
        ("http://host:1", {"token": "a\nb"}, "token: holds characters that no header may have"),
    ],
)
def test_an_address_that_cannot_be_used_is_told(url, options, message):
    with pytest.raises(sleuth.InputError, match=message):
        sleuth.Client(url, **options)


def test_settings_are_checked():
    with pytest.raises(sleuth.InputError, match=r"retry\.attempts: at least 1"):
        sleuth.Retry(attempts=0)
    with pytest.raises(sleuth.InputError, match=r"retry\.budget: seconds, at least 0"):
        sleuth.Retry(budget=-1)
    with pytest.raises(sleuth.InputError, match="max_in_flight: at least 1"):
        sleuth.Settings(max_in_flight=0)
    with pytest.raises(sleuth.InputError, match="a BLAKE3 has 32 bytes, not 3"):
        sleuth.Image.known(b"abc")


def test_pauses_double_to_a_bound_and_obey_the_server():
    retry = sleuth.Retry(attempts=6, first_pause=0.05, longest_pause=10, budget=100)
    assert 0.05 <= retry.pause(1, None, 0) <= 0.075
    assert 0.2 <= retry.pause(3, None, 0) <= 0.3
    assert 3 <= retry.pause(2, 3.0, 0) <= 4.5
    assert 10 <= retry.pause(2, 180.0, 0) <= 15
    assert retry.pause(6, None, 0) is None
    assert retry.pause(2, None, 100) is None
    assert sleuth.Retry(attempts=1).pause(1, None, 0) is None
