"""Token counts are those of PyPI's tiktoken, string by string.

The oracle's vocabularies are the files that `litellm` ships in tiktoken's cache format; they are
found on the path, and litellm itself is never imported.
"""

from __future__ import annotations

import argparse
import inspect
import random
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langmeter._core import chat_overhead, count_tokens, encoding_for_model

if TYPE_CHECKING:
    from tiktoken import Encoding

tiktoken = pytest.importorskip("tiktoken")

ENCODINGS = ("cl100k_base", "o200k_base", "o200k_harmony", "p50k_base")

# Each stands at a border of some pattern: white space and newlines, contractions and what folds to
# them (long s), case and its absence (titlecase, modifiers, Han, kana), marks, joiners, numbers
# that are not digits, planes above the first, special tokens as text.
ATOMS = [
    *"aAzZ09 \t\n\r\f\v'.,!/-_#@<|>\\\"{}\x00\x1c\x7f\x85\xa0\u1680\u180e\u200b\u2028\u3000\ufeff",
    *("  ", "   ", "\r\n", "\n\n", "\n ", " \n", "\n/", "/\n", " Hello"),
    *("'s", "'S", "'\u017f", "'t", "'RE", "'Ve", "'lL", "'d", "'M", "'x"),
    *("hello", "HTTPServer", "1234", "<|endoftext|>", "<|im_start|>", "<|return|>"),
    *"\u017f\u212a\u01c5\u02b0İßé中国あー한。Ａ１²½Ⅷ〇ا\u0651\u0301\u200d\ufe0f😀𝒜𝟘𐐀𐐨",
    *("e\u0301", "क्", "ि", "नमस्ते", "🏳\ufe0f\u200d🌈", "👩\u200d👩\u200d👧", "\U000e0001"),
]

CHINESE = (
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。请把第{}份报告翻译成英文，并在下午3点前发给我！\n"
)
HINDI = "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतंत्रता प्राप्त है। ({})\n"
SAMPLES = {
    "english": "\n".join(topics[key] for key in sorted(topics))[:20_000],
    "code": inspect.getsource(argparse)[:20_000],
    "chinese": "".join(CHINESE.format(i) for i in range(200))[:7_000],
    "hindi": "".join(HINDI.format(i) for i in range(200))[:8_000],
}
RUNS = [*"aA \n\t1'/中\u0301", "ab", "中A", "\u0301A", " \n", "🏳\ufe0f\u200d🌈"]


@pytest.fixture(scope="module", params=ENCODINGS)
def oracle(request: pytest.FixtureRequest) -> Iterator[Encoding]:
    """The encoding of that name in tiktoken, or a skip where no package has its vocabulary."""
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no vocabularies: uv pip install --no-deps litellm")
    files = Path(spec.submodule_search_locations[0], "litellm_core_utils", "tokenizers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(files))
        yield tiktoken.get_encoding(request.param)


def differences(oracle: Encoding, texts: list[str]) -> list[tuple[str, int, int]]:
    """(text, tiktoken's count, ours) where the two differ, the shortest first."""
    theirs, ours = oracle.encode_ordinary, count_tokens
    counts = [(text, len(theirs(text)), ours(text, oracle.name)) for text in texts]
    return sorted((c for c in counts if c[1] != c[2]), key=lambda c: len(c[0]))[:5]


@pytest.mark.slow
def test_atoms_alone_and_in_pairs_count_alike(oracle: Encoding) -> None:
    """Every atom, and every two of them next to each other, count as in tiktoken."""
    assert not differences(oracle, [*ATOMS, *(a + b for a in ATOMS for b in ATOMS)])


@pytest.mark.slow
def test_random_mixtures_count_alike(oracle: Encoding) -> None:
    """8,000 mixtures of atoms, of any code points, of white space, and of repetitions."""
    rng = random.Random(3)
    spaces = [chr(c) for c in range(0x3001) if chr(c).isspace()]
    planes = [*map(chr, range(0xD800)), *map(chr, range(0xE000, 0x110000))]
    texts = []
    for _ in range(2_000):
        a, b = rng.choices(ATOMS, k=2)
        texts.append("".join(rng.choices(ATOMS, k=rng.randint(1, 24))))
        texts.append("".join(rng.choices(planes, k=9)))
        texts.append("".join(rng.choices(spaces, k=9)) + a + "".join(rng.choices(spaces, k=3)))
        texts.append(a * rng.randint(1, 60) + b * rng.randint(0, 60))
    assert not differences(oracle, texts)


@pytest.mark.slow
def test_every_assigned_code_point_counts_alike(oracle: Encoding) -> None:
    """Each beside letters, spaces, newlines, digits and quotes, so that its class shows."""
    nothing = ("Cn", "Co", "Cs")
    points = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in nothing]
    # Of the 60,000 letters of the later Han planes, which all behave as the first, a tenth.
    points = [c for c in points if c < "\U00020000" or ord(c) % 10 == 0]
    lines = [f"a{c}b {c}{c}\n{c} 1{c}'{c}A{c}" for c in points]
    assert not differences(oracle, ["\n".join(lines[i : i + 16]) for i in range(0, len(lines), 16)])


