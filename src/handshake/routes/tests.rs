use super::*;
use crate::config::Config;

/// Returns routes with these paths in this order. A path that ends with `!` has a fixed reply.
fn routes(paths: &[&str]) -> Routes {
    let route = |path: &&str| match path.strip_suffix('!') {
        Some(path) => format!("[[route]]\npath = {path:?}\nreply = '{{}}'\n"),
        None => format!("[[route]]\npath = {path:?}\nchannel = \"c\"\n"),
    };
    let config = Config::from_toml(&paths.iter().map(route).collect::<String>());
    let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Routes::new(&config.routes, &config.replies)
}

fn found(routes: &Routes, path: &str) -> String {
    match routes.find(path) {
        Some(Found::Route(route, _)) => route.path.to_string(),
        Some(Found::Reply(reply)) => format!("{}!", reply.path),
        Some(Found::Unfit(route)) => format!("unfit for {}", route.path),
        None => "none".to_owned(),
    }
}

#[test]
fn specific_routes_win_over_a_rest_whatever_their_order() {
    let paths = ["/{rest*}", "/app/{rest*}", "/app/{id}", "/app/a/{rest*}", "/health!", "/x/y"];
    let mut reversed = paths;
    reversed.reverse();
    for paths in [paths, reversed] {
        let routes = routes(&paths);
        for (path, expected) in [
            ("/", "/{rest*}"),
            ("/other/1", "/{rest*}"),
            ("/app", "/app/{rest*}"),
            ("/app/1", "/app/{id}"),
            ("/app/1/", "/app/{id}"),
            ("/app/1/2", "/app/{rest*}"),
            ("/app/a", "/app/{id}"),
            ("/app/a/1", "/app/a/{rest*}"),
            ("/health", "/health!"),
            ("/health/1", "/{rest*}"),
            ("/x/y/", "/x/y"),
            ("/%78/y", "/x/y"),
        ] {
            assert_eq!(found(&routes, path), expected, "{path} in {paths:?}");
        }
    }
}

#[test]
fn an_unfit_value_gets_to_no_less_specific_route() {
    let long = format!("/admin/{}", "x".repeat(256));
    let routes = routes(&["/{rest*}", "/admin/{id}", "/app/{rest*}"]);
    for (path, expected) in [
        (&*long, "unfit for /admin/{id}"),
        ("/admin/%00", "unfit for /admin/{id}"),
        ("/app/a/..", "unfit for /app/{rest*}"),
        ("/app/%2e%2e/admin", "unfit for /app/{rest*}"),
        ("/other/..", "unfit for /{rest*}"),
        ("/admin/x/y", "/{rest*}"),
    ] {
        assert_eq!(found(&routes, path), expected, "{path}");
    }
    assert_eq!(found(&super::tests::routes(&["/ws/{id}"]), "/other"), "none");
}

#[test]
fn of_the_others_the_first_in_the_file_is_used() {
    let routes = routes(&["/{a}/b", "/a/{b}", "/c/d!"]);
    for (path, expected) in
        [("/a/b", "/{a}/b"), ("/a/c", "/a/{b}"), ("/c/d", "/c/d!"), ("/c/b", "/{a}/b")]
    {
        assert_eq!(found(&routes, path), expected, "{path}");
    }
}
