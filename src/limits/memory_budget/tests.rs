use super::*;

fn queues(queues: usize, largest_queue: usize) -> HeldMemory {
    HeldMemory { queues, largest_queue, ..HeldMemory::default() }
}

#[test]
fn all_parts_of_all_threads_count_together() {
    let budget = MemoryBudget::new(2, 100);
    let (first, second) = (budget.thread(0), budget.thread(1));
    let held = HeldMemory { queues: 10, largest_queue: 5, partial_messages: 20, in_progress: 30 };
    assert_eq!(first.measured(held, true), 0);
    budget.check(20, 10, 0);
    assert_eq!(second.measured(queues(15, 7), true), 5, "10 + 20 + 30 + 30 + 15 of 100");
    assert_eq!((first.largest_of_others(), second.largest_of_others()), (7, 5));
    assert_eq!(second.measured(queues(10, 7), true), 0);
}

#[test]
fn a_frame_counts_for_one_thread() {
    let budget = MemoryBudget::new(2, 100);
    let (first, second) = (budget.thread(0), budget.thread(1));
    let frames = |ends: &[usize]| ends.iter().map(|end| (*end, 10)).collect();
    assert_eq!(first.claim(&frames(&[1, 2])), 20);
    assert_eq!(second.claim(&frames(&[2, 3])), 10);
    assert_eq!(first.claim(&frames(&[1])), 10);
    assert_eq!(second.claim(&frames(&[2, 3])), 20);
}

/// Frames that wait on several threads are counted several times at first.
#[test]
fn nothing_is_closed_before_all_threads_have_counted_shared_frames_once() {
    let budget = MemoryBudget::new(2, 100);
    let (first, second) = (budget.thread(0), budget.thread(1));
    assert_eq!(first.measured(queues(90, 90), false), 0);
    assert!(second.would_exceed(queues(60, 60)) && !second.would_exceed(queues(10, 10)));
    assert_eq!(second.measured(queues(60, 60), true), 0);
    budget.check(0, 0, 0);
    budget.check(0, 0, 0);
    assert!(!budget.is_refusing());
    assert_eq!(first.measured(queues(50, 90), true), 10);
}

#[test]
fn new_connections_are_refused_if_closing_does_not_help() {
    let budget = MemoryBudget::new(1, 100);
    let thread = budget.thread(0);
    let refuses = |bytes| {
        thread.measured(queues(bytes, bytes), true);
        budget.check(0, 0, 0);
        budget.is_refusing()
    };
    assert!(!refuses(101), "queues are closed first");
    assert!(!refuses(100));
    assert!(!refuses(101));
    assert!(refuses(101));
    assert!(refuses(91), "it goes on until a tenth is free");
    assert!(!refuses(90));
}

#[test]
fn without_a_limit_nothing_is_refused() {
    let budget = MemoryBudget::new(1, 0);
    assert_eq!(budget.thread(0).measured(queues(usize::MAX / 2, 1), true), 0);
    budget.check(1, 1, 0);
    budget.check(1, 1, 0);
    assert!(!budget.is_refusing());
}
