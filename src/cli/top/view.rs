//! How facts are drawn, on a terminal of any size.

use ratatui::Frame;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Wrap};

use super::facts::{Channel, Connection, Facts, Lists, RouteFacts};
use super::numbers::{ago, bytes, quantiles, rate, whole};
use crate::cli::record::shown;
use crate::clock;

/// What the rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// Messages, publications, bytes that wait.
    #[default]
    Rate,
    /// Connections; of connections, the oldest.
    Connections,
    Name,
}

impl Sort {
    pub fn next(self) -> Self {
        match self {
            Self::Rate => Self::Connections,
            Self::Connections => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate and queue",
            Self::Connections => "connections and age",
            Self::Name => "name",
        }
    }
}

/// Everything on the screen.
pub struct View {
    /// Host and port.
    pub gateway: String,
    /// `Err` = why it is not; `None` = not known.
    pub ready: Option<Result<(), String>>,
    pub facts: Facts,
    /// `Err` = why there are none.
    pub lists: Result<Lists, String>,
    /// The gateway could not be asked.
    pub trouble: Option<String>,
    pub sort: Sort,
    pub reversed: bool,
    pub paused: bool,
    /// Keys are of use.
    pub interactive: bool,
}

/// Rows of a table when the view is printed.
const PRINTED_ROWS: usize = 20;

/// Columns of a number with its name.
const PAIR: usize = 24;

