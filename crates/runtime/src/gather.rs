//! Gathering: commands that come while others are being done are done together, next.
//!
//! There is no timer: a command that comes while nothing is in flight is a batch of its own and starts at once, so that an idle system
//! answers as fast as without batches, and a busy one pays for one commit, or one call, where it would have paid for hundreds.

use std::fmt;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::trace::{self, TraceContext};

/// Where commands `C` are handed in, each for an answer `A`. Cheap to clone; when the last clone is dropped, the other end runs dry.
pub struct Gather<C, A>(mpsc::Sender<Queued<C, A>>);

/// The other end: whoever does what was gathered.
pub struct Gathered<C, A> {
    queue: mpsc::Receiver<Queued<C, A>>,
    batch_max: usize,
    weight: fn(&C) -> usize,
    /// It would have been too much for the part before.
    left: Option<Queued<C, A>>,
}

/// Commands that are done together, each with somebody who waits for its answer.
pub struct Part<C, A> {
    /// The commands, in the order in which they came.
    pub commands: Vec<C>,
    tickets: Vec<Ticket<A>>,
}

/// Why a command has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The queue is full. Nothing was done.
    QueueFull,
    /// Whoever was to do it has ended. What was done is not known.
    Ended,
}

struct Queued<C, A> {
    command: C,
    ticket: Ticket<A>,
}

struct Ticket<A> {
    deadline: Option<Instant>,
    answer: oneshot::Sender<A>,
    /// What its caller waits in, and where that is in a trace.
    waiting: Span,
    position: Option<TraceContext>,
}

/// Both ends. `queue_max` commands may wait, and those are done together that weigh up to `batch_max`; one that weighs more is alone.
pub fn gather<C, A>(queue_max: usize, batch_max: usize, weight: fn(&C) -> usize) -> (Gather<C, A>, Gathered<C, A>) {
    let (sender, queue) = mpsc::channel(queue_max.max(1));
    (Gather(sender), Gathered { queue, batch_max, weight, left: None })
}

impl<C, A> Clone for Gather<C, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C, A> fmt::Debug for Gather<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

impl<C, A> Gather<C, A> {
    /// Hands in a command and waits for its answer, in the span `waiting`. Dropped before it was taken up, it is not done.
    pub async fn submit(&self, command: C, deadline: Option<Instant>, waiting: Span) -> Result<A, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let ticket = Ticket { deadline, answer, waiting: waiting.clone(), position: trace::current() };
        self.0.try_send(Queued { command, ticket }).map_err(|refused| match refused {
            TrySendError::Full(_) => Unanswered::QueueFull,
            TrySendError::Closed(_) => Unanswered::Ended,
        })?;
        answered.instrument(waiting).await.map_err(|_| Unanswered::Ended)
    }
}

impl<C, A> Gathered<C, A> {
    /// What was handed in since the last time; `None`: nobody can hand in anything any more.
    pub async fn next(&mut self) -> Option<Part<C, A>> {
        let first = match self.left.take() {
            Some(left) => left,
            None => self.queue.recv().await?,
        };
        let mut room = self.batch_max.saturating_sub((self.weight)(&first.command));
        let mut part = Part { commands: vec![first.command], tickets: vec![first.ticket] };
        while room > 0
            && let Ok(next) = self.queue.try_recv()
        {
            let Some(left) = room.checked_sub((self.weight)(&next.command)) else {
                self.left = Some(next);
                break;
            };
            room = left;
            part.commands.push(next.command);
            part.tickets.push(next.ticket);
        }
        Some(part)
    }
}

impl<C, A> Part<C, A> {
    /// Leaves out what nobody waits for any more, and tells those who still look that it is `late`; how many.
    pub fn drop_unwanted(&mut self, late: impl Fn() -> A) -> usize {
        let now = Instant::now();
        let is_wanted =
            |ticket: &Ticket<A>| !ticket.answer.is_closed() && ticket.deadline.is_none_or(|deadline| deadline > now);
        if self.tickets.iter().all(is_wanted) {
            return 0;
        }
        let before = self.tickets.len();
        let queued = std::mem::take(&mut self.commands).into_iter().zip(std::mem::take(&mut self.tickets));
        for (command, ticket) in queued {
            if is_wanted(&ticket) {
                self.commands.push(command);
                self.tickets.push(ticket);
            } else {
                ticket.tell(late());
            }
        }
        before - self.tickets.len()
    }

