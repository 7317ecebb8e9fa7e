//! Reports which TLS certificates are in use.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::telemetry;
use crate::tls::Certificate;

/// Reports the certificates that `new` has and `previous` had not, and those that are gone.
pub(super) fn report(previous: Option<&Config>, new: &Config) {
    let before = previous.map(by_table).unwrap_or_default();
    let after = by_table(new);
    for (table, certificate) in &after {
        if before.get(table) != Some(certificate) {
            let (names, not_after) = (certificate.names(), certificate.not_after());
            telemetry::tls::certificate_loaded(table, names, not_after);
        }
    }
    for table in before.keys().filter(|table| !after.contains_key(*table)) {
        telemetry::tls::certificate_removed(table);
    }
}

/// The certificates of both ports, by their tables in the config.
fn by_table(config: &Config) -> BTreeMap<&str, &Certificate> {
    let public = config.server.tls.iter();
    let public =
        public.flat_map(|tls| tls.tables.iter().map(String::as_str).zip(tls.certificates.iter()));
    let admin = config.admin.tls.iter().flat_map(|tls| tls.certificates.iter());
    public.chain(admin.map(|certificate| ("admin.tls", certificate))).collect()
}
