//! How one address is, by its own word: the standard `grpc.health.v1` Watch on the connection that calls take.
//!
//! A server that is about to end says so here before it closes the connection. One without that service is well as long as it is connected.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tracing::warn;

use super::address::Address;
use super::pool::{Health, Pool};

/// A watch that has lasted so long was no failure: the connection ended in time, and the next one is made at once.
const STEADY: Duration = Duration::from_secs(1);

/// What came of asking.
enum Asked {
    /// There was an answer; this is how it was last.
    Answered(Health),
    /// There was none.
    Failed(String),
    /// There was none in time.
    Silent,
}

/// Watches an address, and tells the pool, for ever. Woken while it pauses, it tries at once.
pub(super) async fn watch(pool: Arc<Pool>, mut address: Arc<Address>, wake: Arc<Notify>) {
    let mut failures = 0_u32;
    loop {
        pool.is_tried(address.id);
        let began = Instant::now();
        let asked = ask(&pool, &address).await;
        let is_steady = began.elapsed() >= STEADY;
        match &asked {
            Asked::Answered(Health::Serving) if is_steady => {
                failures = 0;
                continue;
            }
            Asked::Answered(_) if is_steady => failures = 1,
            Asked::Answered(_) | Asked::Failed(_) | Asked::Silent => failures = failures.saturating_add(1),
        }
        if let Asked::Failed(why) = &asked
            && failures == 1
        {
            warn!(peer = pool.peer, address = %address.socket, why, "an address does not answer");
        }
        if matches!(asked, Asked::Silent) {
            address = pool.renew(address);
        }
        pool.rests(address.id);
        tokio::select! {
            () = tokio::time::sleep(pause(&pool, failures)) => {}
            () = wake.notified() => {}
        }
    }
}

/// Half of it at random, so that those who lost an address together do not come again together.
fn pause(pool: &Pool, failures: u32) -> Duration {
    let longer = pool.limits.ejection.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    longer.min(pool.limits.ejection_max).mul_f64(0.5 + pool.random_fraction() / 2.0)
}

async fn ask(pool: &Pool, address: &Address) -> Asked {
    let mut client = HealthClient::new(address.channel.clone());
    let asking = async {
        let mut answers = client.watch(HealthCheckRequest::default()).await?.into_inner();
        let first = answers.message().await?;
        Ok::<_, Status>((answers, first))
    };
    let why = match timeout(pool.limits.connect_timeout, asking).await {
        Ok(Ok((mut answers, Some(first)))) => {
            let mut health = health(first.status);
            pool.is_now(address.id, health);
            while let Ok(Some(next)) = answers.message().await {
                health = self::health(next.status);
                pool.is_now(address.id, health);
            }
            return ended(pool, address, health);
        }
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            pool.is_now(address.id, Health::Serving);
            address.disconnected().await;
            return ended(pool, address, Health::Serving);
        }
        Ok(Ok((_, None))) => "it does not tell its health".to_owned(),
        Ok(Err(status)) => causes(&status),
        Err(_) => {
            pool.is_now(address.id, Health::Down);
            return Asked::Silent;
        }
    };
    pool.is_now(address.id, Health::Down);
    Asked::Failed(why)
}

/// The connection is gone, or the server has ended the watch. Whoever has said no before has not taken it back.
fn ended(pool: &Pool, address: &Address, health: Health) -> Asked {
    if health == Health::Serving {
        pool.is_now(address.id, Health::Lost);
    }
    Asked::Answered(health)
}

fn health(status: i32) -> Health {
    if status == ServingStatus::Serving as i32 { Health::Serving } else { Health::NotServing }
}

/// An error of the transport says little itself; what was wrong is at the end of the chain.
fn causes(status: &Status) -> String {
    let first: &(dyn Error + 'static) = status;
    let all = std::iter::successors(first.source(), |&error| error.source());
    all.fold(status.message().to_owned(), |text, error| format!("{text}: {error}"))
}
