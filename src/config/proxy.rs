//! Keys of `[proxy]`.

use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::upstream::{circuit, replica_urls};
use super::{Balance, Proxy};

const BALANCE: Kind<Balance> = words(r#""least" or "address""#, |value| {
    choice(value, &[("least", Balance::Least), ("address", Balance::User)])
});

pub(super) fn proxy(s: &mut Section<'_>) -> Option<Proxy> {
    let urls = replica_urls(
        s,
        kinds::HTTP_URL,
        "upstream",
        "In place of upstream: the URLs of several replicas. One that cannot be reached is left out for circuit.open, and \
         another gets its requests.",
    );
    const UPSTREAM: &str = "Where they are forwarded to; \"\" = 404.";
    let urls = match urls {
        Some(urls) => urls,
        None => {
            let upstream = s.key("upstream", kinds::OPTIONAL_HTTP_URL, "", UPSTREAM);
            upstream.map(Vec::from_iter)
        }
    };
    let balance = s.key(
        "balance",
        BALANCE,
        "least",
        "With several urls: \"least\": the one with the fewest requests in progress on this node. \"address\": always the \
         same one for a client address, as long as it can be reached.",
    );
    let circuit = s.inline("circuit", circuit);
    let timeout = s.key(
        "timeout",
        kinds::POSITIVE_DURATION,
        "60s",
        "Time limit for the head of the response.",
    );
    let max_in_flight = s.key(
        "max_in_flight",
        kinds::POSITIVE_COUNT,
        10_000,
        "Requests in progress, each until its answer is sent; beyond it clients get 503.",
    );
    let max_in_flight_per_ip = s.key(
        "max_in_flight_per_ip",
        kinds::COUNT,
        0,
        "The same for one client address, which gets 429; 0 = a quarter of max_in_flight.",
    );
    Some(Proxy {
        urls: urls?,
        balance: balance?,
        circuit: circuit?,
        timeout: timeout?,
        max_in_flight: max_in_flight?,
        max_in_flight_per_ip: max_in_flight_per_ip?,
    })
}
