//! The events of others that this service acts on, each once.

use std::sync::Arc;

use souk_db::{Db, Tx};
use souk_events::{Bus, BusError, Consumer, Event, Handler, HandlerError, Subscription};
use souk_proto_inventory::v1::{Reservation, ReservationExpired, ReservationReleased};
use souk_runtime::{Clock, Kernel};

use uuid::Uuid;

use crate::config::Config;
use crate::hands::Hands;
use crate::store;

/// An order hears at once of a hold that has ended otherwise than by the order's own doing. What orders do themselves (hold, commit) they
/// know without it: those subjects would be many.
const RESERVATIONS: &str = "order.reservations";
const RELEASED: &str = "souk.inventory.reservation.released";
const EXPIRED: &str = "souk.inventory.reservation.expired";

/// Subscribes all of them.
pub(crate) fn start(
    kernel: &Kernel,
    config: &Config,
    db: &Db,
    hands: &Hands,
    bus: &Bus,
) -> Result<Vec<Arc<Subscription>>, BusError> {
    let consumer = Consumer {
        name: RESERVATIONS,
        subjects: &[RELEASED, EXPIRED],
        db: db.clone(),
        kernel: kernel.clone(),
        config: config.consumer.clone(),
    };
    let reservations = EndedHolds { clock: kernel.clock.clone(), hands: hands.clone() };
    Ok(vec![bus.subscribe(consumer, reservations)?])
}

/// What the order of an ended hold still owes is due now, and not when its pause is over. A hold without an order is nobody's business here.
struct EndedHolds {
    clock: Clock,
    hands: Hands,
}

impl Handler for EndedHolds {
    async fn handle(&self, tx: &mut Tx, event: &Event) -> Result<(), HandlerError> {
        store::hasten_steps(tx, reservation_of(event)?, self.clock.now()).await?;
        Ok(())
    }

    fn applied(&self, _event: &Event) {
        self.hands.wake();
    }
}

fn reservation_of(event: &Event) -> Result<Uuid, HandlerError> {
    let reservation: Option<Reservation> = match event.subject.as_str() {
        RELEASED => event.decode::<ReservationReleased>()?.reservation,
        _ => event.decode::<ReservationExpired>()?.reservation,
    };
    let id = reservation.ok_or_else(|| HandlerError::park("event without a reservation"))?.reservation_id;
    id.parse().map_err(|error: uuid::Error| HandlerError::park(error))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn event<M: prost::Message + prost::Name>(subject: &str, payload: &M) -> Event {
        Event::new(Uuid::nil(), "souk.inventory", subject, ("reservation/r", 2), DateTime::UNIX_EPOCH, payload)
    }

    #[test]
    fn an_event_names_its_reservation_or_is_parked() {
        let id = Uuid::from_u128(5);
        let reservation = |id: &str| Some(Reservation { reservation_id: id.to_owned(), ..Reservation::default() });
        let released = ReservationReleased { reservation: reservation(&id.to_string()) };
        let expired = ReservationExpired { reservation: reservation(&id.to_string()) };
        assert_eq!(reservation_of(&event(RELEASED, &released)).unwrap(), id);
        assert_eq!(reservation_of(&event(EXPIRED, &expired)).unwrap(), id);
        let bad = [
            event(EXPIRED, &released),
            event(EXPIRED, &ReservationExpired { reservation: None }),
            event(EXPIRED, &ReservationExpired { reservation: reservation("r1") }),
        ];
        for event in bad {
            assert!(matches!(reservation_of(&event), Err(HandlerError::Park(_))), "{event:?}");
        }
    }
}
