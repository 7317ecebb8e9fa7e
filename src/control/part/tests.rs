use super::*;
use crate::control::{ChannelRow, Channels};
use crate::protocol::ChannelName;

fn row(name: &str, connections: u64) -> ChannelRow {
    ChannelRow { channel: ChannelName::new(name).unwrap(), connections }
}

fn part(names: &[&str], more: bool) -> Part<ChannelRow> {
    Part { rows: names.iter().map(|name| row(name, 1)).collect(), more }
}

fn names(part: &Part<ChannelRow>) -> Vec<&str> {
    part.rows.iter().map(|row| row.channel.as_str()).collect()
}

#[test]
fn the_first_rows_are_kept_in_any_order_of_arrival() {
    let mut all = Gathering::new(3);
    for name in ["d", "a", "e", "b", "a", "c", "e"] {
        let row = row(name, 1);
        if all.offer(&row.channel) {
            all.add(row);
        }
    }
    let part = all.finish();
    assert_eq!((names(&part), part.more), (vec!["a", "b", "c"], true));
    assert_eq!(part.rows[0].connections, 2);
}

#[test]
fn nothing_is_listed_after_a_part_that_has_more() {
    for (parts, limit, expected, more) in [
        (vec![part(&["a", "c"], false), part(&["b"], false)], 9, vec!["a", "b", "c"], false),
        (vec![part(&["a", "c"], false), part(&["b"], true)], 9, vec!["a", "b"], true),
        (vec![part(&["a", "c"], true), part(&["b", "d"], true)], 9, vec!["a", "b", "c"], true),
        (vec![part(&["a", "b"], false), part(&["b", "c"], false)], 2, vec!["a", "b"], true),
        (vec![part(&["a"], false), part(&[], true)], 2, vec![], true),
        (vec![], 2, vec![], false),
    ] {
        let merged = Part::merge(parts, limit);
        assert_eq!((names(&merged), merged.more), (expected, more));
    }
}

#[test]
fn page_after_page_has_every_row_once() {
    let all: Vec<String> = (0..50).map(|n| format!("c{n:02}")).collect();
    for limit in [1, 3, 7, 50] {
        let (mut seen, mut after) = (Vec::new(), None::<ChannelName>);
        loop {
            let query = Channels { after: after.clone(), limit, ..Channels::default() };
            let threads = (0..3).map(|thread| {
                let mut rows = Gathering::new(limit);
                for (n, name) in all.iter().enumerate() {
                    let row = row(name, 1);
                    // One row of ten exists on all threads.
                    let is_here = n % 3 == thread || n % 10 == 0;
                    if is_here && query.matches(&row.channel) && rows.offer(&row.channel) {
                        rows.add(row);
                    }
                }
                rows.finish()
            });
            let page = Part::merge(threads.collect(), limit);
            assert!(page.rows.len() <= limit);
            after = page.rows.last().map(|row| row.channel.clone());
            seen.extend(page.rows);
            if !page.more {
                break;
            }
        }
        let names: Vec<_> = seen.iter().map(|row| row.channel.as_str().to_owned()).collect();
        assert_eq!(names, all, "limit {limit}");
        assert!(
            seen.iter()
                .enumerate()
                .all(|(n, row)| { row.connections == if n % 10 == 0 { 3 } else { 1 } })
        );
    }
}

#[test]
fn a_part_is_bounded_in_bytes() {
    let names: Vec<String> = (0..100).map(|n| format!("{n:03}{}", "x".repeat(200))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let json = part(&names, false).to_json(4096);
    assert!(json.len() <= 4096, "{}", json.len());
    let read: Part<ChannelRow> = serde_json::from_str(&json).unwrap();
    assert!(read.more && (10..20).contains(&read.rows.len()));
}
