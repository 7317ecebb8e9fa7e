//! What the demo prints when it runs: where to look, and lines to paste that work.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::json;

use crate::cli::admin_client;
use crate::config::Secret;
use crate::gateway::Addresses;

/// Prints from a thread of its own; without one there is nothing to print with, and the demo goes on.
pub fn in_background(addresses: Addresses, api_key: Secret) {
    let printing = std::thread::Builder::new().name("announce".to_owned()).spawn(move || {
        let text = match tokens(addresses.admin, &api_key) {
            Ok(tokens) => announcement(addresses, &api_key, &tokens),
            Err(error) => format!("the demo runs, but there are no tokens to paste: {error}\n"),
        };
        // A closed stdout is no reason to stop.
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    });
    if let Err(error) = printing {
        tracing::error!(event = "announce_failed", %error, "no thread to print with");
    }
}

/// One token for each line that needs one: each is good for a single connection.
struct Tokens {
    websocat: String,
    python: String,
}

fn tokens(admin: SocketAddr, api_key: &Secret) -> Result<Tokens, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let mint = async |name: &str| {
        let body = json!({ "user_id": name, "username": name });
        admin_client::mint(admin, api_key, &body).await
    };
    runtime.block_on(async {
        Ok(Tokens { websocat: mint("websocat").await?, python: mint("python").await? })
    })
}

fn announcement(addresses: Addresses, api_key: &Secret, tokens: &Tokens) -> String {
    let public = admin_client::reachable(addresses.public);
    let admin = admin_client::reachable(addresses.admin);
    let key = api_key.expose();
    let Tokens { websocat, python } = tokens;
    let socket = format!("ws://{public}/ws/chat/lobby/?connection_token=");
    let mut text = format!(
        "\n  Tidegate demo: open  http://{public}/#lobby  in two tabs and say something.\n\n"
    );
    let mut section = |title: &str, line: String| {
        let _ = write!(text, "# {title}\n{line}\n\n");
    };
    section(
        "The same conversation from a terminal; type {\"message\":\"hello\"}",
        format!("websocat '{socket}{websocat}'"),
    );
    section(
        "Or from Python (pip install websockets)",
        format!(
            "python3 -c 'from websockets.sync.client import connect; ws = connect(\"{socket}{python}\"); \
             ws.send(\"{{\\\"message\\\":\\\"hello\\\"}}\"); [print(frame, flush=True) for frame in ws]'"
        ),
    );
    section(
        "Publish to it, as a worker would",
        format!(
            "curl -s http://{admin}/v1/publish -H 'X-API-Key: {key}' \
             -d '{{\"channel\":\"chat_lobby\",\"data\":{{\"event\":\"notice\",\"text\":\"hello from curl\"}}}}'"
        ),
    );
    section(
        "Each of these tokens opens one connection within 15 minutes; here is another",
        format!(
            "curl -s http://{admin}/v1/tokens -H 'X-API-Key: {key}' -d '{{\"user_id\":\"me\"}}'"
        ),
    );
    section("What the gateway counts", format!("curl -s http://{admin}/metrics"));
    text.push_str("  Ctrl-C stops it.\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_pasted() {
        let addresses = Addresses {
            public: "0.0.0.0:8000".parse().unwrap(),
            admin: "127.0.0.1:9000".parse().unwrap(),
        };
        let tokens = Tokens { websocat: "W".to_owned(), python: "P".to_owned() };
        let text = announcement(addresses, &Secret::new("key"), &tokens);
        for part in [
            "http://127.0.0.1:8000/#lobby",
            "websocat 'ws://127.0.0.1:8000/ws/chat/lobby/?connection_token=W'",
            "connect(\"ws://127.0.0.1:8000/ws/chat/lobby/?connection_token=P\")",
            r#"ws.send("{\"message\":\"hello\"}")"#,
            "http://127.0.0.1:9000/metrics",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        // A line in quotes that has quotes inside would not survive the shell.
        for line in text.lines().filter(|line| line.contains('\'') && !line.starts_with('#')) {
            assert_eq!(line.matches('\'').count() % 2, 0, "{line}");
        }
    }
}
