//! TLS of both ports: handshakes, and until when the certificates are valid.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use metrics::Histogram;
use tracing::{debug, info};

use super::definitions::{Values, buckets, metrics, words};
use crate::clock;
use crate::protocol::label_enum;

metrics! {
    /// TLS handshakes: whether they are full or resume a session, or why they failed.
    HANDSHAKES = counter "tidegate_tls_handshakes_total" [
        port: words(&[TlsPort::LABELS]),
        outcome: words(&[TlsOutcome::LABELS]),
    ];
    /// Time from accepting a connection to the end of its TLS handshake.
    DURATION = histogram "tidegate_tls_handshake_duration_seconds" in buckets::REQUEST;
    /// When a certificate expires, in seconds since 1970; 0 = it is not used any more.
    EXPIRY = gauge "tidegate_tls_certificate_expiry_timestamp_seconds" [
        certificate: Values::Fixed("the table of the certificate in the config, such as `server.tls`"),
    ], late;
    /// Requests for plain HTTP on the address from `[server.tls] redirect`.
    REDIRECTS = counter "tidegate_tls_redirects_total" [outcome: words(&[RedirectOutcome::LABELS])];
}

label_enum! {
    /// A port that speaks TLS.
    pub enum TlsPort {
        Public => "public",
        Admin => "admin",
    }
}

label_enum! {
    /// How a handshake ended.
    pub enum TlsOutcome {
        Full => "full",
        /// An earlier session was resumed.
        Resumed => "resumed",
        /// It took too long.
        Timeout => "timeout",
        /// Too many are in progress, of this address or in all.
        TooMany => "too_many",
        /// The client has closed the connection.
        Closed => "closed",
        /// The client speaks HTTP in clear.
        PlainHttp => "plain_http",
        /// The client speaks another protocol.
        NotTls => "not_tls",
        /// The client has ended it with an alert, for example because it does not trust the certificate.
        Alert => "alert",
        /// There is no version, cipher suite, kind of key or protocol that both sides know.
        NothingShared => "nothing_shared",
        /// The client has no certificate that is trusted here.
        ClientCertificate => "client_certificate",
        /// The client has broken the protocol.
        Malformed => "malformed",
        /// The gateway ends.
        Stopping => "stopping",
    }
}

label_enum! {
    /// What became of a request for plain HTTP.
    pub enum RedirectOutcome {
        Redirected => "redirected",
        /// It is for a host that no certificate is for.
        UnknownHost => "unknown_host",
        Malformed => "malformed",
        Timeout => "timeout",
        TooMany => "too_many",
    }
}

static HANDSHAKE_DURATION: LazyLock<Histogram> = LazyLock::new(|| DURATION.get());

/// A handshake that has succeeded.
pub struct Finished<'a> {
    pub port: TlsPort,
    pub version: &'static str,
    /// The protocol that was agreed on (ALPN); empty = the client did not ask.
    pub protocol: &'a str,
    pub is_resumed: bool,
}

/// A handshake has succeeded, so long after its connection was accepted.
pub fn handshake_finished(finished: Finished<'_>, duration: Duration) {
    let Finished { port, version, protocol, is_resumed } = finished;
    let (port, outcome) =
        (port.label(), if is_resumed { TlsOutcome::Resumed } else { TlsOutcome::Full });
    HANDSHAKES.at([port, outcome.label()]).increment(1);
    debug!(event = "tls_handshake", port, version, protocol, is_resumed, "a TLS handshake is over");
    HANDSHAKE_DURATION.record(duration);
}

/// There is no connection, for this cause.
pub fn handshake_failed(port: TlsPort, cause: TlsOutcome, peer: IpAddr, detail: &str) {
    HANDSHAKES.at([port.label(), cause.label()]).increment(1);
    let (port, cause_label) = (port.label(), cause.label());
    match cause {
        // What the operator may have to change. The others are of strangers.
        TlsOutcome::Alert
        | TlsOutcome::NothingShared
        | TlsOutcome::ClientCertificate
        | TlsOutcome::TooMany => {
            info!(event = "tls_handshake_failed", port, cause = cause_label, %peer, detail, "a TLS handshake failed");
        }
        _ => {
            debug!(event = "tls_handshake_failed", port, cause = cause_label, %peer, detail, "a TLS handshake failed");
        }
    }
}

/// A certificate is in use from now on. `table` is where the config has it.
pub fn certificate_loaded(table: &str, names: &[String], not_after: u64) {
    EXPIRY.at([table.to_owned()]).set(not_after as f64);
    let names = names.join(" ");
    let not_after = clock::to_rfc3339(Duration::from_secs(not_after));
    info!(event = "tls_certificate", table, names, not_after, "a TLS certificate is in use");
}

/// A certificate is not used any more.
pub fn certificate_removed(table: &str) {
    EXPIRY.at([table.to_owned()]).set(0.0);
}

/// A request for plain HTTP was answered, or not.
pub fn redirected(outcome: RedirectOutcome) {
    REDIRECTS.at([outcome.label()]).increment(1);
}
