//! Steps that orders still owe.

use chrono::{DateTime, Utc};
use souk_db::{Engine, Error, Many, Statement, Tx, many, sql};
use souk_runtime::TraceContext;
use uuid::Uuid;

use super::corrupt;
use crate::domain::{OrderId, Step, StepKind};

/// A new step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStep {
    /// Whose.
    pub order_id: OrderId,
    /// What.
    pub kind: StepKind,
    /// By then it should be done.
    pub deadline_at: DateTime<Utc>,
    /// Where it was left in a trace.
    pub traceparent: Option<String>,
    /// Who does it, if somebody does already.
    pub taken: Option<Taken>,
}

/// A step is somebody's for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whose.
    pub holder: Uuid,
    /// Until then nobody else has it.
    pub lease_until: DateTime<Utc>,
}

/// Stores steps that are due at once, or taken up. One that is there already stays as it is.
pub fn insert_steps(steps: &[NewStep], now: DateTime<Utc>) -> Many<'static> {
    let text = "INSERT INTO saga_steps
             (order_id, step, state, due_at, deadline_at, holder, epoch, attempts, created_at, updated_at, traceparent)
         VALUES {rows} ON CONFLICT DO NOTHING";
    many(text, steps, |row, step| {
        let tries = i64::from(step.taken.is_some());
        row.bind(step.order_id.0)
            .bind(step.kind.name())
            .bind("DUE")
            .bind(step.taken.map_or(now, |taken| taken.lease_until))
            .bind(step.deadline_at)
            .bind(step.taken.map(|taken| taken.holder))
            .bind(tries) // the epoch …
            .bind(tries) // … and the attempts
            .bind(now)
            .bind(now)
            .bind(step.traceparent.clone())
    })
}

#[derive(sqlx::FromRow)]
struct StepRow {
    order_id: Uuid,
    step: String,
    epoch: i64,
    attempts: i64,
    deadline_at: DateTime<Utc>,
    traceparent: Option<String>,
}

impl StepRow {
    fn parse(self) -> Result<(Step, Option<TraceContext>), Error> {
        let step = Step {
            order_id: OrderId(self.order_id),
            kind: StepKind::from_name(&self.step).ok_or_else(|| corrupt("saga_steps", "step"))?,
            epoch: self.epoch,
            attempts: self.attempts,
            deadline_at: self.deadline_at,
        };
        Ok((step, self.traceparent.as_deref().and_then(TraceContext::parse)))
    }
}

/// Takes up to `limit` due steps, those first that are due longest, each with the position in a trace at which it was left; nobody else has
/// them before `lease_until`.
pub async fn claim_steps(
    tx: &mut Tx,
    holder: Uuid,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(Step, Option<TraceContext>)>, Error> {
    // Two workers that come at once share the steps instead of waiting for each other; and nobody waits for whoever is just cancelling.
    let lock = match tx.engine() {
        Engine::Sqlite => "", // one writer at a time
        Engine::Postgres => "FOR UPDATE SKIP LOCKED",
    };
    let text = format!(
        "WITH due (due_order_id, due_step) AS MATERIALIZED (
             SELECT order_id, step FROM saga_steps WHERE state = 'DUE' AND due_at <= $1 ORDER BY due_at LIMIT $2 {lock}
         )
         UPDATE saga_steps SET due_at = $3, holder = $4, epoch = epoch + 1, attempts = attempts + 1, updated_at = $1
         FROM due WHERE order_id = due_order_id AND step = due_step
         RETURNING order_id, step, epoch, attempts, deadline_at, traceparent"
    );
    let statement = sql(text).bind(now).bind(limit).bind(lease_until).bind(holder);
    statement.fetch_all::<StepRow>(tx).await?.into_iter().map(StepRow::parse).collect()
}

/// The names of the orders' stock.
pub async fn reservations_of(tx: &mut Tx, ids: &[OrderId]) -> Result<Vec<(OrderId, Uuid)>, Error> {
    let text = "WITH k (order_id) AS (VALUES {rows})
         SELECT o.order_id, o.reservation_id FROM k JOIN orders o ON o.order_id = k.order_id";
    let rows: Vec<(Uuid, Uuid)> = many(text, ids, |row, id| row.bind(id.0)).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(id, reservation_id)| (OrderId(id), reservation_id)).collect())
}