impl View {
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let upstreams = self.facts.upstreams.len().min(6) as u16;
        let [head, numbers, upstream, middle, bottom, foot] = Layout::vertical([
            Constraint::Length(self.head_lines()),
            Constraint::Length(self.numbers_lines(frame.area().width)),
            Constraint::Length(if upstreams == 0 { 0 } else { upstreams + 2 }),
            Constraint::Fill(1),
            Constraint::Fill(1),
            Constraint::Length(u16::from(self.interactive)),
        ])
        .areas(frame.area());
        let [routes, channels] =
            Layout::horizontal([Constraint::Percentage(62), Constraint::Percentage(38)])
                .spacing(1)
                .areas(middle);
        let text = Paragraph::new(self.head()).wrap(Wrap { trim: true });
        frame.render_widget(text, head);
        self.numbers(frame, numbers);
        if upstreams > 0 {
            self.upstreams(frame, upstream);
        }
        self.routes(frame, routes);
        self.channels(frame, channels);
        self.connections(frame, bottom);
        if self.interactive {
            let keys = format!(
                " q quit   p {}   s sort by {}   r reverse",
                if self.paused { "go on" } else { "pause" },
                self.sort.next().label()
            );
            frame.render_widget(Paragraph::new(keys).style(dim()), foot);
        }
    }

    /// The view as text, `width` wide and as high as its rows need.
    pub fn print(&self, width: u16) -> String {
        let lists = self.lists.as_ref().ok();
        let rows = |count: usize| count.clamp(1, PRINTED_ROWS) as u16 + 3;
        let channels = lists.map_or(0, |lists| lists.channels.len());
        let connections = lists.map_or(0, |lists| lists.connections.len());
        let middle = rows(self.facts.routes.len().max(channels)).max(rows(connections));
        let upstreams = self.facts.upstreams.len().min(6) as u16;
        let height = self.head_lines()
            + self.numbers_lines(width.max(40))
            + if upstreams == 0 { 0 } else { upstreams + 2 }
            + 2 * middle;
        let Ok(mut terminal) = ratatui::Terminal::new(TestBackend::new(width.max(40), height));
        let Ok(_) = terminal.draw(|frame| self.draw(frame));
        let buffer = terminal.backend().buffer();
        let line = |row: u16| {
            let cells = (0..buffer.area.width).filter_map(|column| buffer.cell((column, row)));
            cells.map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
        };
        (0..height).map(|row| line(row) + "\n").collect()
    }

    /// Reasons may need more than one.
    fn head_lines(&self) -> u16 {
        let is_well = matches!(self.ready, Some(Ok(()))) && self.trouble.is_none();
        if is_well { 1 } else { 3 }
    }

    fn head(&self) -> Line<'_> {
        let mut spans = vec![
            Span::styled("tidegate ", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!("{}  {}  ", shown(&self.facts.version), self.gateway)),
        ];
        spans.push(match &self.ready {
            Some(Ok(())) => Span::styled("ready", Style::new().fg(Color::Green)),
            Some(Err(why)) => alarm(format!("NOT READY {}", shown(why))),
            None => Span::raw("?"),
        });
        if self.paused {
            spans.push(Span::styled("  PAUSED", Style::new().fg(Color::Yellow)));
        }
        if let Some(trouble) = &self.trouble {
            spans.push(alarm(format!("  {}", shown(trouble))));
        }
        Line::from(spans)
    }

    fn numbers(&self, frame: &mut Frame<'_>, area: Rect) {
        let pairs = self.pairs();
        let texts = pairs.iter().map(|(name, value)| format!("{name} {value}"));
        let cells: Vec<String> =
            texts.map(|text| format!("{text:<width$}", width = PAIR)).collect();
        let rows = cells.chunks(pairs_a_line(area.width));
        let mut lines: Vec<Line<'_>> = rows.map(|row| Line::raw(row.concat())).collect();
        lines.push(Line::raw(format!("redis {}", shown(&self.redis()))));
        frame.render_widget(Paragraph::new(lines).block(block("now")), area);
    }

    fn pairs(&self) -> [(&'static str, String); 14] {
        let facts = &self.facts;
        [
            ("connections", whole(facts.connections)),
            ("connects/s", rate(facts.connects)),
            ("refused/s", rate(facts.refused)),
            ("closes/s", rate(facts.closes)),
            ("queued", bytes(facts.send_queue_bytes)),
            ("messages/s", rate(facts.messages)),
            ("published/s", rate(facts.publications)),
            ("delivered/s", rate(facts.deliveries)),
            ("drops/s", rate(facts.drops)),
            ("delivery", quantiles(facts.delivery)),
            ("in flight", whole(facts.in_flight)),
            ("replies/s", rate(facts.generations)),
            ("failed/s", rate(facts.failed_generations)),
            ("1st chunk", quantiles(facts.first_chunk)),
        ]
    }

    fn redis(&self) -> String {
        let facts = &self.facts;
        if facts.redis.is_empty() {
            return "none (memory engine)".to_owned();
        }
        let down: Vec<&str> =
            facts.redis.iter().filter(|(_, up)| !up).map(|(name, _)| name.as_str()).collect();
        let up = match down.is_empty() {
            true => format!("{} up", facts.redis.len()),
            false => format!("DOWN {}", down.join(", ")),
        };
        let live = if facts.subscribed == Some(false) { "NOT LIVE" } else { "live" };
        format!("{up}, subscriptions {live}")
    }

    /// Lines of the numbers on top, with their frame.
    fn numbers_lines(&self, width: u16) -> u16 {
        self.pairs().len().div_ceil(pairs_a_line(width)) as u16 + 2
    }

    fn upstreams(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.facts.upstreams.iter().map(|upstream| {
            let circuit = if upstream.is_open { "OPEN" } else { "closed" };
            let row = Row::new([
                cell(&upstream.name),
                right(whole(upstream.in_flight)),
                right(rate(upstream.requests)),
                right(rate(upstream.errors)),
                right(quantiles(upstream.seconds)),
                right(circuit.to_owned()),
            ]);
            if upstream.is_open { row.style(Style::new().fg(Color::Red)) } else { row }
        });
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Length(15),
            Constraint::Length(7),
        ];
        let names = ["upstream", "in flight", "requests/s", "errors/s", "p50/p95", "circuit"];
        frame.render_widget(
            table(rows, widths, names).block(Block::new().borders(Borders::BOTTOM)),
            area,
        );
    }

    fn routes(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut routes: Vec<&RouteFacts> = self.facts.routes.iter().collect();
        self.order(&mut routes, |r| r.messages, |r| r.connections, |r| &r.route);
        // Without room, paths come before these.
        let more = if area.width < 70 { 0 } else { 8 };
        let rows = routes.iter().map(|route| {
            Row::new([
                cell(&route.route),
                right(whole(route.connections)),
                right(rate(route.messages)),
                right(rate(route.closes)),
                right(rate(route.generations)),
                right(quantiles(route.first_chunk)),
            ])
        });
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(more),
            Constraint::Length(more.min(7)),
            Constraint::Length(13),
        ];
        let names = ["path", "conns", "msgs/s", "closes/s", "gens/s", "1st chunk"];
        frame.render_widget(table(rows, widths, names).block(block("routes")), area);
    }

    fn channels(&self, frame: &mut Frame<'_>, area: Rect) {
        let Ok(lists) = &self.lists else { return self.without_lists(frame, area, "channels") };
        let mut channels: Vec<&Channel> = lists.channels.iter().collect();
        self.order(
            &mut channels,
            |c| c.publications.unwrap_or(0.0),
            |c| c.connections as f64,
            |c| &c.channel,
        );
        let rows = channels.iter().take(usize::from(area.height)).map(|channel| {
            Row::new([
                cell(&channel.channel),
                right(channel.connections.to_string()),
                right(channel.publications.map_or("-".to_owned(), rate)),
                right(channel.offset.map_or("-".to_owned(), |offset| offset.to_string())),
            ])
        });
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(if area.width < 40 { 0 } else { 9 }),
        ];
        let title = titled("channels", lists.channels.len(), lists.is_partial);
        let names = ["channel", "conns", "pubs/s", "offset"];
        frame.render_widget(table(rows, widths, names).block(block(&title)), area);
    }

    fn connections(&self, frame: &mut Frame<'_>, area: Rect) {
        let Ok(lists) = &self.lists else { return self.without_lists(frame, area, "connections") };
        let now = clock::unix_seconds();
        let age = |connection: &Connection| now.saturating_sub(connection.connected_at);
        let mut connections: Vec<&Connection> = lists.connections.iter().collect();
        self.order(
            &mut connections,
            |c| c.send_queue_bytes as f64,
            |c| age(c) as f64,
            |c| &c.connection_id,
        );
        let rows = connections.iter().take(usize::from(area.height)).map(|connection| {
            let user = match &connection.user_id {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => "-".to_owned(),
            };
            Row::new([
                cell(&connection.connection_id),
                cell(&user),
                cell(&connection.channel),
                cell(&connection.route),
                cell(&connection.node),
                cell(&connection.address),
                right(ago(age(connection))),
                right(bytes(connection.send_queue_bytes as f64)),
            ])
        });
        let widths = [
            Constraint::Length(8),
            Constraint::Max(14),
            Constraint::Fill(2),
            Constraint::Fill(2),
            Constraint::Length(8),
            Constraint::Max(15),
            Constraint::Length(6),
            Constraint::Length(9),
        ];
        let title = titled("slowest connections", lists.connections.len(), lists.is_partial);
        let names = ["id", "user", "channel", "route", "node", "address", "age", "queue"];
        frame.render_widget(table(rows, widths, names).block(block(&title)), area);
    }

    fn without_lists(&self, frame: &mut Frame<'_>, area: Rect, what: &str) {
        let why = self.lists.as_ref().err().map(|why| shown(why)).unwrap_or_default();
        let text = Paragraph::new(why).wrap(Wrap { trim: true });
        frame.render_widget(text.style(dim()).block(block(what)), area);
    }

    /// The largest first, names from the first on; equal ones by name, so that rows keep their places.
    fn order<T>(
        &self,
        rows: &mut [&T],
        rate: impl Fn(&T) -> f64,
        count: impl Fn(&T) -> f64,
        name: impl Fn(&T) -> &String,
    ) {
        rows.sort_by(|a, b| {
            let by_name = name(a).cmp(name(b));
            let ordered = match self.sort {
                Sort::Rate => rate(b).total_cmp(&rate(a)).then(count(b).total_cmp(&count(a))),
                Sort::Connections => count(b).total_cmp(&count(a)),
                Sort::Name => std::cmp::Ordering::Equal,
            };
            let ordered = ordered.then(by_name);
            if self.reversed { ordered.reverse() } else { ordered }
        });
    }
}

fn pairs_a_line(width: u16) -> usize {
    (usize::from(width) / PAIR).max(1)
}

fn block(title: &str) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(format!(" {title} "))
}

fn table<'a, const N: usize>(
    rows: impl IntoIterator<Item = Row<'a>>,
    widths: [Constraint; N],
    names: [&'static str; N],
) -> Table<'a> {
    let mut is_number = false;
    let header = names.map(|name| {
        // Columns of numbers stand to the right, as their numbers do.
        is_number |= matches!(name, "in flight" | "conns" | "age");
        if is_number { right(name.to_owned()) } else { Cell::from(name) }
    });
    Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
}

fn titled(what: &str, count: usize, is_partial: bool) -> String {
    if is_partial { format!("{what} (of the first {count})") } else { format!("{what} ({count})") }
}

fn cell(text: &str) -> Cell<'static> {
    Cell::from(shown(text))
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn alarm(text: String) -> Span<'static> {
    Span::styled(text, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
}

fn dim() -> Style {
    Style::new().fg(Color::DarkGray)
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
