//! Roles, and the scopes that each brings. The other services look at scopes only.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Buys.
    Customer,
    /// Runs the shop.
    Staff,
    /// Runs the accounts.
    Admin,
}

const CUSTOMER: &[&str] = &["orders.place", "orders.read", "orders.cancel"];
const STAFF: &[&str] =
    &["catalog.write", "stock.read", "stock.write", "orders.read_all", "orders.cancel_all", "users.read"];
const ADMIN: &[&str] = &["users.write", "roles.write", "events.read", "events.admin"];

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Customer, Self::Staff, Self::Admin];

    /// As it stands in tokens and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customer => "CUSTOMER",
            Self::Staff => "STAFF",
            Self::Admin => "ADMIN",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Its scopes: those of the role before it, and some more.
    fn scopes(self) -> impl Iterator<Item = &'static str> {
        let groups: &[&[&'static str]] = match self {
            Self::Customer => &[CUSTOMER],
            Self::Staff => &[CUSTOMER, STAFF],
            Self::Admin => &[CUSTOMER, STAFF, ADMIN],
        };
        groups.iter().flat_map(|group| group.iter().copied())
    }
}

/// The roles of a user: one at least.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// `None` if there is none.
    pub fn new(roles: impl IntoIterator<Item = Role>) -> Option<Self> {
        let roles: BTreeSet<Role> = roles.into_iter().collect();
        (!roles.is_empty()).then_some(Self(roles))
    }

    /// One role.
    pub fn only(role: Role) -> Self {
        Self(BTreeSet::from([role]))
    }

    /// Whether `role` is one of them.
    pub fn contains(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Each once, in order.
    pub fn iter(&self) -> impl Iterator<Item = Role> {
        self.0.iter().copied()
    }

    /// Every scope that one of them brings.
    pub fn scopes(&self) -> BTreeSet<&'static str> {
        self.iter().flat_map(Role::scopes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_the_one_before_it_may() {
        let [customer, staff, admin] = Role::ALL.map(|role| Roles::only(role).scopes());
        assert!(customer.is_subset(&staff) && staff.is_subset(&admin));
        assert!(!customer.contains("orders.read_all"), "a customer sees the own orders only");
        assert!(!staff.contains("users.write") && !staff.contains("roles.write"));
        assert!(!admin.contains("stock.reserve"), "a scope of services");
    }

    #[test]
    fn a_role_is_read_back_by_its_name() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.name()), Some(role));
        }
        assert_eq!(Role::parse("admin"), None);
        assert_eq!(Roles::new([]), None);
    }
}
