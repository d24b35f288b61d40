"""The worlds: how they are named, their text and their tokenizer, and the best prediction of each beside counting.

Letters: s window, t position, v token.
"""

import json
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import check_error
from scipy import stats
from world_text import cut, fit, ids_of, tokenizer_of, world

from jaxconf.data.documents import documents
from jaxconf.data.worlds import END, SOURCE, world_of

COUNTED = {
    "noise:words=3,levels=2,stretch=3,least=0.2,most=0.9,zipf=1": (8, 2 * 10**5),
    "noise:words=3,levels=2,stretch=2,least=0.2,most=0.9,signal=inferred,chain=bigram,lengths=fixed": (
        8,
        2 * 10**5,
    ),
    "noise:words=4,levels=2,stretch=3,least=0.2,most=0.9,signal=inferred,restart=false,zipf=1": (6, 4 * 10**5),
    "noise:words=4,levels=2,stretch=3,least=0.2,most=0.9,zipf=1,chain=cycle,backgrounds=two": (7, 2 * 10**5),
    "noise:words=16,levels=2,stretch=3,zipf=1,chain=cycle,backgrounds=two,world=3": (2, 2 * 10**5),
    "copies:words=3,levels=2,stretch=2,least=0.1,most=0.8,zipf=1": (8, 2 * 10**5),
    "copies:words=3,levels=2,stretch=3,least=0.1,most=0.8,signal=inferred": (9, 4 * 10**5),
    "copies:words=2,levels=2,stretch=2,signal=none,document=4,zipf=1": (9, 2 * 10**5),
}
"""Source → the length of the contexts that are counted, with the token behind them; how many words are counted."""
ERRORS = {
    "noise:wrods=3": ("the parameter 'wrods', which noise does not have; the nearest is 'words'", "stretch"),
    "copies:world=3": ("the parameter 'world', which copies does not have; the nearest is 'words'",),
    "noise:words=3,levels=4": ("4 levels and 3 words", "at most as many levels as words"),
    "noise:words=many": ("words is 'many'", "give a whole number"),
    "noise:words=2.5": ("words is '2.5'", "give a whole number"),
    "copies:zipf=steep": ("zipf is 'steep'", "give a number"),
    "copies:zipf=nan": ("zipf is nan", "from 0 to below 10"),
    "noise:signal=loud": ("signal is 'loud'", "give marker or inferred or none"),
    "noise:restart=no": ("restart is 'no'", "give true or false"),
    "noise:chain=trigram": ("chain is 'trigram'", "give permutation or cycle or bigram"),
    "noise:words=4,words=4": ("has words twice", "once for each parameter"),
    "noise:words": ("has words without a value",),
    "copies:least=0.5,most=0.4": ("from 0.5 to 0.4", "give 0 <= least <= most <= 1"),
    "copies:most=1.5": ("from 0.05 to 1.5",),
    "noise:restart=false": ("no marker can tell the level", "levels=1 or signal=inferred"),
    "noise:words=1": ("words is 1", "give at least 2"),
    "noise:levels=0": ("levels is 0", "give at least 1"),
    "copies:stretch=0": ("stretch is 0", "give at least 1"),
    "noise:world=-1": ("world is -1", "give at least 0"),
    "noise:backgrounds=two": ("both backgrounds of", "add zipf=1"),
    "noise:backgrounds=three": ("backgrounds is 'three'", "give one or two"),
    "noise:sharpness=-1": ("sharpness is -1", "give a number from 0"),
}
BOTH = pytest.mark.parametrize("name", ["noise", "copies"])


def check_fit(source: str, length: int, folder: Path, words: int) -> None:
    of = world(f"{source},size={words},seed=5")
    found = fit(of, ids_of(of, folder), length)
    assert found.cells > 100
    assert 1e-4 < found.p < 1 - 1e-4
    assert found.beyond <= stats.binom.ppf(0.9999, found.cells, 2 * stats.norm.sf(3))


@pytest.mark.parametrize("source", COUNTED)
def test_the_best_prediction_is_what_counting_finds(source: str, tmp_path: Path) -> None:
    length, words = COUNTED[source]
    check_fit(source, length, tmp_path, words)


