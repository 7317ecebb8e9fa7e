use super::*;

#[test]
fn the_commands_can_be_pasted() {
    let banner = Banner {
        public: reachable("0.0.0.0:8000".parse().unwrap()),
        admin: reachable("127.0.0.1:9000".parse().unwrap()),
        api_key: "key".to_owned(),
        websocat_token: "one".to_owned(),
        python_token: "two".to_owned(),
    };
    let text = banner.text();
    for line in [
        "  http://127.0.0.1:8000/#demo\n",
        "  websocat 'ws://127.0.0.1:8000/ws/chat/demo/?connection_token=one'\n",
        r#"ws.send("{\"message\":\"hello\"}")"#,
        "  http://127.0.0.1:9000/metrics\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // A single quote inside a shell string would end it.
    let quoted = text.lines().filter(|line| line.contains('\''));
    assert!(
        quoted.clone().count() >= 4 && quoted.clone().all(|l| l.matches('\'').count() % 2 == 0)
    );
}
