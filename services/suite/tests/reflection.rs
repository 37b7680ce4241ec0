//! What a stranger can find out: reflection in both versions, health, and the commands that the start shows, pasted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use prost::Message;
use prost_types::FileDescriptorProto;
use souk_testkit::eventually;
use souk_testkit::process::Process;
use souk_testkit::raw::RawCodec;
use souk_testkit::suite::{Client, Suite};
use tonic::client::Grpc;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// What each server has, in the order of [`Suite::client`].
const SERVICES: [&[&str]; 3] = [
    &["souk.user.v1.AuthService", "souk.user.v1.UserService"],
    &["souk.event.v1.DeadLetterService", "souk.order.v1.OrderService"],
    &["souk.inventory.v1.CatalogService", "souk.inventory.v1.StockService"],
];

const VERSIONS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Asks one question. Both versions have the same messages.
async fn ask(client: Client, version: &'static str, question: MessageRequest) -> MessageResponse {
    let mut grpc = Grpc::new(client);
    grpc.ready().await.unwrap();
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let requests = Request::new(futures::stream::iter([request.encode_to_vec()]));
    let mut answers = grpc.streaming(requests, version.parse().unwrap(), RawCodec).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().expect("an answer");
    ServerReflectionResponse::decode(answer).unwrap().message_response.unwrap()
}

/// The one file of an answer.
fn file_of(answer: MessageResponse) -> FileDescriptorProto {
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("no file: {answer:?}") };
    let [file] = &files.file_descriptor_proto[..] else { panic!("one file is asked for") };
    FileDescriptorProto::decode(file.as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_no_longer_than_names_are() {
    let suite = Suite::start().await;
    for server in 0..SERVICES.len() {
        let request = HealthCheckRequest { service: "x".repeat(4_096) };
        let status = HealthClient::new(suite.client(server, None)).check(request).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    }
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_describes_itself_in_both_versions() {
    let suite = Suite::start().await;
    for (server, services) in SERVICES.into_iter().enumerate() {
        for version in VERSIONS {
            let client = || suite.client(server, None);
            let answer = ask(client(), version, MessageRequest::ListServices(String::new())).await;
            let MessageResponse::ListServicesResponse(list) = answer else { panic!("no list: {answer:?}") };
            let names: BTreeSet<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
            let ours: Vec<&str> = names.iter().copied().filter(|name| name.starts_with("souk.")).collect();
            assert_eq!(ours, services, "{version}");
            assert!(names.contains("grpc.health.v1.Health"), "{version}: {names:?}");
            for name in services {
                let symbol = MessageRequest::FileContainingSymbol((*name).to_owned());
                let file = file_of(ask(client(), version, symbol).await);
                assert!(file.service.iter().any(|service| name.ends_with(&format!(".{}", service.name()))), "{name}");
                // And what it imports, to the last file.
                let mut wanted = file.dependency;
                let mut seen = BTreeSet::new();
                while let Some(import) = wanted.pop() {
                    if seen.insert(import.clone()) {
                        let file = file_of(ask(client(), version, MessageRequest::FileByFilename(import)).await);
                        wanted.extend(file.dependency);
                    }
                }
                assert!(seen.contains("souk/common/v1/access.proto"), "{name}: {seen:?}");
            }
        }
    }
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_tells_its_health_under_its_name() {
    let suite = Suite::start().await;
    for (server, services) in SERVICES.into_iter().enumerate() {
        let check = async |name: &str| {
            let request = HealthCheckRequest { service: name.to_owned() };
            HealthClient::new(suite.client(server, None))
                .check(request)
                .await
                .map(|health| health.into_inner().status())
        };
        for name in services.iter().chain(&[""]) {
            eventually("it serves", async || check(name).await.unwrap() == ServingStatus::Serving).await;
        }
        assert_eq!(check("souk.payment.v1.PaymentService").await.unwrap_err().code(), Code::NotFound);
    }
    suite.stop().await;
}

#[test]
fn what_the_start_shows_can_be_pasted() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let process = Process::start(env!("CARGO_BIN_EXE_souk"), folder.path(), None, &[]);
    let expected = ["souk.order.v1.OrderService", "TEA-GREEN-100G", "rpc PlaceOrder"];
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/bin");
    let path = format!("{}:{tools}", std::env::var("PATH").unwrap());
    assert_eq!(process.commands().len(), expected.len());
    for (command, expected) in process.commands().iter().zip(expected) {
        let output = Command::new("sh").args(["-c", command]).env("PATH", &path).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command}: {err} (./scripts/tools installs grpcurl)");
        assert!(out.contains(expected), "{command}: {out}");
    }
    process.stop();
}
