//! One command at work on the book: it writes to a draft, which becomes part of the book if the command succeeds and is dropped if
//! it is refused.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::book::{Book, Kept, Notice, Origin};
use super::command::{Adjust, Answer, Change, Command, Receive, Reply, Reserve, Resolve, SELF, Stamp};
use super::movement::{Movement, Operation, Reason};
use super::names::StockKey;
use super::refusal::{Refusal, Short};
use super::reservation::{Reservation, Step};
use super::stock::{Delta, ON_HAND_MAX, Stock, StockLevel};

pub(super) struct Draft<'a> {
    book: &'a Book,
    stamp: &'a Stamp,
    done: Done,
}

/// What a command did.
#[derive(Default)]
pub(super) struct Done {
    pub(super) stocks: BTreeMap<StockKey, Stock>,
    pub(super) reservations: BTreeMap<Uuid, Kept>,
    pub(super) movements: Vec<Movement>,
    pub(super) notices: Vec<Notice>,
}

/// What the ledger says of a movement beside its numbers.
#[derive(Clone, Copy, Default)]
struct Note<'n> {
    reason: Option<Reason>,
    reference: &'n str,
    reservation_id: Option<Uuid>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(book: &'a Book, stamp: &'a Stamp) -> Self {
        Self { book, stamp, done: Done::default() }
    }

    pub(super) fn finish(self) -> Done {
        self.done
    }

    pub(super) fn run(&mut self, command: &Command) -> Result<Answer<Reply>, Refusal> {
        match command {
            Command::Reserve(reserve) => self.reserve(reserve),
            Command::Commit(resolve) => self.commit(resolve),
            Command::Release(resolve) => self.release(resolve),
            Command::Receive(receive) => self.receive(receive),
            Command::Adjust(adjust) => self.adjust(adjust),
            Command::Expire(ids) => self.expire_all(ids),
        }
    }

    fn reserve(&mut self, command: &Reserve) -> Result<Answer<Reply>, Refusal> {
        let call = self.stamp.key.ok_or(Refusal::Inconsistent)?;
        let origin = Origin {
            caller: self.stamp.actor.clone(),
            request_id: call.key.request_id,
            fingerprint: call.key.fingerprint,
        };
        if let Some(kept) = self.book.reservation(command.reservation_id) {
            return self.reserve_again(kept, &origin);
        }
        let keys = || command.lines.iter().map(|(key, _)| key);
        if let Some(unknown) = self.book.unknown_location(keys()) {
            return Err(Refusal::LocationNotFound(unknown.clone()));
        }
        let unknown = self.book.unknown_products(keys());
        if !unknown.is_empty() {
            return Err(Refusal::ProductsNotFound(unknown));
        }
        for short in self.short_lines(command)? {
            self.expire_due_on(&short.key)?;
        }
        let short = self.short_lines(command)?;
        if !short.is_empty() {
            return Err(Refusal::InsufficientStock(short));
        }
        let reservation = Reservation::hold(command.reservation_id, &command.lines, command.ttl, self.stamp.now);
        let note = Note { reservation_id: Some(reservation.id), ..Note::default() };
        for (key, quantity) in command.lines.iter() {
            self.book_movement(key, Operation::Reserve, &Delta { held: quantity, ..Delta::default() }, note)?;
        }
        self.done.notices.push(Notice::Held(reservation.clone()));
        self.done.reservations.insert(reservation.id, Kept { reservation: reservation.clone(), origin });
        Ok(Answer::fresh(Reply::Reservation(reservation)))
    }

    /// The name is taken. The same request of the same caller is answered with what it made, as long as it is held; under whatever key.
    fn reserve_again(&self, kept: &Kept, origin: &Origin) -> Result<Answer<Reply>, Refusal> {
        if (&kept.origin.caller, kept.origin.fingerprint) != (&origin.caller, origin.fingerprint) {
            return Err(Refusal::KeyReused("reservation_id"));
        }
        kept.reservation.check_live(self.stamp.now)?;
        Ok(Answer::replayed(Reply::Reservation(kept.reservation.clone())))
    }

    fn short_lines(&self, command: &Reserve) -> Result<Vec<Short>, Refusal> {
        let mut short = Vec::new();
        for (key, asked) in command.lines.iter() {
            let there = self.stock(key)?.available();
            if asked > there {
                short.push(Short { key: key.clone(), asked, there: there.max(0) });
            }
        }
        Ok(short)
    }

    fn commit(&mut self, command: &Resolve) -> Result<Answer<Reply>, Refusal> {
        let mut kept = self.kept(command.reservation_id)?.clone();
        let steps = kept.reservation.commit(command.lines.as_ref(), self.stamp.now)?;
        self.take_steps(Operation::Commit, kept.reservation.id, &steps)?;
        self.done.notices.push(Notice::Committed(kept.reservation.clone()));
        Ok(self.keep(kept))
    }

    fn release(&mut self, command: &Resolve) -> Result<Answer<Reply>, Refusal> {
        let mut kept = self.kept(command.reservation_id)?.clone();
        let steps = kept.reservation.release(command.lines.as_ref(), self.stamp.now)?;
        self.take_steps(Operation::Release, kept.reservation.id, &steps)?;
        self.done.notices.push(Notice::Released(kept.reservation.clone()));
        Ok(self.keep(kept))
    }

    fn receive(&mut self, command: &Receive) -> Result<Answer<Reply>, Refusal> {
        let stock = self.stock(&command.key)?;
        if command.quantity > ON_HAND_MAX - stock.on_hand {
            return Err(Refusal::TooMany("quantity"));
        }
        let note = Note { reason: Some(command.reason), reference: &command.reference, reservation_id: None };
        let delta = Delta { on_hand: command.quantity, ..Delta::default() };
        self.book_movement(&command.key, Operation::Receive, &delta, note)
    }

    fn adjust(&mut self, command: &Adjust) -> Result<Answer<Reply>, Refusal> {
        let stock = self.stock(&command.key)?;
        let asked = match command.change {
            Change::Delta(delta) => stock.on_hand.checked_add(delta).ok_or(Refusal::TooMany("delta"))?,
            Change::Count { on_hand, etag } if etag == stock.on_hand_version => on_hand,
            Change::Count { .. } => {
                return Err(Refusal::EtagMismatch { key: command.key.clone(), current: stock.on_hand_version });
            }
        };
        if asked > ON_HAND_MAX {
            return Err(Refusal::TooMany("delta"));
        }
        if asked < stock.promised() {
            self.expire_due_on(&command.key)?;
        }
        let promised = self.stock(&command.key)?.promised();
        if asked < promised {
            let key = command.key.clone();
            return Err(Refusal::WouldStrand { key, on_hand: stock.on_hand, promised, asked });
        }
        let note = Note { reason: Some(command.reason), reference: &command.reference, reservation_id: None };
        let delta = Delta { on_hand: asked - stock.on_hand, ..Delta::default() };
        self.book_movement(&command.key, Operation::Adjust, &delta, note)
    }

    fn expire_all(&mut self, ids: &[Uuid]) -> Result<Answer<Reply>, Refusal> {
        let mut ended = 0;
        for id in ids {
            ended += usize::from(self.expire(*id)?);
        }
        Ok(Answer::fresh(Reply::Expired(ended)))
    }

    /// Ends every due hold that has units of `key`.
    fn expire_due_on(&mut self, key: &StockKey) -> Result<(), Refusal> {
        for id in self.book.due_on(key) {
            self.expire(*id)?;
        }
        Ok(())
    }

    /// Ends the hold if it is due.
    fn expire(&mut self, id: Uuid) -> Result<bool, Refusal> {
        let Ok(kept) = self.kept(id) else { return Ok(false) };
        if !kept.reservation.is_due(self.stamp.now) {
            return Ok(false);
        }
        let mut kept = kept.clone();
        let steps = kept.reservation.expire(self.stamp.now);
        self.take_steps(Operation::Expire, id, &steps)?;
        self.done.notices.push(Notice::Expired(kept.reservation.clone()));
        self.keep(kept);
        Ok(true)
    }

    fn take_steps(&mut self, operation: Operation, id: Uuid, steps: &[Step]) -> Result<(), Refusal> {
        let note = Note { reservation_id: Some(id), ..Note::default() };
        for step in steps {
            let delta = Delta { held: step.held, allocated: step.allocated, ..Delta::default() };
            self.book_movement(&step.key, operation, &delta, note)?;
        }
        Ok(())
    }

    /// The one place where stock changes: the record takes the delta, and the ledger a row that says so.
    fn book_movement(
        &mut self,
        key: &StockKey,
        operation: Operation,
        delta: &Delta,
        note: Note<'_>,
    ) -> Result<Answer<Reply>, Refusal> {
        let stock = self.stock(key)?.after(delta, self.stamp.now)?;
        let by_itself = operation == Operation::Expire;
        self.done.movements.push(Movement {
            key: key.clone(),
            seq: stock.version,
            operation,
            delta: *delta,
            reason: note.reason,
            reference: note.reference.to_owned(),
            actor: if by_itself { SELF.to_owned() } else { self.stamp.actor.clone() },
            request_id: self.stamp.key.filter(|_| !by_itself).map(|call| call.key.request_id),
            reservation_id: note.reservation_id,
            created_at: self.stamp.now,
        });
        self.done.stocks.insert(key.clone(), stock);
        Ok(Answer::fresh(Reply::Level(StockLevel { key: key.clone(), stock })))
    }

    fn stock(&self, key: &StockKey) -> Result<Stock, Refusal> {
        self.done.stocks.get(key).map_or_else(|| self.book.stock(key), |stock| Ok(*stock))
    }

    fn kept(&self, id: Uuid) -> Result<&Kept, Refusal> {
        let drafted = self.done.reservations.get(&id);
        drafted.or_else(|| self.book.reservation(id)).ok_or(Refusal::ReservationNotFound(id))
    }

    fn keep(&mut self, kept: Kept) -> Answer<Reply> {
        let reservation = kept.reservation.clone();
        self.done.reservations.insert(reservation.id, kept);
        Answer::fresh(Reply::Reservation(reservation))
    }
}
