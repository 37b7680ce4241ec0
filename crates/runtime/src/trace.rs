//! Where the work at hand stands in a trace: handed on from call to call, in events, and with what is stored to be done later.
//!
//! Positions are made here, whether traces are exported or not, so that logs, events and headers have the same ids as the exported spans.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use crate::clock::Clock;
use crate::ids::Ids;

/// What a task works at: its position, and the call that it serves, if it serves one.
#[derive(Clone, Copy)]
struct Work {
    position: TraceContext,
    call_id: Option<Uuid>,
}

tokio::task_local! {
    static CURRENT: Work;
}

/// The position of what this task does, if it stands in a trace.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|work| work.position).ok()
}

/// The call that this task serves: what its lines in the log have it under.
pub(crate) fn current_call() -> Option<Uuid> {
    CURRENT.try_with(|work| work.call_id).ok().flatten()
}

/// Runs `future` at this position.
pub async fn scope<F: Future>(position: TraceContext, future: F) -> F::Output {
    CURRENT.scope(Work { position, call_id: current_call() }, future).await
}

/// Runs `future` at this position, and for this call.
pub async fn call_scope<F: Future>(position: TraceContext, call_id: Uuid, future: F) -> F::Output {
    CURRENT.scope(Work { position, call_id: Some(call_id) }, future).await
}

/// Runs `f` at this position, and for this call.
pub fn sync_call_scope<T>(position: TraceContext, call_id: Uuid, f: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(Work { position, call_id: Some(call_id) }, f)
}

/// `future`, at the position of this task and for its call: for a task of its own.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let work = CURRENT.try_with(|work| *work).ok();
    async move {
        match work {
            Some(work) => CURRENT.scope(work, future).await,
            None => future.await,
        }
    }
}

/// A position in a trace, as [W3C Trace Context](https://www.w3.org/TR/trace-context/) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

impl TraceContext {
    /// A new trace, not sampled.
    pub fn new(ids: &Ids) -> Self {
        let span_id = u64::from_be_bytes(ids.random_bytes());
        Self { trace_id: u128::from_be_bytes(ids.random_bytes()), span_id, sampled: false }
    }

    /// A new span in the same trace.
    #[must_use]
    pub fn child(self, ids: &Ids) -> Self {
        Self { span_id: u64::from_be_bytes(ids.random_bytes()), ..self }
    }

