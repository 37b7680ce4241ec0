//! The two forms in which Souk runs, so that one test can be run on both.

use std::ops::Deref;

use souk_db::Db;

use crate::cluster::{Cluster, ClusterConfig};
use crate::shop::Shop;
use crate::suite::Suite;

/// How Souk runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In one process, on SQLite and the bus in memory.
    Suite,
    /// As separate processes, several of each service, on PostgreSQL and NATS.
    Cluster,
}

/// A running Souk.
pub enum Souk {
    /// See [`Form::Suite`].
    Suite(Box<Suite>),
    /// See [`Form::Cluster`].
    Cluster(Box<Cluster>),
}

impl Form {
    /// Starts it, empty.
    pub async fn start(self) -> Souk {
        match self {
            // Its clock stands still: nothing that is remembered is ever too old.
            Self::Suite => Souk::Suite(Box::new(Suite::start().await)),
            Self::Cluster => {
                let prices_never_too_old = ("order.limits.price_ttl_ms".to_owned(), "3600000".to_owned());
                let config = ClusterConfig { settings: vec![prices_never_too_old], ..ClusterConfig::default() };
                Souk::Cluster(Box::new(Cluster::start_with(config).await))
            }
        }
    }
}

impl Souk {
    /// I1 to I11, against the inventory's tables.
    pub async fn assert_invariants(&self) {
        match self {
            Self::Suite(suite) => suite.assert_invariants().await,
            Self::Cluster(cluster) => cluster.assert_invariants().await,
        }
    }

    /// The orders' database.
    pub async fn orders_database(&self) -> Db {
        match self {
            Self::Suite(suite) => suite.running.order.app.db.clone(),
            Self::Cluster(cluster) => cluster.order.database().await,
        }
    }

    /// The inventory's database.
    pub async fn inventory_database(&self) -> Db {
        match self {
            Self::Suite(suite) => suite.running.inventory.app.db.clone(),
            Self::Cluster(cluster) => cluster.inventory.database().await,
        }
    }

    /// Ends it as SIGTERM would, and starts it on what it has left.
    pub async fn restart(self) -> Self {
        match self {
            Self::Suite(suite) => Self::Suite(Box::new(suite.restart().await)),
            Self::Cluster(mut cluster) => {
                cluster.restart().await;
                Self::Cluster(cluster)
            }
        }
    }

    /// Ends it as SIGTERM would.
    pub async fn stop(self) {
        match self {
            Self::Suite(suite) => drop(suite.stop().await),
            Self::Cluster(cluster) => cluster.stop().await,
        }
    }
}

impl Deref for Souk {
    type Target = Shop;

    fn deref(&self) -> &Shop {
        match self {
            Self::Suite(suite) => suite,
            Self::Cluster(cluster) => cluster,
        }
    }
}
