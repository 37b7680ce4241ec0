//! What a trace shows of the database: each transaction and each statement, by operation and table, and no value.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use souk_db::sql;
use souk_testkit::on_both;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Instrument, Subscriber, info_span};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// Writes down the spans of the database, each as `parent > name fields`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

struct Fields<'t>(&'t mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {}={value}", field.name()).unwrap();
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() != "souk_db" {
            return;
        }
        let span = context.span(id).unwrap();
        let mut text = format!("{} > {}", span.parent().map_or("", |parent| parent.name()), span.name());
        attributes.record(&mut Fields(&mut text));
        self.0.lock().unwrap().push(text);
    }
}

#[tokio::test]
async fn a_trace_has_each_statement_by_operation_and_table_and_no_value() {
    let recorder = Recorder::default();
    let _recording = tracing::subscriber::set_default(Registry::default().with(recorder.clone()));
    on_both(&[&souk_db::MIGRATIONS], |db| {
        let recorder = recorder.clone();
        async move {
            recorder.0.lock().unwrap().clear();
            let call = async {
                let mut tx = db.write().await.unwrap();
                let insert = sql("INSERT INTO idempotency_keys (caller) VALUES ($1)").bind("secret").execute(&mut tx);
                insert.await.unwrap_err();
                drop(tx);
                let mut tx = db.write().await.unwrap();
                sql("DELETE FROM leases WHERE name = $1").bind("secret").execute(&mut tx).await.unwrap();
                tx.commit().await.unwrap();
            };
            call.instrument(info_span!("call")).await;
            let spans = recorder.0.lock().unwrap().clone();
            let names: Vec<&str> = spans.iter().map(|span| span.split(" otel.kind").next().unwrap()).collect();
            assert_eq!(
                names,
                [
                    "call > transaction otel.name=write transaction",
                    "transaction > statement otel.name=INSERT idempotency_keys",
                    "call > transaction otel.name=write transaction",
                    "transaction > statement otel.name=DELETE leases",
                    "transaction > statement otel.name=COMMIT",
                ]
            );
            let delete = &spans[3];
            for field in ["db.operation.name=DELETE", "db.collection.name=leases", "db.query.summary=DELETE leases"] {
                assert!(delete.contains(field), "{field}: {delete}");
            }
            assert!(delete.contains("db.system.name=sqlite") || delete.contains("db.system.name=postgresql"));
            assert!(!spans.concat().contains("secret"), "{spans:?}");
        }
    })
    .await;
}