@given(
    texts=st.lists(
        st.one_of(
            st.text(),
            st.lists(st.sampled_from(ATOMS)).map("".join),
            st.text(st.characters(codec="utf-8", categories=["Z", "Cc", "M", "Nd", "Lu"])),
        ),
        min_size=8,
    )
)
def test_any_text_counts_alike(oracle: Encoding, texts: list[str]) -> None:
    """Whatever hypothesis comes up with."""
    assert not differences(oracle, texts)


@pytest.mark.parametrize("sample", SAMPLES)
def test_pages_of_text_count_alike(oracle: Encoding, sample: str) -> None:
    """20 kB of English and code, Chinese and Hindi, whole and from every hundredth character on."""
    text = SAMPLES[sample]
    assert not differences(oracle, [text, *(text[i : i + 500] for i in range(0, len(text), 100))])


@pytest.mark.slow
@pytest.mark.parametrize("unit", RUNS, ids=ascii)
def test_long_runs_count_alike(oracle: Encoding, unit: str) -> None:
    """100 kB of the same: one piece, on which a naive merge is quadratic."""
    run = unit * (100_000 // len(unit.encode()))
    assert not differences(oracle, [run, run + "x", "x" + run])


def test_surrogates_count_as_tiktoken_reads_them(oracle: Encoding) -> None:
    """A pair is the character it encodes; a lone one is U+FFFD."""
    texts = [
        "\ud83d\ude00",
        "\ud800",
        "a\udfffb",
        "\ude00\ud83d",
        "\ud83d\ud83d\ude00!",
        "\ufeff\ud800",
    ]
    assert not differences(oracle, texts)
    assert count_tokens("\ud83d\ude00", oracle.name) == count_tokens("😀", oracle.name)


def test_special_tokens_are_ordinary_text() -> None:
    """What a user writes never becomes a control token."""
    assert count_tokens("<|endoftext|>", "cl100k_base") > 1


def test_an_unknown_encoding_is_refused() -> None:
    """Of `ValueError`, with the name."""
    with pytest.raises(ValueError, match="r50k_base"):
        count_tokens("x", "r50k_base")


def test_threads_share_a_vocabulary() -> None:
    """Counts that race for the first use of an encoding agree."""
    with ThreadPoolExecutor(8) as pool:
        counts = set(pool.map(lambda _: count_tokens(SAMPLES["code"], "o200k_harmony"), range(32)))
    assert len(counts) == 1


def test_models_have_tiktokens_encodings() -> None:
    """Each model and prefix of its table whose encoding is embedded.

    What tiktoken calls p50k_edit is p50k_base in ordinary text.
    """
    from tiktoken.model import MODEL_PREFIX_TO_ENCODING, MODEL_TO_ENCODING

    prefixes = {f"{key.rstrip('-')}-x": name for key, name in MODEL_PREFIX_TO_ENCODING.items()}
    for model, name in (MODEL_TO_ENCODING | prefixes).items():
        expected = name.replace("p50k_edit", "p50k_base")
        assert encoding_for_model(model) == (expected if expected in ENCODINGS else None), model


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("ft:gpt-4.1-mini-2025-04-14:org::id", "o200k_base"),
        ("openai/gpt-4o", "o200k_base"),
        ("azure/gpt-35-turbo", "cl100k_base"),
        ("openai.gpt-oss-120b-1:0", "o200k_harmony"),
        ("accounts/fireworks/models/gpt-oss-20b", "o200k_harmony"),
        ("gpt-oss:20b", "o200k_harmony"),
        ("claude-sonnet-4-5", None),
        ("meta/llama-3.1-70b-instruct", None),
        ("", None),
    ],
)
def test_models_are_known_under_their_providers_names(model: str, encoding: str | None) -> None:
    """Paths, vendor prefixes and tags are looked through."""
    assert encoding_for_model(model) == encoding


MESSAGES = [
    (
        "",
        "You are a helpful, pattern-following assistant that translates corporate jargon into "
        "plain English.",
    ),
    ("example_user", "New synergies will help drive top-line growth."),
    ("example_assistant", "Things working well together will increase revenue."),
    (
        "example_user",
        "Let's circle back when we have more bandwidth to touch base on opportunities for "
        "increased leverage.",
    ),
    ("example_assistant", "Let's talk later when we're less busy about how to do better."),
    (
        "",
        "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    ),
]


@pytest.mark.parametrize(
    ("model", "total"),
    [("gpt-3.5-turbo-0301", 127), ("gpt-3.5-turbo", 129), ("gpt-4-0613", 129), ("gpt-4o", 124)],
)
def test_chat_totals_are_those_the_api_reported(model: str, total: int) -> None:
    """The prompt tokens that OpenAI's cookbook prints for its example conversation."""
    per_message, per_name, priming = chat_overhead(model)
    encoding = encoding_for_model(model)
    assert encoding is not None
    counted = priming
    for i, (name, content) in enumerate(MESSAGES):
        role = "user" if i == len(MESSAGES) - 1 else "system"
        counted += per_message + count_tokens(role, encoding) + count_tokens(content, encoding)
        counted += per_name + count_tokens(name, encoding) if name else 0
    assert counted == total
