//! `tidegate top`: a live overview of a gateway.
//!
//! Polls the admin port: `/metrics` and `/readyz` of one node, which need no key, and with a key the lists of
//! channels and connections of all nodes. [`summary`] and [`lists`] hold the results, [`view`] draws them.

mod exposition;
mod lists;
mod numbers;
mod summary;
mod tables;
mod view;

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use self::exposition::Exposition;
use self::lists::{ChannelList, ConnectionList, Lists};
use self::summary::{Scrape, Summary};
use self::view::{Sort, View};
use super::arguments::parse_deadline;
use super::server_api::{DEADLINE, ServerApi, block_on};
use super::signals::Signals;
use super::target::Target;
use super::{Failure, write_stdout};

/// The approximate time span of quantiles.
const WINDOW: Duration = Duration::from_secs(60);

/// The maximum number of scrapes that are kept, whatever the interval.
const MAX_SCRAPES: usize = 128;

/// The minimum width of a printed view.
const PRINTED_WIDTH: u16 = 120;

/// Monitor a gateway: connections, rates, replies, upstreams, the busiest channels, the slowest connections
///
/// The numbers are of one node, from its /metrics, and need no API key: rates since the last poll, and median/95th
/// percentile of the last minute. With a key it also lists channels and connections of all nodes, at most 1000 of
/// each. Keys: q quit, p pause, s sort by another column, r reverse the order.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Time between two polls
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline, default_value = "2s")]
    interval: Duration,
    /// Print one view as text and exit; rates are those of one interval
    #[arg(long)]
    once: bool,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut monitor = Monitor::new(args.target.api()?);
    let on_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !args.once && !on_terminal {
        return Err(Failure("top needs a terminal; use --once for one view as text".to_owned()));
    }
    if args.once {
        block_on(print_once(&mut monitor, args.interval))??;
        return Ok(ExitCode::SUCCESS);
    }
    block_on(async {
        // A mistyped address fails before the screen is taken over.
        monitor.poll().await;
        if let Some(error) = monitor.error.take() {
            return Err(Failure(error));
        }
        let mut signals = Signals::new()?;
        let mut terminal = ratatui::try_init()?;
        let result = tokio::select! {
            result = interact(&mut terminal, &mut monitor, args.interval) => result,
            () = signals.next() => Ok(()),
        };
        ratatui::try_restore()?;
        result
    })??;
    Ok(ExitCode::SUCCESS)
}

async fn print_once(monitor: &mut Monitor, interval: Duration) -> Result<(), Failure> {
    for poll in 0..2 {
        if poll > 0 {
            tokio::time::sleep(interval).await;
        }
        monitor.poll().await;
        if let Some(error) = monitor.error.take() {
            return Err(Failure(error));
        }
    }
    // Quantiles are those since the start of the gateway, because there is no window of a minute yet.
    let width = ratatui::crossterm::terminal::size().map_or(0, |(width, _)| width);
    let view = monitor.view(Screen { interactive: false, ..Screen::default() }, false);
    write_stdout(view.print(width.max(PRINTED_WIDTH)).as_bytes())
}

/// The state of the screen that keys change.
#[derive(Clone, Copy, Default)]
struct Screen {
    sort: Sort,
    reversed: bool,
    paused: bool,
    interactive: bool,
}

async fn interact(
    terminal: &mut ratatui::DefaultTerminal,
    monitor: &mut Monitor,
    interval: Duration,
) -> Result<(), Failure> {
    let mut screen = Screen { interactive: true, ..Screen::default() };
    let mut keys = keys();
    let mut polls = tokio::time::interval(interval);
    polls.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    polls.reset();
    loop {
        let view = monitor.view(screen, true);
        terminal.draw(|frame| view.draw(frame))?;
        tokio::select! {
            _ = polls.tick(), if !screen.paused => {
                // Keys work while a poll is in progress.
                tokio::select! {
                    () = monitor.poll() => {}
                    key = keys.recv() => {
                        if handle_event(key, &mut screen).is_break() { return Ok(()) }
                    }
                }
            }
            key = keys.recv() => {
                        if handle_event(key, &mut screen).is_break() { return Ok(()) }
                    }
        }
    }
}

