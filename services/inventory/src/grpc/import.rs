//! ImportProducts: the stream of rows in, the results out.

use futures::{Stream, StreamExt};
use souk_interceptors::Caller;
use souk_proto_common::v1::Reason;
use souk_proto_common::{FieldError, InvalidRequest, google_rpc};
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::import_result::Outcome;
use tonic::Status;

use crate::domain::command::{Answer, Keyed};
use crate::domain::query::ImportRow;
use crate::error::Error;
use crate::ops::App;
use crate::ops::import_products::{Effect, Imported, import_products};
use crate::wire::{self, ImportHead};

/// So many failed rows of a stream are told with their details.
const DETAILED_FAILURES_MAX: i32 = 1_000;

/// Takes rows as they arrive: what is there is written together, so a fast sender fills batches and a slow one waits for nobody. At the
/// end of the process what was written stays written, and the sender is told to go on elsewhere.
pub(super) async fn run(
    app: &App,
    caller: &Caller,
    rows: impl Stream<Item = Result<pb::ImportProductsRequest, Status>> + Send,
) -> Result<pb::ImportProductsResponse, Status> {
    let mut chunks = std::pin::pin!(rows.ready_chunks(app.limits.import_batch_max));
    let mut import: Option<Import> = None;
    loop {
        let chunk = tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return Err(Error::ShuttingDown.into()),
            chunk = chunks.next() => chunk,
        };
        let Some(chunk) = chunk else { break };
        let mut rows = Vec::with_capacity(chunk.len());
        let mut broken = None;
        for row in chunk {
            match row {
                Ok(row) => rows.push(row),
                // The first says why; what comes after it only that there is no more.
                Err(status) => {
                    broken.get_or_insert(status);
                }
            }
        }
        if let Some(first) = rows.first() {
            let import = match &mut import {
                Some(import) => import,
                None => import.insert(Import::begin(first)?),
            };
            import.write(app, caller, &rows).await?;
        }
        if let Some(status) = broken {
            return Err(status);
        }
    }
    let import = import.ok_or_else(|| InvalidRequest::one("rows", FieldError::required()))?;
    Ok(import.response)
}

struct Import {
    head: ImportHead,
    taken: u32,
    response: pb::ImportProductsResponse,
}

/// A row on its way: good, or failed before it came to the tables.
struct Row<'r> {
    index: u32,
    sku: &'r str,
    parsed: Result<Keyed<ImportRow>, InvalidRequest>,
}

impl Import {
    fn begin(first: &pb::ImportProductsRequest) -> Result<Self, InvalidRequest> {
        Ok(Self { head: wire::import_head(first)?, taken: 0, response: pb::ImportProductsResponse::default() })
    }

    async fn write(&mut self, app: &App, caller: &Caller, rows: &[pb::ImportProductsRequest]) -> Result<(), Error> {
        let room = app.limits.import_rows_max.saturating_sub(self.taken) as usize;
        let rows_taken = &rows[..rows.len().min(room)];
        let rows_parsed: Vec<Row<'_>> =
            (self.taken..).zip(rows_taken).map(|(index, row)| self.parse(index, row)).collect();
        let good: Vec<Keyed<ImportRow>> = rows_parsed.iter().filter_map(|row| row.parsed.clone().ok()).collect();
        let mut written = import_products(app, caller, self.head.request_id, &good).await?.into_iter();
        for Row { index, sku, parsed } in rows_parsed {
            let result = match parsed {
                Ok(_) => written.next().unwrap_or(Err(Error::Bug("every row has a result"))),
                Err(invalid) => Err(invalid.into()),
            };
            self.note(index, sku, result);
        }
        if rows.len() > room {
            let most = format!("must have at most {} rows", app.limits.import_rows_max);
            return Err(InvalidRequest::one("rows", FieldError::new(Reason::TooMany, most)).into());
        }
        Ok(())
    }

    fn parse<'r>(&mut self, index: u32, row: &'r pb::ImportProductsRequest) -> Row<'r> {
        self.taken = index + 1;
        let sku = row.product.as_ref().map_or("", |product| product.sku.as_str());
        Row { index, sku, parsed: wire::import_row(self.head, index, row) }
    }

    fn note(&mut self, index: u32, sku: &str, result: Result<Answer<Imported>, Error>) {
        let response = &mut self.response;
        let outcome = match result {
            Ok(answer) => {
                match answer.value.effect {
                    Effect::Created => response.created_count += 1,
                    Effect::Updated => response.updated_count += 1,
                    Effect::Unchanged => response.unchanged_count += 1,
                }
                if self.head.failures_only {
                    return;
                }
                answer.value.etag.into()
            }
            Err(error) => {
                response.failed_count += 1;
                let status = Status::from(error);
                let mut told = google_rpc::Status::from(&status);
                if response.failed_count > DETAILED_FAILURES_MAX {
                    told.details.clear();
                }
                Outcome::Error(told)
            }
        };
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let sku = souk_proto_common::failure::echo(sku);
        response.results.push(pb::ImportResult { index, sku, outcome: Some(outcome) });
    }
}
