//! `Streams`: what the streams in flight have said so far, and who is told of it.

pub mod delta;
mod stream;

use crate::hooks::identity;
use crate::recorder::Recorder;
use crate::streams::delta::{Delta, Event, Kind};
use crate::streams::stream::{Said, Stream, ToolCall, seconds};
use langmeter_core::{Dropped, RunKey};
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// What listeners want: collected texts, every event, every text, every end.
const COLLECT: u8 = 1;
const EVENTS: u8 = 2;
const TEXTS: u8 = 4;
const ENDS: u8 = 8;
/// Their names: the position is the bit.
pub const WANTS: [&str; 4] = ["collect", "events", "texts", "ends"];

/// Number of open streams from which abandoned ones are looked for.
const FEW: usize = 1024;

/// A key is even already: multiplied, so that the map's tag, which is its top bits, is too.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, key: u64) {
        self.0 = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[derive(Default)]
struct Open {
    streams: HashMap<u64, Stream, BuildHasherDefault<Spread>>,
    bytes: usize,
    clock: u64,
    /// Number of open streams from which they are searched for abandoned ones.
    look_at: usize,
}

impl Open {
    fn remove(&mut self, key: u64) -> Option<Stream> {
        let stream = self.streams.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(stream.bytes());
        Some(stream)
    }

    fn insert(&mut self, key: u64, stream: Stream) {
        self.bytes += stream.bytes();
        self.streams.insert(key, stream);
    }

    /// Lets go of texts, first of those streams that said nothing for the longest time; the bytes.
    fn let_go(&mut self, down_to: usize) -> usize {
        let before = self.bytes;
        let mut all: Vec<_> = self.streams.values_mut().collect();
        all.sort_unstable_by_key(|stream| stream.last);
        for stream in all {
            if self.bytes <= down_to {
                break;
            }
            self.bytes = self.bytes.saturating_sub(stream.bytes());
            (stream.text, stream.reasoning, stream.cut) = (String::new(), String::new(), true);
            for call in &mut stream.calls {
                *call = ToolCall { index: call.index, server: call.server, ..ToolCall::default() };
            }
            self.bytes += stream.bytes();
        }
        before.saturating_sub(self.bytes)
    }
}

impl Open {
    /// Takes out the streams whose runs the recorder no longer has: reaped, or ended by another handler.
    fn dead(&mut self, recorder: &Recorder) -> Vec<Stream> {
        let gone = |key: &u64| recorder.core.requested(RunKey::new(*key)).is_none();
        let keys: Vec<u64> = self.streams.keys().copied().filter(gone).collect();
        let dead = keys.into_iter().filter_map(|key| self.remove(key)).collect();
        self.look_at = self.streams.len() * 2;
        dead
    }
}

fn dropped(recorder: &Recorder, name: &str, n: usize) {
    let what = Dropped::ALL.iter().copied().find(|what| what.name() == name);
    recorder.core.dropped(what.unwrap_or(Dropped::Other), n as u64);
}

/// Text of the final message of a plain answer; None for every other kind.
fn plain_text<'py>(response: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
    let py = response.py();
    let Some(message) = message_of(response)? else { return Ok(None) };
    let Ok(content) = message.getattr(intern!(py, "content"))?.cast_into::<PyString>() else { return Ok(None) };
    let calls = message.getattr_opt(intern!(py, "tool_calls"))?;
    if calls.map_or(Ok(false), |calls| calls.is_truthy())? {
        return Ok(None);
    }
    if let Some(usage) = message.getattr_opt(intern!(py, "usage_metadata"))?
        && let Ok(usage) = usage.cast::<PyDict>()
        && !usage.get_item(intern!(py, "output_tokens"))?.map_or(Ok(false), |tokens| tokens.is_truthy())?
    {
        return Ok(None);
    }
    Ok(Some(content))
}

fn message_of<'py>(response: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = response.py();
    let mut value = response.getattr_opt(intern!(py, "generations"))?;
    for _ in 0..2 {
        let only = value.as_ref().and_then(|list| list.cast::<PyList>().ok()).filter(|list| list.len() == 1);
        let Some(only) = only else { return Ok(None) };
        value = Some(only.get_item(0)?);
    }
    value.map_or(Ok(None), |generation| generation.getattr_opt(intern!(py, "message")))
}

/// What a listener is told of a piece, beside the piece.
struct Telling {
    index: u64,
    call: Option<usize>,
    model: Py<PyString>,
    started: u64,
}

/// Base of `langmeter.streaming.Streams`, which is a `StreamSink` of `_core.pyi`: the streams in flight, each apart
/// from all others.
///
/// Nothing under the lock runs Python code or lets go of a Python object, which may run some. Who has to wait for it
/// detaches from the interpreter first, so that a free-threaded one can stop its threads meanwhile.
#[pyclass(frozen, subclass, module = "langmeter._core")]
pub struct Streams {
    wanted: AtomicU8,
    max_stream_bytes: AtomicUsize,
    max_bytes: AtomicUsize,
    open: Mutex<Open>,
}

