//! Users.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use souk_proto_common::Etag;
use uuid::Uuid;

use super::{Email, Role, Roles};

/// A person with an account. Knows nothing of the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The `sub` of the user's tokens. Later users have greater ids.
    pub id: Uuid,
    /// What the user signs in with.
    pub email: Email,
    /// How the user wants to be called; may be empty.
    pub display_name: String,
    /// What the user may do.
    pub roles: Roles,
    /// Grows by 1 with every change.
    pub version: i64,
    /// When the user registered.
    pub created_at: DateTime<Utc>,
    /// When the user last changed.
    pub updated_at: DateTime<Utc>,
}

/// The last administrator must keep the role: nobody could give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAdministrator;

impl User {
    /// A new one.
    pub fn new(id: Uuid, email: Email, display_name: String, roles: Roles, now: DateTime<Utc>) -> Self {
        Self { id, email, display_name, roles, version: 1, created_at: now, updated_at: now }
    }

    /// The user's etag.
    pub fn etag(&self) -> Etag {
        Etag(self.version)
    }

    /// The user with another name; `None` if it is the same.
    pub fn renamed(&self, display_name: &str, now: DateTime<Utc>) -> Option<Self> {
        if display_name == self.display_name {
            return None;
        }
        let display_name = display_name.to_owned();
        Some(Self { display_name, version: self.version + 1, updated_at: now, ..self.clone() })
    }

    /// The user with other roles; `None` if they are the same. `administrators` are all that there are now.
    pub fn with_roles(
        &self,
        roles: &Roles,
        administrators: &[Uuid],
        now: DateTime<Utc>,
    ) -> Result<Option<Self>, LastAdministrator> {
        if *roles == self.roles {
            return Ok(None);
        }
        let resigns = self.roles.contains(Role::Admin) && !roles.contains(Role::Admin);
        if resigns && administrators.iter().all(|id| *id == self.id) {
            return Err(LastAdministrator);
        }
        Ok(Some(Self { roles: roles.clone(), version: self.version + 1, updated_at: now, ..self.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> User {
        let roles = Roles::only(Role::Admin);
        User::new(Uuid::from_u128(1), Email::parse("a@x.example").unwrap(), String::new(), roles, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn the_last_administrator_keeps_the_role() {
        let (admin, customer, now) = (admin(), Roles::only(Role::Customer), DateTime::UNIX_EPOCH);
        assert_eq!(admin.with_roles(&customer, &[admin.id], now), Err(LastAdministrator));
        let changed = admin.with_roles(&customer, &[admin.id, Uuid::from_u128(2)], now).unwrap().unwrap();
        assert_eq!((changed.roles, changed.version), (customer, 2));
        let more = Roles::new([Role::Admin, Role::Staff]).unwrap();
        assert!(admin.with_roles(&more, &[admin.id], now).unwrap().is_some());
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        let admin = admin();
        assert_eq!(admin.renamed("", DateTime::UNIX_EPOCH), None);
        assert_eq!(admin.with_roles(&admin.roles, &[admin.id], DateTime::UNIX_EPOCH), Ok(None));
    }
}
