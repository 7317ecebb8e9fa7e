use super::*;
use crate::redis_link::open;
use crate::redis_link::test_server::RedisServer;
use crate::redis_link::{Health, client};

/// Every script in the repository.
fn scripts() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join("src"), root.join("clients")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "lua") {
                found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_command_of_a_script_can_be_probed() {
    let scripts = scripts();
    assert!(scripts.len() > 10, "{scripts:?}");
    for (path, source) in scripts {
        assert_eq!(
            called_commands(&source).count(),
            source.matches("redis.call(").count() + source.matches("redis.pcall(").count(),
            "{path} calls a command by a name that is not a literal"
        );
        for command in called_commands(&source) {
            assert!(arguments(command).is_some(), "{path}: {command} is not known");
        }
    }
}

async fn run(connection: &mut MultiplexedConnection, needs: Needs) -> Option<Refusal> {
    let mut transactions = Transactions::Unknown;
    let refusal = probe(connection, &mut transactions, &[needs], None).await;
    refusal.unwrap_or_else(|_| panic!("the probe has no result"))
}

#[tokio::test]
async fn what_is_refused_is_named_and_nothing_is_touched() {
    let server = RedisServer::start();
    let client = client(&server.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new();
    let link =
        open::connect(&client, config, &Health::default()).await.unwrap_or_else(|_| panic!());
    let mut connection = link.connection.clone();
    let every: Vec<String> = scripts()
        .iter()
        .flat_map(|(_, source)| called_commands(source).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let needs = || {
        let all = every.iter().fold(Needs::default(), |needs, name| needs.command(name, "real"));
        all.command("GETDEL", "real").command("EVALSHA", "real").command("SCRIPT", "")
    };
    assert_eq!(run(&mut connection, needs()).await, None);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert_eq!(keys, Vec::<String>::new());
    assert_eq!(run(&mut connection, needs().own_key("tg:probe".to_owned())).await, None);
    let ttl: i64 = redis::cmd("PTTL").arg("tg:probe").query_async(&mut connection).await.unwrap();
    assert!(ttl == -2 || ttl <= 1, "it expires at once: {ttl}");

    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(1).exec_async(&mut connection).await.unwrap();
    let refusal = run(&mut connection, needs()).await.unwrap();
    assert!(refusal.reason.starts_with("OOM "), "{refusal:?}");
    assert!(refusal.commands.contains("XADD"), "{refusal:?}");
}
