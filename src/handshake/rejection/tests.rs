use super::*;
use crate::protocol::ClientAction;
use crate::tokens::{CredentialRejection as Credential, JwtRejection};

/// The seconds to wait, and the code of the error event.
type Wait = Option<(u64, &'static str)>;

/// Returns every rejection with its close code, its status and the time to wait.
fn all_rejections() -> Vec<(Rejection, u16, u16, Wait)> {
    let jwt = |rejection: JwtRejection| Rejection::credential(Credential::Jwt(rejection.into()));
    let (limited, soon) = (Duration::from_millis(41_001), Duration::ZERO);
    vec![
        (Rejection::origin(), 4003, 403, None),
        (Rejection::no_credentials(), 4001, 401, None),
        (Rejection::several_cookies(), 4001, 401, None),
        (Rejection::credential(Credential::Token), 4001, 401, None),
        (Rejection::credential(Credential::TokenOrigin), 4003, 403, None),
        (Rejection::credential(Credential::TokenBinding), 4003, 403, None),
        (jwt(JwtRejection::Malformed), 4001, 401, None),
        (jwt(JwtRejection::Expired), 4001, 401, None),
        (jwt(JwtRejection::WrongClaims), 4001, 401, None),
        (jwt(JwtRejection::WrongSignature), 4001, 401, None),
        (Rejection::credential(Credential::SessionOver), 4001, 401, None),
        (jwt(JwtRejection::KeysUnavailable), 1013, 503, Some((5, "upstream_unavailable"))),
        (
            Rejection::credential(Credential::EngineUnavailable),
            1013,
            503,
            Some((5, "engine_unavailable")),
        ),
        (Rejection::channel(), 4003, 403, None),
        (Rejection::not_authorized(), 4003, 403, None),
        (Rejection::authorize_unavailable(), 1013, 503, Some((5, "upstream_unavailable"))),
        (Rejection::engine(), 1013, 503, Some((5, "engine_unavailable"))),
        (Rejection::connects(limited), 4029, 429, Some((42, "rate_limited"))),
        (Rejection::connections(soon), 4029, 429, Some((1, "rate_limited"))),
        (Rejection::connects_per_ip(limited), 4029, 429, Some((42, "rate_limited"))),
        (Rejection::connections_per_ip(), 4029, 429, Some((10, "rate_limited"))),
        (Rejection::memory(), 1013, 503, Some((5, "busy"))),
        (Rejection::requests_per_ip(limited), 4029, 429, Some((42, "rate_limited"))),
    ]
}

#[test]
fn close_code_and_status_of_each_rejection_agree() {
    for (rejection, close, status, wait) in all_rejections() {
        let cause = rejection.cause;
        assert_eq!(rejection.reason.code(), close, "{cause}");
        let waits = matches!(rejection.reason.action(), ClientAction::Wait | ClientAction::BackOff);
        assert_eq!(waits, wait.is_some(), "{cause}: whoever is to wait is told how long");
        let http = rejection.to_response();
        assert_eq!(http.status(), status, "{cause}");
        assert_eq!(http.headers()["cache-control"], "no-store", "{cause}");
        assert_eq!(http.headers().contains_key("www-authenticate"), status == 401, "{cause}");
        let header = http.headers().get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(header, wait.map(|(seconds, _)| seconds.to_string()).as_deref(), "{cause}");
        let event = rejection.event().map(|event| {
            let event: serde_json::Value = serde_json::from_str(&event).unwrap();
            (event["retry_after"].as_u64().unwrap(), event["code"].as_str().unwrap().to_owned())
        });
        let event = event.as_ref().map(|(seconds, code)| (*seconds, code.as_str()));
        assert_eq!(event, wait, "{cause}");
    }
}

#[test]
fn a_client_is_not_told_how_its_credential_failed() {
    let messages: std::collections::BTreeSet<_> = all_rejections()
        .into_iter()
        .filter(|(_, close, ..)| *close == 4001)
        .map(|(rejection, ..)| rejection.message)
        .collect();
    assert_eq!(messages.len(), 1);
}
