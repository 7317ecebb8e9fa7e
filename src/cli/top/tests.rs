use super::*;
use ratatui::crossterm::event::KeyEvent;

fn quits(code: KeyCode, modifiers: KeyModifiers, screen: &mut Screen) -> bool {
    handle_event(Some(Event::Key(KeyEvent::new(code, modifiers))), screen).is_break()
}

#[test]
fn keys_change_the_screen() {
    let mut screen = Screen::default();
    let plain = KeyModifiers::NONE;
    for key in ['s', 'r', 'p', 'x'] {
        assert!(!quits(KeyCode::Char(key), plain, &mut screen));
    }
    assert!(screen.paused && screen.reversed && screen.sort == Sort::Connections);
    assert!(quits(KeyCode::Char('q'), plain, &mut screen));
    assert!(quits(KeyCode::Esc, plain, &mut screen));
    assert!(quits(KeyCode::Char('c'), KeyModifiers::CONTROL, &mut screen));
    assert!(!quits(KeyCode::Char('c'), plain, &mut screen));
    assert!(handle_event(Some(Event::Resize(1, 1)), &mut screen).is_continue());
    assert!(handle_event(None, &mut screen).is_break(), "no keyboard any more");
}

#[test]
fn the_number_of_scrapes_is_bounded() {
    let mut monitor = Monitor::new(ServerApi::at("127.0.0.1:1".to_owned(), None));
    let start = Instant::now();
    for second in 0..200 {
        let at = start + Duration::from_secs(second);
        monitor.add_scrape(Scrape { at, metrics: Exposition::default() });
    }
    assert_eq!(monitor.scrapes.len(), 61);
    for milli in 0..1000 {
        let at = start + Duration::from_millis(200_000 + milli);
        monitor.add_scrape(Scrape { at, metrics: Exposition::default() });
    }
    assert_eq!(monitor.scrapes.len(), MAX_SCRAPES);
}

#[test]
fn failed_checks_are_reasons() {
    let not_ready = br#"{"ready":false,"checks":{"redis":"away","shutdown":"ok"}}"#;
    assert_eq!(parse_readiness(not_ready), Some(Err("redis: away".to_owned())));
    assert_eq!(parse_readiness(br#"{"ready":true,"checks":{}}"#), Some(Ok(())));
    assert_eq!(parse_readiness(b"ok"), None);
}
