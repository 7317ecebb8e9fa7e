use super::*;
use crate::config::Config;

const SECOND: Duration = Duration::from_secs(1);

fn route(protocol: &str) -> Config {
    let text = format!(
        "[[route]]\npath = \"/{{id}}/\"\nchannel = \"chat_{{id}}\"\nauth = [\"anonymous\"]\nupstream = \"u\"\n\
         protocol = {protocol:?}\nidle_ping = \"30s\"\npong_timeout = \"10s\"\n\
         [upstream.u]\nkind = \"websocket\"\nurl = \"ws://127.0.0.1:1\"\n"
    );
    Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn a_silent_client_is_pinged_once_and_then_closed() {
    for protocol in ["json", "raw", "pass"] {
        let config = route(protocol);
        let heartbeat = Heartbeat::new(Tick::at(Duration::ZERO));
        let observe =
            |activity, second| heartbeat.observe(activity, second * SECOND, &config.routes[0]);
        assert_eq!(observe(Activity::Silent, 29), Due::Nothing);
        assert_eq!(observe(Activity::Seen, 30), Due::Nothing);
        assert_eq!(observe(Activity::Silent, 59), Due::Nothing);
        assert_eq!(observe(Activity::Silent, 60), Due::Ping);
        assert_eq!(observe(Activity::Silent, 69), Due::Nothing, "the ping is still unanswered");
        assert_eq!(observe(Activity::Seen, 69), Due::Nothing);
        assert_eq!(observe(Activity::Silent, 99), Due::Ping);
        assert_eq!(observe(Activity::Silent, 109), Due::Close);
    }
}

#[test]
fn a_client_that_takes_nothing_has_more_time_where_it_slows_its_peer_down() {
    for protocol in ["raw", "pass"] {
        let config = route(protocol);
        let heartbeat = Heartbeat::new(Tick::at(Duration::ZERO));
        let observe =
            |activity, second| heartbeat.observe(activity, second * SECOND, &config.routes[0]);
        // It stalls when it has just been pinged.
        assert_eq!(observe(Activity::Silent, 30), Due::Ping);
        assert_eq!(observe(Activity::Stalled, 119), Due::Nothing);
        assert_eq!(observe(Activity::Seen, 119), Due::Nothing);
        assert_eq!(observe(Activity::Stalled, 238), Due::Nothing);
        assert_eq!(observe(Activity::Stalled, 239), Due::Ping);
        assert_eq!(observe(Activity::Stalled, 249), Due::Close);
    }
    let config = route("json");
    let heartbeat = Heartbeat::new(Tick::at(Duration::ZERO));
    let observe = |second| heartbeat.observe(Activity::Stalled, second * SECOND, &config.routes[0]);
    assert_eq!(observe(30), Due::Ping);
    assert_eq!(observe(40), Due::Close);
}
