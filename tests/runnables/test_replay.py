"""Joining a broken answer to its replay, whatever the borders of their chunks; the oracle is
LangChain's own sum of chunks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk

from langmeter.errors import StreamDiverged, StreamTruncated
from langmeter.runnables.resume.replay import ReplayMerger, Restart, restart_of

FINISH = {"finish_reason": "stop", "model_name": "m-1"}


class Answer(NamedTuple):
    """What a model says."""

    thought: str
    text: str
    calls: list[tuple[str, str]]


#: Two letters, so that answers often agree for a while.
WORDS = st.text("ab", max_size=8)
ANSWERS = st.builds(
    Answer,
    WORDS,
    WORDS,
    st.lists(
        st.tuples(st.sampled_from(["f", "g"]), WORDS.map(lambda w: json.dumps({"q": w}))),
        max_size=2,
    ),
)
#: Sizes of pieces, used one after the other, again and again.
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=5)


def pieces(text: str, sizes: list[int]) -> Iterable[str]:
    place = step = 0
    while place < len(text):
        size = sizes[step % len(sizes)]
        yield text[place : place + size]
        place, step = place + size, step + 1


def usage(output: int, cached: int) -> Any:
    return {
        "input_tokens": 9,
        "output_tokens": output,
        "total_tokens": 9 + output,
        "input_token_details": {"cache_read": cached},
    }


def flat(answer: Answer, sizes: list[int], attempt: int) -> list[AIMessageChunk]:
    """As OpenAI's compatibles stream: text as str, usage at the end, a new id for each attempt."""
    same: Any = {"id": f"chatcmpl-{attempt}", "response_metadata": {"model_provider": "openai"}}
    chunks = [AIMessageChunk(content="", **same)]
    for piece in pieces(answer.thought, sizes):
        extra = {"reasoning_content": piece}
        chunks.append(AIMessageChunk(content="", additional_kwargs=extra, **same))
    chunks += (AIMessageChunk(content=piece, **same) for piece in pieces(answer.text, sizes))
    for index, (name, args) in enumerate(answer.calls):
        first: Any = {"name": name, "args": "", "id": f"call-{attempt}-{index}", "index": index}
        chunks.append(AIMessageChunk(content="", tool_call_chunks=[first], **same))
        for piece in pieces(args, sizes):
            more: Any = {"name": None, "args": piece, "id": None, "index": index}
            chunks.append(AIMessageChunk(content="", tool_call_chunks=[more], **same))
    last = {**same, "response_metadata": {**same["response_metadata"], **FINISH}}
    chunks.append(AIMessageChunk(content="", **last))
    told = usage(len(answer.text), attempt)
    chunks.append(AIMessageChunk(content="", usage_metadata=told, chunk_position="last", **same))
    return chunks


def blocks(answer: Answer, sizes: list[int], attempt: int) -> list[AIMessageChunk]:
    """As Anthropic streams: blocks by index, arguments twice, usage at both ends."""
    id = f"lc_run--{attempt}"
    before: Any = {
        "input_tokens": 9,
        "output_tokens": 0,
        "total_tokens": 9,
        "input_token_details": {"cache_read": attempt},
    }
    chunks = [
        AIMessageChunk(
            content=[], id=id, usage_metadata=before, response_metadata={"model_name": "m-1"}
        )
    ]
    index = 0
    if answer.thought:
        for piece in pieces(answer.thought, sizes):
            block = {"type": "thinking", "thinking": piece, "index": index}
            chunks.append(AIMessageChunk(content=[block], id=id))
        block = {"type": "thinking", "thinking": "", "signature": f"s{attempt}", "index": index}
        chunks.append(AIMessageChunk(content=[block], id=id))
        index += 1
    for piece in pieces(answer.text, sizes):
        block = {"type": "text", "text": piece, "index": index}
        chunks.append(AIMessageChunk(content=[block], id=id))
    for number, (name, args) in enumerate(answer.calls, index + 1):
        call = f"toolu-{attempt}-{number}"
        block = {"type": "tool_use", "name": name, "id": call, "input": {}, "index": number}
        first: Any = {"name": name, "args": "", "id": call, "index": number}
        chunks.append(AIMessageChunk(content=[block], tool_call_chunks=[first], id=id))
        for piece in pieces(args, sizes):
            block = {"type": "input_json_delta", "partial_json": piece, "index": number}
            more: Any = {"name": None, "args": piece, "id": None, "index": number}
            chunks.append(AIMessageChunk(content=[block], tool_call_chunks=[more], id=id))
    after: Any = {"input_tokens": 0, "output_tokens": 7, "total_tokens": 7}
    chunks.append(
        AIMessageChunk(
            content=[],
            id=id,
            usage_metadata=after,
            chunk_position="last",
            response_metadata={"stop_reason": "end_turn"},
        )
    )
    return chunks


