//! The lines of the log: one an event, for people or for machines, each with the ids of what it belongs to.
//!
//! A line has the fields of its event, those of the spans around it, the call that its task serves, and the position in the trace:
//! `trace_id`, `span_id`. A name that stands twice is told once, innermost first. A field with a dot in its name, as `otel.kind`, is for the exported span and not for the log.

use std::cell::Cell;
use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::trace::{self, TraceContext};

/// Writes lines to `write`, each in one go.
pub(super) struct Lines<W> {
    form: Form,
    write: W,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For machines: a JSON object.
    Json,
    /// For people.
    Human,
    /// For people at a terminal.
    HumanInColours,
}

/// What the lines within a span have of it.
struct Known {
    /// Names and values in JSON.
    fields: Vec<(&'static str, String)>,
    position: Option<TraceContext>,
}

thread_local! {
    /// The room of the last line, for the next.
    static ROOM: Cell<String> = const { Cell::new(String::new()) };
}

impl<W: Fn(&str)> Lines<W> {
    pub(super) fn new(form: Form, write: W) -> Self {
        Self { form, write }
    }

    fn write_line<S>(&self, line: String, event: &Event<'_>, context: &Context<'_, S>) -> String
    where
        S: Subscriber + for<'l> LookupSpan<'l>,
    {
        let mut parts = Parts { line, form: self.form, names: Vec::with_capacity(16) };
        parts.begin(event);
        event.record(&mut parts);
        let mut position = None;
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            let Some(known) = extensions.get::<Known>() else { continue };
            for (name, value) in &known.fields {
                parts.put(name, |line| line.push_str(value));
            }
            position = position.or(known.position);
        }
        if let Some(call_id) = trace::current_call() {
            parts.put_text("call_id", &call_id);
        }
        if let Some(position) = position.or_else(trace::current) {
            parts.put_text("trace_id", &position.trace_id());
            if self.form == Form::Json {
                parts.put_text("span_id", &position.span_id());
            }
        }
        parts.end()
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    W: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut known = Known { fields: Vec::new(), position: trace::beginning() };
        attributes.record(&mut known);
        span.extensions_mut().insert(known);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(known) = span.extensions_mut().get_mut::<Known>() {
            values.record(known);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut room = ROOM.take();
        room.clear();
        let line = self.write_line(room, event, &context);
        (self.write)(&line);
        ROOM.set(line);
    }
}

/// A line on its way.
struct Parts {
    line: String,
    form: Form,
    names: Vec<&'static str>,
}

impl Parts {
    fn begin(&mut self, event: &Event<'_>) {
        let metadata = event.metadata();
        // What comes by way of the `log` crate says where it is from in a field.
        let mut from = LogTarget(None);
        if metadata.target() == "log" {
            event.record(&mut from);
        }
        let target = from.0.as_deref().unwrap_or(metadata.target());
        let (level, line) = (metadata.level(), &mut self.line);
        // Writing to a string cannot fail, nor can the time be told in any other way.
        let _ = match self.form {
            Form::Json => {
                line.push_str("{\"timestamp\":\"");
                let _ = SystemTime.format_time(&mut Writer::new(line));
                write!(line, "\",\"level\":\"{level}\",\"target\":")
            }
            Form::Human => {
                let _ = SystemTime.format_time(&mut Writer::new(line));
                write!(line, " {level:>5} {target}:")
            }
            Form::HumanInColours => {
                line.push_str("\x1b[2m");
                let _ = SystemTime.format_time(&mut Writer::new(line));
                write!(line, "\x1b[0m \x1b[{}m{level:>5}\x1b[0m \x1b[2m{target}:\x1b[0m", colour(*level))
            }
        };
        if self.form == Form::Json {
            quote(&mut self.line, &target);
        }
    }

    /// A name with its value in JSON, unless the name was there before.
    fn put(&mut self, name: &'static str, value: impl FnOnce(&mut String)) {
        if self.names.contains(&name) || name.starts_with("log.") {
            return;
        }
        self.names.push(name);
        let _ = match self.form {
            Form::Json => write!(self.line, ",\"{name}\":"),
            Form::Human => write!(self.line, " {name}="),
            Form::HumanInColours => write!(self.line, " \x1b[2m{name}=\x1b[0m"),
        };
        value(&mut self.line);
    }

    fn put_text(&mut self, name: &'static str, text: &dyn fmt::Display) {
        match (self.form, name) {
            // People read a text; nothing in it can end the line or move the cursor.
            (Form::Human | Form::HumanInColours, "message") => {
                self.line.push(' ');
                let _ = write!(Escaped(&mut self.line), "{text}");
            }
            _ => self.put(name, |line| quote(line, text)),
        }
    }

    fn end(mut self) -> String {
        self.line.push_str(if self.form == Form::Json { "}\n" } else { "\n" });
        self.line
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

impl Visit for Parts {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), |line| line.push_str(&value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), |line| line.push_str(&value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), |line| line.push_str(&value.to_string()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field.name(), &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put_text(field.name(), &format_args!("{value:?}"));
    }
}

impl Known {
    fn put(&mut self, name: &'static str, value: String) {
        if name.contains('.') {
            return;
        }
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.fields.push((name, value)),
        }
    }
}

impl Visit for Known {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.to_string());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !field.name().contains('.') {
            let mut text = String::new();
            quote(&mut text, &format_args!("{value:?}"));
            self.put(field.name(), text);
        }
    }
}

