//! The commands that only print: `config`, `completions`, `man`.

use super::*;

#[tokio::test]
async fn the_default_config_is_one_that_check_takes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    for minimal in [&[][..], &["--minimal"]] {
        let printed = tidegate(&[&["config", "default"], minimal].concat()).await.ok();
        assert_eq!(printed.contains("\n#"), minimal.is_empty());
        std::fs::write(&file, printed).unwrap();
        tidegate(&["check", "--config", text(&file)]).await.ok();
    }
}

#[tokio::test]
async fn check_warns_of_risks_and_strict_fails() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    let file_name = text(&file).to_owned();
    let config = |engine: &str| {
        format!(
            "{engine}[admin]\napi_keys = [\"k\"]\n[jwt]\n\
             keys = [{{ alg = \"HS256\", secret = \"a secret of thirty-two bytes or so\" }}]\n\
             [[route]]\npath = \"/ws/{{room}}/\"\nchannel = \"room_{{room}}\"\nupstream = \"\"\n"
        )
    };
    std::fs::write(&file, config("[engine.redis]\nurl = \"redis://h\"\n")).unwrap();
    let variable = [("TIDEGATE_SERVER_LISTEN", "127.0.0.1:80")];
    let found = tidegate_with(&variable, &["check", "--config", &file_name]).await.ok();
    for part in [
        ": warning: engine.redis: ",
        ": warning: TIDEGATE_SERVER_LISTEN: ",
        ": warning: admin.api_keys[0]: ",
        ": warning: route /ws/{room}/: authorize: ",
        ": warning: route /ws/{room}/: auth: ",
        ": ok, 1 route, ",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let strict = ["check", "--strict", "--config", &file_name];
    let failed = tidegate_with(&variable, &strict).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains(": 5 warnings, 1 route, "), "{failed:?}");

    let quiet = "[[route]]\npath = \"/ws/{room}/\"\nchannel = \"room_{room}\"\nupstream = \"\"\n\
                 auth = [\"connection_token\"]\n[admin]\napi_keys = [\"a key of the server API\"]\n";
    std::fs::write(&file, quiet).unwrap();
    tidegate(&strict).await.ok();
}

/// A config that uses every kind of source, with a secret in every place that may have one.
const FILE: &str = r#"
[server]
threads = 2
max_connections = "${TEST_MAX}"
[admin]
listen = "127.0.0.1:9001"
api_keys_file = "keys"
[engine]
kind = "redis"
[engine.redis]
url = "redis://ana:hunter2-url@redis.example:6379/1"
tokens_url = "redis://:${TEST_PASSWORD}@tokens.example/2"
[jwt]
issuer = "${TEST_ISSUER}"
[[jwt.keys]]
alg = "HS256"
secret = "hunter2-hunter2-hunter2"
[origins]
allow = ["https://app.example.com", "https://${TEST_HOST}"]
[[route]]
path = "/ws/{id}"
channel = "chat_{id}"
upstream = "worker"
send_queue = { messages = 64 }
[route.limits]
messages_per_user = "off"
[[route]]
path = "/health"
reply = "1"
[upstream.worker]
kind = "http"
url = "http://127.0.0.1:8001/?key=${TEST_PASSWORD}"
signing_secret = "${TEST_PASSWORD}"
"#;

const VARIABLES: [(&str, &str); 6] = [
    ("TEST_MAX", "1234"),
    ("TEST_PASSWORD", "hunter2-password"),
    ("TEST_ISSUER", "https://hunter2-issuer"),
    ("TEST_HOST", "www.example.com"),
    ("TIDEGATE__LOG__LEVEL", "debug"),
    ("TIDEGATE__ENGINE__REDIS__LIMITS_URL", "redis://:hunter2-limits@limits.example"),
];

async fn show(more: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, FILE).unwrap();
    std::fs::write(directory.path().join("keys"), "hunter2-a\nhunter2-b\n").unwrap();
    let arguments = [&["config", "show", "--config", text(&file)], more].concat();
    let printed = tidegate_with(&VARIABLES, &arguments).await.ok();
    assert!(!printed.contains("hunter2"), "a secret is shown:\n{printed}");
    printed
}

