//! The use cases, one a file. Each is one transaction.

mod audit;
mod create_first_administrator;
mod get_me;
mod get_user;
mod issue_service_token;
mod keyed;
mod list_users;
mod login;
mod logout;
mod maintain_keys;
mod prove;
mod refresh_token;
mod register;
mod set_roles;
mod stream_users;
mod sweep;
mod update_user;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use souk_db::idempotency::Key;
use souk_db::{Db, InFlight};
use souk_events::RelayHandle;
use souk_runtime::{Clock, Ids};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use create_first_administrator::{FirstAdministrator, create_first_administrator};
pub use get_me::get_me;
pub use get_user::get_user;
pub use issue_service_token::issue_service_token;
pub use list_users::list_users;
pub use login::login;
pub use logout::logout;
pub use maintain_keys::maintain_keys;
pub use refresh_token::refresh_token;
pub use register::register;
pub use set_roles::set_roles;
pub use stream_users::stream_users;
pub use sweep::sweep;
pub use update_user::update_user;

use crate::config::{Limits, ServiceAccount};
use crate::domain::keys::KeyRules;
use crate::domain::{RefreshToken, SessionRules};
use crate::hasher::Hasher;
use crate::issuer::{AccessToken, Issuer};
use crate::throttle::Throttle;

/// What every operation may use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// Time.
    pub clock: Clock,
    /// Ids and tokens.
    pub ids: Ids,
    /// The tables.
    pub db: Db,
    /// Publishes what was committed.
    pub relay: RelayHandle,
    /// Hashes passwords.
    pub hasher: Hasher,
    /// Slows failed logins down.
    pub throttle: Throttle,
    /// Keyed changes of this process that are running.
    pub in_flight: InFlight<Key>,
    /// Signs access tokens.
    pub issuer: Issuer,
    /// Services that may ask for tokens.
    pub service_accounts: Arc<BTreeMap<String, ServiceAccount>>,
    /// How long sessions are good.
    pub session_rules: SessionRules,
    /// How keys change.
    pub key_rules: KeyRules,
    /// The bounds.
    pub limits: Limits,
    /// This replica, as a holder of leases.
    pub replica: Uuid,
    /// The end of the process.
    pub shutdown: CancellationToken,
}

/// The tokens of a session.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// For calls.
    pub access: AccessToken,
    /// For the next tokens.
    pub refresh: RefreshToken,
    /// Until then the refresh token is good.
    pub refresh_expires_at: DateTime<Utc>,
    /// Their session.
    pub session_id: Uuid,
}
