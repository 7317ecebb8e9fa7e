//! Spans as a collector receives them: their names, parents and attributes, and that no client waits for the export.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::json;

use crate::chat::chat;
use crate::outcome::Outcome::Closed;
use crate::outcome::outcome;
use crate::pass::pass;
use crate::rig::raw::handshake;
use crate::rig::{Client, Gateway, RawClient, RawServer, Redis, Reply, Settings, Upstream, until};

const PATH: &str = "/ws/chat/42/";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for the first event called `name`.
async fn event(client: &mut Client, name: &str) -> serde_json::Value {
    loop {
        let event = client.next_json().await;
        if event["event"] == name {
            return event;
        }
    }
}

/// A collector that receives spans.
struct Collector(Upstream);

impl Collector {
    async fn start() -> Self {
        Self(Upstream::start(|_| Reply::status(200)).await)
    }

    /// The client of these tests stands for a trusted proxy, which may set the trace.
    fn settings(&self, settings: Settings, more: &str) -> Settings {
        let endpoint = self.0.url("");
        settings
            .section("tracing", &format!("otlp_endpoint = {endpoint:?}\n{more}"))
            .also("server", "trusted_proxies = [\"127.0.0.1/32\"]")
    }

    /// All spans that have arrived, with the attributes of their resource.
    fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for request in self.0.requests() {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/traces"));
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            let batch = ExportTraceServiceRequest::decode(&*request.body).expect("OTLP");
            for resource in batch.resource_spans {
                let attributes = resource.resource.expect("a resource").attributes;
                let names: Vec<_> = attributes.iter().map(|a| a.key.as_str()).collect();
                for name in ["service.name", "service.version", "service.instance.id"] {
                    assert!(names.contains(&name), "{name}: {names:?}");
                }
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }

    /// Waits for the span called `name`.
    async fn span(&self, name: &str) -> Span {
        until(&format!("span {name:?}"), async || {
            self.spans().into_iter().find(|span| span.name == name)
        })
        .await
    }
}

fn attributes(span: &Span) -> HashMap<&str, String> {
    let text = |value: &Any| match value {
        Any::StringValue(text) => text.clone(),
        other => format!("{other:?}"),
    };
    let value = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        attribute.value.as_ref().and_then(|value| value.value.as_ref()).map(text)
    };
    span.attributes.iter().map(|a| (a.key.as_str(), value(a).unwrap_or_default())).collect()
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

fn sampled() -> String {
    format!("00-{TRACE}-{CLIENT_SPAN}-01")
}

#[tokio::test]
async fn a_streamed_reply_is_traced_from_the_clients_span_to_the_upstream() {
    let collector = Collector::start().await;
    let upstream = Upstream::start(|_| {
        let (writer, reply) = Reply::stream("text/event-stream");
        writer.write("data: {\"event\":\"chunk\",\"chunk\":\"a\"}\n\n");
        writer.write("data: {\"event\":\"chunk\",\"chunk\":\"b\"}\n\n");
        writer.write("data: {\"event\":\"complete\"}\n\n");
        reply
    })
    .await;
    let more =
        "headers = [\"authorization: Bearer s3cret\"]\nsample_ratio = 0\nservice_name = \"chat\"";
    let settings = collector.settings(Settings::chat(&upstream.url("/")), more);
    let mut gateway = Gateway::start(settings).await;

    // Clients that do not ask to be sampled are not traced.
    let unsampled = format!("00-{TRACE}-{CLIENT_SPAN}-00");
    for headers in [&[("traceparent", unsampled.as_str())][..], &[]] {
        let mut client = Client::open(gateway.addr(), PATH, headers).await;
        client.send_json(&json!({"message": "hi"})).await;
        event(&mut client, "complete").await;
        let request = upstream.next_request().await;
        assert!(request.header("traceparent").unwrap().ends_with("-00"));
        assert!(request.json().get("traceparent").is_none());
    }

    let traceparent = sampled();
    let mut client = Client::open(gateway.addr(), PATH, &[("traceparent", &traceparent)]).await;
    let connected = event(&mut client, "connected").await;
    client.send_json(&json!({"message": "hi", "id": "m1"})).await;
    let task_id = event(&mut client, "task_queued").await["task_id"].as_str().unwrap().to_owned();
    event(&mut client, "complete").await;
    let received = upstream.next_request().await;
    gateway.stop().await;

    // Spans that ended shortly before the exit are exported at the exit.
    let spans = collector.spans();
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let named = |name: &str| spans.iter().find(|span| span.name == name).expect(name);
    let [handshake, message, request, first, last] =
        ["handshake", "message", "upstream worker", "first chunk", "terminal event"].map(named);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE && !is_error(span)));
    assert_eq!(hex(&handshake.parent_span_id), CLIENT_SPAN);
    assert_eq!(message.parent_span_id, handshake.span_id);
    for child in [request, first, last] {
        assert_eq!(child.parent_span_id, message.span_id, "{}", child.name);
    }
    let kinds = [handshake, message, request].map(Span::kind);
    assert_eq!(kinds, [SpanKind::Server, SpanKind::Internal, SpanKind::Client]);
    let traceparent = format!("00-{TRACE}-{}-01", hex(&request.span_id));
    assert_eq!(received.header("traceparent"), Some(traceparent.as_str()));

    assert!(handshake.end_time_unix_nano <= message.start_time_unix_nano);
    assert!(message.start_time_unix_nano <= request.start_time_unix_nano);
    assert!(request.end_time_unix_nano <= first.end_time_unix_nano);
    assert!(first.end_time_unix_nano <= last.start_time_unix_nano);
    assert!(last.end_time_unix_nano <= message.end_time_unix_nano);

    let connection = connected["connection_id"].as_str().unwrap();
    for span in [handshake, message] {
        assert_eq!(attributes(span)["tidegate.connection"], connection);
        assert_eq!(attributes(span)["tidegate.request"], TRACE);
        assert_eq!(attributes(span)["http.route"], "/ws/chat/{conversation_id}/");
    }
    let of_message = attributes(message);
    assert_eq!(of_message["tidegate.message_id"], "m1");
    assert_eq!(of_message["tidegate.task_id"], task_id);
    assert_eq!(of_message["tidegate.channel"], "chat_42");
    assert_eq!(of_message["tidegate.outcome"], "completed");
    assert_eq!(attributes(request)["tidegate.upstream.kind"], "http");
    assert_eq!(attributes(request)["tidegate.outcome"], "streaming");

    let export = &collector.0.requests()[0];
    assert_eq!(export.header("authorization"), Some("Bearer s3cret"));
    assert!(!gateway.stderr_contains("s3cret"));
}

