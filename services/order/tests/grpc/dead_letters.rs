//! What an operator can do about events that a consumer of the order service has given up on.

use souk_db::sql;
use souk_events::Event;
use souk_proto_common::REPLAY_HEADER;
use souk_proto_common::v1::Reason;
use souk_proto_event::v1::dead_letter_service_client::DeadLetterServiceClient;
use souk_proto_event::v1::{GetDeadLetterRequest, ListDeadLettersRequest, ReplayDeadLetterRequest};
use souk_proto_inventory::v1::{Reservation, ReservationExpired};
use souk_testkit::suite::{Bearer, new_id};
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::{Shop, why};

const CONSUMER: &str = "order.reservations";

type DeadLetters = DeadLetterServiceClient<InterceptedService<Channel, Bearer>>;

async fn shop() -> (Shop, DeadLetters) {
    let shop = Shop::open().await;
    let (channel, admin) = (shop.replicas[0].channel.clone(), Bearer::of(Some(shop.suite.admin())));
    let client = DeadLetterServiceClient::with_interceptor(channel, admin);
    (shop, client)
}

/// News that no consumer can make anything of, as there is no reservation in it.
fn broken(shop: &Shop) -> Event {
    news(shop, &ReservationExpired { reservation: None })
}

fn news(shop: &Shop, payload: &ReservationExpired) -> Event {
    let (subject, id) = ("souk.inventory.reservation.expired", new_id().parse().unwrap());
    Event::new(id, "souk.inventory", subject, ("reservation/r", 2), shop.clock.now(), payload)
}

fn replay(event_id: &str) -> ReplayDeadLetterRequest {
    ReplayDeadLetterRequest { request_id: new_id(), consumer: CONSUMER.into(), event_id: event_id.into() }
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_stay_if_a_replay_fails() {
    let (shop, mut client) = shop().await;
    let events = [broken(&shop), broken(&shop), broken(&shop)];
    for event in &events {
        shop.replicas[0].bus.publish(event).await.unwrap();
        shop.clock.advance(std::time::Duration::from_secs(1));
    }
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDeadLettersRequest { consumer: CONSUMER.into(), page_size: 2, page_token };
        let page = client.list_dead_letters(request).await.unwrap().into_inner();
        listed.extend(page.dead_letters);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(listed.iter().map(|letter| letter.event_id.clone()).collect::<Vec<_>>(), ids);
    let other = ListDeadLettersRequest { consumer: "another".into(), ..Default::default() };
    assert_eq!(client.list_dead_letters(other).await.unwrap().into_inner().dead_letters, []);

    let refused = client.replay_dead_letter(replay(&ids[0])).await.unwrap_err();
    assert_eq!(why(&refused), (Code::FailedPrecondition, Some(Reason::ReplayFailed)));
    let request = GetDeadLetterRequest { consumer: CONSUMER.into(), event_id: ids[0].clone() };
    let letter = client.get_dead_letter(request).await.unwrap().into_inner().dead_letter.unwrap();
    assert_eq!((letter.tries, letter.replay_time.is_some(), letter.data), (2, false, events[0].data.clone()));
    assert_eq!(letter.r#type, "souk.inventory.v1.ReservationExpired");
    assert!(letter.error.contains("event without a reservation"), "{}", letter.error);
}

#[tokio::test]
async fn a_replay_takes_effect_once_and_says_so_when_it_is_repeated() {
    let (shop, mut client) = shop().await;
    let event = broken(&shop);
    shop.replicas[0].bus.publish(&event).await.unwrap();
    // Mended, as far as the payload is concerned.
    let reservation = Some(Reservation { reservation_id: new_id(), ..Reservation::default() });
    let mended = news(&shop, &ReservationExpired { reservation }).data;
    let mut tx = shop.replicas[0].running.app.db.write().await.unwrap();
    sql("UPDATE dead_letters SET data = $1").bind(mended).execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let id = event.id.to_string();
    for is_repeated in [false, true] {
        let answer = client.replay_dead_letter(replay(&id)).await.unwrap();
        assert_eq!(answer.metadata().contains_key(REPLAY_HEADER), is_repeated);
        let letter = answer.into_inner().dead_letter.unwrap();
        assert_eq!((letter.tries, letter.replay_time.is_some()), (2, true));
    }
    let waiting = client.list_dead_letters(ListDeadLettersRequest::default()).await.unwrap().into_inner();
    assert_eq!(waiting.dead_letters, []);
}

#[tokio::test]
async fn what_is_not_there_or_makes_no_sense_is_told() {
    let (_shop, mut client) = shop().await;
    for request in [replay(&new_id()), ReplayDeadLetterRequest { consumer: "another".into(), ..replay(&new_id()) }] {
        let refused = client.replay_dead_letter(request.clone()).await.unwrap_err();
        assert_eq!(why(&refused), (Code::NotFound, Some(Reason::DeadLetterNotFound)));
        let request = GetDeadLetterRequest { consumer: request.consumer, event_id: request.event_id };
        let refused = client.get_dead_letter(request).await.unwrap_err();
        assert_eq!(why(&refused), (Code::NotFound, Some(Reason::DeadLetterNotFound)));
    }
    let bad = [
        client
            .replay_dead_letter(ReplayDeadLetterRequest { request_id: String::new(), ..replay(&new_id()) })
            .await
            .map(drop),
        client.replay_dead_letter(replay("1")).await.map(drop),
        client.get_dead_letter(GetDeadLetterRequest { consumer: String::new(), event_id: new_id() }).await.map(drop),
        client.list_dead_letters(ListDeadLettersRequest { page_size: -1, ..Default::default() }).await.map(drop),
        client
            .list_dead_letters(ListDeadLettersRequest { page_token: "x".into(), ..Default::default() })
            .await
            .map(drop),
        client
            .list_dead_letters(ListDeadLettersRequest { consumer: "x".repeat(101), ..Default::default() })
            .await
            .map(drop),
    ];
    for refused in bad {
        assert_eq!(why(&refused.unwrap_err()), (Code::InvalidArgument, Some(Reason::InvalidRequest)));
    }
}