impl Streams {
    #[inline]
    fn open(&self, py: Python<'_>) -> MutexGuard<'_, Open> {
        // PyO3's method does this first too, and is not inlined: 28 instructions a token.
        match self.open.try_lock() {
            Ok(open) => open,
            // The lock is held already, and kept.
            Err(TryLockError::Poisoned(open)) => open.into_inner(),
            Err(TryLockError::WouldBlock) => self.waited_for(py),
        }
    }

    #[cold]
    fn waited_for(&self, py: Python<'_>) -> MutexGuard<'_, Open> {
        self.open.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, what: u8) -> bool {
        self.wanted.load(Relaxed) & what != 0
    }

    /// Whether any listener wants tokens.
    #[inline]
    pub fn listening(&self) -> bool {
        self.wants(COLLECT | EVENTS | TEXTS)
    }

    /// Keeps the output of a token event and notifies listeners.
    #[inline]
    pub fn heard<'py>(
        slf: &Bound<'py, Self>,
        recorder: &Recorder,
        key: RunKey,
        run_id: &Bound<'py, PyAny>,
        event: &Event<'_, 'py>,
    ) -> PyResult<()> {
        let this = slf.get();
        if !this.wants(EVENTS | TEXTS)
            && let Some(text) = event.plain()?
            && this.append(slf.py(), key, &text.to_string_lossy())
        {
            return Ok(());
        }
        Self::pieces(slf, recorder, key, run_id, event)
    }

    /// Keeps the pieces of an event one by one, and notifies listeners of each.
    #[inline(never)]
    fn pieces<'py>(
        slf: &Bound<'py, Self>,
        recorder: &Recorder,
        key: RunKey,
        run_id: &Bound<'py, PyAny>,
        event: &Event<'_, 'py>,
    ) -> PyResult<()> {
        let mut result = Ok(());
        let _ = event.walk(&mut |delta| {
            if delta.kind != Kind::Other {
                result = Self::piece(slf, recorder, key, run_id, &delta);
            }
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        let open = slf.get().open(slf.py());
        let many = open.streams.len() > open.look_at.max(FEW);
        drop(open);
        if many {
            Self::_give_up(slf, recorder)?;
        }
        Ok(())
    }

    /// Adds to the text of a stream that is known and has room for it; false where there is more to do.
    #[inline]
    fn append(&self, py: Python<'_>, key: RunKey, text: &str) -> bool {
        let mut open = self.open(py);
        let all = &mut *open;
        all.clock += 1;
        let Some(stream) = all.streams.get_mut(&key.get()) else { return false };
        let room = self.max_stream_bytes.load(Relaxed).saturating_sub(stream.bytes());
        if stream.cut || text.len() > room || all.bytes + text.len() > self.max_bytes.load(Relaxed) {
            return false;
        }
        stream.last = all.clock;
        stream.events += 1;
        stream.text.push_str(text);
        all.bytes += text.len();
        true
    }

    fn piece<'py>(
        slf: &Bound<'py, Self>,
        recorder: &Recorder,
        key: RunKey,
        run_id: &Bound<'py, PyAny>,
        delta: &Delta<'py>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if this.wants(COLLECT | EVENTS)
            && let Some(event) = this.keep(py, recorder, key, run_id, delta)
        {
            let nothing = || intern!(py, "").clone();
            let text = delta.text.clone().unwrap_or_else(nothing);
            let name = delta.call.name.clone().unwrap_or_else(nothing);
            let elapsed = seconds(event.started, recorder.core.unix_now());
            let event = (run_id, event.model, text, event.index, elapsed, delta.kind as u8, event.call, name);
            slf.call_method1(intern!(py, "on_event"), event)?;
        }
        if delta.kind == Kind::Text
            && this.wants(TEXTS)
            && let Some(text) = &delta.text
        {
            slf.call_method1(intern!(py, "on_text"), (text,))?;
        }
        Ok(())
    }

    /// Keeps a piece; returns what to report of it, if a listener wants it.
    fn keep(
        &self,
        py: Python<'_>,
        recorder: &Recorder,
        key: RunKey,
        run_id: &Bound<'_, PyAny>,
        delta: &Delta<'_>,
    ) -> Option<Telling> {
        let collect = self.wants(COLLECT);
        let most = collect.then(|| self.max_stream_bytes.load(Relaxed));
        let said = Said::of(delta);
        let mut open = self.open(py);
        if !open.streams.contains_key(&key.get()) {
            drop(open);
            let stream = Stream::begun(py, recorder, key, run_id)?;
            open = self.open(py);
            if open.streams.contains_key(&key.get()) {
                drop(open); // another thread's token of the same run was faster
                drop(stream);
                open = self.open(py);
            } else {
                open.insert(key.get(), stream);
            }
        }
        let all = &mut *open;
        all.clock += 1;
        let stream = all.streams.get_mut(&key.get())?;
        stream.last = all.clock;
        let placed = stream.add(&said, most);
        let telling = placed.index.filter(|_| self.wants(EVENTS)).map(|index| Telling {
            index,
            call: placed.call,
            model: stream.model.clone_ref(py),
            started: stream.started,
        });
        all.bytes += placed.kept;
        let mut cut = placed.cut;
        let max = self.max_bytes.load(Relaxed);
        if all.bytes > max {
            cut += all.let_go(max / 4 * 3);
        }
        drop(open);
        if collect && cut > 0 {
            dropped(recorder, "stream_text_cut", cut);
        }
        telling
    }

    /// Whether no listener waits for the end of a stream, and its final message says what its pieces said.
    /// Changes nothing.
    pub fn settles(&self, key: RunKey, response: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = response.py();
        match self.wanted.load(Relaxed) {
            0 => return Ok(true),
            wanted if wanted & ENDS != 0 => return Ok(false),
            _ => {}
        }
        let compares = |stream: &Stream| !stream.cut && self.wants(COLLECT);
        if !self.open(py).streams.get(&key.get()).is_some_and(compares) {
            return Ok(true);
        }
        // Exceptions that are not an `Exception` pass: Ctrl-C may arrive while a response's own code runs.
        let text =
            plain_text(response).or_else(|e| if e.is_instance_of::<PyException>(py) { Ok(None) } else { Err(e) })?;
        let Some(text) = text else { return Ok(false) };
        let text = text.to_string_lossy();
        let same = |stream: &Stream| stream.calls.is_empty() && stream.text == text;
        Ok(self.open(py).streams.get(&key.get()).is_none_or(same))
    }

    /// Lets go of a stream that has ended.
    pub fn forget(&self, py: Python<'_>, key: RunKey) {
        if self.wanted.load(Relaxed) != 0 {
            let removed = self.open(py).remove(key.get());
            drop(removed); // outside the lock: it may run anything
        }
    }
}

#[pymethods]
impl Streams {
    #[new]
    fn new(max_stream_bytes: usize, max_bytes: usize) -> Self {
        Self {
            wanted: AtomicU8::new(0),
            max_stream_bytes: AtomicUsize::new(max_stream_bytes),
            max_bytes: AtomicUsize::new(max_bytes),
            open: Mutex::default(),
        }
    }

