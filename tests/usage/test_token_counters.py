"""Counters of tokens: which one counts a model, own ones, and those that fail."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langmeter import ConfigError, Meter, TokenCountingCallback
from langmeter.snapshot import Tokens
from langmeter.usage.estimate import TokenEstimator
from langmeter.usage.token_counters import counters_of, own_counter, ratio_of, rough_counter
from tests.support.counted import o200k, words
from tests.support.models import chat_model


def test_a_counter_that_fails_is_counted_and_ends_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It raises, counts below 0 or in halves: no estimate, one warning, a call that is ok."""

    def broken(text: str) -> int:
        raise OSError(text)

    bad: list[Any] = [
        broken,
        lambda text: -1,
        lambda text: 1.5,
        lambda text: "many",
        lambda text: 1 << 60,
    ]
    for counter in bad:
        meter = Meter(token_counters={"fake": counter})
        chat_model(usage=None).invoke("hi", config={"callbacks": [meter]})
        snapshot = meter.snapshot()
        assert snapshot.dropped["hook_errors"] == 1
        assert (snapshot.totals.outcomes["ok"], snapshot.totals.tokens) == (1, Tokens())
    assert "token_counter failed" in caplog.text


def test_the_longest_beginning_of_the_name_wins() -> None:
    """With or without the provider and what else stands before the name."""
    named = counters_of(
        {
            name: (lambda text, n=n: n)
            for n, name in enumerate(
                ["Claude", "claude-3", "nvidia_nim/meta/llama", "aws.bedrock/"]
            )
        }
    )
    for provider, model, expected in (
        ("anthropic", "claude-sonnet-4-5", 0),
        ("anthropic", "claude-3-haiku", 1),
        ("gcp.vertex_ai", "us.anthropic.claude-3-haiku", 1),
        ("openrouter", "anthropic/claude-sonnet-4", 0),
        ("nvidia_nim", "meta/llama-3.1-70b-instruct", 2),
        ("groq", "meta/llama-3.1-70b-instruct", None),
        ("aws.bedrock", "amazon.nova-lite-v1:0", 3),
        ("openai", "my-claude", None),
    ):
        counter = own_counter(named, provider, model)
        assert (None if counter is None else counter("")) == expected, model


@pytest.mark.parametrize(
    ("ratio", "names"),
    [
        (
            1.19,
            "claude-3-5-sonnet-20241022 claude-sonnet-4-20250514 claude-v2:1 "
            "anthropic.claude-opus-4-6-v1:0 anthropic/claude-sonnet-4.5",
        ),
        (
            1.53,
            "claude-opus-4-7 claude-opus-4.8 claude-sonnet-5 us.anthropic.claude-opus-4-10-v1:0",
        ),
        (
            1.25,
            "open-mixtral-8x7b mistral:7b mistral-large-2407 mistral-small-2409 codestral-22b "
            "mistral.mistral-large-2402-v1:0",
        ),
        (
            1.06,
            "mistral-small-latest open-mistral-nemo-2407 ministral-8b pixtral-12b "
            "magistral-medium-2506 mistral-small-24b-instruct-2501",
        ),
        (1.04, "deepseek-chat deepseek-ai/DeepSeek-R1"),
        (1.02, "qwen2.5-72b Qwen/Qwen3-32B qwen-max qwen/qwen3-235b-a22b"),
        (1.09, "qwen3.5-397b-a17b"),
        (1.0, "meta/llama-3.1-70b-instruct gemini-2.5-pro command-r mistake x"),
    ],
)
def test_models_without_a_public_vocabulary_have_the_ratio_of_their_family(
    ratio: float, names: str
) -> None:
    """Over o200k_base, by the name of the model alone."""
    text = "A histogram counts values by range. " * 40
    for name in names.split():
        assert ratio_of(name) == ratio, name
        assert rough_counter(name)(text) == round(ratio * o200k(text))


def test_a_vocabulary_of_hugging_face_is_loaded_by_its_path(tmp_path: Path) -> None:
    """It counts without the special tokens of its template."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "one": 1, "two": 2, "[BOS]": 3}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", 3)]
    )
    made.save(str(path := tmp_path / "tokenizer.json"))
    for source in (path, str(path), os.fspath(path)):
        meter = TokenCountingCallback(token_counters={"fake": source})
        assert meter._services.estimator.counter("", "fake-1")("one two three") == 3


def test_what_is_no_counter_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: Any) -> None:
    """When the meter is made, not when a call ends."""
    (junk := tmp_path / "junk.json").write_text("{}", encoding="utf-8")
    for sources, says in (
        ({"llama": junk}, "cannot load .*junk.json"),
        ({"llama": tmp_path / "absent"}, "cannot load .*absent"),
        ({"llama": 7}, "must be a function"),
        ({"": words}, "must be named by the beginning"),
        ({7: words}, "must be named by the beginning"),
        ([words], "must be a mapping of models' names"),
    ):
        with pytest.raises(ConfigError, match=says):
            Meter(token_counters=sources)  # type: ignore[arg-type]
    for module, source in (("tokenizers", "x.json"), ("ctok", "ctok")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigError, match=f"pip install {module}"):
            Meter(token_counters={"claude": source})


def test_ctok_counts_claude_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the version in the name, without the frame that it puts around a text."""
    frames = {"3.0": 7, "4.5": 7, "4.7": 11, "5.0": 6}
    fake: Any = ModuleType("ctok")
    fake.token_count = lambda text, version: words(text) + frames[version]
    monkeypatch.setitem(sys.modules, "ctok", fake)
    offline = TokenEstimator({"claude": "ctok"})
    for model in ("claude-v2", "claude-sonnet-4-5", "claude-opus-4.7", "claude-sonnet-5-20260101"):
        assert offline.counter("anthropic", model)("one two three") == 3


def test_the_remedy_is_named_once_for_each_model(caplog: pytest.LogCaptureFixture) -> None:
    """For answers that came whole; a stream that its reader left is not a mistake."""
    name = f"silent-{uuid.uuid4()}"
    meter = Meter()
    for _ in range(2):
        model = chat_model(metadata={"model_name": name})
        stream = model.stream("hi", config={"callbacks": [meter]})
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert name not in caplog.text
    for _ in range(3):
        GenericFakeChatModel(
            messages=iter([AIMessage("x", response_metadata={"model_name": name})])
        ).invoke("hi", config={"callbacks": [meter]})
    told = [r for r in caplog.records if name in r.getMessage() and "usage" in r.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert "stream_usage=True" in told[0].getMessage()