@pytest.mark.slow
@pytest.mark.parametrize("source", COUNTED)
def test_the_best_prediction_is_what_counting_finds_in_ten_million_words(source: str, tmp_path: Path) -> None:
    check_fit(source, COUNTED[source][0], tmp_path, 10**7)


@st.composite
def sources(draw) -> str:
    """A world of any kind, with few words."""
    kind, words = draw(st.sampled_from(["noise", "copies"])), draw(st.integers(2, 5))
    restart = kind == "copies" or draw(st.booleans())
    given = {
        "words": words,
        "levels": draw(st.integers(1, words)),
        "stretch": draw(st.integers(1, 4)),
        "document": draw(st.integers(1, 3)),
        "zipf": draw(st.sampled_from([0, 0.5, 2])),
        "least": draw(st.sampled_from([0, 0.1])),
        "most": draw(st.sampled_from([0.1, 0.7, 1])),
        "signal": draw(st.sampled_from(["marker", "inferred", "none"] if restart else ["inferred", "none"])),
        "seed": draw(st.integers(0, 99)),
        "size": 60,
    }
    if kind == "noise":
        chain = draw(st.sampled_from(["permutation", "cycle", "bigram"]))
        given |= {"lengths": draw(st.sampled_from(["random", "fixed"]))}
        given |= {"backgrounds": draw(st.sampled_from(["one", "two"] if given["zipf"] else ["one"]))}
        given |= {"chain": chain, "restart": str(restart).lower(), "world": draw(st.integers(0, 9))}
    return f"{kind}:" + ",".join(f"{name}={value}" for name, value in given.items())


@given(source=sources())
@settings(max_examples=60)
def test_predictions_are_distributions_that_allow_the_text(source: str, tmp_path_factory) -> None:
    of = world(source)
    windows = cut(of, ids_of(of, tmp_path_factory.mktemp("world")), 14, 20)
    best = of.optimum(windows)
    p = np.exp(best.log_probs)
    np.testing.assert_allclose(p.sum(2), 1, rtol=1e-12)
    np.testing.assert_allclose(p[..., : of.words].sum(2), best.words, rtol=1e-12, atol=1e-12)
    assert np.isfinite(np.take_along_axis(best.log_probs[:, :-1], windows[:, 1:, None], 2)).all()
    np.testing.assert_array_equal(np.isnan(best.noise), best.words == 0)
    known = best.noise[~np.isnan(best.noise)]
    assert ((known == 1) | ((known > of.noise[0] - 1e-12) & (known < of.noise[-1] + 1e-12))).all()


@BOTH
@pytest.mark.parametrize("behind", [0, 1])
def test_a_longer_left_context_says_nothing_once_the_marker_has_been_seen(name: str, behind: int, tmp_path) -> None:
    of = world(f"{name}:words=8,levels=3,stretch=4,document=3,size=3000")
    windows = ids_of(of, tmp_path)[: 20 * 150].reshape(20, 150)
    longer, rest = of.optimum(windows), windows[:, 20 + behind :]
    best, W = of.optimum(rest), of.words
    begins = rest == W if name == "copies" else (rest >= W) & (rest < len(of.tokens) - 1)
    seen = begins.cumsum(1) > 0
    # In the noise world, the word before the marker may lie before the window: one word behind it tells the chain.
    seen = seen if name == "copies" else ((rest < W) & seen).cumsum(1) > 0
    assert 0.8 < seen.mean() < 1
    for ours, theirs in zip(best, longer, strict=True):
        np.testing.assert_allclose(ours[seen], theirs[:, 20 + behind :][seen], rtol=1e-12)


