//! The tables of the view: upstreams, routes, channels and connections.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Wrap};

use super::lists::{Channel, Connection};
use super::numbers::{ago, bytes, quantiles, rate, whole};
use super::summary::RouteSummary;
use super::view::{Sort, View, block, dim};
use crate::cli::record::escape_controls;
use crate::clock;

impl View {
    pub(super) fn upstreams(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.summary.upstreams.iter().map(|upstream| {
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

    pub(super) fn routes(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut routes: Vec<&RouteSummary> = self.summary.routes.iter().collect();
        self.sort_rows(&mut routes, |r| r.messages, |r| r.connections, |r| &r.route);
        // On a narrow screen the paths need this room.
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

    pub(super) fn channels(&self, frame: &mut Frame<'_>, area: Rect) {
        let Ok(lists) = &self.lists else { return self.missing_lists(frame, area, "channels") };
        let mut channels: Vec<&Channel> = lists.channels.iter().collect();
        self.sort_rows(
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

    pub(super) fn connections(&self, frame: &mut Frame<'_>, area: Rect) {
        let Ok(lists) = &self.lists else { return self.missing_lists(frame, area, "connections") };
        let now = clock::unix_seconds();
        let age = |connection: &Connection| now.saturating_sub(connection.connected_at);
        let mut connections: Vec<&Connection> = lists.connections.iter().collect();
        self.sort_rows(
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
                cell(connection.channel.as_deref().unwrap_or("-")),
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

    fn missing_lists(&self, frame: &mut Frame<'_>, area: Rect, what: &str) {
        let reason =
            self.lists.as_ref().err().map(|reason| escape_controls(reason)).unwrap_or_default();
        let text = Paragraph::new(reason).wrap(Wrap { trim: true });
        frame.render_widget(text.style(dim()).block(block(what)), area);
    }

    /// Sorts rows: the largest first, names in alphabetical order. Equal rows are sorted by name, so that they
    /// do not change places.
    fn sort_rows<T>(
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

fn table<'a, const N: usize>(
    rows: impl IntoIterator<Item = Row<'a>>,
    widths: [Constraint; N],
    names: [&'static str; N],
) -> Table<'a> {
    let mut is_number = false;
    let header = names.map(|name| {
        // The headers of number columns are right-aligned, as the numbers are.
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
    Cell::from(escape_controls(text))
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}