    /// When the last of those who wait for it has gone; `None`: one has no deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.tickets.iter().map(|ticket| ticket.deadline).reduce(|one, other| Some(one?.max(other?))).flatten()
    }

    /// The span of what serves many traces, made by `make`, and its position: it stands in the first that is recorded, and is linked with the
    /// others.
    pub fn span(&self, make: impl FnOnce() -> Span) -> (Span, Option<TraceContext>) {
        let is_recorded = |ticket: &&Ticket<A>| ticket.position.is_some_and(TraceContext::is_sampled);
        let mut recorded = self.tickets.iter().filter(is_recorded);
        let Some(first) = recorded.next() else { return (Span::none(), None) };
        let span = first.waiting.in_scope(make);
        for other in recorded {
            span.follows_from(&other.waiting);
            other.waiting.follows_from(&span);
        }
        (span, first.position)
    }

    /// The second half of it, which this part has no longer.
    #[must_use]
    pub fn split_half(&mut self) -> Self {
        let half = self.commands.len() / 2;
        Self { commands: self.commands.split_off(half), tickets: self.tickets.split_off(half) }
    }

    /// Where each of its commands stands in a trace.
    pub fn positions(&self) -> impl Iterator<Item = Option<TraceContext>> {
        self.tickets.iter().map(|ticket| ticket.position)
    }

    /// Answers each.
    pub fn answer(self, answers: impl IntoIterator<Item = A>) {
        self.tickets.into_iter().zip(answers).for_each(|(ticket, answer)| ticket.tell(answer));
    }
}

impl<C, A> fmt::Debug for Gathered<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered").finish_non_exhaustive()
    }
}

impl<C, A> fmt::Debug for Part<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("commands", &self.commands.len()).finish_non_exhaustive()
    }
}

impl<A> Ticket<A> {
    /// A caller that has gone away does not mind.
    fn tell(self, answer: A) {
        drop(self.answer.send(answer));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_comes_while_a_part_is_done_is_the_next_part() {
        let (gather, mut gathered) = gather::<u32, u32>(10, 3, |_| 1);
        let submit = |command| {
            let gather = gather.clone();
            tokio::spawn(async move { gather.submit(command, None, Span::none()).await })
        };
        let first = submit(1);
        let part = gathered.next().await.unwrap();
        assert_eq!(part.commands, [1]);
        let rest: Vec<_> = (2..6).map(submit).collect();
        tokio::task::yield_now().await;
        part.answer([10]);
        assert_eq!(first.await.unwrap(), Ok(10));
        let part = gathered.next().await.unwrap();
        assert_eq!(part.commands, [2, 3, 4]);
        part.answer([20, 30, 40]);
        drop(gathered);
        let answers: Vec<_> = futures::future::join_all(rest).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [Ok(20), Ok(30), Ok(40), Err(Unanswered::Ended)]);
    }

    #[tokio::test]
    async fn a_part_has_what_it_can_bear_and_what_is_too_heavy_is_alone() {
        let (gather, mut gathered) = gather::<usize, ()>(10, 5, |command| *command);
        for command in [1, 3, 2, 9, 4, 1, 1] {
            let gather = gather.clone();
            tokio::spawn(async move { gather.submit(command, None, Span::none()).await });
        }
        tokio::task::yield_now().await;
        let mut parts = Vec::new();
        for _ in 0..5 {
            parts.push(gathered.next().await.unwrap().commands);
        }
        assert_eq!(parts, [vec![1, 3], vec![2], vec![9], vec![4, 1], vec![1]]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_what_nobody_waits_for_is_left_out() {
        let (gather, mut gathered) = gather::<u32, &str>(2, 8, |_| 1);
        let soon = Instant::now() + Duration::from_millis(1);
        let late = {
            let gather = gather.clone();
            tokio::spawn(async move { gather.submit(1, Some(soon), Span::none()).await })
        };
        let gone = {
            let gather = gather.clone();
            tokio::spawn(async move { gather.submit(2, None, Span::none()).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(gather.submit(3, None, Span::none()).await, Err(Unanswered::QueueFull));
        gone.abort();
        assert!(gone.await.is_err());
        let mut part = gathered.next().await.unwrap();
        tokio::time::sleep_until(soon).await;
        assert_eq!(part.drop_unwanted(|| "late"), 2);
        assert!(part.commands.is_empty());
        assert_eq!(late.await.unwrap(), Ok("late"));
    }
}
