use super::*;
use crate::config::Config;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_silent_client_is_pinged_once_and_then_closed() {
    let text = "[[route]]\npath = \"/{id}/\"\nchannel = \"chat_{id}\"\nauth = [\"anonymous\"]\n\
                idle_ping = \"30s\"\npong_timeout = \"10s\"\n";
    let config = Config::from_toml(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let heartbeat = Heartbeat::new(Duration::ZERO);
    let observe =
        |is_active, second| heartbeat.observe(is_active, second * SECOND, &config.routes[0]);
    assert_eq!(observe(false, 29), Due::Nothing);
    assert_eq!(observe(true, 30), Due::Nothing);
    assert_eq!(observe(false, 59), Due::Nothing);
    assert_eq!(observe(false, 60), Due::Ping);
    assert_eq!(observe(false, 69), Due::Nothing, "the ping is still unanswered");
    assert_eq!(observe(true, 69), Due::Nothing);
    assert_eq!(observe(false, 99), Due::Ping);
    assert_eq!(observe(false, 109), Due::Close);
}
