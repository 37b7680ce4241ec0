//! What the log takes, and what the traces take.

use std::cmp::max;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use crate::trace;

/// What each statement does is for the traces; a log would repeat it in every line.
fn is_of_a_database(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("souk_db")
}

/// A span of ours that is always looked at; those of databases may say that they are for finding faults.
fn is_our_span(metadata: &Metadata<'_>) -> bool {
    let most = if is_of_a_database(metadata) { Level::DEBUG } else { Level::INFO };
    metadata.is_span() && metadata.target().starts_with("souk") && *metadata.level() <= most
}

/// Lines as they are asked for; spans of ours always, since every line must have the ids of what it belongs to.
pub(super) struct LogFilter(pub(super) EnvFilter);

impl LogFilter {
    fn takes_span(metadata: &Metadata<'_>) -> bool {
        is_our_span(metadata) && !is_of_a_database(metadata)
    }
}

impl<S: Subscriber> Filter<S> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Self::takes_span(metadata) || self.0.enabled(metadata, context.clone())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let asked = Filter::<S>::callsite_enabled(&self.0, metadata);
        if Self::takes_span(metadata) { Interest::always() } else { asked }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint().map(|hint| max(hint, LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.0.on_close(id, context);
    }
}

/// Spans of recorded traces: those that [`Tracer`](crate::trace::Tracer) begins, and within them any of ours, with what warns there. What is
/// not recorded costs no more than asking here.
pub(super) struct TraceFilter;

impl TraceFilter {
    fn may_take(metadata: &Metadata<'_>) -> bool {
        let warns = metadata.is_event() && metadata.target().starts_with("souk") && *metadata.level() <= Level::WARN;
        is_our_span(metadata) || warns
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Filter<S> for TraceFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        let within = || context.lookup_current().is_some();
        Self::may_take(metadata)
            && match trace::beginning().filter(|_| metadata.is_span()) {
                Some(position) => position.is_sampled(),
                None => within(),
            }
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::may_take(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }
}