#[tokio::test]
async fn a_workers_reply_is_traced_and_the_worker_gets_the_trace_context() {
    let (collector, redis) = (Collector::start().await, Redis::start().await);
    let settings = Settings::new()
        .redis(&redis.url())
        .route(
            "path = \"/ws/chat/{conversation_id}/\"\nchannel = \"chat_{conversation_id}\"\n\
             upstream = \"worker\"\nauth = [\"anonymous\"]",
        )
        .upstream("worker", "kind = \"redis-list\"\nkey = \"messages\"");
    let mut gateway = Gateway::start(collector.settings(settings, "")).await;
    let traceparent = sampled();
    let mut client = Client::open(gateway.addr(), PATH, &[("traceparent", &traceparent)]).await;
    client.send_json(&json!({"message": "hi"})).await;
    let task_id = event(&mut client, "task_queued").await["task_id"].clone();

    let queued: String = redis.run(&["RPOP", "messages"]).await;
    let queued: serde_json::Value = serde_json::from_str(&queued).unwrap();
    for event in ["processing_started", "chunk", "complete"] {
        let event = json!({"event": event, "task_id": task_id}).to_string();
        let _receivers: i64 = redis.run(&["PUBLISH", "chat_42", &event]).await;
    }
    event(&mut client, "complete").await;
    let message = collector.span("message").await;
    gateway.stop().await;

    let request = collector.span("upstream worker").await;
    assert_eq!(request.kind(), SpanKind::Producer);
    let traceparent = format!("00-{TRACE}-{}-01", hex(&request.span_id));
    assert_eq!(queued["traceparent"], traceparent);
    for name in ["upstream worker", "first chunk", "terminal event"] {
        assert_eq!(collector.span(name).await.parent_span_id, message.span_id, "{name}");
    }
    assert_eq!(attributes(&message)["tidegate.outcome"], "completed");
    assert_eq!(
        attributes(&collector.span("terminal event").await)["tidegate.outcome"],
        "completed"
    );
}

