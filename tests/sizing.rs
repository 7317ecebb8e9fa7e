//! The tables of docs/sizing.md are computed from the figures on that page: `UPDATE_DOCS=1 cargo test --test sizing`.

use std::fmt::Write as _;

const PAGE: &str = "docs/sizing.md";
const CHAT: [&str; 2] = [
    "<!-- The table is made by `UPDATE_DOCS=1 cargo test --test sizing` -->\n",
    "<!-- end of the table -->\n",
];
const MILLIONS: [&str; 2] = [
    "<!-- The table of ten million is made by `UPDATE_DOCS=1 cargo test --test sizing` -->\n",
    "<!-- end of the table of ten million -->\n",
];

/// The part of a core, and of a Redis server's one core, that is planned for.
const USED: f64 = 0.5;

/// The default `ttl` of a history.
const HISTORY_SECONDS: f64 = 300.0;

/// The bytes around an event: its frame, `offset`, TCP and IP.
const EVENT_OVERHEAD: f64 = 24.0 + 52.0;

/// Names and values of a table, from the top.
type Column = Vec<(&'static str, String)>;

/// What one of each costs: bytes, and seconds of CPU.
struct Figures {
    m_user: f64,
    m_kernel: f64,
    c_shake: f64,
    c_beat: f64,
    c_message: f64,
    c_event: f64,
    c_deliver: f64,
    r_shake: OnRedis,
    r_message: OnRedis,
    r_event: OnRedis,
}

/// Seconds of CPU of the gateway and of Redis.
#[derive(Clone, Copy)]
struct OnRedis {
    gateway: f64,
    redis: f64,
}

/// The cells of the row of `symbol`, without the symbol.
fn row<'a>(page: &'a str, symbol: &str) -> Vec<&'a str> {
    let start = format!("| `{symbol}` |");
    let rest = page.lines().find_map(|line| line.strip_prefix(&start));
    rest.unwrap_or_else(|| panic!("no row of `{symbol}`")).split('|').map(str::trim).collect()
}

/// `1,964 B` in bytes, `30 µs` in seconds.
fn figure(page: &str, symbol: &str) -> f64 {
    let cell = row(page, symbol)[1];
    let (number, unit) = cell.split_once(' ').unwrap_or_else(|| panic!("no unit: {cell}"));
    let number: f64 = number.replace(',', "").parse().unwrap_or_else(|_| panic!("{cell}"));
    match unit {
        "B" => number,
        "µs" => number * 1e-6,
        _ => panic!("unit of {cell}"),
    }
}

/// `4.4 × `c_shake`` of the second and third cell.
fn on_redis(page: &str, symbol: &str) -> OnRedis {
    let cells = row(page, symbol);
    let product = |cell: &str| {
        let (factor, base) = cell.split_once(" × ").unwrap_or_else(|| panic!("no product: {cell}"));
        factor.parse::<f64>().expect("a number") * figure(page, base.trim_matches('`'))
    };
    OnRedis { gateway: product(cells[1]), redis: product(cells[2]) }
}

impl Figures {
    fn read(page: &str) -> Self {
        Self {
            m_user: figure(page, "m_user"),
            m_kernel: figure(page, "m_kernel"),
            c_shake: figure(page, "c_shake"),
            c_beat: figure(page, "c_beat"),
            c_message: figure(page, "c_message"),
            c_event: figure(page, "c_event"),
            c_deliver: figure(page, "c_deliver"),
            r_shake: on_redis(page, "r_shake"),
            r_message: on_redis(page, "r_message"),
            r_event: on_redis(page, "r_event"),
        }
    }
}

