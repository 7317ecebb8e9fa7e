//! Tests of held leases with a simulated engine.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::*;

/// An engine that keeps each holder's lease, counts calls, and can be unavailable.
#[derive(Default)]
struct Engine {
    leases: RefCell<BTreeMap<u8, &'static str>>,
    /// The holders whose lease belongs to another process.
    lost: RefCell<Vec<u8>>,
    renewals: Cell<usize>,
    released: RefCell<Vec<(u8, String)>>,
    is_down: Cell<bool>,
    /// The holder whose part of the engine is unavailable.
    failing: Cell<Option<u8>>,
}

impl Lessor for Engine {
    type Holder = u8;
    type Lease = &'static str;
    type Release = String;

    async fn renew(&self, leases: &[(u8, &'static str)]) -> Result<Renewal<u8>, EngineUnavailable> {
        if self.is_down.get() {
            return Err(EngineUnavailable);
        }
        let is_failed = |holder: &u8| self.failing.get() == Some(*holder);
        let failed: Vec<u8> = leases.iter().map(|(holder, _)| *holder).filter(is_failed).collect();
        let leases: Vec<_> = leases.iter().filter(|(holder, _)| !is_failed(holder)).collect();
        self.renewals.set(self.renewals.get() + leases.len());
        self.leases.borrow_mut().extend(leases.into_iter().copied());
        Ok(Renewal { lost: std::mem::take(&mut *self.lost.borrow_mut()), failed })
    }

    async fn release(&self, releases: &[(u8, String)]) -> Result<Vec<u8>, EngineUnavailable> {
        if self.is_down.get() {
            return Err(EngineUnavailable);
        }
        let mut failed = Vec::new();
        for (holder, release) in releases {
            if self.failing.get() == Some(*holder) {
                failed.push(*holder);
                continue;
            }
            self.leases.borrow_mut().remove(holder);
            self.released.borrow_mut().push((*holder, release.clone()));
        }
        Ok(failed)
    }
}

fn held() -> HeldLeases<Engine> {
    HeldLeases::new(Engine::default())
}

fn holders(held: &HeldLeases<Engine>) -> Vec<u8> {
    held.lessor().leases.borrow().keys().copied().collect()
}

#[tokio::test]
async fn new_leases_are_created_and_those_given_back_are_released() {
    let held = held();
    held.take(1, "a");
    held.take(2, "b");
    assert!(held.flush().await);
    assert_eq!(holders(&held), [1, 2]);
    assert!(held.give_back(&1));
    assert!(!held.give_back(&1), "a lease is given back only once");
    assert!(held.give_back_as(&2, |lease| format!("{lease} at once")));
    held.release(&3, "never held here".to_owned());
    assert!(held.flush().await);
    assert!(holders(&held).is_empty());
    let released: Vec<_> =
        held.lessor().released.borrow().iter().map(|(_, how)| how.clone()).collect();
    assert_eq!(released, ["a", "b at once", "never held here"]);
}

#[tokio::test]
async fn a_lease_that_is_taken_again_is_not_released() {
    let held = held();
    held.take(1, "a");
    assert!(held.flush().await);
    held.give_back(&1);
    held.take(1, "b");
    assert!(held.flush().await);
    assert_eq!(*held.lessor().leases.borrow(), BTreeMap::from([(1, "b")]));
    assert!(held.lessor().released.borrow().is_empty());
}

#[tokio::test]
async fn a_lease_of_another_process_is_neither_renewed_nor_released() {
    let held = held();
    held.take(1, "a");
    held.lessor().lost.borrow_mut().push(1);
    assert!(held.flush().await);
    assert!(held.renew_all().await);
    assert_eq!(held.lessor().renewals.get(), 1);
    assert!(!held.give_back(&1));
    held.keep(2, "b");
    held.forget(&2);
    assert!(held.renew_all().await && held.flush().await);
    assert_eq!((held.lessor().renewals.get(), held.counts().2), (1, 0));
}

#[tokio::test]
async fn calls_to_an_unavailable_engine_are_retried() {
    let held = held();
    held.keep(1, "a");
    held.take(2, "b");
    held.lessor().is_down.set(true);
    held.release(&3, "c".to_owned());
    held.make_due();
    assert!(!held.flush().await);
    assert_eq!(held.counts(), (2, 0, 1));
    held.lessor().is_down.set(false);
    assert!(held.flush().await);
    assert_eq!((holders(&held), held.counts()), (vec![1, 2], (2, 2, 0)));
}

#[tokio::test]
async fn leases_that_are_due_soon_are_renewed_together() {
    let held = held();
    held.keep(1, "a");
    held.keep(2, "b");
    let soon = Instant::now() + Engine::RENEWAL / 8;
    held.state().due.iter_mut().for_each(|(due, _)| *due = soon);
    assert!(held.flush().await);
    assert_eq!(held.lessor().renewals.get(), 2);
}

#[tokio::test]
async fn a_part_that_is_unavailable_does_not_keep_the_others_waiting() {
    let held = held();
    held.lessor().failing.set(Some(1));
    for holder in 1..=3 {
        held.take(holder, "a");
    }
    assert!(held.flush().await, "it is tried again by itself");
    assert_eq!(holders(&held), [2, 3]);
    assert_eq!(held.counts(), (3, 3, 0));
    // It is scheduled before those that were renewed, and not for now.
    let first = held.state().due.front().map(|(_, holder)| *holder);
    assert_eq!(first, Some(1));
    assert!(held.flush().await);
    assert_eq!(held.lessor().renewals.get(), 2, "nothing is due");
    held.lessor().failing.set(None);
    assert!(held.renew_all().await);
    assert_eq!(holders(&held), [1, 2, 3]);
    held.lessor().failing.set(Some(1));
    for holder in 1..=3 {
        held.give_back(&holder);
    }
    assert!(!held.flush().await);
    assert_eq!((holders(&held), held.counts()), (vec![1], (0, 0, 1)));
    held.lessor().failing.set(None);
    assert!(held.flush().await);
    assert!(holders(&held).is_empty());
}