#[tokio::test]
async fn failures_are_span_errors_and_refusals_are_not() {
    let collector = Collector::start().await;
    let upstream = Upstream::start(|_| Reply::status(500)).await;
    let settings = chat("upstream = \"worker\"\nauth = [\"anonymous\"]").upstream(
        "worker",
        &format!("kind = \"http\"\nurl = {:?}\nretries = 0", upstream.url("/")),
    );
    let gateway = Gateway::start(collector.settings(settings, "")).await;

    let evil = [("origin", "https://evil.example")];
    assert_eq!(outcome(&gateway, PATH, &evil).await, Closed(4003));
    let refused = collector.span("handshake").await;
    assert!(!is_error(&refused) && refused.parent_span_id.is_empty(), "{refused:?}");
    assert_eq!(attributes(&refused)["error.type"], "origin");

    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    event(&mut client, "error").await;
    for name in ["message", "upstream worker"] {
        let span = collector.span(name).await;
        assert!(is_error(&span), "{span:?}");
        assert_eq!(attributes(&span)["error.type"], "failed");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_away() {
    let upstream = Upstream::accepting().await;
    let settings = Settings::chat(&upstream.url("/"))
        .section("tracing", "otlp_endpoint = \"http://127.0.0.1:1\"\ntimeout = \"1s\"");
    let mut gateway = Gateway::start(settings).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "hi"})).await;
    event(&mut client, "task_queued").await;
    let event = gateway.wait_for_event("spans_not_exported").await;
    assert_eq!(event["level"], "WARN");
    assert!(gateway.metric("tidegate_spans_total", &[("outcome", "failed")]).await > 0.0);
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let upstream = Upstream::accepting().await;
    let trusting =
        Settings::chat(&upstream.url("/")).also("server", "trusted_proxies = [\"127.0.0.1/32\"]");
    let gateway = Gateway::start(trusting).await;
    let traceparent = sampled();
    let mut client = Client::open(gateway.addr(), PATH, &[("traceparent", &traceparent)]).await;
    client.send_json(&json!({"message": "hi"})).await;
    let request = upstream.next_request().await;
    let sent = request.header("traceparent").unwrap().to_owned();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-01"), "{sent}");
    assert!(!sent.contains(CLIENT_SPAN), "a span of its own");
    assert!(request.json().get("traceparent").is_none());
}

#[tokio::test]
async fn a_stranger_neither_starts_a_trace_nor_names_it() {
    let collector = Collector::start().await;
    let upstream = Upstream::accepting().await;
    let settings = collector.settings(Settings::chat(&upstream.url("/")), "sample_ratio = 0");
    let untrusting = settings.section("server", "listen = \"127.0.0.1:0\"\nthreads = 1");
    let mut gateway = Gateway::start(untrusting).await;
    let traceparent = sampled();
    let headers = [("traceparent", traceparent.as_str()), ("x-request-id", "chosen")];
    let mut client = Client::open(gateway.addr(), PATH, &headers).await;
    client.send_json(&json!({"message": "hi"})).await;
    let request = upstream.next_request().await;
    let sent = request.header("traceparent").unwrap();
    assert!(!sent.contains(TRACE) && sent.ends_with("-00"), "{sent}");
    let id = request.json()["request_id"].as_str().unwrap().to_owned();
    assert!(id != TRACE && id != "chosen", "{id}");
    gateway.stop().await;
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn the_handshake_of_a_pass_routes_upstream_has_a_span() {
    let (collector, server) = (Collector::start().await, RawServer::start().await);
    let settings = collector.settings(pass(&server.url(), ""), "sample_ratio = 0.0");
    let gateway = Gateway::start(settings).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    let headers = [("traceparent", &*sampled())];
    client.write(handshake("/app/x", &headers).as_bytes()).await;
    let peer = server.open().await;
    assert_eq!(client.read_head().await.status, 101);
    let (handshake, upstream) =
        (collector.span("handshake").await, collector.span("upstream app").await);
    assert_eq!(hex(&upstream.trace_id), TRACE);
    assert_eq!(upstream.parent_span_id, handshake.span_id);
    assert_eq!(attributes(&upstream)["tidegate.outcome"], "taken");
    let expected = format!("00-{TRACE}-{}-01", hex(&upstream.span_id));
    assert_eq!(peer.header("traceparent"), Some(&*expected));
}
