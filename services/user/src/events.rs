//! The events that the user service publishes. Each goes to the outbox in the transaction of what it tells.

use prost::{Message, Name};
use souk_events::Event;
use souk_interceptors::context;
use souk_proto_user::v1 as pb;
use souk_runtime::Ids;

use crate::domain::{Roles, User};
use crate::wire::roles_on_wire;

/// The `source` of every event of this service.
pub const SOURCE: &str = "souk.user";

/// A new account.
pub fn user_registered(user: &User, ids: &Ids) -> Event {
    event(ids, "souk.user.user.registered", user, &pb::UserRegistered { user: Some(user.into()) })
}

/// The profile changed.
pub fn user_updated(user: &User, ids: &Ids) -> Event {
    event(ids, "souk.user.user.updated", user, &pb::UserUpdated { user: Some(user.into()) })
}

/// The roles were replaced.
pub fn user_roles_changed(user: &User, previous: &Roles, ids: &Ids) -> Event {
    let payload = pb::UserRolesChanged { user: Some(user.into()), previous_roles: roles_on_wire(previous) };
    event(ids, "souk.user.user.roles_changed", user, &payload)
}

fn event<M: Message + Name>(ids: &Ids, subject: &str, user: &User, payload: &M) -> Event {
    let aggregate = (format!("user/{}", user.id), user.version);
    let traceparent = context::current().map(|context| context.trace.to_string());
    Event::new(ids.new_id(), SOURCE, subject, aggregate, user.updated_at, payload).traced(traceparent)
}
