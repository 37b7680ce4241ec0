//! Tokens that are not ours, or not any more, are refused: a table of attacks, and the life of keys.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "support/keys.rs"]
mod keys;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::DateTime;
use futures::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use souk_interceptors::CallerKind;
use souk_interceptors::token::{Claims, PublicKey, Refused, Verifier};
use souk_proto_common::{Failure, Reason};
use souk_runtime::Clock;
use uuid::Uuid;

use self::keys::{AUDIENCE, ISSUER, Key, claims};

/// A verifier, and the source of its keys in the test's hand.
struct Setup {
    clock: Clock,
    key: Key,
    source: Arc<Mutex<Source>>,
    verifier: Verifier,
}

/// What the source answers, and how often it was asked.
struct Source {
    answer: Answer,
    asked: u32,
}

enum Answer {
    Keys(Vec<PublicKey>),
    Down,
    Silence,
}

impl Setup {
    fn new() -> Self {
        let clock = Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let key = Key::new("first", 1);
        let source = Arc::new(Mutex::new(Source { answer: Answer::Keys(vec![key.public()]), asked: 0 }));
        let asked = source.clone();
        let ask = move || {
            let mut source = asked.lock().unwrap();
            source.asked += 1;
            match &source.answer {
                Answer::Keys(keys) => futures::future::ready(Ok(keys.clone())).boxed(),
                Answer::Down => {
                    let down = Failure::unavailable(Reason::PeerUnavailable, "planted", Duration::ZERO);
                    futures::future::ready(Err(down)).boxed()
                }
                Answer::Silence => futures::future::pending().boxed(),
            }
        };
        let verifier = Verifier::new(clock.clone(), ISSUER, AUDIENCE, Arc::new(ask));
        Self { clock, key, source, verifier }
    }

    fn answer(&self, answer: Answer) {
        self.source.lock().unwrap().answer = answer;
    }

    fn asked(&self) -> u32 {
        self.source.lock().unwrap().asked
    }

    fn claims(&self) -> Claims {
        claims("alice", "orders.read orders.write", self.clock.now())
    }

    /// A token of our key with other claims than a good one's.
    fn signed(&self, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.key.sign(&claims)
    }

    /// A token of our key with another header than a good one's.
    fn headed(&self, change: impl FnOnce(&mut Header)) -> String {
        let mut header = self.key.header();
        change(&mut header);
        self.key.sign_under(&header, &self.claims())
    }

    async fn refused(&self, token: &str) -> Option<Refused> {
        self.verifier.verify(token).await.err()
    }
}

/// `{"alg":"none","typ":"at+jwt","kid":"first"}`
const ALG_NONE: &str = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0Iiwia2lkIjoiZmlyc3QifQ";

#[tokio::test]
async fn a_good_token_proves_its_subject_scopes_and_session() {
    let setup = Setup::new();
    let caller = setup.verifier.verify(&setup.signed(|_| ())).await.unwrap();
    assert_eq!((caller.kind(), caller.subject()), (CallerKind::User, "alice"));
    assert_eq!(caller.session_id(), Some(Uuid::from_u128(7)));
    assert!(caller.has_scope("orders.read") && caller.has_scope("orders.write"));
    assert!(!caller.has_scope("orders") && !caller.has_scope("orders.read orders.write"));
    let service = setup.verifier.verify(&setup.signed(|claims| claims.sub = "service:order".into())).await.unwrap();
    assert_eq!(service.kind(), CallerKind::Service);
}