#[tokio::test]
async fn settings_are_shown_with_their_sources() {
    let printed = show(&[]).await;
    let lines: Vec<String> =
        printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "threads = 2 # file",
        "max_connections = 1234 # file, with ${TEST_MAX}",
        "api_keys = [\"<redacted>\", \"<redacted>\"] # secret file: keys",
        "api_keys_file = \"keys\" # file",
        "url = \"redis://ana:<redacted>@redis.example:6379/1\" # file",
        "tokens_url = \"redis://:<redacted>@tokens.example/2\" # file, with ${TEST_PASSWORD}",
        "limits_url = \"redis://:<redacted>@limits.example\" # environment: TIDEGATE__ENGINE__REDIS__LIMITS_URL",
        "issuer = \"${TEST_ISSUER}\" # file, with ${TEST_ISSUER}",
        "secret = \"<redacted>\" # file",
        "allow = [\"https://app.example.com\", \"https://www.example.com\"] # file, with ${TEST_HOST}",
        "send_queue.messages = 64 # file",
        "[route.limits]",
        "messages_per_user = \"off\" # file",
        "url = \"http://127.0.0.1:8001/?key=${TEST_PASSWORD}\" # file, with ${TEST_PASSWORD}",
        "signing_secret = \"<redacted>\" # file, with ${TEST_PASSWORD}",
        "level = \"debug\" # environment: TIDEGATE__LOG__LEVEL",
    ] {
        assert!(lines.iter().any(|printed| printed == line), "no {line} in\n{printed}");
    }
    assert!(!printed.contains("# default") && !printed.contains("idle_ping"), "{printed}");
}

#[tokio::test]
async fn what_is_shown_is_toml_with_every_key() {
    let printed = show(&["--all"]).await;
    let document: toml::Table =
        printed.parse().unwrap_or_else(|error| panic!("{error}:\n{printed}"));
    assert_eq!(document["route"].as_array().unwrap().len(), 2);
    assert_eq!(document["route"][0]["send_queue"]["bytes"].as_str(), Some("1MiB"));
    assert_eq!(document["route"][0]["history"]["size"].as_integer(), Some(1000));
    assert_eq!(document["jwt"]["keys"][0]["alg"].as_str(), Some("HS256"));
    assert_eq!(document["jwt"]["leeway"].as_str(), Some("30s"));
    assert_eq!(document["engine"]["redis"]["pubsub_url"].as_str(), Some(""));
    assert!(printed.contains("# default"), "{printed}");
}

#[tokio::test]
async fn settings_are_shown_as_json() {
    let printed: Value = serde_json::from_str(&show(&["--all", "--format", "json"]).await).unwrap();
    let settings = printed["settings"].as_array().unwrap();
    let of = |key: &str| settings.iter().find(|setting| setting["key"] == key).unwrap().clone();
    assert_eq!(
        of("server.threads"),
        json!({"key": "server.threads", "value": 2, "source": "file"})
    );
    assert_eq!(of("server.header_timeout")["source"], "default");
    let keys = of("admin.api_keys");
    assert_eq!((&keys["source"], &keys["file"]), (&json!("secret_file"), &json!("keys")));
    assert_eq!((&keys["redacted"], keys["value"].as_array().unwrap().len()), (&json!(true), 2));
    assert_eq!(of("log.level")["variables"], json!(["TIDEGATE__LOG__LEVEL"]));
    assert_eq!(of("route[0].path")["value"], "/ws/{id}");
}

#[tokio::test]
async fn a_config_with_mistakes_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, "[server]\nthreads = \"many\"").unwrap();
    let output = tidegate(&["config", "show", "--config", text(&file)]).await.failed();
    assert!(output.contains("2 mistakes") && output.contains("server.threads"), "{output}");
    for wrong in [&["config"][..], &["config", "show"], &["config", "default", "x"]] {
        assert_eq!(tidegate(wrong).await.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn shells_get_their_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tidegate(&["completions", shell]).await.ok();
        for word in ["serve", "health", "config"] {
            assert!(script.contains(word), "no {word} for {shell}");
        }
    }
    assert_eq!(tidegate(&["completions", "sh"]).await.code, Some(2));
    // The completions as bash computes them.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.bash");
    std::fs::write(&file, tidegate(&["completions", "bash"]).await.ok()).unwrap();
    let script = format!(
        "source {}; COMP_WORDS=(tidegate he); COMP_CWORD=1; _tidegate tidegate he tidegate; echo ${{COMPREPLY[*]}}",
        text(&file)
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]);
    assert_eq!(output(bash).await.ok(), "health help\n");
}

#[tokio::test]
async fn manual_pages_are_written() {
    let page = tidegate(&["man"]).await.ok();
    assert!(page.contains(".TH tidegate 1") && page.contains("health"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    tidegate(&["man", text(&pages)]).await.ok();
    for name in ["tidegate.1", "tidegate-serve.1", "tidegate-health.1", "tidegate-config-show.1"] {
        let page =
            std::fs::read_to_string(pages.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = tidegate(&["man", text(&file)]).await.failed();
    assert!(output.contains(text(&file)), "{output}");
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_failure() {
    for arguments in [
        &["config", "default"][..],
        &["completions", "zsh"],
        &["man"],
        &["--help"],
        &["config", "show", "--all", "--config", "gateway.toml"],
    ] {
        let mut child = command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // The reading end is closed, so that every write fails.
        drop(child.stdout.take());
        let end = tokio::task::spawn_blocking(|| child.wait_with_output());
        let output = CommandOutput::of(&within("its end", end).await.unwrap().unwrap());
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr, "", "{arguments:?}");
    }
}
