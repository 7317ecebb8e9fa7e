//! Requests of a route's path that are no WebSocket handshakes: to the proxy, or to the route's own upstream with the checks
//! of the route.

use super::chat::{SECRET, session};
use super::rig::echo::WebSocketServer;
use super::rig::{Client, Gateway, Reply, Settings, Upstream, http};

/// Everything of an application at `addr`, for signed-in users.
fn whole_application(addr: std::net::SocketAddr) -> Settings {
    Settings::new()
        .section("jwt", &format!("keys = [{{ alg = \"HS256\", secret = \"{SECRET}\" }}]"))
        .section("origins", "allow = [\"self\", \"https://app.example.com\"]")
        .route("path = \"/{rest*}\"\nprotocol = \"pass\"\nupstream = \"app\"")
        .upstream("app", &format!("kind = \"websocket\"\nurl = \"ws://{addr}\""))
}

#[tokio::test]
async fn requests_to_the_routes_upstream_pass_its_checks() {
    let app = Upstream::start(|request| Reply::Answer {
        status: 418,
        headers: vec![("x-method", request.method.clone())],
        body: "tea".into(),
    })
    .await;
    let gateway = Gateway::start(whole_application(app.addr())).await;
    let cookie = format!("a=1; access_token={}; b=2", session());
    let own = format!("http://{}", gateway.addr());
    let signed_in = [("cookie", &*cookie), ("origin", &*own), ("x-tidegate-user-id", "1")];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let path = "/api/kernels/a%2Fb//?x=1&connection_token=secret&token=&y=%20";
        let path = path.replace("token=&", "");
        let answer = http::send(gateway.addr(), method, &path, &signed_in, "body".into()).await;
        assert_eq!((answer.status, answer.header("x-method")), (418, Some(method)));
        assert_eq!(answer.text(), "tea");
        let request = app.next_request().await;
        assert_eq!(request.path, "/api/kernels/a%2Fb//?x=1&y=%20");
        assert_eq!(&*request.body, b"body");
        let host = gateway.addr().to_string();
        for (name, value) in [
            ("x-tidegate-user-id", Some("7")),
            ("x-tidegate-username", Some("ana")),
            ("x-tidegate-connection-id", None),
            ("cookie", Some("a=1; b=2")),
            ("host", Some(&*host)),
            ("x-forwarded-host", Some(&*host)),
            ("x-forwarded-for", Some("127.0.0.1")),
            ("connection", None),
            ("upgrade", None),
        ] {
            assert_eq!(request.header(name), value, "{name} of {method}");
        }
        assert!(
            request.header("traceparent").is_some() && request.header("x-request-id").is_some()
        );
    }
    // Refused: no credentials, bad ones, a connection token, another origin, a path that leads out.
    let token = gateway.token(serde_json::json!({"user_id": 1})).await;
    let by_token = format!("/?connection_token={token}");
    let evil = [("cookie", &*cookie), ("origin", "http://evil.test")];
    for (path, headers, status) in [
        ("/", &[][..], 401),
        ("/", &[("cookie", "access_token=bad")], 401),
        (&*by_token, &[], 401),
        ("/", &evil, 403),
        ("/a/../b", &signed_in, 400),
        ("/a/%2e%2e/b", &signed_in, 400),
    ] {
        let answer = http::send(gateway.addr(), "GET", path, headers, "".into()).await;
        assert_eq!(answer.status, status, "{path} {headers:?}");
        assert!(answer.json()["code"].is_string(), "{path}");
    }
    let labels = [("route", "/{rest*}"), ("cause", "no_credentials")];
    assert_eq!(gateway.metric("tidegate_route_requests_refused_total", &labels).await, 2.0);
    gateway.wait_for_event("request_refused").await;
    // A browser sends no credentials with the preflight of an allowed page.
    let preflight = |origin| [("origin", origin), ("access-control-request-method", "POST")];
    for (origin, status) in [("https://app.example.com", 418), ("http://evil.test", 403)] {
        let headers = preflight(origin);
        let answer = http::send(gateway.addr(), "OPTIONS", "/", &headers, "".into()).await;
        assert_eq!(answer.status, status, "{origin}");
    }
    assert_eq!(app.requests().len(), 7, "what is refused does not reach the application");
    // The gateway's own endpoint is not the application's.
    let path = "/api/v1/auth/ws-connection-token/";
    let answer = http::send(gateway.addr(), "GET", path, &signed_in, "".into()).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn with_a_proxy_requests_go_there() {
    let sockets = WebSocketServer::start().await;
    let app = Upstream::start(|_| Reply::status(204)).await;
    let route = |path: &str, more: &str| {
        // Routes with a history share no channel with others.
        let channel = format!("c{}", path.len());
        format!(
            "path = {path:?}\nchannel = {channel:?}\nupstream = \"app\"\nauth = [\"cookie\"]\n{more}"
        )
    };
    let settings = Settings::new()
        .section("jwt", &format!("keys = [{{ alg = \"HS256\", secret = \"{SECRET}\" }}]"))
        .upstream("app", &format!("kind = \"websocket\"\nurl = \"{}\"", sockets.url()))
        .route(&route("/json", "http = \"proxy\""))
        .route(&route("/envelope", "history.size = 0\nmethods = [\"GET\", \"POST\"]"))
        .route(&route("/raw", "protocol = \"raw\""))
        .route(&route("/socket.io/{rest*}", "protocol = \"pass\"\nhttp = \"proxy\""))
        .route(&route("/graphql", "protocol = \"raw\"\nmethods = [\"GET\", \"POST\"]"))
        .route(&route("/off", "protocol = \"pass\"\nhttp = \"off\""))
        .route(&route("/json/is/off", "http = \"off\""));
    let proxied =
        settings.clone().section("proxy", &format!("upstream = \"{}\"", app.url("/base")));
    let gateway = Gateway::start(proxied).await;
    for (method, path) in [
        ("GET", "/json?x=1"),
        ("POST", "/envelope/"),
        ("DELETE", "/raw/"),
        ("POST", "/socket.io/?EIO=4&transport=polling"),
        ("GET", "/socket.io/a/b"),
        ("POST", "/graphql"),
    ] {
        let answer = http::send(gateway.addr(), method, path, &[], "body".into()).await;
        assert_eq!(answer.status, 204, "{method} {path}");
        let request = app.next_request().await;
        assert_eq!((request.method.as_str(), &*request.path), (method, &*format!("/base{path}")));
    }
    for path in ["/graphql", "/envelope"] {
        let answer = http::send(gateway.addr(), "PUT", path, &[], "".into()).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST")), "{path}");
    }
    for path in ["/off", "/json/is/off"] {
        assert_eq!(http::get(gateway.addr(), path).await.status, 426, "{path}");
    }
    // One that a proxy in front has cut is answered as what it was.
    for path in ["/json", "/raw", "/socket.io/", "/graphql"] {
        let cut = [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("connection", "close")];
        let answer = http::send(gateway.addr(), "GET", path, &cut, "".into()).await;
        assert_eq!(answer.status, 426, "{path}");
    }
    // A handshake is one all the same, and passes the checks of its route.
    let refused = Client::try_open(gateway.addr(), "/socket.io/", &[]).await.err();
    assert_eq!(refused.expect("no credentials").status, 401);

    let settings = settings
        .each_route(|route| route.replace("http = \"proxy\"", "http = \"off\""))
        .each_route(|route| route.replace("methods = [\"GET\", \"POST\"]", ""));
    let gateway = Gateway::start(settings).await;
    for path in ["/json", "/envelope", "/raw", "/socket.io/", "/graphql", "/off"] {
        assert_eq!(http::get(gateway.addr(), path).await.status, 426, "{path}");
    }
    assert_eq!(http::get(gateway.addr(), "/other").await.status, 404);
}

/// A development server has its page and its sockets at the same path, and answers to its own name only.
#[tokio::test]
async fn a_page_and_its_sockets_can_have_the_same_path() {
    let app = Upstream::start(|_| Reply::status(200)).await;
    let gateway = Gateway::start(
        Settings::new()
            .route(
                "path = \"/\"\nprotocol = \"pass\"\nupstream = \"app\"\nauth = [\"anonymous\"]\n\
                 host = \"upstream\"",
            )
            .upstream("app", &format!("kind = \"websocket\"\nurl = \"ws://{}/\"", app.addr())),
    )
    .await;
    assert_eq!(http::get(gateway.addr(), "/?a=b").await.status, 200);
    let request = app.next_request().await;
    assert_eq!(request.path, "/?a=b");
    assert_eq!(request.header("host"), Some(&*app.addr().to_string()));
    assert_eq!(request.header("x-forwarded-host"), Some(&*gateway.addr().to_string()));
    assert_eq!(request.header("x-tidegate-user-id"), None);
    assert_eq!(http::get(gateway.addr(), "/other").await.status, 404);
}
