//! `tidegate top`: a gateway at a glance, again and again.
//!
//! Asks the admin port: `/metrics` and `/readyz` of this one node, which need no key, and with a key the
//! lists of channels and connections of all nodes. [`facts`] is what the answers come to, [`view`] how that
//! is drawn.

mod exposition;
mod facts;
mod numbers;
mod view;

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use self::exposition::Exposition;
use self::facts::{ChannelList, ConnectionList, Facts, Lists, Scrape};
use self::view::{Sort, View};
use super::server_api::{DEADLINE, ServerApi, block_on};
use super::signals::Signals;
use super::target::{Target, deadline};
use super::{Failure, write_out};

/// Quantiles are of what came within about this time.
const WINDOW: Duration = Duration::from_secs(60);

/// Scrapes are kept for the window; a short interval does not make more of them.
const MAX_SCRAPES: usize = 128;

/// A view that is printed is at least this wide.
const PRINTED_WIDTH: u16 = 120;

/// Watch a gateway: connections, rates, replies, upstreams, the busiest channels, the slowest connections
///
/// The numbers are of one node, from its /metrics, which need no key: rates since the last look, percentiles of the
/// last minute, as median/95th. With a key the channels and connections of all nodes are listed, as far as one answer of the server
/// API holds them (1000). Keys: q quits, p pauses, s sorts the tables by another column, r reverses them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// From one look to the next
    #[arg(long, value_name = "DURATION", value_parser = deadline, default_value = "2s")]
    interval: Duration,
    /// Print one view as text and end; rates are of one interval
    #[arg(long)]
    once: bool,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut watch = Watch::new(args.target.api()?);
    let on_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !args.once && !on_terminal {
        return Err(Failure("top needs a terminal; write --once for one view as text".to_owned()));
    }
    if args.once {
        block_on(once(&mut watch, args.interval))??;
        return Ok(ExitCode::SUCCESS);
    }
    block_on(async {
        // Whoever mistypes an address is told before the screen is taken.
        watch.look().await;
        if let Some(trouble) = watch.trouble.take() {
            return Err(Failure(trouble));
        }
        let mut signals = Signals::new()?;
        let mut terminal = ratatui::try_init()?;
        let ended = tokio::select! {
            ended = interact(&mut terminal, &mut watch, args.interval) => ended,
            () = signals.next() => Ok(()),
        };
        ratatui::try_restore()?;
        ended
    })??;
    Ok(ExitCode::SUCCESS)
}

async fn once(watch: &mut Watch, interval: Duration) -> Result<(), Failure> {
    for look in 0..2 {
        if look > 0 {
            tokio::time::sleep(interval).await;
        }
        watch.look().await;
        if let Some(trouble) = watch.trouble.take() {
            return Err(Failure(trouble));
        }
    }
    // Of all since its start: a minute of looking is not at hand.
    let width = ratatui::crossterm::terminal::size().map_or(0, |(width, _)| width);
    let view = watch.view(Screen { interactive: false, ..Screen::default() }, false);
    write_out(view.print(width.max(PRINTED_WIDTH)).as_bytes())
}

/// What keys have changed.
#[derive(Clone, Copy, Default)]
struct Screen {
    sort: Sort,
    reversed: bool,
    paused: bool,
    interactive: bool,
}

async fn interact(
    terminal: &mut ratatui::DefaultTerminal,
    watch: &mut Watch,
    interval: Duration,
) -> Result<(), Failure> {
    let mut screen = Screen { interactive: true, ..Screen::default() };
    let mut keys = keys();
    let mut looks = tokio::time::interval(interval);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    looks.reset();
    loop {
        let view = watch.view(screen, true);
        terminal.draw(|frame| view.draw(frame))?;
        tokio::select! {
            _ = looks.tick(), if !screen.paused => {
                // Keys are heard while the gateway is waited for.
                tokio::select! {
                    () = watch.look() => {}
                    key = keys.recv() => if is_end(key, &mut screen) { return Ok(()) },
                }
            }
            key = keys.recv() => if is_end(key, &mut screen) { return Ok(()) },
        }
    }
}

/// What a key or a new size of the window changes; true = it ends.
fn is_end(event: Option<Event>, screen: &mut Screen) -> bool {
    let key = match event {
        None => return true,
        Some(Event::Key(key)) if key.kind != KeyEventKind::Release => key,
        Some(_) => return false,
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('p' | ' ') => screen.paused = !screen.paused,
        KeyCode::Char('s') => screen.sort = screen.sort.next(),
        KeyCode::Char('r') => screen.reversed = !screen.reversed,
        _ => {}
    }
    false
}

/// Keys, read by a thread that ends with the process.
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

/// What was seen of the gateway so far.
struct Watch {
    api: ServerApi,
    /// The oldest first, at most those of [`WINDOW`].
    scrapes: VecDeque<Scrape>,
    ready: Option<Result<(), String>>,
    lists: Result<Lists, String>,
    listed_at: Option<Instant>,
    /// The last look failed.
    trouble: Option<String>,
}

#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    checks: serde_json::Map<String, serde_json::Value>,
}

impl Watch {
    fn new(api: ServerApi) -> Self {
        let why = "channels and connections are listed with an API key: write --config or --api-key-file, or set TIDEGATE_API_KEY";
        Self {
            api,
            scrapes: VecDeque::new(),
            ready: None,
            lists: Err(why.to_owned()),
            listed_at: None,
            trouble: None,
        }
    }