#[tokio::test]
async fn a_forged_or_misdirected_token_is_refused() {
    let setup = Setup::new();
    let good = setup.signed(|_| ());
    let promoted = setup.signed(|claims| claims.scope = "admin".into());
    let (head, good_payload, signature) = parts(&good);
    let (_, promoted_payload, promoted_signature) = parts(&promoted);
    let thief = Key::new("first", 2);
    let public = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key();
    let hs256 = |secret: &[u8]| {
        let header = Header { alg: Algorithm::HS256, ..setup.key.header() };
        jsonwebtoken::encode(&header, &setup.claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let brought = Header { jwk: Some(thief.jwk()), ..thief.header() };
    let attacks = [
        ("alg none", format!("{ALG_NONE}.{good_payload}.")),
        ("alg none, with a signature", format!("{ALG_NONE}.{good_payload}.{signature}")),
        ("HS256 with the public key's bytes", hs256(public.as_bytes())),
        ("HS256 with the public key's text", hs256(setup.key.public().x.as_bytes())),
        ("another key under our name", thief.sign(&setup.claims())),
        ("a key that the token brings", thief.sign_under(&brought, &setup.claims())),
        ("a key that nobody knows", Key::new("third", 3).sign(&setup.claims())),
        ("our key under a name that nobody knows", setup.headed(|header| header.kid = Some("third".into()))),
        ("no name of a key", setup.headed(|header| header.kid = None)),
        ("another issuer", setup.signed(|claims| claims.iss = "https://elsewhere.test".into())),
        ("another audience", setup.signed(|claims| claims.aud = "bazaar".into())),
        ("an identity token", setup.headed(|header| header.typ = Some("JWT".into()))),
        ("no type", setup.headed(|header| header.typ = None)),
        ("another payload", format!("{head}.{promoted_payload}.{signature}")),
        ("another signature", format!("{head}.{good_payload}.{promoted_signature}")),
        ("no signature", format!("{head}.{good_payload}.")),
        ("two parts", format!("{head}.{good_payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("not yet issued", setup.signed(|claims| claims.iat += 11)),
        ("no time that there is", setup.signed(|claims| claims.exp = i64::MAX)),
        ("no claims", setup.key.sign(&json!({}))),
        ("no end", without(&setup, "exp")),
        ("no issuer", without(&setup, "iss")),
        ("no audience", without(&setup, "aud")),
        ("no subject", without(&setup, "sub")),
        ("too long", setup.signed(|claims| claims.scope = "x".repeat(4_096))),
        ("no token", String::new()),
        ("dots", "..".into()),
    ];
    assert_eq!(setup.refused(&good).await, None);
    for (name, token) in attacks {
        assert_eq!(setup.refused(&token).await, Some(Refused::Invalid), "{name}");
        assert_eq!(setup.refused(&token).await, Some(Refused::Invalid), "{name}, again");
    }
    assert_eq!(setup.refused(&good).await, None);
}

fn parts(token: &str) -> (&str, &str, &str) {
    let mut parts = token.split('.');
    (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
}

fn without(setup: &Setup, claim: &str) -> String {
    let mut claims = serde_json::to_value(setup.claims()).unwrap();
    claims.as_object_mut().unwrap().remove(claim).unwrap();
    setup.key.sign(&claims)
}

#[tokio::test]
async fn a_token_is_good_until_its_end_and_the_clocks_leeway() {
    let setup = Setup::new();
    let now = setup.clock.now().timestamp();
    let ending_at = |exp: i64| setup.signed(|claims| (claims.iat, claims.exp) = (now - 600, exp));
    assert_eq!(setup.refused(&ending_at(now)).await, None);
    assert_eq!(setup.refused(&ending_at(now - 9)).await, None);
    assert_eq!(setup.refused(&ending_at(now - 10)).await, Some(Refused::Expired));
    assert_eq!(setup.refused(&ending_at(now - 3_600)).await, Some(Refused::Expired));
    assert_eq!(setup.refused(&setup.signed(|claims| claims.iat += 10)).await, None);
}

/// RFC 7519, 4.1.5: whoever signs it with our key may say that it begins later.
#[tokio::test]
async fn a_token_that_begins_later_is_refused_until_then() {
    let setup = Setup::new();
    let mut claims = serde_json::to_value(setup.claims()).unwrap();
    claims["nbf"] = json!(setup.clock.now().timestamp() + 60);
    let token = setup.key.sign(&claims);
    assert_eq!(setup.refused(&token).await, Some(Refused::Invalid));
    setup.clock.advance(Duration::from_mins(1));
    assert_eq!(setup.refused(&token).await, None);
}

#[tokio::test]
async fn a_remembered_token_ends_all_the_same() {
    let setup = Setup::new();
    let token = setup.signed(|claims| claims.exp = claims.iat + 60);
    assert_eq!(setup.refused(&token).await, None);
    setup.clock.advance(Duration::from_secs(69));
    assert_eq!(setup.refused(&token).await, None);
    setup.clock.advance(Duration::from_secs(1));
    assert_eq!(setup.refused(&token).await, Some(Refused::Expired));
    assert_eq!(setup.asked(), 1);
}

#[tokio::test]
async fn a_new_key_is_asked_for_when_its_first_token_comes() {
    let setup = Setup::new();
    assert_eq!(setup.refused(&setup.signed(|_| ())).await, None);
    let second = Key::new("second", 2);
    setup.answer(Answer::Keys(vec![setup.key.public(), second.public()]));
    setup.clock.advance(Duration::from_secs(5));
    assert_eq!(setup.refused(&second.sign(&setup.claims())).await, None);
    assert_eq!(setup.refused(&setup.signed(|claims| claims.sub = "bob".into())).await, None);
    assert_eq!(setup.asked(), 2);
}

#[tokio::test]
async fn a_key_that_is_gone_takes_its_tokens_along() {
    let setup = Setup::new();
    let token = setup.signed(|_| ());
    assert_eq!(setup.refused(&token).await, None);
    let second = Key::new("second", 2);
    setup.answer(Answer::Keys(vec![second.public()]));
    setup.clock.advance(Duration::from_secs(5));
    assert_eq!(setup.refused(&second.sign(&setup.claims())).await, None);
    assert_eq!(setup.refused(&token).await, Some(Refused::Invalid));
}

#[tokio::test]
async fn a_key_is_gone_within_five_minutes_for_remembered_tokens_too() {
    let setup = Setup::new();
    let token = setup.signed(|_| ());
    assert_eq!(setup.refused(&token).await, None);
    setup.answer(Answer::Keys(Vec::new()));
    setup.clock.advance(Duration::from_secs(299));
    assert_eq!(setup.refused(&token).await, None);
    setup.clock.advance(Duration::from_secs(1));
    assert_eq!(setup.refused(&token).await, Some(Refused::Invalid));
}

#[tokio::test]
async fn unknown_keys_do_not_make_us_pester_the_source() {
    let setup = Setup::new();
    let stranger = Key::new("third", 3).sign(&setup.claims());
    for _ in 0..50 {
        assert_eq!(setup.refused(&stranger).await, Some(Refused::Invalid));
        setup.clock.advance(Duration::from_millis(100));
    }
    assert_eq!(setup.asked(), 1);
    assert_eq!(setup.refused(&stranger).await, Some(Refused::Invalid));
    assert_eq!(setup.asked(), 2);
}

#[tokio::test]
async fn calls_that_are_dropped_while_they_ask_do_not_pester_the_source_either() {
    let setup = Setup::new();
    setup.answer(Answer::Silence);
    let stranger = Key::new("third", 3).sign(&setup.claims());
    for _ in 0..20 {
        assert!(setup.refused(&stranger).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(setup.asked(), 1);
}

#[tokio::test]
async fn calls_that_come_together_ask_the_source_once() {
    let setup = Setup::new();
    let token = setup.signed(|_| ());
    let refused = futures::future::join_all((0..20).map(|_| setup.refused(&token))).await;
    assert!(refused.iter().all(Option::is_none), "{refused:?}");
    assert_eq!(setup.asked(), 1);
}

#[tokio::test]
async fn without_any_key_there_is_no_knowing_and_a_second_later_it_is_tried_again() {
    let setup = Setup::new();
    setup.answer(Answer::Down);
    let token = setup.signed(|_| ());
    assert_eq!(setup.refused(&token).await, Some(Refused::Unverifiable));
    setup.answer(Answer::Keys(vec![setup.key.public()]));
    assert_eq!(setup.refused(&token).await, Some(Refused::Unverifiable));
    assert_eq!(setup.asked(), 1);
    setup.clock.advance(Duration::from_secs(1));
    assert_eq!(setup.refused(&token).await, None);
}

#[tokio::test]
async fn a_source_that_is_down_leaves_the_keys_that_we_have() {
    let setup = Setup::new();
    let token = setup.signed(|claims| claims.exp += 3_600);
    assert_eq!(setup.refused(&token).await, None);
    setup.answer(Answer::Down);
    setup.clock.advance(Duration::from_mins(10));
    assert_eq!(setup.refused(&token).await, None);
    assert_eq!(setup.refused(&setup.signed(|_| ())).await, None);
    assert_eq!(setup.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_silent_holds_up_one_call_for_two_seconds_and_no_other() {
    let setup = Setup::new();
    let token = setup.signed(|claims| claims.exp += 3_600);
    assert_eq!(setup.refused(&token).await, None);
    setup.answer(Answer::Silence);
    setup.clock.advance(Duration::from_mins(10));
    let began = tokio::time::Instant::now();
    let timed = || async {
        assert_eq!(setup.refused(&token).await, None);
        began.elapsed().as_secs()
    };
    let waited = futures::future::join_all((0..5).map(|_| timed())).await;
    assert_eq!(waited, [2, 0, 0, 0, 0]);
}