def whole(answer: Answer, sizes: list[int], attempt: int) -> list[AIMessageChunk]:
    """All at once, as models behind some gateways do."""
    return [reduce(add, flat(answer, sizes, attempt))]


def text(answer: Answer, sizes: list[int], attempt: int) -> list[str]:
    """As a text model streams."""
    return ["", *pieces(answer.text, sizes)]


Render = Callable[[Answer, list[int], int], list[Any]]
RENDERS: st.SearchStrategy[Render] = st.sampled_from([flat, blocks, text])


def run(attempts: list[list[Any]], **settings: Any) -> list[Any]:
    """What the caller gets of attempts of which all but the last broke."""
    splice = ReplayMerger(**{"signal": True, "require_finish": False, **settings})
    out = []
    for number, chunks in enumerate(attempts, 1):
        splice.begin()
        for chunk in chunks:
            out += splice.take(chunk)
        if number == len(attempts):
            splice.check()
            out += splice.end()
    return out


def told(chunks: list[Any]) -> Any:
    """What an answer says, without the names that a provider makes up anew for each attempt."""
    total = reduce(add, chunks)
    if isinstance(total, str):
        return total
    made_up = {"id", "signature"}
    content = (
        total.content
        if isinstance(total.content, str)
        else [
            {key: value for key, value in block.items() if key not in made_up}
            for block in total.content
        ]
    )
    calls = [(call["name"], call["args"]) for call in total.tool_call_chunks]
    return (
        content,
        calls,
        total.additional_kwargs,
        total.response_metadata,
        total.usage_metadata,
        total.chunk_position,
    )


def after_the_last_mark(chunks: list[Any]) -> list[Any]:
    marks = [place for place, chunk in enumerate(chunks) if restart_of(chunk)]
    return chunks[marks[-1] + 1 :] if marks else chunks


@pytest.mark.slow
@given(RENDERS, ANSWERS, st.lists(st.tuples(SIZES, st.integers(1, 12)), max_size=3), SIZES)
def test_the_caller_gets_the_whole_answer_once(
    render: Render, answer: Answer, breaks: list[tuple[list[int], int]], sizes: list[int]
) -> None:
    """However often it broke and was cut up, the sum is that of the attempt that succeeded."""
    attempts = [render(answer, each, n)[:cut] for n, (each, cut) in enumerate(breaks)]
    attempts.append(render(answer, sizes, 9))
    out = run(attempts)
    assert [chunk for chunk in out if restart_of(chunk)] == []
    assert told(out) == told(attempts[-1])
    if render is not text:
        assert len({chunk.id for chunk in out}) == 1
        total = reduce(add, out)
        calls = {call["id"] for call in total.tool_calls + total.invalid_tool_calls}
        assert len(calls) == len(answer.calls)


@given(RENDERS, ANSWERS, ANSWERS, SIZES, SIZES, st.integers(0, 12))
def test_after_a_marker_comes_the_whole_other_answer(
    render: Render, first: Answer, second: Answer, a: list[int], b: list[int], cut: int
) -> None:
    """Whatever the two answers, the caller who forgets at a marker has exactly the second."""
    attempts = [render(first, a, 1)[:cut], render(second, b, 2)]
    out = run(attempts)
    kept = after_the_last_mark(out)
    assert told(kept) == told(attempts[-1])
    if len(kept) < len(out):
        shown = reduce(add, attempts[0])
        shown = shown if isinstance(shown, str) else str(shown.text)
        marks = [mark for chunk in out if (mark := restart_of(chunk))]
        assert marks == [Restart(2, len(shown))]
        with pytest.raises(StreamDiverged) as caught:
            run(attempts, signal=False)
        assert (caught.value.attempt, caught.value.discarded_characters) == (2, len(shown))
    elif render is text:
        given_text = "".join(attempts[0])
        assert second.text.startswith(given_text)