    /// Asks the gateway everything, once.
    async fn look(&mut self) {
        let (metrics, ready) =
            tokio::join!(self.api.get("/metrics"), self.api.look("/readyz", DEADLINE));
        let page = metrics.map_err(|why| why.to_string());
        let read = page.and_then(|page| Exposition::parse(&String::from_utf8_lossy(&page)));
        match read {
            Ok(metrics) => {
                self.trouble = None;
                self.scraped(Scrape { at: Instant::now(), metrics });
            }
            Err(why) => {
                self.trouble = Some(why);
                self.ready = None;
                return;
            }
        }
        self.ready = ready.ok().and_then(|answer| readiness(&answer.body));
        if self.api.has_key() {
            self.list().await;
        }
    }

    fn scraped(&mut self, scrape: Scrape) {
        while self.scrapes.len() > 1
            && (self.scrapes.len() >= MAX_SCRAPES || scrape.at - self.scrapes[1].at >= WINDOW)
        {
            self.scrapes.pop_front();
        }
        self.scrapes.push_back(scrape);
    }

    async fn list(&mut self) {
        let lists = async {
            let channels = self.fetch::<ChannelList>("/v1/channels?limit=1000").await?;
            let connections = self.fetch::<ConnectionList>("/v1/connections?limit=1000").await?;
            Ok::<_, String>(Lists::of(channels, connections))
        };
        let mut lists = lists.await;
        let now = Instant::now();
        if let (Ok(lists), Ok(before), Some(at)) = (&mut lists, &self.lists, self.listed_at) {
            lists.rate_since(before, (now - at).as_secs_f64());
        }
        self.lists = lists;
        self.listed_at = Some(now);
    }

    async fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let body = self.api.get(path).await.map_err(|why| why.to_string())?;
        serde_json::from_slice(&body).map_err(|_| format!("{path} was not understood"))
    }

    /// `recent`: quantiles of the window, else of all since the gateway's start.
    fn view(&self, screen: Screen, recent: bool) -> View {
        let before = self.scrapes.len().checked_sub(2).map(|at| &self.scrapes[at]);
        let window = self.scrapes.front().filter(|_| recent && before.is_some());
        let facts = self.scrapes.back().map(|now| Facts::of(now, before, window));
        View {
            gateway: self.api.authority().to_owned(),
            ready: self.ready.clone(),
            facts: facts.unwrap_or_default(),
            lists: self.lists.clone(),
            trouble: self.trouble.clone(),
            sort: screen.sort,
            reversed: screen.reversed,
            paused: screen.paused,
            interactive: screen.interactive,
        }
    }
}

fn readiness(body: &[u8]) -> Option<Result<(), String>> {
    let Readiness { ready, checks } = serde_json::from_slice(body).ok()?;
    if ready {
        return Some(Ok(()));
    }
    let bad = checks.iter().filter(|(_, state)| *state != "ok");
    let reasons: Vec<String> =
        bad.map(|(name, state)| format!("{name}: {}", state.as_str().unwrap_or("?"))).collect();
    Some(Err(reasons.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyEvent;

    fn press(code: KeyCode, modifiers: KeyModifiers, screen: &mut Screen) -> bool {
        is_end(Some(Event::Key(KeyEvent::new(code, modifiers))), screen)
    }

    #[test]
    fn keys_change_the_screen() {
        let mut screen = Screen::default();
        let plain = KeyModifiers::NONE;
        for key in ['s', 'r', 'p', 'x'] {
            assert!(!press(KeyCode::Char(key), plain, &mut screen));
        }
        assert!(screen.paused && screen.reversed && screen.sort == Sort::Connections);
        assert!(press(KeyCode::Char('q'), plain, &mut screen));
        assert!(press(KeyCode::Esc, plain, &mut screen));
        assert!(press(KeyCode::Char('c'), KeyModifiers::CONTROL, &mut screen));
        assert!(!press(KeyCode::Char('c'), plain, &mut screen));
        assert!(!is_end(Some(Event::Resize(1, 1)), &mut screen));
        assert!(is_end(None, &mut screen), "no keyboard any more");
    }

    #[test]
    fn as_many_scrapes_are_kept_as_the_window_needs() {
        let mut watch = Watch::new(ServerApi::at("127.0.0.1:1".to_owned(), None));
        let began = Instant::now();
        for second in 0..200 {
            let at = began + Duration::from_secs(second);
            watch.scraped(Scrape { at, metrics: Exposition::default() });
        }
        assert_eq!(watch.scrapes.len(), 61);
        for milli in 0..1000 {
            let at = began + Duration::from_millis(200_000 + milli);
            watch.scraped(Scrape { at, metrics: Exposition::default() });
        }
        assert_eq!(watch.scrapes.len(), MAX_SCRAPES);
    }

    #[test]
    fn reasons_are_told() {
        let not = br#"{"ready":false,"checks":{"redis":"away","shutdown":"ok"}}"#;
        assert_eq!(readiness(not), Some(Err("redis: away".to_owned())));
        assert_eq!(readiness(br#"{"ready":true,"checks":{}}"#), Some(Ok(())));
        assert_eq!(readiness(b"ok"), None);
    }
}
