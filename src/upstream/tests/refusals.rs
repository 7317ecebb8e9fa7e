//! What HTTP upstreams say when they refuse a message.

use super::server::{Script, Server};
use super::*;
use crate::upstream::dialect::Failure;

const JSON: &str = "application/json";

fn without_retries(server: &Server) -> config::Upstream {
    upstream(UpstreamKind::Http(http_to(&server.url())))
}

async fn outcome(upstreams: &Upstreams) -> Result<String, RelayError> {
    upstreams.relay(UPSTREAM, &message()).await.map(|taken| taken.task_id)
}

#[tokio::test]
async fn responses_that_refuse_the_message() {
    let long = format!(r#"{{"error":"{}"}}"#, "ü".repeat(600));
    let rejected = |text: &str| RelayError::rejected(text);
    let limited = RelayError::Limited(Box::new(Limited { failure: None, retry_after: None }));
    let fixed = "the service rejected the message";
    for (status, body, error) in [
        ("302 Found", "", RelayError::Redirected),
        ("304 Not Modified", "", RelayError::Redirected),
        ("400 Bad Request", r#"{"error":"no credit"}"#, rejected("no credit")),
        ("422 Unprocessable Content", r#"{"detail":"too old"}"#, rejected("too old")),
        (
            "422 Unprocessable Content",
            r#"{"detail":[{"type":"missing","loc":["body","messages",0],"msg":"Field required"}]}"#,
            rejected("body.messages.0: Field required"),
        ),
        ("400 Bad Request", r#"{"error":""}"#, rejected(fixed)),
        ("404 Not Found", "<html>", rejected(fixed)),
        ("403 Forbidden", &long, rejected(&"ü".repeat(500))),
        ("429 Too Many Requests", "", limited),
        ("500 Internal Server Error", r#"{"error":"secret"}"#, RelayError::Failed),
        ("503 Service Unavailable", "", RelayError::Unavailable),
        ("700 Strange", "", RelayError::Failed),
    ] {
        let server = Server::start([Script::answer(status, JSON, body)]).await;
        let outcome = outcome(&upstreams(without_retries(&server))).await;
        assert_eq!(outcome, Err(error), "{status} {:.60}", body);
    }
}

#[tokio::test]
async fn refusals_say_why_and_when_to_come_back() {
    let failure = |code: Option<&str>, text: &str| Failure {
        code: code.map(str::to_owned),
        text: text.to_owned(),
    };
    let rejected = |code, text| RelayError::Rejected(Box::new(failure(code, text)));
    let problem = "application/problem+json";
    for (kind, body, error) in [
        (
            JSON,
            r#"{"error":{"message":"Unknown model.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
            rejected(Some("model_not_found"), "Unknown model."),
        ),
        (
            JSON,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"too long"}}"#,
            rejected(Some("invalid_request_error"), "too long"),
        ),
        (
            JSON,
            r#"[{"error":{"code":400,"message":"bad key","status":"INVALID_ARGUMENT"}}]"#,
            rejected(Some("INVALID_ARGUMENT"), "bad key"),
        ),
        (
            JSON,
            r#"{"detail":[{"loc":["body","a"],"msg":"Field required"},{"loc":["query","n"],"msg":"Not a number"}]}"#,
            rejected(None, "body.a: Field required; query.n: Not a number"),
        ),
        (
            JSON,
            r#"{"text":["May not be blank.","Too short."],"non_field_errors":["No."]}"#,
            rejected(None, "No.; text: May not be blank.; Too short."),
        ),
        (
            problem,
            r#"{"type":"https://example.com/credit","title":"No credit","status":403,"detail":"Balance is 30"}"#,
            rejected(Some("https://example.com/credit"), "Balance is 30"),
        ),
        (problem, r#"{"type":"about:blank","title":"Gone","status":410}"#, rejected(None, "Gone")),
        (
            JSON,
            r#"{"error":"invalid_request","error_description":"no scope"}"#,
            rejected(Some("invalid_request"), "no scope"),
        ),
        (
            JSON,
            r#"{"statusCode":400,"message":["a is missing","b is missing"],"error":"Bad Request"}"#,
            rejected(Some("Bad Request"), "a is missing; b is missing"),
        ),
        (
            JSON,
            r#"{"message":"The data is invalid.","errors":{"email":["Taken."]}}"#,
            rejected(None, "The data is invalid."),
        ),
        ("text/plain; charset=utf-8", "no such room\n", rejected(None, "no such room")),
    ] {
        let server = Server::start([Script::answer("400 Bad Request", kind, body)]).await;
        let outcome = outcome(&upstreams(without_retries(&server))).await;
        assert_eq!(outcome, Err(error), "{body}");
    }

    let answer = |status: &str, retry_after: &str| {
        let body = r#"{"error":{"message":"slow down","code":"rate_limit"}}"#;
        Script::closing(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {JSON}\r\nRetry-After: {retry_after}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    for (retry_after, seconds) in [
        ("30", Some(30)),
        ("0", Some(1)),
        ("1.2", Some(2)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(1)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400)),
        ("99999999999999999999", Some(86_400)),
        ("-1", None),
        ("soon", None),
        ("NaN", None),
    ] {
        let outcome_of = async |status: &str| {
            let server = Server::start([answer(status, retry_after)]).await;
            outcome(&upstreams(without_retries(&server))).await
        };
        let failure = Some(failure(Some("rate_limit"), "slow down"));
        let limited = RelayError::Limited(Box::new(Limited { failure, retry_after: seconds }));
        assert_eq!(outcome_of("429 Too Many Requests").await, Err(limited), "{retry_after}");
        let away = seconds.map_or(RelayError::Unavailable, RelayError::UnavailableFor);
        assert_eq!(outcome_of("503 Service Unavailable").await, Err(away), "{retry_after}");
    }
}
