//! What the audit trail says.

use souk_interceptors::{Caller, context};
use uuid::Uuid;

use super::App;
use crate::store::AuditEvent;

/// Something that is worth remembering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Registered,
    FirstAdministratorCreated,
    LoggedIn,
    LoggedOut,
    RefreshTokenReused,
    ProfileChanged,
    RolesChanged,
    KeyCreated,
    KeyMoved,
    KeyDropped,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Registered => "REGISTERED",
            Self::FirstAdministratorCreated => "FIRST_ADMINISTRATOR_CREATED",
            Self::LoggedIn => "LOGGED_IN",
            Self::LoggedOut => "LOGGED_OUT",
            Self::RefreshTokenReused => "REFRESH_TOKEN_REUSED",
            Self::ProfileChanged => "PROFILE_CHANGED",
            Self::RolesChanged => "ROLES_CHANGED",
            Self::KeyCreated => "KEY_CREATED",
            Self::KeyMoved => "KEY_MOVED",
            Self::KeyDropped => "KEY_DROPPED",
        }
    }
}

/// Done by whoever calls. `detail` is for people, and never a secret.
pub(super) fn by(app: &App, caller: &Caller, action: Action, subject: String, detail: String) -> AuditEvent {
    let actor = if caller.is_anonymous() { "anonymous" } else { caller.subject() };
    event(app, actor.to_owned(), action, subject, detail)
}

/// Done by a user who has just proved to be that user.
pub(super) fn by_user(app: &App, user_id: Uuid, action: Action, subject: String) -> AuditEvent {
    event(app, user_id.to_string(), action, subject, String::new())
}

/// Done by the service itself.
pub(super) fn by_system(app: &App, action: Action, subject: String, detail: String) -> AuditEvent {
    event(app, "system".to_owned(), action, subject, detail)
}

fn event(app: &App, actor: String, action: Action, subject: String, detail: String) -> AuditEvent {
    AuditEvent {
        audit_id: app.ids.new_id(),
        happened_at: app.clock.now(),
        actor,
        action: action.name().to_owned(),
        subject,
        peer: context::current().and_then(|context| context.peer).map(|peer| peer.to_string()),
        detail,
    }
}
