use super::*;
use std::time::Duration;

const OPEN: Duration = Duration::from_secs(5);

fn circuit(failures: u32) -> Circuit {
    let limits = config::Circuit { failures, window: Duration::from_secs(10), open: OPEN };
    Circuit::new(limits, Arc::new(UpstreamMetrics::new("test")))
}

fn fail(circuit: &Circuit, now: Instant) {
    circuit.try_acquire(now).expect("closed").failed(None, now);
}

#[test]
fn a_circuit_opens_only_after_failures_within_the_window() {
    let (circuit, start) = (circuit(3), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    for seconds in [0, 1, 11, 22] {
        fail(&circuit, at(seconds));
    }
    assert!(circuit.try_acquire(at(22)).is_some());
    fail(&circuit, at(23));
    circuit.try_acquire(at(23)).expect("closed").succeeded();
    fail(&circuit, at(24));
    assert!(circuit.try_acquire(at(24)).is_none());
    assert!(circuit.try_acquire(at(28)).is_none());
}

#[test]
fn the_failures_of_one_sender_count_as_one() {
    let (circuit, now) = (circuit(3), Instant::now());
    let fail = |sender: SenderKey| circuit.try_acquire(now).unwrap().failed(Some(sender), now);
    let user = |id: &str| SenderKey::User(crate::protocol::UserId::Text(id.into()));
    let network = |ip: &str| SenderKey::new(None, ip.parse().unwrap(), 64);
    for _ in 0..100 {
        fail(user("eve"));
        fail(network("2001:db8::1"));
        fail(network("2001:db8::2"));
    }
    assert!(circuit.try_acquire(now).is_some());
    fail(user("ana"));
    assert!(circuit.try_acquire(now).is_none());
}

#[test]
fn a_single_probe_decides() {
    let (circuit, start) = (circuit(1), Instant::now());
    let late = circuit.try_acquire(start).expect("closed");
    fail(&circuit, start);
    let probe = circuit.try_acquire(start + OPEN).expect("probe");
    assert!(circuit.try_acquire(start + OPEN).is_none(), "one probe at a time");
    late.succeeded();
    assert!(circuit.try_acquire(start + OPEN).is_none(), "only the probe closes it");
    probe.failed(None, start + OPEN);
    assert!(circuit.try_acquire(start + OPEN).is_none(), "open again");
    circuit.try_acquire(start + OPEN * 2).expect("probe").succeeded();
    let both = (circuit.try_acquire(start + OPEN * 2), circuit.try_acquire(start + OPEN * 2));
    assert!(both.0.is_some() && both.1.is_some());
}

#[test]
fn an_abandoned_probe_is_replaced_by_another() {
    let (circuit, start) = (circuit(1), Instant::now());
    fail(&circuit, start);
    drop(circuit.try_acquire(start + OPEN).expect("probe"));
    let next = Instant::now() + OPEN;
    assert!(circuit.try_acquire(next).is_some());
}
