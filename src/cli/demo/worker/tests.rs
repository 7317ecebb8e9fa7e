use super::*;
use http_body_util::Full;

fn post(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/internal/chat/42").body(Full::new(Bytes::from(body))).unwrap()
}

#[tokio::test]
async fn a_message_is_answered_with_events() {
    let body = r#"{"message":"hi","task_id":"t","connection_id":"c","user":{"id":1,"name":"ana"}}"#;
    let response = answer(post(body)).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body();
    for expected in [r#""event":"user_message""#, r#""chunk":"You ""#, r#""chunk":"said ""#] {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let event = std::str::from_utf8(&frame).unwrap();
        assert!(event.starts_with("data: {") && event.ends_with("}\n\n"), "{event}");
        assert!(event.contains(expected), "{event}");
    }
}

#[tokio::test]
async fn anything_else_is_refused() {
    for body in ["", "{}", "[]", "{\"message\":7}"] {
        assert_eq!(answer(post(body)).await.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    let get = Request::get("/internal/chat/42").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(answer(get).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let elsewhere = Request::post("/").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(answer(elsewhere).await.status(), StatusCode::NOT_FOUND);
}
