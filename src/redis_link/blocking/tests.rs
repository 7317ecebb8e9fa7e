use super::*;
use crate::redis_link::test_server::RedisServer;

const WAIT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_command_waits_and_a_server_that_stalls_is_noticed() {
    let server = RedisServer::start();
    let client = crate::redis_link::client(&server.url()).unwrap();
    let mut connection = BlockingConnection::connect(&client, &Health::default()).await.unwrap();
    let mut pop = redis::cmd("BLPOP");
    pop.arg("nothing").arg(WAIT.as_secs());
    let nothing: Option<(String, String)> = connection.query(&pop, WAIT).await.unwrap();
    assert_eq!(nothing, None);
    let refused = connection.query::<()>(redis::cmd("SET").arg("a"), Duration::ZERO).await;
    assert!(matches!(refused, Err(RedisFailure::Refused(_))));
    server.pause();
    let lost = connection.query::<Option<(String, String)>>(&pop, WAIT).await;
    assert!(matches!(lost, Err(RedisFailure::Unavailable)));
    server.resume();
}