/// Those of `steps` that are still theirs who took them up: not done, not dropped, and not taken up by another since. Locked until the
/// transaction ends.
pub async fn lock_current(tx: &mut Tx, steps: &[Step]) -> Result<Vec<(OrderId, StepKind, i64)>, Error> {
    let lock = match tx.engine() {
        Engine::Sqlite => "", // one writer at a time
        Engine::Postgres => "ORDER BY s.order_id, s.step FOR UPDATE OF s",
    };
    let text = format!(
        "WITH v (order_id, step, epoch) AS (VALUES {{rows}})
         SELECT s.order_id, s.step, s.epoch FROM v
         JOIN saga_steps s ON s.order_id = v.order_id AND s.step = v.step AND s.epoch = v.epoch WHERE s.state = 'DUE' {lock}"
    );
    let bind = |row: Statement, step: &Step| row.bind(step.order_id.0).bind(step.kind.name()).bind(step.epoch);
    let current = |(id, name, epoch): (Uuid, String, i64)| {
        let kind = StepKind::from_name(&name).ok_or_else(|| corrupt("saga_steps", "step"))?;
        Ok((OrderId(id), kind, epoch))
    };
    many(&text, steps, bind).fetch_all(tx).await?.into_iter().map(current).collect()
}

/// A step that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whose.
    pub order_id: OrderId,
    /// What.
    pub kind: StepKind,
}

/// Marks steps as done. The caller has them locked.
pub fn finish_steps(steps: &[Finished], now: DateTime<Utc>) -> Many<'static> {
    let text = "WITH v (order_id, step, updated_at) AS (VALUES {rows})
         UPDATE saga_steps SET state = 'DONE', updated_at = v.updated_at FROM v
         WHERE saga_steps.order_id = v.order_id AND saga_steps.step = v.step";
    let bind = |row: Statement, step: &Finished| row.bind(step.order_id.0).bind(step.kind.name()).bind(now);
    many(text, steps, bind)
}

/// A step that is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// Whose.
    pub order_id: OrderId,
    /// What.
    pub kind: StepKind,
    /// When.
    pub due_at: DateTime<Utc>,
    /// Why.
    pub error: String,
}

/// Puts steps off: nobody has them until then. The caller has them locked.
pub fn postpone_steps(steps: &[Postponed], now: DateTime<Utc>) -> Many<'static> {
    let text = "WITH v (order_id, step, due_at, last_error, updated_at) AS (VALUES {rows})
         UPDATE saga_steps SET due_at = v.due_at, holder = NULL, last_error = v.last_error, updated_at = v.updated_at FROM v
         WHERE saga_steps.order_id = v.order_id AND saga_steps.step = v.step";
    many(text, steps, |row, step| {
        row.bind(step.order_id.0).bind(step.kind.name()).bind(step.due_at).bind(&step.error).bind(now)
    })
}

/// Makes the steps due now that were put off and are about that stock. Those that somebody has taken up are being tried as it is.
pub async fn hasten_steps(tx: &mut Tx, reservation_id: Uuid, now: DateTime<Utc>) -> Result<u64, Error> {
    sql("UPDATE saga_steps SET due_at = $1, updated_at = $1
         WHERE state = 'DUE' AND holder IS NULL AND due_at > $1
             AND order_id IN (SELECT order_id FROM orders WHERE reservation_id = $2)")
    .bind(now)
    .bind(reservation_id)
    .execute(tx)
    .await
}

/// Drops a step that is not over; whoever has taken it up finds that out when they come back. Whether there was one.
pub async fn drop_step(tx: &mut Tx, order_id: OrderId, kind: StepKind, now: DateTime<Utc>) -> Result<bool, Error> {
    let text =
        "UPDATE saga_steps SET state = 'DROPPED', updated_at = $1 WHERE order_id = $2 AND step = $3 AND state = 'DUE'";
    Ok(sql(text).bind(now).bind(order_id.0).bind(kind.name()).execute(tx).await? == 1)
}

/// What is not done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Backlog {
    /// Steps that are not over.
    pub due: i64,
    /// Those of them whose deadline has passed.
    pub overdue: i64,
    /// Since when the oldest of them is owed.
    pub oldest: Option<DateTime<Utc>>,
}

/// What is not done yet, counted no further than `counted_max`, those first that are due first.
pub async fn backlog(tx: &mut Tx, now: DateTime<Utc>, counted_max: i64) -> Result<Backlog, Error> {
    sql("SELECT COUNT(*) AS due, CAST(COALESCE(SUM(CASE WHEN deadline_at < $1 THEN 1 ELSE 0 END), 0) AS BIGINT) AS overdue,
            MIN(created_at) AS oldest
         FROM (SELECT deadline_at, created_at FROM saga_steps WHERE state = 'DUE' ORDER BY due_at LIMIT $2) AS counted")
    .bind(now)
    .bind(counted_max)
    .fetch_one(tx)
    .await
}
