//! Group commit: what a batch may do to its neighbours, and what it may not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use souk_db::{Batch, Db, Decided, Error, GroupCommit, GroupConfig, GroupError, Kind, Tx, sql};
use souk_testkit::{TestDatabase, sqlite};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Inserts numbers. A negative one is refused; 13 breaks a constraint; 99 panics; 77 meets a conflict whenever it comes.
struct Insert {
    batches: Arc<Mutex<Vec<Vec<i64>>>>,
    /// A batch begins when it is let.
    may_begin: Arc<Semaphore>,
}

impl Batch for Insert {
    type Command = i64;
    type Reply = i64;
    type Error = &'static str;

    async fn apply(&self, tx: &mut Tx, commands: &[i64]) -> Result<Decided<Self>, Error> {
        self.batches.lock().unwrap().push(commands.to_vec());
        self.may_begin.acquire().await.unwrap().forget();
        let mut results = Vec::new();
        for number in commands {
            assert_ne!(*number, 99, "a bug in the batch");
            if *number == 77 {
                return Err(Error::conflict("planted"));
            }
            if *number < 0 {
                results.push(Err("negative"));
                continue;
            }
            sql("INSERT INTO numbers (n) VALUES ($1)").bind(*number).execute(tx).await?;
            results.push(Ok(*number));
        }
        Ok(results)
    }
}

type Task = tokio::task::JoinHandle<Result<i64, GroupError<&'static str>>>;

struct Fixture {
    database: TestDatabase,
    group: GroupCommit<Insert>,
    batches: Arc<Mutex<Vec<Vec<i64>>>>,
    may_begin: Arc<Semaphore>,
}

async fn fixture(may_begin: usize, config: &GroupConfig) -> Fixture {
    let database = sqlite().await;
    let mut tx = database.write().await.unwrap();
    sql("CREATE TABLE numbers (n BIGINT NOT NULL PRIMARY KEY CHECK (n <> 13))").execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let batches = Arc::new(Mutex::new(Vec::new()));
    let may_begin = Arc::new(Semaphore::new(may_begin));
    let insert = Insert { batches: batches.clone(), may_begin: may_begin.clone() };
    let group = GroupCommit::start("numbers", database.clone(), insert, config);
    Fixture { database, group, batches, may_begin }
}

async fn numbers(db: &Db) -> Vec<i64> {
    let mut tx = db.read().await.unwrap();
    let rows: Vec<(i64,)> = sql("SELECT n FROM numbers ORDER BY n").fetch_all(&mut tx).await.unwrap();
    rows.into_iter().map(|(n,)| n).collect()
}

impl Fixture {
    /// Hands `commands` in, in this order, while command 0 is in flight; then lets everything run.
    async fn behind_a_batch_in_flight(&self, commands: &[i64]) -> Vec<Result<i64, GroupError<&'static str>>> {
        let first = self.in_flight().await;
        let mut tasks = Vec::new();
        for command in commands {
            tasks.push(self.spawn(*command));
            tokio::task::yield_now().await;
        }
        self.may_begin.add_permits(1_000);
        first.await.unwrap().unwrap();
        futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect()
    }

    /// Command 0, in a batch that has begun and waits to be let.
    async fn in_flight(&self) -> Task {
        let first = self.spawn(0);
        while self.batches.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        first
    }

    fn spawn(&self, command: i64) -> Task {
        let group = self.group.clone();
        tokio::spawn(async move { group.submit(command, None).await })
    }
}

#[tokio::test]
async fn an_idle_group_starts_at_once_and_a_busy_one_gathers() {
    let fixture = fixture(0, &GroupConfig::default()).await;
    let results = fixture.behind_a_batch_in_flight(&[1, 2, 3, 4]).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(*fixture.batches.lock().unwrap(), [vec![0], vec![1, 2, 3, 4]]);
    assert_eq!((fixture.group.stats().batches(), fixture.group.stats().commands()), (2, 5));
}

#[tokio::test]
async fn an_answer_comes_after_the_commit() {
    let fixture = fixture(1, &GroupConfig::default()).await;
    assert_eq!(fixture.group.submit(7, None).await.unwrap(), 7);
    assert_eq!(numbers(&fixture.database).await, [7]);
}

#[tokio::test]
async fn a_refused_command_does_not_touch_its_neighbours() {
    let fixture = fixture(0, &GroupConfig::default()).await;
    let results = fixture.behind_a_batch_in_flight(&[1, -1, 2]).await;
    assert!(matches!(results.as_slice(), [Ok(1), Err(GroupError::Rejected("negative")), Ok(2)]));
    assert_eq!(numbers(&fixture.database).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_poisoned_command_fails_alone() {
    for poison in [13, 99] {
        let fixture = fixture(0, &GroupConfig::default()).await;
        let results = fixture.behind_a_batch_in_flight(&[1, 2, poison, 4, 5]).await;
        for (result, command) in results.iter().zip([1, 2, poison, 4, 5]) {
            match result {
                Ok(number) => assert_eq!(*number, command),
                Err(GroupError::Db(error)) => assert_eq!((error.kind(), command), (Kind::Bug, poison)),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(numbers(&fixture.database).await, [0, 1, 2, 4, 5]);
    }
}

#[tokio::test]
async fn a_batch_that_always_meets_a_conflict_is_tried_three_times() {
    let fixture = fixture(10, &GroupConfig::default()).await;
    let told = fixture.group.submit(77, None).await;
    assert!(matches!(told, Err(GroupError::Db(error)) if error.kind() == Kind::Conflict));
    assert_eq!(*fixture.batches.lock().unwrap(), [[77], [77], [77]]);
}

#[tokio::test]
async fn an_expired_or_abandoned_command_never_reaches_the_batch() {
    let fixture = fixture(0, &GroupConfig::default()).await;
    let in_flight = fixture.in_flight().await;
    let group = fixture.group.clone();
    let expired = tokio::spawn(async move { group.submit(8, Some(Instant::now())).await });
    let abandoned = fixture.spawn(9);
    tokio::task::yield_now().await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    let wanted = fixture.spawn(1);
    fixture.may_begin.add_permits(10);
    in_flight.await.unwrap().unwrap();
    wanted.await.unwrap().unwrap();
    assert!(matches!(expired.await.unwrap(), Err(GroupError::Expired)));
    assert!(fixture.batches.lock().unwrap().iter().flatten().all(|command| *command < 8));
    assert_eq!(numbers(&fixture.database).await, [0, 1]);
    assert_eq!(fixture.group.stats().dropped(), 2);
}

#[tokio::test]
async fn a_command_that_is_abandoned_before_the_transaction_can_begin_never_reaches_the_batch() {
    let fixture = fixture(10, &GroupConfig::default()).await;
    let in_the_way = fixture.database.write().await.unwrap();
    let abandoned = fixture.spawn(9);
    for _ in 0..100 {
        tokio::task::yield_now().await; // the worker takes it up, and waits for its transaction
    }
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    in_the_way.rollback().await.unwrap();
    fixture.group.submit(1, None).await.unwrap();
    assert_eq!(numbers(&fixture.database).await, [1]);
    assert_eq!(fixture.group.stats().dropped(), 1);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let fixture = fixture(0, &GroupConfig { queue_max: 2, batch_max: 1 }).await;
    let results = fixture.behind_a_batch_in_flight(&[1, 2, 3]).await;
    assert!(matches!(results.as_slice(), [Ok(1), Ok(2), Err(GroupError::QueueFull)]));
}