@given(ANSWERS, SIZES, st.integers(1, 12))
def test_a_replay_in_one_piece_is_cut_at_the_border(
    answer: Answer, sizes: list[int], cut: int
) -> None:
    """A chunk that repeats all that was given is handed on without it."""
    attempts = [flat(answer, sizes, 1)[:cut], whole(answer, sizes, 2)]
    out = run(attempts)
    assert len(out) == len(attempts[0]) + 1
    assert told(out) == told(attempts[1])


def test_a_marker_is_of_the_kind_of_its_stream() -> None:
    """An empty str among str, an empty message among messages; both say the same."""
    (mark,) = (chunk for chunk in run([["ab"], ["ac"]]) if restart_of(chunk))
    assert isinstance(mark, str)
    assert mark == ""
    assert restart_of(mark) == (2, 2)
    out = run([[AIMessageChunk(content="ab", id="1")], [AIMessageChunk(content="ac", id="2")]])
    assert [chunk.content for chunk in out] == ["ab", "", "ac"]
    assert out[1].response_metadata == {
        "langmeter_restarts": [{"attempt": 2, "discarded_characters": 2}]
    }
    assert [chunk.id for chunk in out] == ["1", "2", "2"]


def test_restarts_of_a_sum_are_all_there() -> None:
    """LangChain appends them; the last is what `restart_of` says."""
    attempts = [[AIMessageChunk(content=text)] for text in ("ab", "acd", "x")]
    total = reduce(add, run(attempts))
    assert [each["attempt"] for each in total.response_metadata["langmeter_restarts"]] == [2, 3]
    assert restart_of(total) == (3, 3)
    assert restart_of(AIMessageChunk(content="a")) is None
    assert restart_of({"a": 1}) is None


def test_a_shorter_answer_is_another() -> None:
    """What ends before it has said everything again is signalled as well, also when it is empty."""
    assert run([["abc"], ["a"]]) == ["abc", "", "a"]
    assert run([["abc"], []]) == ["abc", ""]
    out = run([[AIMessageChunk(content="abc")], []])
    assert restart_of(out[-1]) == (2, 3)
    with pytest.raises(StreamDiverged, match="the 3 characters already handed on; set temperature"):
        run([["abc"], ["a"]], signal=False)


def test_what_moves_on_too_late_is_another_answer() -> None:
    """More text where a tool call had followed: nothing is handed on out of order."""
    call: Any = {"name": "f", "args": "", "id": "1", "index": 0}
    first = [AIMessageChunk(content="a"), AIMessageChunk(content="", tool_call_chunks=[call])]
    out = run([first, [first[0], AIMessageChunk(content="b"), first[1]]])
    assert [chunk.content for chunk in out] == ["a", "", "", "a", "b", ""]
    assert restart_of(out[2]) == (2, 1)


def test_items_without_an_index_are_compared_whole() -> None:
    """Tool calls that come whole, as Google's, and citations: repeated ones are not given twice."""

    def chunk(args: str, id: str) -> AIMessageChunk:
        call: Any = {"name": "f", "args": args, "id": id, "index": None}
        return AIMessageChunk(content="", tool_call_chunks=[call])

    out = run([[chunk("1", "x")], [chunk("1", "y"), chunk("2", "z")]])
    assert [call["id"] for each in out for call in each.tool_call_chunks] == ["x", "z"]
    out = run([[chunk("1", "x")], [chunk("3", "y")]])
    assert restart_of(out[1]) == (2, 0)
    cited = [{"type": "text", "text": "", "index": 0, "citations": [{"title": t}]} for t in "abc"]
    chunks = [AIMessageChunk(content=[block]) for block in cited]
    assert told(run([chunks[:2], chunks])) == told(chunks)


def test_blocks_without_an_index_and_plain_strings_are_text() -> None:
    """As Google streams lists of content."""
    one = AIMessageChunk(content=["ab", {"type": "text", "text": "cd"}])
    two = AIMessageChunk(content=["abx", {"type": "text", "text": "cde"}])
    assert run([[one], [two]])[1].content == ["x", {"type": "text", "text": "e"}]


