use super::*;

#[test]
fn a_mark_is_passed_by_a_read_that_began_after_it() {
    let reads = LayerReads::default();
    assert!(reads.has_passed(reads.mark()), "there is no mailbox");
    let first = reads.begin();
    let mark = reads.mark();
    reads.record_empty(first);
    assert!(!reads.has_passed(mark), "this read had begun before");
    let full = reads.begin();
    assert!(!reads.has_passed(mark));
    reads.record_empty(reads.begin());
    assert!(full > first && reads.has_passed(mark) && !reads.has_passed(reads.mark()));
}
