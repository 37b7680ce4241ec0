//! The settings of the suite: those of the process and of each service. What the services know of each other is filled in at the start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_events::BusConfig;
use souk_runtime::server::{ProxyProtocol, ServerConfig};
use souk_runtime::{ProcessConfig, Settings};

use crate::demo::ACCOUNT as DEMO_ACCOUNT;

/// The settings of the suite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The process.
    pub process: ProcessConfig,
    /// Where events go. All services of the process share it.
    pub bus: BusConfig,
    /// The user service.
    pub user: souk_user::Config,
    /// The inventory service.
    pub inventory: souk_inventory::Config,
    /// The order service.
    pub order: souk_order::Config,
}

impl souk_runtime::config::Config for Config {
    fn validate(&self, problems: &mut Vec<String>) {
        self.process.validate("process", problems);
        self.bus.validate("bus", problems);
        self.user.validate(problems);
        self.inventory.validate(problems);
        self.order.validate(problems);
        let (user, inventory, order) = (&self.user, &self.inventory.token, &self.order.token);
        let same = [
            ("inventory", "issuer", &inventory.issuer, &user.issuer),
            ("inventory", "audience", &inventory.audience, &user.audience),
            ("order", "issuer", &order.issuer, &user.issuer),
            ("order", "audience", &order.audience, &user.audience),
        ];
        for (service, field, theirs, ours) in same {
            if theirs != ours {
                problems.push(format!("{service}.token.{field} must be user.{field}"));
            }
        }
        let defaults = Self::default();
        let peers = [
            ("inventory.user", &self.inventory.user, &defaults.inventory.user),
            ("order.user", &self.order.user, &defaults.order.user),
            ("order.inventory", &self.order.inventory, &defaults.order.inventory),
        ];
        for (at, peer, default) in peers {
            if peer.addresses != default.addresses {
                problems.push(format!("{at}.addresses is not for here: in one process the services know each other's"));
            }
        }
        for (service, server) in self.servers() {
            if server.tls.is_on() || server.proxy_protocol == ProxyProtocol::Required {
                problems.push(format!(
                    "{service}.server: tls and a required PROXY header are not for here: in one process the services speak plaintext to \
                     each other; let a proxy do it, or start the three binaries"
                ));
            }
        }
        if order.service_name.is_empty() || order.service_name == DEMO_ACCOUNT {
            problems.push(format!("order.token.service_name must be a name, and not {DEMO_ACCOUNT}"));
        }
    }
}

impl Settings for Config {
    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn servers(&self) -> Vec<(&'static str, &ServerConfig)> {
        let (user, inventory, order) = (&self.user.server, &self.inventory.server, &self.order.server);
        vec![("user", user), ("inventory", inventory), ("order", order)]
    }
}

#[cfg(test)]
mod tests {
    use souk_runtime::config::Config as _;

    use super::*;

    #[test]
    fn the_defaults_can_be_used_and_what_cannot_is_named() {
        let mut problems = Vec::new();
        Config::default().validate(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let mut bad = Config::default();
        bad.inventory.token.audience = "elsewhere".to_owned();
        bad.order.token.issuer = "somebody".to_owned();
        bad.order.inventory.addresses = vec!["http://127.0.0.1:1".to_owned()];
        bad.order.token.audience = "elsewhere".to_owned();
        bad.user.server.tls.certificate_file = "certificate.pem".into();
        bad.user.server.tls.key_file = "key.pem".into();
        bad.order.server.proxy_protocol = ProxyProtocol::Required;
        bad.order.token.service_name = DEMO_ACCOUNT.to_owned();
        bad.validate(&mut problems);
        let named: Vec<&str> = problems.iter().filter_map(|problem| problem.split(' ').next()).collect();
        let expected = [
            "inventory.token.audience",
            "order.token.issuer",
            "order.token.audience",
            "order.inventory.addresses",
            "user.server:",
            "order.server:",
            "order.token.service_name",
        ];
        assert_eq!(named, expected);
    }
}
