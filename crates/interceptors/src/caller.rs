//! Who calls.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

/// What kind of caller it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallerKind {
    /// No token, or none that is good.
    #[default]
    Anonymous,
    /// A person: the subject is the user's id.
    User,
    /// Another service: the subject is `service:<name>`.
    Service,
}

/// Who calls, as far as the token proves it. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller(Arc<Proven>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Proven {
    kind: CallerKind,
    subject: String,
    scopes: BTreeSet<String>,
    session_id: Option<Uuid>,
}

/// The prefix of a service's subject.
const SERVICE: &str = "service:";

impl Caller {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A caller whose token says so. The subject tells users from services.
    pub fn proven(subject: impl Into<String>, scopes: BTreeSet<String>, session_id: Option<Uuid>) -> Self {
        let subject = subject.into();
        let kind = if subject.starts_with(SERVICE) { CallerKind::Service } else { CallerKind::User };
        Self(Arc::new(Proven { kind, subject, scopes, session_id }))
    }

    /// What kind of caller it is.
    pub fn kind(&self) -> CallerKind {
        self.0.kind
    }

    /// The token's subject; empty for an anonymous caller.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The id of a user.
    pub fn user_id(&self) -> Option<Uuid> {
        if self.kind() == CallerKind::User { Uuid::try_parse(self.subject()).ok() } else { None }
    }

    /// The login that the token belongs to.
    pub fn session_id(&self) -> Option<Uuid> {
        self.0.session_id
    }

    /// Whether the token carries `scope`.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.0.scopes.contains(scope)
    }

    /// There is no good token.
    pub fn is_anonymous(&self) -> bool {
        self.kind() == CallerKind::Anonymous
    }
}