/// Applies a key to the screen. Breaks if the key quits, or if there is no keyboard any more.
fn handle_event(event: Option<Event>, screen: &mut Screen) -> ControlFlow<()> {
    let key = match event {
        None => return ControlFlow::Break(()),
        Some(Event::Key(key)) if key.kind != KeyEventKind::Release => key,
        Some(_) => return ControlFlow::Continue(()),
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
            return ControlFlow::Break(());
        }
        KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
        KeyCode::Char('p' | ' ') => screen.paused = !screen.paused,
        KeyCode::Char('s') => screen.sort = screen.sort.next(),
        KeyCode::Char('r') => screen.reversed = !screen.reversed,
        _ => {}
    }
    ControlFlow::Continue(())
}

/// Reads keys on a thread that lives until the process ends.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(64);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}

/// The results of polling a gateway.
struct Monitor {
    api: ServerApi,
    /// The scrapes within [`WINDOW`], the oldest first.
    scrapes: VecDeque<Scrape>,
    ready: Option<Result<(), String>>,
    lists: Result<Lists, String>,
    listed_at: Option<Instant>,
    /// Why the last poll failed.
    error: Option<String>,
}

#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    checks: serde_json::Map<String, serde_json::Value>,
}

impl Monitor {
    fn new(api: ServerApi) -> Self {
        let reason = "channels and connections need an API key: pass --config or --api-key-file, or set TIDEGATE_API_KEY";
        Self {
            api,
            scrapes: VecDeque::new(),
            ready: None,
            lists: Err(reason.to_owned()),
            listed_at: None,
            error: None,
        }
    }

    /// Polls the gateway once.
    async fn poll(&mut self) {
        let (metrics, ready) =
            tokio::join!(self.api.get("/metrics"), self.api.get_any_status("/readyz", DEADLINE));
        let page = metrics.map_err(|error| error.to_string());
        let parsed = page.and_then(|page| Exposition::parse(&String::from_utf8_lossy(&page)));
        match parsed {
            Ok(metrics) => {
                self.error = None;
                self.add_scrape(Scrape { at: Instant::now(), metrics });
            }
            Err(error) => {
                self.error = Some(error);
                self.ready = None;
                return;
            }
        }
        self.ready = ready.ok().and_then(|response| parse_readiness(&response.body));
        if self.api.has_key() {
            self.poll_lists().await;
        }
    }

    fn add_scrape(&mut self, scrape: Scrape) {
        while self.scrapes.len() > 1
            && (self.scrapes.len() >= MAX_SCRAPES || scrape.at - self.scrapes[1].at >= WINDOW)
        {
            self.scrapes.pop_front();
        }
        self.scrapes.push_back(scrape);
    }

    async fn poll_lists(&mut self) {
        let lists = async {
            let channels = self.fetch::<ChannelList>("/v1/channels?limit=1000").await?;
            let connections = self.fetch::<ConnectionList>("/v1/connections?limit=1000").await?;
            Ok::<_, String>(Lists::new(channels, connections))
        };
        let mut lists = lists.await;
        let now = Instant::now();
        if let (Ok(lists), Ok(before), Some(at)) = (&mut lists, &self.lists, self.listed_at) {
            lists.set_rates(before, (now - at).as_secs_f64());
        }
        self.lists = lists;
        self.listed_at = Some(now);
    }

    async fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let body = self.api.get(path).await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|_| format!("invalid response to {path}"))
    }

    /// The current view. With `recent` the quantiles are those of the window, otherwise those since the start of
    /// the gateway.
    fn view(&self, screen: Screen, recent: bool) -> View {
        let before = self.scrapes.len().checked_sub(2).map(|at| &self.scrapes[at]);
        let window = self.scrapes.front().filter(|_| recent && before.is_some());
        let summary = self.scrapes.back().map(|now| Summary::new(now, before, window));
        View {
            gateway: self.api.authority().to_owned(),
            ready: self.ready.clone(),
            summary: summary.unwrap_or_default(),
            lists: self.lists.clone(),
            error: self.error.clone(),
            sort: screen.sort,
            reversed: screen.reversed,
            paused: screen.paused,
            interactive: screen.interactive,
        }
    }
}

fn parse_readiness(body: &[u8]) -> Option<Result<(), String>> {
    let Readiness { ready, checks } = serde_json::from_slice(body).ok()?;
    if ready {
        return Some(Ok(()));
    }
    let failed = checks.iter().filter(|(_, state)| *state != "ok");
    let reasons: Vec<String> =
        failed.map(|(name, state)| format!("{name}: {}", state.as_str().unwrap_or("?"))).collect();
    Some(Err(reasons.join("; ")))
}

#[cfg(test)]
mod tests;
