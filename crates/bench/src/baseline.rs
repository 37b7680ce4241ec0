//! What Souk is compared with: things that do as little as can be, or what one would write without it.

pub(crate) mod commits;
pub(crate) mod echo;
pub(crate) mod pgbench;
pub(crate) mod sql;