    /// `00-<trace id>-<span id>-<flags>`; `None` for what is not so.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let well_formed = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        if !well_formed || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace_id, span_id, sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1 })
    }

    /// The trace, in 32 hexadecimal digits.
    pub fn trace_id(self) -> impl fmt::Display {
        std::fmt::from_fn(move |f| write!(f, "{:032x}", self.trace_id))
    }

    /// The span, in 16 hexadecimal digits.
    pub fn span_id(self) -> impl fmt::Display {
        std::fmt::from_fn(move |f| write!(f, "{:016x}", self.span_id))
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(self) -> bool {
        self.sampled
    }

    fn of_another_process(self) -> opentelemetry::Context {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let (trace_id, span_id) = (self.trace_id.into(), self.span_id.into());
        let at = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
        opentelemetry::Context::new().with_remote_span_context(at)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Begins spans that have a place in a trace, and decides which traces are recorded. Cheap to clone.
///
/// A trace is recorded as its beginner has decided. One that begins here is recorded by chance, one that a caller asks for if not too many
/// have been asked for.
#[derive(Clone, Debug)]
pub struct Tracer {
    ids: Ids,
    sampling: Option<Arc<Sampling>>,
    /// The log is ours, and has the ids of a call from the call's task.
    log_asks_tasks: bool,
}

/// Which traces are recorded.
#[derive(Debug)]
struct Sampling {
    clock: Clock,
    permille: u32,
    asked_per_second_max: u32,
    /// The second that is counted, and the calls in it that asked to be recorded.
    asked: Mutex<(i64, u32)>,
}

impl Tracer {
    /// Nothing is exported: positions are made and handed on, and that is all.
    pub fn off(ids: Ids) -> Self {
        Self { ids, sampling: None, log_asks_tasks: false }
    }

    /// Of a thousand traces that begin here `permille` are recorded, and so many calls in a second that ask for it.
    pub(crate) fn sampling(ids: Ids, clock: Clock, permille: u32, asked_per_second_max: u32) -> Self {
        let sampling = Sampling { clock, permille, asked_per_second_max, asked: Mutex::default() };
        Self { ids, sampling: Some(Arc::new(sampling)), log_asks_tasks: false }
    }

    /// Where the log is ours.
    pub(crate) fn with_our_log(self) -> Self {
        Self { log_asks_tasks: true, ..self }
    }

    /// Whether recorded traces go anywhere: where not, nobody need note what a span comes to.
    pub fn is_exporting(&self) -> bool {
        self.sampling.is_some()
    }

    /// The position of a caller of whom nothing is known: it may ask for a record, but not everybody may always.
    #[must_use]
    pub fn admit(&self, asked: TraceContext) -> TraceContext {
        let Some(sampling) = self.sampling.as_deref().filter(|_| asked.sampled) else { return asked };
        TraceContext { sampled: sampling.admits(), ..asked }
    }

    /// The span that `make` makes, as a child of `parent` or as the first of a new trace, and its position. It is exported if the trace is
    /// recorded and the span says its `otel.kind`.
    pub fn span(&self, parent: Option<TraceContext>, make: impl FnOnce() -> Span) -> (Span, TraceContext) {
        let position = self.position(parent);
        (self.span_at(position, parent, make), position)
    }

    /// The same for a unary call, which is served under [`call_scope`]. The lines of our log have its ids from there: where the trace is not
    /// recorded either, no span is made. Making, entering and closing one is a third of what a call would cost in the
    /// interceptors, driven alone.
    pub fn call_span(&self, parent: Option<TraceContext>, make: impl FnOnce() -> Span) -> (Span, TraceContext) {
        let position = self.position(parent);
        let is_wanted = !self.log_asks_tasks || (position.sampled && self.is_exporting());
        (if is_wanted { self.span_at(position, parent, make) } else { Span::none() }, position)
    }

    fn position(&self, parent: Option<TraceContext>) -> TraceContext {
        match parent {
            Some(parent) => parent.child(&self.ids),
            None => TraceContext { sampled: self.draw(), ..TraceContext::new(&self.ids) },
        }
    }

    fn span_at(&self, position: TraceContext, parent: Option<TraceContext>, make: impl FnOnce() -> Span) -> Span {
        let span = HandOver::of(&BEGINNING, position, make);
        if position.sampled && self.sampling.is_some() {
            let above = parent.map_or_else(opentelemetry::Context::new, TraceContext::of_another_process);
            // It fails where spans are not exported after all, as in a test without the layer: then nobody minds.
            drop(span.set_parent(above));
            drop(HandOver::of(&STARTING, position, || span.context()));
        }
        span
    }

    fn draw(&self) -> bool {
        let draw = |sampling: &Sampling| self.ids.random_fraction() * 1_000.0 < f64::from(sampling.permille);
        self.sampling.as_deref().is_some_and(draw)
    }
}

impl Sampling {
    fn admits(&self) -> bool {
        let now = self.clock.now().timestamp();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.0 != now {
            *asked = (now, 0);
        }
        asked.1 = asked.1.saturating_add(1);
        asked.1 <= self.asked_per_second_max
    }
}

thread_local! {
    /// The position of the span that is being made on this thread: a subscriber sees a span's fields, and no values beside them.
    static BEGINNING: Cell<Option<TraceContext>> = const { Cell::new(None) };
    /// The position of the span whose record is being started on this thread: its ids are ours.
    static STARTING: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// The position of the span that is being made.
pub(crate) fn beginning() -> Option<TraceContext> {
    BEGINNING.get()
}

/// The trace and the span whose record is being started.
pub(crate) fn starting() -> Option<(u128, u64)> {
    STARTING.get().map(|position| (position.trace_id, position.span_id))
}

/// A position in a cell for as long as something runs.
struct HandOver(&'static std::thread::LocalKey<Cell<Option<TraceContext>>>);

impl HandOver {
    fn of<T>(
        cell: &'static std::thread::LocalKey<Cell<Option<TraceContext>>>,
        position: TraceContext,
        run: impl FnOnce() -> T,
    ) -> T {
        cell.set(Some(position));
        let _until_the_end = Self(cell);
        run()
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn ids() -> Ids {
        Ids::seeded(Clock::system(), 1)
    }

    #[test]
    fn a_trace_goes_on_with_a_new_span() {
        let parent = TraceContext::parse(PARENT).unwrap();
        assert_eq!(parent.to_string(), PARENT);
        let child = parent.child(&ids());
        assert_eq!(child.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(child.to_string(), PARENT);
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let bad = [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ];
        for text in bad {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn callers_have_so_many_records_in_a_second() {
        let clock = Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let tracer = Tracer::sampling(ids(), clock.clone(), 0, 2);
        let asked = TraceContext::parse(PARENT).unwrap();
        let not_asked = TraceContext { sampled: false, ..asked };
        let admitted = || (0..5).filter(|_| tracer.admit(asked).is_sampled()).count();
        assert!((0..5).all(|_| tracer.admit(not_asked) == not_asked));
        assert_eq!(admitted(), 2);
        assert_eq!(admitted(), 0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(admitted(), 2);
        assert_eq!(tracer.admit(asked).trace_id, asked.trace_id);
        assert_eq!(Tracer::off(ids()).admit(asked), asked, "where nothing is exported it is nobody's business here");
    }

    #[test]
    fn a_trace_that_begins_here_is_recorded_by_chance_and_one_that_goes_on_as_it_began() {
        let sampled = |permille, parent| {
            let tracer = Tracer::sampling(ids(), Clock::system(), permille, 0);
            (0..1_000).filter(|_| tracer.span(parent, Span::none).1.is_sampled()).count()
        };
        assert_eq!(sampled(0, None), 0);
        assert_eq!(sampled(1_000, None), 1_000);
        assert!((50..=150).contains(&sampled(100, None)));
        let asked = TraceContext::parse(PARENT).unwrap();
        assert_eq!(sampled(0, Some(asked)), 1_000);
        assert_eq!(sampled(1_000, Some(TraceContext { sampled: false, ..asked })), 0);
        assert!(!Tracer::off(ids()).span(None, Span::none).1.is_sampled());
    }

    #[test]
    fn a_call_has_no_span_where_nobody_needs_one() {
        let has_span = |tracer: Tracer, parent: Option<TraceContext>| {
            let mut is_made = false;
            let begin = || {
                is_made = true;
                Span::none()
            };
            tracer.call_span(parent, begin);
            is_made
        };
        let sampling = |permille| Tracer::sampling(ids(), Clock::system(), permille, 0);
        let asked = TraceContext::parse(PARENT);
        assert!(has_span(Tracer::off(ids()), None), "whoever listens may want it");
        assert!(!has_span(Tracer::off(ids()).with_our_log(), asked));
        assert!(!has_span(sampling(0).with_our_log(), None));
        assert!(has_span(sampling(0).with_our_log(), asked));
        assert!(has_span(sampling(1_000).with_our_log(), None));
    }

    #[tokio::test]
    async fn a_task_knows_where_it_stands() {
        let position = TraceContext::parse(PARENT).unwrap();
        assert_eq!(current(), None);
        assert_eq!(scope(position, async { current() }).await, Some(position));
    }
}
