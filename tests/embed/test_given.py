"""Features in members of samples, and what the config may say of features."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from rayclean.config import Config
from rayclean.embed.given import ClipRetrieval, FileFeatures, MemberFeatures, parse_features, read_member, stacked
from rayclean.errors import ConfigError
from rayclean.schema import Array
from rayclean.shards.decode import BadSample

Tiny = Callable[..., Config]


def npy(values: object, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values), **options)  # type: ignore[arg-type]
    return file.getvalue()


def npz(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


@given(
    some.arrays(st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint16]), st.integers(1, 9))
)
def test_a_member_is_read_as_it_was_written(values: Array) -> None:
    with np.errstate(over="ignore"):
        expected = values.astype(np.float32)
    if not np.isfinite(expected).all():
        with pytest.raises(BadSample, match="bad_features"):
            read_member(npy(values), "npy")
        return
    for content, extension in ((npy(values), "npy"), (npy(values[None]), "emb.npy"), (npz(a=values), "npz")):
        found = read_member(content, extension)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_bytes_of_another_order_are_read_as_they_are_meant() -> None:
    assert read_member(npy(np.array([1, 2], ">f4")), "npy").tolist() == [1, 2]


def huge() -> bytes:
    """A header that promises 4 TB."""
    return npy(np.zeros(4, np.float32)).replace(b"(4,), }            ", b"(1000000000000,), }")


@pytest.mark.parametrize(
    ("content", "extension", "said"),
    [
        (b"", "npy", "cannot be read"),
        (b"\x80\x04K\x01.", "npy", "cannot be read"),
        (npy([1.0, 2.0])[:-1], "npy", "does not fit its"),
        (npy([1.0, 2.0]) + b"x", "npy", "does not fit its"),
        (huge(), "npy", "does not fit its"),
        (npy(np.array([{}], object), allow_pickle=True), "npy", "it holds object, expected numbers"),
        (npy(["text"]), "npy", "expected numbers"),
        (npy([True]), "npy", "it holds bool"),
        (npy(1.0), "npy", r"found shape \(\), expected \(d,\)"),
        (npy([]), "npy", r"found shape \(0,\)"),
        (npy(np.zeros((2, 3))), "npy", r"found shape \(2, 3\)"),
        (npy([0.0, np.nan]), "npy", "number 1 is nan, expected finite"),
        (npy([np.inf]), "npy", "number 0 is inf"),
        (npy([1e300]), "npy", "number 0 is 1e.300, expected finite float32"),
        (npz(a=[1.0], b=[2.0]), "npz", "found 2 arrays, expected one"),
        (npz(a=np.zeros(2**24)), "npz", "unpacks to more than"),
        (npz(a=np.zeros(9))[:-4], "npz", "cannot be read"),
        (npy([1.0]), "npz", "cannot be read"),
    ],
)
def test_a_member_that_holds_no_features(content: bytes, extension: str, said: str) -> None:
    with pytest.raises(BadSample, match=said) as caught:
        read_member(content, extension)
    assert caught.value.reason == "bad_features"


@given(st.binary(max_size=200), st.sampled_from(["npy", "npz"]))
def test_whatever_the_bytes_are_the_sample_alone_is_bad(content: bytes, extension: str) -> None:
    magic = b"\x93NUMPY\x01\x00" if extension == "npy" else b"PK\x03\x04"
    for each in (content, magic + content):
        with pytest.raises(BadSample, match="bad_features"):
            read_member(each, extension)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_member_is_read_or_bad(place: int, byte: int) -> None:
    for content, extension in ((npy([1.0, 2.0]), "npy"), (npz(a=[1.0, 2.0]), "npz")):
        damaged = bytearray(content)
        damaged[place % len(damaged)] = byte
        with contextlib.suppress(BadSample):
            assert np.isfinite(read_member(bytes(damaged), extension)).all()


def test_the_commonest_length_is_the_length() -> None:
    one, two = np.ones(1, np.float32), np.ones(2, np.float32)
    values, fits = stacked([two, one, one])
    assert values.tolist()[1:] == [[1], [1]]
    assert np.isnan(values[0]).all()
    assert fits.tolist() == [False, True, True]
    assert stacked([two, one])[1].tolist() == [True, False]
    assert stacked([])[0].shape == (0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("npy", MemberFeatures("npy")),
        (" .Emb.NPY ", MemberFeatures("emb.npy")),
        ("clip_b-32.npz", MemberFeatures("clip_b-32.npz")),
        ("file:emb/*.parquet", FileFeatures("emb/*.parquet")),
        ("file:s3://b/{0..3}.parquet", FileFeatures("s3://b/{0..3}.parquet")),
        ("clip-retrieval:/data/emb", ClipRetrieval("/data/emb")),
    ],
)
def test_what_features_may_be(text: str, expected: object) -> None:
    assert parse_features(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a member's extension"),
        ("jpg", "ends in npy or npz"),
        ("a/b.npy", "expected a member's extension"),
        ("emb..npy", "expected a member's extension"),
        ("file:", "expected a path after file:"),
        ("clip-retrieval: ", "expected a path after clip-retrieval:"),
        ("s3://b/x.npy", "expected a member's extension"),
        ("emb.pth", r"\.pth holds pickles, which are never loaded; write \.npy"),
        ("pt", "holds pickles"),
    ],
)
def test_what_features_may_not_be(text: str, said: str, tiny_config: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        parse_features(text)
    with pytest.raises(ConfigError, match=said):
        tiny_config(tmp_path, f"data.features={text!r}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.features=npy", "model.frozen=true"], "data.features and model.frozen are both set"),
        (["data.image=none"], "data.image is none, so data.features must say where features are"),
        (["data.image=none", "model.frozen=true"], "data.image is none"),
        (["model.frozen=true", "model.bottleneck=8"], "model.bottleneck is a layer that is trained"),
    ],
)
def test_what_does_not_go_together(overrides: list[str], said: str, tiny_config: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config(tmp_path, *overrides)


def test_samples_without_images(tiny_config: Tiny, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "data.image=none", "data.features=npy", "train.epochs=1")
    assert config.data.image_extensions == ()
    assert not config.data.has_images
    assert tiny_config(tmp_path, "data.features=npy", "train.epochs=1").data.has_images
