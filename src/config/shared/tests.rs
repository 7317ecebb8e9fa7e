use super::*;

fn config(routes: &[(&str, usize)]) -> Config {
    let route = |(index, (channel, size)): (usize, &(&str, usize))| {
        format!(
            "[[route]]\npath = \"/{index}/{{id}}/{{x}}/\"\nchannel = \"{channel}\"\n\
                 auth = [\"anonymous\"]\nhistory = {{ size = {size} }}\n"
        )
    };
    let text: String = "[engine]\nchannel_prefix = \"c.\"\n".to_owned()
        + &routes.iter().enumerate().map(route).collect::<String>();
    Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn the_first_matching_route_decides() {
    let shared = SharedConfig::new(config(&[("chat_{id}_{x}", 1), ("x_{id}", 0), ("{id}", 2)]));
    let size = |name: &str| {
        let history = shared.load().history_of(&ChannelName::new(name).unwrap());
        history.map(|history| history.size)
    };
    assert_eq!(size("c.chat_1_2"), Some(1));
    assert_eq!(size("c.x_1"), None);
    assert_eq!(size("c.chat_1"), Some(2));
    shared.replace(Arc::new(config(&[("{id}", 1)])));
    assert_eq!(size("c.x_1"), Some(1));
}
