//! P6: every replica of every service is restarted, one after the other, under callers who balance and try again. No call fails.
//! `CAMPAIGN=1` restarts each service thirty times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use souk_proto_inventory::v1::GetProductRequest;
use souk_proto_user::v1::GetMeRequest;
use souk_runtime::{Clock, Kernel};
use souk_testkit::cluster::{Cluster, ClusterConfig};
use souk_testkit::load::by_campaign;
use souk_testkit::shop::{Person, Shop, one};
use souk_testkit::{PATIENCE, within};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

const CALLERS: usize = 64;
const SKU: &str = "TEA";
const PAUSE: Duration = Duration::from_millis(50);

/// Restarts of each service.
fn rounds() -> usize {
    by_campaign(2, 30)
}

/// A call that failed: which, when, after how long, and how.
type Failed = (&'static str, DateTime<Utc>, Duration, Status);

/// Calls all three services, again and again; how often, and each call that failed.
async fn call(shop: Shop, person: Person, calls: Arc<AtomicU64>, enough: CancellationToken) -> Vec<Failed> {
    let mut failed = Vec::new();
    let mut note = |rpc, began: Instant, result: Result<(), Status>| {
        calls.fetch_add(1, Ordering::Relaxed);
        failed.extend(result.err().map(|status| (rpc, Clock::system().now(), began.elapsed(), status)));
    };
    while !enough.is_cancelled() {
        let began = Instant::now();
        note("GetMe", began, shop.users(Some(&person)).get_me(GetMeRequest {}).await.map(drop));
        let began = Instant::now();
        note(
            "GetProduct",
            began,
            shop.catalog(None).get_product(GetProductRequest { sku: SKU.into() }).await.map(drop),
        );
        let began = Instant::now();
        note("PlaceOrder", began, shop.place(&person, one(SKU, 1)).await.map(drop));
        tokio::time::sleep(PAUSE).await;
    }
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_call() {
    let mut cluster = Cluster::start_with(ClusterConfig { replicas: [2, 2, 2], ..ClusterConfig::default() }).await;
    cluster.product(SKU, 690, 1_000_000).await;
    let kernel = Kernel::new(Clock::system());
    let shop = cluster.by_balancing_clients(&kernel);
    let (calls, enough) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let person = cluster.customer(&format!("caller-{number}")).await;
        callers.spawn(call(shop.clone(), person, calls.clone(), enough.clone()));
    }
    for _ in 0..rounds() {
        for service in [&mut cluster.user, &mut cluster.inventory, &mut cluster.order] {
            for replica in 0..service.len() {
                service.stop(replica).await;
                // Whoever calls goes on meanwhile.
                let before = calls.load(Ordering::Relaxed);
                within(PATIENCE, "a hundred calls more", async || calls.load(Ordering::Relaxed) >= before + 100).await;
                service.start(replica);
                service.ready(replica).await;
            }
        }
    }
    enough.cancel();
    let failed: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    println!("{} calls, {} restarts of each service, {} failed", calls.load(Ordering::Relaxed), rounds(), failed.len());
    assert!(failed.is_empty(), "{} failed, the first of them: {:?}", failed.len(), &failed[..failed.len().min(20)]);
    cluster.assert_invariants().await;
    kernel.tasks.stop(PATIENCE).await;
    cluster.stop().await;
}