def test_figures_of_a_block_are_given_once() -> None:
    """Numbers and encrypted parts are neither compared nor repeated."""
    block = {"type": "reasoning", "index": 0, "encrypted_content": "s", "score": 0.5, "text": "a"}
    again = {**block, "encrypted_content": "t", "score": 0.7, "text": "ab"}
    out = run([[AIMessageChunk(content=[block])], [AIMessageChunk(content=[again])]])
    assert out[1].content == [{"type": "reasoning", "index": 0, "text": "b"}]


@pytest.mark.parametrize("cut", range(1, 5))
def test_what_is_not_text_is_whole_after_a_break(cut: int) -> None:
    """Empty values, values of labels alone, and a signature that was empty at first."""
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "a", "signature": "", "index": 0},
        {"type": "thinking", "signature": "s", "index": 0},
        {"type": "tool_use", "id": "1", "input": {}, "caller": {"type": "direct"}, "index": 1},
        {"type": "input_json_delta", "partial_json": "", "index": 1},
        {"type": "text", "text": "b", "index": 2},
    ]
    chunks = [AIMessageChunk(content=[block]) for block in blocks]
    assert reduce(add, run([chunks[:cut], chunks])) == reduce(add, chunks)


def test_each_chunk_says_how_it_is_to_be_read() -> None:
    """LangChain translates blocks by the provider named in the chunk itself."""
    said = {"model_provider": "anthropic", "output_version": "v1", "model_name": "m"}
    chunks = [AIMessageChunk(content=text, response_metadata=said) for text in ("a", "ab")]
    out = run([chunks[:1], chunks[1:]])
    assert out[1].content == "b"
    assert out[1].response_metadata == {"model_provider": "anthropic", "output_version": "v1"}


def test_log_probabilities_go_on_with_the_text() -> None:
    """A list of metadata is withheld with the text it belongs to, and given with what is new."""

    def chunk(text: str) -> AIMessageChunk:
        return AIMessageChunk(content=text, response_metadata={"logprobs": {"content": [text]}})

    chunks = [chunk("a"), chunk("b"), chunk("c")]
    total = reduce(add, run([chunks[:2], chunks]))
    assert total.response_metadata == {"logprobs": {"content": ["a", "b", "c"]}}


def test_a_replay_that_breaks_leaves_what_was_given() -> None:
    """What a broken replay only repeated, and told beside it, is still to come from the next."""
    model = AIMessageChunk(content="a", response_metadata={"model_name": "m"})
    rest = AIMessageChunk(content="bc")
    out = run([[AIMessageChunk(content="ab")], [model], [model, rest]])
    total = reduce(add, out)
    assert (total.content, total.response_metadata) == ("abc", {"model_name": "m"})


def test_a_whole_message_is_one_item() -> None:
    """Of a model that does not stream: repeated it is not given again, changed it is another."""
    same = AIMessage("ab")
    assert run([[same], [AIMessage("ab")]]) == [same]
    out = run([[same], [AIMessage("ac")]])
    assert [message.content for message in out] == ["ab", "", "ac"]
    out = run([[AIMessageChunk(content="a")], [same]])
    assert [message.content for message in out] == ["a", "", "ab"]


def test_a_cut_stream_is_found_by_its_missing_finish_reason() -> None:
    """`chunk_position` is not believed, which LangChain also sets where a stream was cut."""
    cut = [AIMessageChunk(content="a"), AIMessageChunk(content="", chunk_position="last")]
    with pytest.raises(StreamTruncated, match="attempt 1 ended without a finish reason"):
        run([cut], require_finish=True)
    full = [*cut[:1], AIMessageChunk(content="b", response_metadata=FINISH), *cut[1:]]
    out = run([cut, full], require_finish=True)
    assert "".join(chunk.content for chunk in out) == "ab"
    assert [chunk.chunk_position for chunk in out] == [None, None, None, "last"]
    assert run([[AIMessage("a")]], require_finish=True) == [AIMessage("a")]
    with pytest.raises(TypeError, match="require_finish = True: a stream of str has no finish"):
        run([["a"]], require_finish=True)


@pytest.mark.parametrize("chunk", [{"a": 1}, b"a", 1, None])
def test_other_chunks_are_refused(chunk: Any) -> None:
    """What cannot be compared by its text is refused at the first chunk, not when it breaks."""
    with pytest.raises(TypeError, match=f"not of {type(chunk).__name__}; put it around the model"):
        run([[chunk]])
