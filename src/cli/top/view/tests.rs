use super::*;
use crate::cli::top::lists::{Channel, Connection};
use crate::cli::top::summary::{RouteSummary, UpstreamSummary};

fn channel(name: &str, connections: u64, publications: f64) -> Channel {
    Channel {
        channel: name.to_owned(),
        connections,
        epoch: None,
        offset: Some(7),
        publications: Some(publications),
    }
}

fn connection(id: &str, queue: u64) -> Connection {
    Connection {
        connection_id: id.to_owned(),
        user_id: Some(serde_json::json!(7)),
        channel: Some("chat_42".to_owned()),
        route: "/ws/chat/{id}/".to_owned(),
        node: "0123456789abcdef".to_owned(),
        address: "127.0.0.1".to_owned(),
        connected_at: 0,
        send_queue_bytes: queue,
    }
}

fn view() -> View {
    View {
        gateway: "127.0.0.1:9000".to_owned(),
        ready: Some(Err("redis: Redis cannot be reached".to_owned())),
        summary: Summary {
            version: "1.2.3".to_owned(),
            connections: 1234.0,
            messages: 20.25,
            send_queue_bytes: 12_345.0,
            first_chunk: Some((0.12, 1.5)),
            redis: vec![("redis".to_owned(), true), ("redis_tokens".to_owned(), false)],
            subscribed: Some(true),
            upstreams: vec![UpstreamSummary {
                name: "worker".to_owned(),
                in_flight: 3.0,
                is_open: true,
                ..UpstreamSummary::default()
            }],
            routes: vec![RouteSummary {
                route: "/ws/chat/{id}/".to_owned(),
                connections: 1234.0,
                ..RouteSummary::default()
            }],
            ..Summary::default()
        },
        lists: Ok(Lists {
            channels: vec![
                channel("a\u{1b}[2J", 1, 5.0),
                channel("b", 9, 0.0),
                channel("c", 4, 2.5),
            ],
            connections: vec![connection("11111111aaaa", 5), connection("22222222bbbb", 500_000)],
            is_partial: false,
        }),
        error: None,
        sort: Sort::Rate,
        reversed: false,
        paused: false,
        interactive: true,
    }
}

/// The position of each of `words` in `text`, which must contain all of them.
fn positions(text: &str, words: &[&str]) -> Vec<usize> {
    let position = |word: &&str| text.find(*word).unwrap_or_else(|| panic!("no {word}:\n{text}"));
    words.iter().map(position).collect()
}

#[test]
fn everything_is_on_the_screen() {
    let text = view().print(120);
    positions(
        &text,
        &[
            "tidegate 1.2.3  127.0.0.1:9000  NOT READY redis: Redis cannot be reached",
            "connections 1234",
            "messages/s 20.2",
            "queued 12.1 KiB",
            "1st chunk 120ms/1.5s",
            "DOWN redis_tokens, subscriptions live",
            "worker",
            "OPEN",
            "routes",
            "/ws/chat/{id}/",
            "channels (3)",
            "slowest connections (2)",
            "488.3 KiB",
            "q quit   p pause   s sort by connections and age",
        ],
    );
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn rows_are_sorted() {
    let mut view = view();
    let sorted = |view: &View| {
        let text = view.print(120);
        let mut rows = [("a", "a\\u{1b}[2J "), ("b", "b   "), ("c", "c   ")];
        let middle = &text[text.find("channels (3)").unwrap()..text.find("slowest").unwrap()];
        rows.sort_by_key(|(_, row)| middle.rfind(row).unwrap_or_else(|| panic!("{row}: {middle}")));
        rows.iter().map(|(name, _)| *name).collect::<String>()
    };
    assert_eq!(sorted(&view), "acb");
    view.sort = view.sort.next();
    assert_eq!(sorted(&view), "bca");
    view.sort = view.sort.next();
    assert_eq!(sorted(&view), "abc");
    view.reversed = true;
    assert_eq!(sorted(&view), "cba");
    let text = view.print(120);
    let [first, second] = positions(&text, &["11111111", "22222222"])[..] else { panic!() };
    assert!(second < first);
}

#[test]
fn without_a_key_the_view_says_why_there_are_no_lists() {
    let mut view = view();
    view.lists = Err("no key: set TIDEGATE_API_KEY".to_owned());
    view.summary.redis.clear();
    let text = view.print(100);
    positions(&text, &["set TIDEGATE_API_KEY", "none (memory engine)"]);
}

#[test]
fn it_fits_any_terminal() {
    let view = view();
    for (width, height) in [(1, 1), (20, 5), (40, 10), (80, 24), (300, 100)] {
        let Ok(mut terminal) = ratatui::Terminal::new(TestBackend::new(width, height));
        let Ok(_) = terminal.draw(|frame| view.draw(frame));
    }
}
