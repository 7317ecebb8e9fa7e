use super::*;
use crate::redis_link::open;
use crate::redis_link::test_server::RedisServer;

const SOON: Duration = Duration::from_secs(10);

async fn down(commands: &Commands) {
    let mut up = commands.subscribe_up();
    timeout(SOON, up.wait_for(|up| !up)).await.expect("lost in time").unwrap();
}

#[tokio::test]
async fn commands_scripts_and_pipelines_are_answered() {
    let server = RedisServer::start();
    let shutdown = Shutdown::new();
    let commands = Commands::start(&server.url(), "test", &shutdown).unwrap();
    assert!(commands.wait_up(SOON).await);
    let () = commands.query(redis::cmd("SET").arg("a").arg(1)).await.unwrap();
    let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
    let two: i64 = commands.invoke(&script.key("a")).await.unwrap();
    let () = commands
        .pipeline(redis::pipe().cmd("INCR").arg("a").ignore().cmd("INCR").arg("a").ignore())
        .await
        .unwrap();
    let five: i64 = commands.query(redis::cmd("INCR").arg("a")).await.unwrap();
    assert_eq!((two, five), (2, 5));
}

#[tokio::test]
async fn commands_can_be_sent_from_any_task() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(SOON).await);
    let script = redis::Script::new("return 1");
    let task = tokio::spawn(async move {
        commands.invoke::<i64>(&script.key("a")).await.unwrap()
            + commands.query::<i64>(redis::cmd("STRLEN").arg("a")).await.unwrap()
    });
    assert_eq!(task.await.unwrap(), 1);
}

#[tokio::test]
async fn an_error_answer_is_refused_and_the_connection_stays() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(SOON).await);
    let failure = commands.query::<()>(&redis::cmd("NONSENSE")).await.unwrap_err();
    assert!(matches!(failure, RedisFailure::Refused(_)), "{failure}");
    let () =
        commands.query(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1")).await.unwrap();
    let failure = commands.query::<()>(redis::cmd("SET").arg("a").arg("b")).await.unwrap_err();
    assert!(matches!(&failure, RedisFailure::Refused(e) if e.code() == Some("OOM")));
    assert!(commands.is_up());
}

#[tokio::test]
async fn a_server_that_starts_later_is_connected() {
    let mut server = RedisServer::start();
    server.kill();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(!commands.is_up());
    let failure = commands.query::<()>(&redis::cmd("PING")).await.unwrap_err();
    assert!(matches!(failure, RedisFailure::Unavailable), "{failure}");
    server.restart();
    assert!(commands.wait_up(SOON).await);
}

#[tokio::test]
async fn a_lost_server_fails_commands_at_once_and_is_reconnected() {
    let mut server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(SOON).await);
    server.kill();
    down(&commands).await;
    assert!(matches!(
        commands.query::<()>(&redis::cmd("PING")).await,
        Err(RedisFailure::Unavailable)
    ));
    server.restart();
    assert!(commands.wait_up(SOON).await);
    let () = commands.query(&redis::cmd("PING")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(SOON).await);
    server.pause();
    assert!(matches!(
        commands.query::<()>(&redis::cmd("PING")).await,
        Err(RedisFailure::Unavailable)
    ));
    down(&commands).await;
    server.resume();
    assert!(commands.wait_up(SOON).await);
}

#[tokio::test]
async fn the_connection_to_a_read_only_server_is_replaced() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(SOON).await);
    let id = |commands: Commands| async move {
        commands.query::<i64>(redis::cmd("CLIENT").arg("ID")).await.ok()
    };
    let before = id(commands.clone()).await;
    let replica_of =
        |host: &str, port: &str| redis::cmd("REPLICAOF").arg(host).arg(port).to_owned();
    let () = commands.query(&replica_of("127.0.0.1", "1")).await.unwrap();
    let failure = commands.query::<()>(redis::cmd("SET").arg("a").arg(1)).await.unwrap_err();
    assert!(matches!(failure, RedisFailure::Refused(_)), "{failure}");
    down(&commands).await;
    // A replica is not used.
    assert!(!commands.wait_up(Duration::from_millis(300)).await);
    let problem = commands.check().unwrap_err();
    assert!(problem.contains("READONLY"), "{problem}");
    let client = open::client(&server.url()).unwrap();
    let mut own = client.get_multiplexed_async_connection().await.unwrap();
    replica_of("NO", "ONE").exec_async(&mut own).await.unwrap();
    assert!(commands.wait_up(SOON).await);
    assert_ne!(id(commands.clone()).await, before);
}

#[tokio::test]
async fn a_forced_shutdown_ends_the_connection() {
    let server = RedisServer::start();
    let shutdown = Shutdown::new();
    let commands = Commands::start(&server.url(), "test", &shutdown).unwrap();
    assert!(commands.wait_up(SOON).await);
    shutdown.force();
    down(&commands).await;
    assert!(!commands.is_up());
}