    fn _want(&self, what: u8) {
        self.wanted.store(what, Relaxed);
    }

    #[getter]
    fn max_stream_bytes(&self) -> usize {
        self.max_stream_bytes.load(Relaxed)
    }

    #[getter]
    fn max_bytes(&self) -> usize {
        self.max_bytes.load(Relaxed)
    }

    fn _raise_limits(&self, other: &Self) {
        self.max_stream_bytes.fetch_max(other.max_stream_bytes.load(Relaxed), Relaxed);
        self.max_bytes.fetch_max(other.max_bytes.load(Relaxed), Relaxed);
    }

    fn _take<'py>(
        &self,
        py: Python<'py>,
        recorder: &Recorder,
        run_id: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let key = identity::run_key(run_id)?;
        let now = recorder.core.unix_now();
        let removed = self.open(py).remove(key.get());
        if let Some(stream) = removed {
            return stream.shown(py, now).map(Some);
        }
        let Some(mut nothing) = Stream::begun(py, recorder, key, run_id) else { return Ok(None) };
        nothing.first = 0;
        nothing.shown(py, now).map(Some)
    }

    fn _peek<'py>(
        &self,
        py: Python<'py>,
        recorder: &Recorder,
        run_id: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let key = identity::run_key(run_id)?.get();
        let copy = self.open(py).streams.get(&key).map(|stream| stream.copy(py));
        copy.map(|stream| stream.shown(py, recorder.core.unix_now())).transpose()
    }

    fn _give_up(slf: &Bound<'_, Self>, recorder: &Recorder) -> PyResult<()> {
        let py = slf.py();
        let dead = slf.get().open(py).dead(recorder);
        for stream in dead {
            let fields = stream.shown(py, recorder.core.unix_now())?;
            slf.call_method1(intern!(py, "on_gone"), (&stream.run_id, fields))?;
        }
        Ok(())
    }

    fn _clear(&self, py: Python<'_>) {
        let all = std::mem::take(&mut *self.open(py));
        drop(all);
    }

    #[getter]
    fn _open(&self, py: Python<'_>) -> (usize, usize) {
        let open = self.open(py);
        (open.streams.len(), open.bytes)
    }
}
