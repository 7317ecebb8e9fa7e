use super::*;

fn listed(nodes: &[(&str, u64)]) -> Vec<(String, u64)> {
    nodes.iter().map(|(node, age)| ((*node).to_owned(), *age)).collect()
}

#[test]
fn nodes_are_remembered_until_they_leave_or_are_silent_for_a_minute() {
    let nodes = Nodes::new("tg:control:nodes".to_owned(), "a");
    let start = Instant::now() + LIFETIME;
    assert_eq!(nodes.count(listed(&[("a", 0), ("b", 50_000), ("c", 0)]), start), 3);
    // Redis has lost its data.
    assert_eq!(nodes.count(listed(&[("a", 0)]), start), 3);
    assert_eq!(nodes.count(listed(&[("a", 0), ("-c", 0)]), start), 2);
    let later = start + Duration::from_secs(11);
    assert_eq!(nodes.count(listed(&[("a", 0)]), later), 1);
}
