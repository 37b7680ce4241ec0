//! The audit trail: append-only.

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, sql};
use uuid::Uuid;

/// Something that happened, by whom, to what.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct AuditEvent {
    /// Its id.
    pub audit_id: Uuid,
    /// When.
    pub happened_at: DateTime<Utc>,
    /// The subject of the caller's token, or `anonymous`, or `system`.
    pub actor: String,
    /// `LOGIN`, `ROLES_CHANGED`, …
    pub action: String,
    /// `user/<id>`, `session/<id>`, `key/<kid>`
    pub subject: String,
    /// Where the call came from.
    pub peer: Option<String>,
    /// More, for people; never a secret.
    pub detail: String,
}

/// Keeps what happened, in the transaction that makes it happen.
pub async fn append_audit(tx: &mut Tx, event: &AuditEvent) -> Result<(), Error> {
    sql("INSERT INTO audit_events (audit_id, happened_at, actor, action, subject, peer, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7)")
    .bind(event.audit_id)
    .bind(event.happened_at)
    .bind(&event.actor)
    .bind(&event.action)
    .bind(&event.subject)
    .bind(event.peer.as_ref())
    .bind(&event.detail)
    .execute(tx)
    .await?;
    Ok(())
}

/// The latest events of a subject, newest first.
pub async fn audit_of(tx: &mut Tx, subject: &str, limit: i64) -> Result<Vec<AuditEvent>, Error> {
    sql("SELECT audit_id, happened_at, actor, action, subject, peer, detail FROM audit_events
         WHERE subject = $1 ORDER BY happened_at DESC, audit_id DESC LIMIT $2")
    .bind(subject)
    .bind(limit)
    .fetch_all(tx)
    .await
}