/// Finds `log.target`.
struct LogTarget(Option<String>);

impl Visit for LogTarget {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// A text as a string of JSON.
fn quote(line: &mut String, text: &dyn fmt::Display) {
    line.push('"');
    let _ = write!(Escaped(line), "{text}");
    line.push('"');
}

/// Escapes as JSON does.
struct Escaped<'l>(&'l mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                control if control.is_control() => write!(self.0, "\\u{:04x}", u32::from(control))?,
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing::field::Empty;
    use tracing::{debug, error_span, info, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{EnvFilter, Registry};

    use super::*;
    use crate::telemetry::filter::LogFilter;
    use crate::{Clock, Ids, Tracer};

    /// What is written while `run` runs.
    fn written(form: Form, log: &str, run: impl FnOnce()) -> Vec<String> {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = lines.clone();
        let layer = Lines::new(form, move |line| sink.lock().unwrap().push(line.to_owned()));
        let layer = layer.with_filter(LogFilter(EnvFilter::new(log)));
        tracing::subscriber::with_default(Registry::default().with(layer), run);
        lines.lock().unwrap().clone()
    }

    fn parsed(lines: &[String]) -> Vec<Value> {
        lines.iter().map(|line| serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap()).collect()
    }

    fn tracer() -> Tracer {
        Tracer::off(Ids::seeded(Clock::system(), 1))
    }

    #[test]
    fn every_line_within_a_span_has_its_ids_even_where_the_log_is_for_warnings() {
        let mut positions = Vec::new();
        let lines = written(Form::Json, "warn", || {
            let call = |call_id| {
                tracer().span(None, || info_span!(target: "souk_interceptors", "rpc", call_id, otel.kind = "server"))
            };
            let (span, position) = call("c1");
            positions.push(position);
            let _within = span.enter();
            warn!(sku = "TEA", "odd");
            info!("not asked for");
            let (step, position) =
                tracer().span(Some(position), || info_span!(target: "souk_order", "step", attempts = 2));
            positions.push(position);
            step.in_scope(|| error_span!(target: "elsewhere", "third party").in_scope(|| warn!(attempts = 3, "odder")));
        });
        let lines = parsed(&lines);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0]["message"], "odd");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["sku"], "TEA");
        for (line, position) in lines.iter().zip(positions) {
            assert_eq!(line["call_id"], "c1", "{line}");
            assert_eq!(line["trace_id"], position.trace_id().to_string());
            assert_eq!(line["span_id"], position.span_id().to_string());
            assert!(line.get("otel.kind").is_none() && line.get("span").is_none(), "{line}");
        }
        assert_eq!(lines[1]["attempts"], 3, "the innermost");
    }

    #[test]
    fn a_line_within_no_span_has_the_ids_of_its_task() {
        let call_id = uuid::Uuid::from_u128(7);
        let (_, position) = tracer().span(None, tracing::Span::none);
        let lines = written(Form::Json, "info", || trace::sync_call_scope(position, call_id, || info!("from a task")));
        assert_eq!(parsed(&lines)[0]["trace_id"], position.trace_id().to_string());
        assert_eq!(parsed(&lines)[0]["call_id"], call_id.to_string());
        let lines = written(Form::Json, "info", || info!("from nowhere"));
        assert!(parsed(&lines)[0].get("trace_id").is_none());
    }

    #[test]
    fn a_line_is_one_line_whatever_is_said() {
        let said = "a \"quoted\" \\ word\nand \x1b[31m";
        let say = || info!(text = said, number = -3, big = u64::MAX, yes = true, path = ?"p", "said {said}");
        let line = &written(Form::Json, "info", say)[0];
        assert_eq!(line.matches('\n').count(), 1);
        let line = &parsed(std::slice::from_ref(line))[0];
        assert_eq!(line["text"], said);
        assert_eq!((&line["number"], &line["yes"], &line["path"]), (&(-3).into(), &true.into(), &"\"p\"".into()));
        assert_eq!(line["big"], u64::MAX);
        let human = &written(Form::Human, "info", say)[0];
        assert_eq!(human.matches('\n').count(), 1);
        assert!(!human.contains('\x1b'), "{human}");
        assert!(human.contains(" INFO souk_runtime::telemetry::lines::tests: said "), "{human}");
        assert!(human.contains(" number=-3"), "{human}");
    }

    #[test]
    fn a_field_that_comes_later_is_told_and_a_databases_span_is_not() {
        let lines = written(Form::Json, "debug", || {
            let span = info_span!(target: "souk_events", "consume", tries = Empty, otel.status_code = Empty);
            span.record("tries", 2);
            span.record("otel.status_code", "ERROR");
            let statement = span.in_scope(|| info_span!(target: "souk_db", "statement", db.query.text = "SELECT 1"));
            span.in_scope(|| statement.in_scope(|| debug!("asked")));
        });
        let line = &parsed(&lines)[0];
        assert_eq!(line["tries"], 2);
        let names: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert!(!names.iter().any(|name| name.contains('.')), "{names:?}");
    }
}
