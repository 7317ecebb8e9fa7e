use super::*;

const NODES: &str = "\
07c37d 127.0.0.1:30004@31004,host4,shard-id=69bc slave e7d1ee 0 1426238317239 4 connected
67ed2d 127.0.0.1:30002@31002,host2,shard-id=114f master - 0 1426238316232 2 connected 5461-10922 [93->-07c37d]
292f8b 127.0.0.1:30003@31003 master,fail? - 0 1426238318243 3 connected 10923-16383
6ec239 :30005@31005 myself,master - 0 1426238316232 5 connected 0-92 94-5460 93
824fe1 127.0.0.1:30006@31006 master - 0 1426238317741 6 connected
a1b2c3 :0@0 master,noaddr - 1 1 7 disconnected 0-16383
d4e5f6 127.0.0.1:30007@31007 handshake - 1 1 0 connected
";

fn view(text: &str) -> View {
    parse(text, "me").unwrap()
}

/// Host, port and ranges of slots.
type Summary = (String, u16, Vec<(u16, u16)>);

fn summary(views: &[View]) -> Vec<Summary> {
    merge(views).into_iter().map(|master| (master.host, master.port, master.ranges)).collect()
}

#[test]
fn the_answer_of_a_node_is_read() {
    let local = || "127.0.0.1".to_owned();
    assert_eq!(
        summary(&[view(NODES)]),
        [
            ("me".to_owned(), 30005, vec![(0, 5460)]),
            (local(), 30002, vec![(5461, 10922)]),
            (local(), 30003, vec![(10923, 16383)]),
            (local(), 30006, vec![]),
        ]
    );
    let named: Vec<_> = merge(&[view(NODES)]).into_iter().map(|master| master.hostname).collect();
    assert_eq!(named, [None, Some("host2".to_owned()), None, None]);
    for nothing in
        ["", "nonsense", "a b c d e f x h 0-5\n", "a :70000@1 master - 0 0 1 connected 0\n"]
    {
        assert!(parse(nothing, "me").is_err(), "{nothing:?}");
    }
    // What is not a range of slots is left out.
    let odd = view("a h:1@2 master - 0 0 1 connected 5-3 16384 7 x-y\n");
    assert_eq!(summary(&[odd]), [("h".to_owned(), 1, vec![(7, 7)])]);
}

#[test]
fn the_highest_epoch_has_the_slot() {
    let old = view("a h:1@2 master - 0 0 1 connected 0-16383\nb h:2@2 slave a 0 0 1 connected\n");
    let new = view("a h:1@2 slave b 0 0 4 connected\nb h:2@2 master - 0 0 4 connected 0-16383\n");
    let promoted = [("h".to_owned(), 2, vec![(0, 16383)])];
    assert_eq!(summary(&[old.clone(), new.clone()]), promoted);
    assert_eq!(summary(&[new, old]), promoted);
    // One that somebody has as a replica is no master without slots.
    let joined =
        view("a h:1@2 master - 0 0 1 connected 0-16383\nc h:3@2 master - 0 0 0 connected\n");
    let replica =
        view("a h:1@2 master - 0 0 1 connected 0-16383\nc h:3@2 slave a 0 0 0 connected\n");
    assert_eq!(summary(std::slice::from_ref(&joined)).len(), 2);
    assert_eq!(summary(&[joined, replica]).len(), 1);
}
