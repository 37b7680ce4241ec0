//! What an operator can do on the database of a service, whether it runs or not: `events republish` and `dead-letters list|show|replay`.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::{Arg, ArgMatches, Command};
use futures::FutureExt;
use souk_db::{Db, MigrationSet};
use souk_runtime::{Subcommand, say};
use uuid::Uuid;

use crate::consumer::Subscription;
use crate::dead_letters::{self, After, DeadLetter};
use crate::event::Event;
use crate::outbox;

/// The database of a service, as its version needs it, and its consumers.
pub type Opened = (Db, Vec<Arc<Subscription>>);

/// The database, which is `whose`, if it has the tables that this version needs: who only looks changes none.
pub async fn migrated(db: Db, whose: &str, tables: &[&MigrationSet]) -> anyhow::Result<Db> {
    let is_migrated = db.is_migrated(tables).await.with_context(|| format!("{whose} cannot be read"))?;
    anyhow::ensure!(is_migrated, "{whose} is not migrated to this version: `migrate` does it, and so does `serve`");
    Ok(db)
}

const FROM: &str = "from";
const CONSUMER: &str = "consumer";
const EVENT: &str = "event";
/// Dead letters that are read at once.
const PAGE: u32 = 200;

/// `events republish`: has the events of the service published again.
pub fn events<C: 'static, Done>(open: impl FnOnce(C) -> Done + 'static) -> Subcommand<C>
where
    Done: Future<Output = anyhow::Result<Opened>> + 'static,
{
    let from = Arg::new(FROM).long(FROM).value_name("TIME").value_parser(|text: &str| text.parse::<DateTime<Utc>>());
    let about = "Have the events of this service published again: all that the outbox still has. The one that serves does it, at once if it \
                 runs. Consumers know what they have seen.";
    let republish = Command::new("republish").about(about);
    let republish = republish.arg(from.help("Only what was published from then on, as 2026-11-21T10:00:00Z"));
    let command = Command::new("events").about("The events of this service").subcommand_required(true);
    Subcommand::new(command.subcommand(republish), |config, matches| {
        let opening = open(config);
        async move {
            let from = matches.subcommand().and_then(|(_, matches)| matches.get_one::<DateTime<Utc>>(FROM).copied());
            let (db, _) = opening.await?;
            let mut tx = db.write().await?;
            outbox::republish(&mut tx, from).await?;
            tx.commit().await?;
            db.close().await;
            say("they will be published again")
        }
    })
}

/// `dead-letters list|show|replay`: what the consumers of the service have given up on.
pub fn dead_letters<C: 'static, Done>(open: impl FnOnce(C) -> Done + 'static) -> Subcommand<C>
where
    Done: Future<Output = anyhow::Result<Opened>> + 'static,
{
    let which = |command: Command| {
        let consumer = Arg::new(CONSUMER).required(true).help("The consumer, as the list has it");
        let event = Arg::new(EVENT).required(true).value_parser(clap::value_parser!(Uuid)).help("The event's id");
        command.arg(consumer).arg(event)
    };
    let only = Arg::new(CONSUMER).help("Only those of this consumer");
    let command = Command::new("dead-letters")
        .about("Events that consumers of this service have given up on")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("Those that wait, one a line, oldest first").arg(only))
        .subcommand(which(Command::new("show").about("One of them, with its payload in hexadecimal digits")))
        .subcommand(which(Command::new("replay").about("Give one to its consumer again; it takes effect once")));
    Subcommand::new(command, |config, matches| {
        let opening = open(config);
        async move {
            let (db, consumers) = opening.await?;
            let done = match matches.subcommand() {
                Some(("list", own)) => list(&db, own.get_one::<String>(CONSUMER).map(String::as_str)).boxed().await,
                Some(("show", own)) => show(&db, own).boxed().await,
                Some((_, own)) => replay(&consumers, own).boxed().await,
                None => Ok(()),
            };
            db.close().await;
            done
        }
    })
}

async fn list(db: &Db, consumer: Option<&str>) -> anyhow::Result<()> {
    let mut after: Option<After> = None;
    loop {
        let page = dead_letters::list(&mut db.read_one().await?, consumer, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(After::from(last));
        for letter in &page {
            let DeadLetter { consumer, event, error, parked_at, .. } = letter;
            let (parked_at, Event { id, kind, aggregate, .. }) = (parked_at.to_rfc3339(), event);
            say(&printable(&format!("{consumer} {id} {parked_at} {kind} {aggregate} {error}")))?;
        }
    }
}

async fn show(db: &Db, matches: &ArgMatches) -> anyhow::Result<()> {
    let (consumer, event) = which(matches)?;
    let mut tx = db.read_one().await?;
    let letter = dead_letters::show(&mut tx, consumer, event).await?.context("no such dead letter")?;
    let replayed = letter.replayed_at.map_or_else(|| "no".to_owned(), |time| time.to_rfc3339());
    let rows = [
        ("consumer", letter.consumer),
        ("event", letter.event.id.to_string()),
        ("type", letter.event.kind),
        ("source", letter.event.source),
        ("subject", letter.event.subject),
        ("aggregate", letter.event.aggregate),
        ("version", letter.event.version.to_string()),
        ("time", letter.event.time.to_rfc3339()),
        ("traceparent", letter.event.traceparent.unwrap_or_default()),
        ("error", letter.error),
        ("tries", letter.tries.to_string()),
        ("parked", letter.parked_at.to_rfc3339()),
        ("replayed", replayed),
        ("data", hexadecimal(&letter.event.data)),
    ];
    rows.iter().try_for_each(|(name, value)| say(&printable(&format!("{name}: {value}"))))
}

async fn replay(consumers: &[Arc<Subscription>], matches: &ArgMatches) -> anyhow::Result<()> {
    let (consumer, event) = which(matches)?;
    let consumer =
        consumers.iter().find(|known| known.name() == consumer).context("this service has no such consumer")?;
    consumer.replay(event).await?;
    say("replayed")
}

fn which(matches: &ArgMatches) -> anyhow::Result<(&str, Uuid)> {
    let consumer = matches.get_one::<String>(CONSUMER).context("which consumer?")?;
    Ok((consumer, *matches.get_one::<Uuid>(EVENT).context("which event?")?))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// On one line, and nothing that a terminal takes for a command: what an error says may be another's text.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut printable, char| {
        if char.is_control() || is_invisible(char) {
            printable.extend(char.escape_default());
        } else {
            printable.push(char);
        }
        printable
    })
}

/// Ends a line, or turns what follows around.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_stays_on_its_line_and_commands_no_terminal() {
        let text = "a\nb\r\u{1b}[2J\u{9b}1m\u{202e} Käse \"x\" \\";
        assert_eq!(printable(text), "a\\nb\\r\\u{1b}[2J\\u{9b}1m\\u{202e} Käse \"x\" \\");
    }
}
