"""Training text: batches that depend on seed and step alone, held-out text, counts, and tokenizers.

Letters: b sequence, s window, t position.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import check_error
from tiny_training import TEXT, TINY, corpus_of_text

from jaxconf.data.corpus import END, HELD_OUT, HELD_OUT_TOKENS, Corpus, read_corpus, train_tokenizer, write_tokenizer
from jaxconf.data.windows import encode
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.training.config import TrainConfig


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return corpus_of_text()


def numbered(n: int = 2000, held_out: int = 300, begin: int | None = 0, end: int | None = 0) -> Corpus:
    """Text in which every token is its own place, counted from 1, so that a sequence tells where it is from."""
    return Corpus(
        np.arange(1, n + 1, dtype=np.int32), np.arange(n + 1, n + held_out + 1, dtype=np.int32), begin, end, {}
    )


def save_tokenizer(folder: Path, size: int = 300, tokenizer_config: object = None, config: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    train_tokenizer(iter([f"{i} is {i * i}\n" for i in range(500)]), size).save(str(folder / "tokenizer.json"))
    for name, value in (("tokenizer_config.json", tokenizer_config), ("config.json", config)):
        if value is not None:
            (folder / name).write_text(json.dumps(value))
    return folder


@given(seed=st.integers(0, 2**32 - 1), step=st.integers(1, 10**6), other=st.integers(1, 10**6))
def test_a_batch_is_a_function_of_seed_and_step(seed, step, other):
    made, again = numbered().batch(seed, step, 16, 24), numbered().batch(seed, step, 16, 24)
    np.testing.assert_array_equal(made, again)
    assert made.shape == (16, 25)
    assert made.dtype == np.int32
    if other != step:
        assert (numbered().batch(seed, other, 16, 24) != made).any()
    assert (numbered().batch((seed + other) % 2**32, step, 16, 24) != made).any()


def test_batches_reach_all_over_the_training_text():
    tokens = np.concatenate([numbered().batch(0, step, 64, 24)[:, 1:].ravel() for step in range(1, 100)])
    assert set(range(1, 2000)) <= set(tokens.tolist())
    starts = np.concatenate([numbered().batch(0, step, 64, 24)[:, 1] for step in range(1, 100)])
    assert np.mean(starts) == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("begin", [0, 7, None])
def test_sequences_begin_with_the_begin_token_and_continue_the_text(begin):
    corpus = numbered(begin=begin)
    for rows, length in ((corpus.batch(3, 5, 8, 24), 25), (corpus.held_out_windows(120, 24), 24)):
        assert rows.shape[1] == length
        text = rows if begin is None else rows[:, 1:]
        if begin is not None:
            assert (rows[:, 0] == begin).all()
        assert (np.diff(text) == 1).all()


@pytest.mark.parametrize("begin", [0, None])
def test_training_never_leaves_its_part_of_the_text_nor_held_out_windows_theirs(begin):
    corpus = numbered(60, 40, begin)  # 60 - 24 places only, so that 200 batches try them all
    for step in range(1, 201):
        batch = corpus.batch(0, step, 8, 24)
        assert batch.max() <= 60
        assert (np.diff(batch[:, 1:]) == 1).all()
    windows = corpus.held_out_windows(10**6, 24)
    inside = windows if begin is None else windows[:, 1:]
    assert inside.min() > 60
    assert inside.max() <= 100


def test_a_word_of_the_held_out_text_is_never_trained_on(tmp_path):
    word = "zq~" * 40
    corpus = read_corpus(TINY.vocab_size, TINY.context, lambda: iter([*TEXT, word]))
    write_tokenizer(corpus, tmp_path)
    encoder = Tokenizer.from_folder(tmp_path)
    assert encoder.decode(corpus.held_out).endswith(word + END)
    planted = [i for i in range(TINY.vocab_size) if set(encoder.token(i)) & set("zq~")]
    assert len(planted) >= 3
    trained = np.concatenate([corpus.batch(0, step, 64, 24).ravel() for step in range(1, 100)])
    assert not np.isin(trained, planted).any()
    assert np.isin(corpus.held_out_windows(10**6, 24), planted).any()


def test_the_text_is_all_there_in_order_and_the_last_twentieth_is_held_out(corpus, tmp_path):
    text = np.concatenate([corpus.train, corpus.held_out])
    write_tokenizer(corpus, tmp_path)
    assert Tokenizer.from_folder(tmp_path).decode(text) == "".join(document + END for document in TEXT)
    assert len(corpus.held_out) == int(0.05 * len(text))
    assert corpus.train.dtype == corpus.held_out.dtype == np.int32


def test_no_more_is_held_out_than_anyone_needs(monkeypatch):
    assert (HELD_OUT, HELD_OUT_TOKENS) == (0.05, 1_000_000)
    monkeypatch.setattr("jaxconf.data.corpus.HELD_OUT_TOKENS", 100)
    assert len(read_corpus(TINY.vocab_size, TINY.context, lambda: iter(TEXT)).held_out) == 100


@given(
    held_out=st.integers(25, 3000),
    wanted=st.integers(1, 4000),
    context=st.integers(2, 24),
    begin=st.sampled_from([0, None]),
)
def test_held_out_windows_are_as_many_as_asked_for_and_evenly_spread(held_out, wanted, context, begin):
    corpus = numbered(500, held_out, begin)
    windows = corpus.held_out_windows(wanted, context)
    count = min(max(1, wanted // context), held_out // context)
    assert windows.shape == (count, context)
    assert windows.dtype == np.int32
    starts = windows[:, 0 if begin is None else 1] - 501
    assert starts[0] == 0
    if count > 1:
        assert np.ptp(np.diff(starts)) <= 1
    assert held_out - starts[-1] <= 2 * context + held_out / count  # the last window is near the end


def test_counts_leave_out_the_tokens_that_begin_and_end_a_text():
    train = np.array([5, 1, 1, 2, 5, 3, 1, 6, 5], np.int32)
    for begin, end, expected in (
        (0, 5, [0, 3, 1, 1, 0, 0, 1, 0]),
        (6, 5, [0, 3, 1, 1, 0, 0, 0, 0]),
        (5, 5, [0, 3, 1, 1, 0, 0, 1, 0]),
        (None, None, [0, 3, 1, 1, 0, 3, 1, 0]),
    ):
        counts = Corpus(train, np.array([4, 4], np.int32), begin, end, {}).counts(8)
        assert counts.tolist() == expected
        assert counts.dtype == np.int64


def test_the_digest_tells_texts_apart():
    a = numbered()
    assert a.digest() == numbered().digest()
    assert len(a.digest()) == 64
    swapped = a.train.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    others = [
        Corpus(swapped, a.held_out, 0, 0, {}),
        numbered(held_out=301),
        Corpus(a.train, a.held_out[::-1], 0, 0, {}),
    ]
    assert len({a.digest(), *(other.digest() for other in others)}) == 4
    wide = Corpus(a.train.astype(np.int64), a.held_out.astype(">i4"), 0, 0, {})
    assert wide.digest() == a.digest()  # of the tokens, not of how they are stored


def test_a_new_tokenizer_has_the_size_asked_for_and_its_files_make_it_again(corpus, tmp_path):
    write_tokenizer(corpus, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    again = Tokenizer.from_folder(tmp_path)
    assert again.vocab_size == TINY.vocab_size
    assert corpus.begin == corpus.end == again.bos_id == again.eos_id == 0
    assert again.decode(again.encode("x = é\n")) == "x = é\n"
    assert json.loads(corpus.tokenizer_files["tokenizer_config.json"])["model_max_length"] == TINY.context


def test_an_existing_tokenizer_is_used_as_it_is(tmp_path):
    folder = save_tokenizer(tmp_path, tokenizer_config={"bos_token": "a", "eos_token": END, "extra": "kept"})
    before = {path.name: path.read_text() for path in folder.iterdir()}
    passes = []
    corpus = read_corpus(310, 24, lambda: passes.append(1) or iter(TEXT), folder)
    encoder = Tokenizer.from_folder(folder)
    written = tmp_path / "written"
    written.mkdir()
    write_tokenizer(corpus, written)
    again = Tokenizer.from_folder(written)
    text = f"{TEXT[0]}a {END}\n"
    assert again.vocabulary == encoder.vocabulary
    assert again.encode(text) == encoder.encode(text)
    named = json.loads(corpus.tokenizer_files["tokenizer_config.json"])
    assert (named["extra"], named["tokenizer_class"]) == ("kept", "PreTrainedTokenizerFast")
    assert {path.name: path.read_text() for path in folder.iterdir() if path.is_file()} == before
    assert len(passes) == 1  # nothing to train a tokenizer for
    assert (corpus.begin, corpus.end) == (encoder.encode("a")[0], 0)
    expected = np.concatenate(list(encode(iter(TEXT), encoder)))
    np.testing.assert_array_equal(np.concatenate([corpus.train, corpus.held_out]), expected)
    assert len(corpus.counts(310)) == 310
    assert corpus.counts(310)[corpus.begin] == 0 < (corpus.train == corpus.begin).sum()


def test_a_converted_tokenizer_is_written_as_tokenizer_json(tmp_path):
    folder, written = tmp_path / "in", tmp_path / "out"
    model = json.loads((save_tokenizer(folder) / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(map(" ".join, model["merges"])))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": END, "eos_token": "a"}))
    corpus = read_corpus(300, 24, lambda: iter(TEXT), folder)
    written.mkdir()
    write_tokenizer(corpus, written)
    before, after = Tokenizer.from_folder(folder), Tokenizer.from_folder(written)
    assert {path.name for path in written.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    assert (
        (before.bos_id, before.eos_id)
        == (after.bos_id, after.eos_id)
        == (corpus.begin, corpus.end)
        == (0, model["vocab"]["a"])
    )
    text = f"{TEXT[0]}é {END}\n"
    np.testing.assert_array_equal(after.encode(text), before.encode(text))


def test_a_tokenizer_with_an_end_only_begins_with_it_and_one_with_neither_joins_the_text_bare(tmp_path):
    ends = read_corpus(300, 24, lambda: iter(TEXT), save_tokenizer(tmp_path / "a", config={"eos_token_id": 3}))
    assert (ends.begin, ends.end) == (3, 3)
    assert (ends.batch(0, 1, 4, 24)[:, 0] == 3).all()
    assert set(ends.tokenizer_files) == {"tokenizer.json", "tokenizer_config.json"}
    bare = read_corpus(300, 24, lambda: iter(TEXT), save_tokenizer(tmp_path / "b"))
    assert (bare.begin, bare.end) == (None, None)
    assert Tokenizer.from_folder(tmp_path / "b").decode(np.concatenate([bare.train, bare.held_out])) == "".join(TEXT)
    rows = bare.batch(0, 1, 4, 24)
    assert rows.shape == (4, 25)
    train = bare.train.tobytes()
    assert all(row.tobytes() in train for row in rows)
    assert all(row.tobytes() in bare.held_out.tobytes() for row in bare.held_out_windows(96, 24))


def test_a_tokenizer_that_is_too_large_is_refused_with_both_numbers(tmp_path):
    def read(folder: Path) -> Corpus:
        return read_corpus(280, 24, lambda: iter(TEXT), folder)

    check_error(lambda: read(save_tokenizer(tmp_path / "a")), "has 300 tokens", "vocab_size is 280", "--vocab-size 300")
    # an id that config.json alone knows is a token too
    check_error(
        lambda: read(save_tokenizer(tmp_path / "b", 270, config={"bos_token_id": 290})),
        "has 291 tokens",
        "--vocab-size 291",
    )
    check_error(
        lambda: read(save_tokenizer(tmp_path / "c", 270, config={"bos_token_id": 1, "eos_token_id": 280})),
        "has 281 tokens",
    )
    assert read(save_tokenizer(tmp_path / "d", 280)).begin is None


def test_text_that_is_too_short_is_refused(tmp_path):
    small = TrainConfig(vocab_size=300, context=24)
    folder = save_tokenizer(tmp_path)
    needed = 25 * 20  # a twentieth of it must be longer than 24 tokens

    def read(tokens: int) -> Corpus:
        return read_corpus(small.vocab_size, small.context, lambda: iter(["Q" * tokens]), folder)

    message = check_error(lambda: read(needed - 1), f"gives {needed - 1} tokens", "more text")
    assert "5%" in message
    exact = read(needed)
    assert exact.held_out_windows(1, 24).shape == (1, 24)
    check_error(lambda: read_corpus(small.vocab_size, small.context, lambda: iter([]), folder), "gives 0 tokens")
    check_error(lambda: read_corpus(5000, 256, lambda: iter(TEXT)), "vocabulary of only", "more text")
    check_error(lambda: read_corpus(256, 256, lambda: iter(TEXT)), "vocab_size is 256", "257")


def test_progress_is_told(corpus):
    told = []
    read_corpus(TINY.vocab_size, TINY.context, lambda: iter(TEXT), progress=lambda *what: told.append(what))
    assert told[0][0] == "training the tokenizer"
    assert told[-1] == ("encoding the text", len(corpus.train) + len(corpus.held_out), 0)
