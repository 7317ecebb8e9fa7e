use super::*;

fn server(address: &str) -> Arc<Server> {
    Server::of(&Client::open(address).unwrap())
}

#[test]
fn a_demotion_closes_every_connection_to_that_address_once() {
    let one = server("redis://health.test:1/0");
    assert!(Arc::ptr_eq(&one, &server("redis://user:pw@health.test:1/5")));
    let other = server("redis://health.test:2");
    let (found, beside, elsewhere) = (Health::default(), Health::default(), Health::default());
    one.add(&found);
    one.add(&beside);
    other.add(&elsewhere);
    one.demoted(&found);
    assert_eq!(found.give_up_reason(), Some(DEMOTED));
    assert_eq!(beside.give_up_reason(), Some(DEMOTED));
    assert_eq!(elsewhere.give_up_reason(), None);
    // A late answer on the old connection does not close its successor.
    let successor = Health::default();
    one.add(&successor);
    one.demoted(&found);
    assert_eq!(successor.give_up_reason(), None);
}

#[test]
fn ended_connections_are_forgotten() {
    let server = Server::default();
    for _ in 0..100 {
        server.add(&Health::default());
    }
    assert!(lock(&server.connections).len() <= 2);
}