@BOTH
@pytest.mark.parametrize("more", ["", ",stretch=2"])
def test_without_a_signal_the_noise_is_the_mean(name: str, more: str, tmp_path: Path) -> None:
    both = f"{name}:words=8,least=0.1,most=0.5,size=500{more}"
    none, one = world(f"{both},signal=none,levels=4"), world(f"{both},signal=inferred,levels=1")
    np.testing.assert_allclose(none.noise, [0.3])
    assert list(none.documents()) == list(one.documents())
    windows = ids_of(none, tmp_path)[:400].reshape(10, 40)
    for ours, theirs in zip(none.optimum(windows), one.optimum(windows), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@BOTH
def test_text_is_a_function_of_the_parameters(name: str) -> None:
    def text(**given: int) -> list[str]:
        return list(world(f"{name}:words=16," + ",".join(f"{key}={value}" for key, value in given.items())).documents())

    some = text(size=2000)
    assert some == text(size=2000, seed=0) == text(size=4000)[: len(some)]
    assert some != text(size=2000, seed=1)
    words = [word for document in some for word in document.split() if word.startswith("w")]
    assert 2000 <= len(words) < 2000 + len(some[-1].split())
    assert set(words) == {f"w{number}" for number in range(16)}


@BOTH
def test_documents_are_streamed(name: str) -> None:
    began = time.perf_counter()
    assert len(list(islice(documents(f"{name}:size=1000000000000000"), 2))) == 2
    assert time.perf_counter() - began < 1


@BOTH
@pytest.mark.parametrize("signal", ["marker", "inferred"])
def test_every_word_is_one_token_and_decodes_to_itself(name: str, signal: str, tmp_path: Path) -> None:
    of = world(f"{name}:words=12,levels=3,signal={signal},size=300")
    tokenizer = tokenizer_of(of, tmp_path)
    assert of.tokens[:12] == [f"w{number}" for number in range(12)]
    assert of.tokens[-1] == END
    assert tokenizer.vocabulary == {token: index for index, token in enumerate(of.tokens)}
    assert tokenizer.vocab_size == len(of.tokens) == 12 + len(of.separators) + 1
    assert tokenizer.bos_id == tokenizer.eos_id == len(of.tokens) - 1
    for text in of.documents():
        ids = tokenizer.encode(text)
        assert [of.tokens[i] for i in ids] == text.split()
        assert tokenizer.decode(ids) == text


def test_separators_name_what_they_begin() -> None:
    assert world("noise:levels=2").separators == ["e0", "e1"]
    assert world("noise:signal=inferred").separators == ["e"]
    assert world("copies:levels=2").separators == ["n", "e0", "e1"]
    assert world("copies:signal=none").separators == ["n", "e"]


def test_a_chain_without_end_has_neither_bos_nor_eos(tmp_path: Path) -> None:
    of = world("noise:words=5,levels=2,restart=false,signal=inferred,size=200")
    assert of.tokens == ["w0", "w1", "w2", "w3", "w4"]
    tokenizer = tokenizer_of(of, tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.vocab_size) == (None, (), 5)


@pytest.mark.parametrize(
    ("source", "shared"),
    [
        ("noise", "noise"),
        ("noise:seed=3,size=7", "noise"),
        ("copies:words=64,seed=3,levels=8", "copies:words=64"),
        ("noise:signal=inferred,restart=false,world=2", "noise:signal=inferred,restart=false,world=2"),
        ("noise:least=0.123456789,most=1", "noise:least=0.123456789,most=1"),
    ],
)
def test_the_tokenizer_names_its_world(source: str, shared: str) -> None:
    of = world(source)
    config = json.loads(of.tokenizer_files["tokenizer_config.json"])
    assert config[SOURCE] == of.structure == shared
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config.get("bos_token") == config.get("eos_token") == (END if END in of.tokens else None)
    assert world(of.source) == of
    assert world(of.structure).tokenizer_files == of.tokenizer_files


def test_other_text_is_of_no_world() -> None:
    assert [world_of(source) for source in ("stdlib", "noises", "text.jsonl", "hf://datasets/a/noise")] == [None] * 4


@pytest.mark.parametrize("source", ERRORS)
def test_a_wrong_source_is_refused(source: str) -> None:
    check_error(lambda: documents(source), *ERRORS[source])


@BOTH
def test_tokens_that_cannot_stand_in_the_text_are_refused(name: str) -> None:
    of = world(f"{name}:words=4,levels=2,stretch=2" + ",lengths=fixed" * (name == "noise"))
    end, begin, follows = len(of.tokens) - 1, 4, 4 if name == "noise" else 5
    windows = np.array([[end, begin, 0, 1, follows, 0], [end, begin, 0, 1, follows, 0]])
    of.optimum(windows)
    for place, bad in [(4, -1), (4, end + 1), (4, 2), (2, end), (5, follows)]:
        wrong = windows.copy()
        wrong[1, place] = bad
        check_error(
            lambda wrong=wrong: of.optimum(wrong),
            f"token {place} of window 1 cannot stand there in a text of '{of.source}'",
            "give windows of its own text",
        )
