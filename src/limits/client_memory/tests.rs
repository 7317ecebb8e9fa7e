use super::*;

fn network(last: u8) -> ClientNetwork {
    ClientNetwork::of([192, 0, 2, last].into(), 64)
}

#[test]
fn who_holds_more_than_a_quarter_is_refused_alone() {
    let memory = ClientMemory::new(2);
    memory.measured(0, [(network(1), 20), (network(2), 10)].into());
    memory.measured(1, [(network(1), 70)].into());
    memory.decide(105, 100);
    assert!(memory.refuses(network(1)) && memory.is_heavy(network(1)), "90 of 100, on two threads");
    assert!(!memory.refuses(network(2)) && !memory.refuses(network(3)));
    memory.measured(0, [(network(1), 20), (network(2), 25)].into());
    memory.decide(120, 100);
    assert!(!memory.refuses(network(2)), "a quarter is nobody's fault");
}

#[test]
fn all_are_refused_if_it_is_not_the_fault_of_a_few() {
    let memory = ClientMemory::new(1);
    memory.decide(101, 100);
    assert!(memory.refuses(network(1)) && !memory.is_heavy(network(1)));
    memory.measured(0, (0..10).map(|last| (network(last), 11)).collect());
    memory.decide(110, 100);
    assert!(memory.refuses(network(99)));
    memory.measured(0, [(network(1), 40)].into());
    memory.decide(110, 100);
    assert!(memory.refuses(network(99)), "95 without what the first one holds beyond its share");
    memory.decide(105, 100);
    assert!(!memory.refuses(network(99)));
}
