//! Draws the view on a terminal of any size, or prints it as text.

use ratatui::Frame;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};

use super::lists::Lists;
use super::numbers::{bytes, quantiles, rate, whole};
use super::summary::Summary;
use crate::cli::record::escape_controls;

/// The order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// The rows with the most messages, publications or queued bytes come first.
    #[default]
    Rate,
    /// The rows with the most connections, or the oldest connections, come first.
    Connections,
    /// The rows are sorted by name.
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
    /// The host and port.
    pub gateway: String,
    /// `Err` has the failed checks; `None` = unknown.
    pub ready: Option<Result<(), String>>,
    pub summary: Summary,
    /// `Err` says why there are no lists.
    pub lists: Result<Lists, String>,
    /// Why the last poll failed.
    pub error: Option<String>,
    pub sort: Sort,
    pub reversed: bool,
    pub paused: bool,
    /// Whether keys have an effect, so that they are shown.
    pub interactive: bool,
}

/// The maximum number of rows per table of a printed view.
const PRINTED_ROWS: usize = 20;

/// The width of a number with its name.
const PAIR: usize = 24;

impl View {
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let upstreams = self.summary.upstreams.len().min(6) as u16;
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
                if self.paused { "continue" } else { "pause" },
                self.sort.next().label()
            );
            frame.render_widget(Paragraph::new(keys).style(dim()), foot);
        }
    }

    /// The view as text, `width` columns wide and as high as its rows need.
    pub fn print(&self, width: u16) -> String {
        let lists = self.lists.as_ref().ok();
        let rows = |count: usize| count.clamp(1, PRINTED_ROWS) as u16 + 3;
        let channels = lists.map_or(0, |lists| lists.channels.len());
        let connections = lists.map_or(0, |lists| lists.connections.len());
        let middle = rows(self.summary.routes.len().max(channels)).max(rows(connections));
        let upstreams = self.summary.upstreams.len().min(6) as u16;
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

    /// The number of lines of the header: failed checks may need more than one.
    fn head_lines(&self) -> u16 {
        let is_healthy = matches!(self.ready, Some(Ok(()))) && self.error.is_none();
        if is_healthy { 1 } else { 3 }
    }

    fn head(&self) -> Line<'_> {
        let mut spans = vec![
            Span::styled("tidegate ", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!("{}  {}  ", escape_controls(&self.summary.version), self.gateway)),
        ];
        spans.push(match &self.ready {
            Some(Ok(())) => Span::styled("ready", Style::new().fg(Color::Green)),
            Some(Err(why)) => alarm(format!("NOT READY {}", escape_controls(why))),
            None => Span::raw("?"),
        });
        if self.paused {
            spans.push(Span::styled("  PAUSED", Style::new().fg(Color::Yellow)));
        }
        if let Some(error) = &self.error {
            spans.push(alarm(format!("  {}", escape_controls(error))));
        }
        Line::from(spans)
    }

    fn numbers(&self, frame: &mut Frame<'_>, area: Rect) {
        let pairs = self.pairs();
        let texts = pairs.iter().map(|(name, value)| format!("{name} {value}"));
        let cells: Vec<String> =
            texts.map(|text| format!("{text:<width$}", width = PAIR)).collect();
        let rows = cells.chunks(pairs_per_line(area.width));
        let mut lines: Vec<Line<'_>> = rows.map(|row| Line::raw(row.concat())).collect();
        lines.push(Line::raw(format!("redis {}", escape_controls(&self.redis()))));
        frame.render_widget(Paragraph::new(lines).block(block("now")), area);
    }

    fn pairs(&self) -> [(&'static str, String); 14] {
        let summary = &self.summary;
        [
            ("connections", whole(summary.connections)),
            ("connects/s", rate(summary.connects)),
            ("refused/s", rate(summary.refused)),
            ("closes/s", rate(summary.closes)),
            ("queued", bytes(summary.send_queue_bytes)),
            ("messages/s", rate(summary.messages)),
            ("published/s", rate(summary.publications)),
            ("delivered/s", rate(summary.deliveries)),
            ("drops/s", rate(summary.drops)),
            ("delivery", quantiles(summary.delivery)),
            ("in flight", whole(summary.in_flight)),
            ("replies/s", rate(summary.generations)),
            ("failed/s", rate(summary.failed_generations)),
            ("1st chunk", quantiles(summary.first_chunk)),
        ]
    }

    fn redis(&self) -> String {
        let summary = &self.summary;
        if summary.redis.is_empty() {
            return "none (memory engine)".to_owned();
        }
        let down: Vec<&str> =
            summary.redis.iter().filter(|(_, up)| !up).map(|(name, _)| name.as_str()).collect();
        let up = match down.is_empty() {
            true => format!("{} up", summary.redis.len()),
            false => format!("DOWN {}", down.join(", ")),
        };
        let live = if summary.subscribed == Some(false) { "NOT LIVE" } else { "live" };
        format!("{up}, subscriptions {live}")
    }

    /// The number of lines of the numbers, with their frame.
    fn numbers_lines(&self, width: u16) -> u16 {
        self.pairs().len().div_ceil(pairs_per_line(width)) as u16 + 2
    }
}

fn pairs_per_line(width: u16) -> usize {
    (usize::from(width) / PAIR).max(1)
}

pub(super) fn block(title: &str) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(format!(" {title} "))
}

fn alarm(text: String) -> Span<'static> {
    Span::styled(text, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
}

pub(super) fn dim() -> Style {
    Style::new().fg(Color::DarkGray)
}

#[cfg(test)]
mod tests;
