//! The audit trail: append-only.

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, sql};
use uuid::Uuid;

/// Something that happened, by whom, to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// Its id.
    pub audit_id: Uuid,
    /// When.
    pub happened_at: DateTime<Utc>,
    /// The subject of the caller's token, or `anonymous`, or `system`.
    pub actor: String,
    /// `LOGGED_IN`, `ROLES_CHANGED`, …
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
