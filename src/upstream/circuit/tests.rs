use super::*;
use std::time::Duration;

const OPEN: Duration = Duration::from_secs(5);

fn circuit(failures: u32) -> Circuit {
    let limits = config::Circuit { failures, window: Duration::from_secs(10), open: OPEN };
    Circuit::new(limits, Arc::new(ReplicaMetrics::of_upstream("test", 1)), 0)
}

fn user(id: &str) -> SenderKey {
    SenderKey::User(crate::protocol::UserId::Text(id.into()))
}

/// A permit for a request of anybody.
fn acquire(circuit: &Circuit, now: Instant) -> Option<CircuitPermit<'_>> {
    circuit.try_acquire(&user("ana"), now)
}

fn fail(circuit: &Circuit, now: Instant) {
    acquire(circuit, now).expect("closed").failed(None, now);
}

#[test]
fn a_circuit_opens_only_after_failures_within_the_window() {
    let (circuit, start) = (circuit(3), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    for seconds in [0, 1, 11, 22] {
        fail(&circuit, at(seconds));
    }
    assert!(acquire(&circuit, at(22)).is_some());
    fail(&circuit, at(23));
    acquire(&circuit, at(23)).expect("closed").succeeded(at(23));
    fail(&circuit, at(24));
    assert!(acquire(&circuit, at(24)).is_none());
    assert!(acquire(&circuit, at(28)).is_none());
}

#[test]
fn the_failures_of_one_sender_count_as_one() {
    let (circuit, now) = (circuit(3), Instant::now());
    let fail = |sender: SenderKey| acquire(&circuit, now).unwrap().failed(Some(sender), now);
    let network = |ip: &str| SenderKey::new(None, ip.parse().unwrap(), 64);
    for _ in 0..100 {
        fail(user("eve"));
        fail(network("2001:db8::1"));
        fail(network("2001:db8::2"));
    }
    assert!(acquire(&circuit, now).is_some());
    fail(user("ana"));
    assert!(acquire(&circuit, now).is_none());
}

#[test]
fn a_single_probe_decides() {
    let (circuit, start) = (circuit(1), Instant::now());
    let late = acquire(&circuit, start).expect("closed");
    fail(&circuit, start);
    let probe = acquire(&circuit, start + OPEN).expect("probe");
    assert!(acquire(&circuit, start + OPEN).is_none(), "one probe at a time");
    late.succeeded(start);
    assert!(acquire(&circuit, start + OPEN).is_none(), "only the probe closes it");
    probe.failed(None, start + OPEN);
    assert!(acquire(&circuit, start + OPEN).is_none(), "open again");
    acquire(&circuit, start + OPEN * 2).expect("probe").succeeded(start + OPEN * 2);
    let both = (acquire(&circuit, start + OPEN * 2), acquire(&circuit, start + OPEN * 2));
    assert!(both.0.is_some() && both.1.is_some());
}

#[test]
fn an_abandoned_probe_is_replaced_by_another() {
    let (circuit, start) = (circuit(1), Instant::now());
    fail(&circuit, start);
    drop(acquire(&circuit, start + OPEN).expect("probe"));
    let next = Instant::now() + OPEN;
    assert!(acquire(&circuit, next).is_some());
}

#[test]
fn a_sender_whose_probe_failed_does_not_keep_the_circuit_open() {
    let (circuit, start) = (circuit(1), Instant::now());
    let (eve, ana) = (user("eve"), user("ana"));
    fail(&circuit, start);
    let probe = |sender: &SenderKey, at| circuit.try_acquire(sender, at);
    // The upstream works again, except at what Eve sends.
    probe(&eve, start + OPEN).expect("probe").failed(Some(eve.clone()), start + OPEN);
    assert!(probe(&eve, start + OPEN * 2).is_none(), "the others go first");
    probe(&ana, start + OPEN * 2).expect("probe").succeeded(start + OPEN * 2);
    assert!(probe(&eve, start + OPEN * 2).is_some(), "closed");
}

#[test]
fn a_lone_sender_gets_another_probe() {
    let (circuit, start) = (circuit(1), Instant::now());
    let ana = user("ana");
    fail(&circuit, start);
    circuit.try_acquire(&ana, start + OPEN).expect("probe").failed(Some(ana.clone()), start + OPEN);
    assert!(circuit.try_acquire(&ana, start + OPEN * 3).is_some());
}

#[test]
fn slow_requests_open_the_circuit_only_if_they_are_most() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let time_out = |circuit: &Circuit, sender: &str, now| {
        acquire(circuit, now).expect("closed").timed_out(user(sender), now);
    };
    let answer = |circuit: &Circuit, now| acquire(circuit, now).expect("closed").succeeded(now);

    let mixed = circuit(3);
    for number in 0..20 {
        answer(&mixed, at(number / 10));
        answer(&mixed, at(number / 10));
        time_out(&mixed, &number.to_string(), at(number / 10));
    }
    assert!(acquire(&mixed, at(2)).is_some(), "two of three requests are answered");
    // What was answered long ago does not count.
    for number in 0..3 {
        time_out(&mixed, &number.to_string(), at(100));
    }
    assert!(acquire(&mixed, at(100)).is_none());

    let slow = circuit(3);
    answer(&slow, at(0));
    for number in 0..3 {
        time_out(&slow, &number.to_string(), at(0));
    }
    assert!(acquire(&slow, at(0)).is_none(), "most are not answered");

    let broken = circuit(3);
    for number in 0..20 {
        answer(&broken, at(0));
        time_out(&broken, &number.to_string(), at(0));
    }
    for sender in ["ana", "ben", "cid"] {
        acquire(&broken, at(1)).expect("closed").failed(Some(user(sender)), at(1));
    }
    assert!(acquire(&broken, at(1)).is_none(), "other failures count as they are");
}
