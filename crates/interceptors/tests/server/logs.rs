//! What is logged on the thread of a test: its spans and lines, as texts.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Event, Level, Metadata, Subscriber};

/// Fields by name; a line's text is its `message`.
pub(crate) type Fields = BTreeMap<String, String>;

/// Records until it is dropped. A server of the test runs on the same thread.
pub(crate) struct Logs {
    recorded: Recorder,
    _guard: DefaultGuard,
}

/// A line, and the number of the span that it stands in.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) fields: Fields,
    pub(crate) span: Option<usize>,
}

impl Logs {
    pub(crate) fn record() -> Self {
        prepare();
        let recorded = Recorder::default();
        let guard = tracing::subscriber::set_default(recorded.clone());
        Self { recorded, _guard: guard }
    }

    /// The fields of every span, in the order of their beginnings.
    pub(crate) fn spans(&self) -> Vec<Fields> {
        self.recorded.0.lock().unwrap().spans.clone()
    }

    /// The lines with this text.
    pub(crate) fn lines(&self, message: &str) -> Vec<Line> {
        let recorded = self.recorded.0.lock().unwrap();
        recorded.lines.iter().filter(|line| line.fields["message"] == message).cloned().collect()
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        let recorded = self.recorded.0.lock().unwrap();
        format!("{:?} {:?}", recorded.spans, recorded.lines)
    }
}

/// Before anything is logged: a place in the code where no thread listens is asked again later, as another may record by then.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Nobody).unwrap());
}

struct Nobody;

impl Subscriber for Nobody {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    spans: Vec<Fields>,
    lines: Vec<Line>,
    entered: Vec<usize>,
}

/// Numbers of spans from 0; ids must not be 0.
fn number(id: &Id) -> usize {
    usize::try_from(id.into_u64()).unwrap() - 1
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("souk") || metadata.target().starts_with("server");
        *metadata.level() <= Level::INFO || (ours && *metadata.level() <= Level::DEBUG)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Texts::default();
        attributes.record(&mut fields);
        let mut recorded = self.0.lock().unwrap();
        recorded.spans.push(fields.0);
        Id::from_u64(u64::try_from(recorded.spans.len()).unwrap())
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut fields = Texts::default();
        values.record(&mut fields);
        self.0.lock().unwrap().spans[number(id)].extend(fields.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Texts::default();
        event.record(&mut fields);
        let mut recorded = self.0.lock().unwrap();
        let span = recorded.entered.last().copied();
        recorded.lines.push(Line { fields: fields.0, span });
    }

    fn enter(&self, id: &Id) {
        self.0.lock().unwrap().entered.push(number(id));
    }

    fn exit(&self, id: &Id) {
        let left = self.0.lock().unwrap().entered.pop();
        assert_eq!(left, Some(number(id)), "spans of one thread are left in their order");
    }
}

#[derive(Default)]
struct Texts(Fields);

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}
