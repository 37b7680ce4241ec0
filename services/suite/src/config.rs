//! The settings of the suite: those of the process and of each service. What the services know of each other is filled in at the start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::ProcessConfig;

/// The settings of the suite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The process.
    pub process: ProcessConfig,
    /// The user service.
    pub user: souk_user::Config,
    /// The inventory service.
    pub inventory: souk_inventory::Config,
    /// The order service.
    pub order: souk_order::Config,
}

impl souk_runtime::config::Config for Config {
    fn validate(&self, problems: &mut Vec<String>) {
        self.user.validate(problems);
        self.inventory.validate(problems);
        self.order.validate(problems);
        for (service, token) in [("inventory", &self.inventory.token.issuer), ("order", &self.order.token.issuer)] {
            if *token != self.user.issuer {
                problems.push(format!("{service}.token.issuer must be user.issuer"));
            }
        }
    }
}