/// A number with at most two digits that matter, such as 1.2, 45 and 340,000.
fn about(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let digits = 1 - number.abs().log10().floor() as i32;
    if digits > 0 {
        let text = format!("{number:.*}", digits.min(4) as usize);
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let unit = 10_f64.powi(-digits);
    let whole = ((number / unit).round() * unit) as u64;
    let text = whole.to_string();
    let mut grouped = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn bytes(number: f64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB")];
    let (unit, name) = units.into_iter().find(|(unit, _)| number >= *unit).unwrap_or((1e3, "KB"));
    format!("{} {name}", about(number / unit))
}

/// A load of a whole deployment, per second.
struct Load {
    connections: f64,
    messages: f64,
    events: f64,
    deliveries: f64,
    handshakes: f64,
    heartbeats: f64,
}

impl Load {
    /// The busy cores of all gateways.
    fn cpu(&self, figures: &Figures, on_redis: bool) -> f64 {
        let Figures { r_message, r_event, r_shake, .. } = figures;
        let (message, event, shake) = match on_redis {
            true => (r_message.gateway, r_event.gateway, r_shake.gateway),
            false => (figures.c_message, figures.c_event, figures.c_shake),
        };
        self.messages * message
            + self.events * event
            + self.deliveries * figures.c_deliver
            + self.handshakes * shake
            + self.heartbeats * figures.c_beat
    }

    /// The busy cores of Redis.
    fn redis(&self, figures: &Figures) -> f64 {
        self.messages * figures.r_message.redis
            + self.events * figures.r_event.redis
            + self.handshakes * figures.r_shake.redis
    }
}

/// A table with one column for each of `columns`, and one row for each quantity.
fn table(head: &str, names: &[&str], columns: &[Column]) -> String {
    let mut table =
        format!("| {head} | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (row, (name, _)) in columns[0].iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| &*column[row].1).collect();
        let _ = writeln!(table, "| {name} | {} |", cells.join(" | "));
    }
    table
}

/// Users of an AI chat, each with a conversation of its own.
struct Chat {
    load: Load,
    stored_bytes: f64,
    sent_bytes: f64,
}

impl Chat {
    fn of(users: f64) -> Self {
        const TABS: f64 = 1.2;
        const EVENTS: f64 = 150.0;
        const EVENT_BYTES: f64 = 100.0;
        let (connections, messages) = (users * TABS, users / 300.0);
        let events = messages * EVENTS;
        let load = Load {
            connections,
            messages,
            events,
            deliveries: events * (TABS - 1.0),
            handshakes: connections / 600.0,
            heartbeats: connections / 25.0,
        };
        Self {
            load,
            stored_bytes: messages * HISTORY_SECONDS * (4600.0 + EVENTS * (EVENT_BYTES + 25.0)),
            sent_bytes: events * TABS * (EVENT_BYTES + EVENT_OVERHEAD),
        }
    }

    fn column(&self, figures: &Figures) -> Column {
        let Self { load, stored_bytes, sent_bytes } = self;
        let (memory_cpu, redis_cpu) = (load.cpu(figures, false), load.cpu(figures, true));
        let redis = load.redis(figures);
        vec![
            ("connections", about(load.connections)),
            ("messages a second", about(load.messages)),
            ("events a second", about(load.events)),
            ("handshakes a second", about(load.handshakes)),
            ("heartbeats a second, at most", about(load.heartbeats)),
            ("memory of the processes", bytes(load.connections * figures.m_user)),
            ("memory of the kernel", bytes(load.connections * figures.m_kernel)),
            ("sent to clients, without TLS", format!("{}/s", bytes(*sent_bytes))),
            ("cores in use, memory engine", about(memory_cpu)),
            ("cores in use, Redis engine", about(redis_cpu)),
            (
                "nodes of 4 cores, half used, and one more",
                about((redis_cpu / USED / 4.0).ceil() + 1.0),
            ),
            ("cores of Redis in use", about(redis)),
            ("Redis servers, half used", about((redis / USED).ceil().max(1.0))),
            ("memory of the histories", bytes(*stored_bytes)),
        ]
    }
}

/// Ten million connections in nodes of at most half a million.
fn ten_million(figures: &Figures, load: &Load, stored_bytes: f64, sent_bytes: f64) -> Column {
    const MOST_OF_NODE: f64 = 5e5;
    const BACK_SECONDS: f64 = 60.0;
    let (cpu, redis) = (load.cpu(figures, true), load.redis(figures));
    let groups = (redis / USED).ceil();
    // A node belongs to one group, of which another one must be left when it dies.
    let nodes = (load.connections / MOST_OF_NODE).max(2.0 * groups);
    let of_node = load.connections / nodes;
    let returning = of_node / BACK_SECONDS;
    let sent_bytes = sent_bytes + load.heartbeats * (2.0 + 52.0);
    let commands = load.messages * 6.0 + load.events + load.handshakes * 4.0 + nodes * 10.0;
    vec![
        ("groups, each with its own Redis, half used", about(groups)),
        ("nodes, without those that may fail", about(nodes)),
        ("connections of a node", about(of_node)),
        ("memory of a node: process", bytes(of_node * figures.m_user)),
        ("memory of a node: kernel", bytes(of_node * figures.m_kernel)),
        ("descriptors of a node, without upstreams", about(of_node)),
        ("addresses of a proxy in front of a node", about((of_node / 64_512.0).ceil())),
        ("heartbeats a second, at most", about(load.heartbeats)),
        ("cores for heartbeats", about(load.heartbeats * figures.c_beat)),
        ("handshakes a second", about(load.handshakes)),
        ("messages a second", about(load.messages)),
        ("publications a second", about(load.events)),
        ("cores in use, all nodes", about(cpu)),
        ("cores in use, each node", about(cpu / nodes)),
        ("sent to clients, each node", format!("{}/s", bytes(sent_bytes / nodes))),
        ("Redis commands a second", about(commands)),
        ("cores of Redis in use", about(redis)),
        ("memory of Redis: subscriptions", bytes(load.connections * 240.0)),
        ("memory of Redis: histories", bytes(stored_bytes)),
        ("after a death: handshakes a second", about(returning)),
        ("the same, for each other node of its group", about(returning / (nodes / groups - 1.0))),
        ("cores of their Redis for them", about(returning * figures.r_shake.redis)),
        ("a publication to all: core-seconds of a node", about(of_node * figures.c_deliver)),
    ]
}

/// Apps that wait for notifications.
fn notifications(figures: &Figures) -> Column {
    let connections = 1e7;
    let events = connections / 600.0;
    let load = Load {
        connections,
        messages: 0.0,
        events,
        deliveries: 0.0,
        handshakes: connections / 3600.0,
        heartbeats: connections / 25.0,
    };
    let stored_bytes = events * HISTORY_SECONDS * 4600.0;
    ten_million(figures, &load, stored_bytes, events * (200.0 + EVENT_OVERHEAD))
}

/// The page with `table` between `marks`.
fn replaced(page: &str, marks: [&str; 2], table: &str) -> String {
    let (before, rest) = page.split_once(marks[0]).expect("a table begins");
    let (_, after) = rest.split_once(marks[1]).expect("a table ends");
    format!("{before}{}\n{table}\n{}{after}", marks[0], marks[1])
}

#[test]
fn the_tables_follow_from_the_figures() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).expect("the page");
    let figures = Figures::read(&page);
    let users = [1e3, 5e4, 1e6];
    let columns = users.map(|users| Chat::of(users).column(&figures));
    let names = users.map(about);
    let chats = table("users", &names.each_ref().map(|name| &**name), &columns);
    let Chat { load, stored_bytes, sent_bytes } = Chat::of(1e7 / 1.2);
    let chat = ten_million(&figures, &load, stored_bytes, sent_bytes);
    let names = ["notifications", "AI chat"];
    let millions = table("10 million", &names, &[notifications(&figures), chat]);
    let made = replaced(&replaced(&page, CHAT, &chats), MILLIONS, &millions);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).expect("the page");
    }
    let page = std::fs::read_to_string(&path).expect("the page");
    assert!(page == made, "run UPDATE_DOCS=1 cargo test --test sizing");
}

#[test]
fn numbers_are_rounded_to_two_digits() {
    let rounded = [0.0, 0.0312, 1.25, 9.96, 99.6, 1234.0, 5_000_000.0].map(about);
    assert_eq!(rounded, ["0", "0.031", "1.2", "10", "100", "1,200", "5,000,000"]);
    assert_eq!([bytes(1964.0), bytes(2.4e6), bytes(3e12)], ["2 KB", "2.4 MB", "3 TB"]);
}
