use super::*;
use serde_json::json;

const NOW: u64 = 1_800_000_000;

fn rules() -> ClaimRules {
    ClaimRules {
        issuer: Some("https://id.example.com".into()),
        audience: Some("chat".into()),
        leeway: 30,
        user_claim: "user_id".into(),
        name_claim: "username".into(),
        channels_claim: "channels".into(),
    }
}

/// Returns valid claims with `changes` applied; `null` removes a claim.
fn claims(changes: Value) -> Claims {
    let mut claims = json!({
        "iss": "https://id.example.com", "aud": "chat", "exp": NOW + 60, "user_id": 1,
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims.as_object().unwrap().clone()
}

#[test]
fn claims_are_checked() {
    use JwtRejection::{Expired, WrongClaims};
    for (changes, outcome) in [
        (json!({}), Ok(())),
        (json!({"exp": NOW - 29}), Ok(())),
        (json!({"exp": NOW as f64 + 0.5}), Ok(())),
        (json!({"exp": u64::MAX}), Ok(())),
        (json!({"exp": NOW - 30}), Err(Expired)),
        (json!({"exp": 0}), Err(Expired)),
        (json!({"exp": null}), Err(WrongClaims)),
        (json!({"exp": "tomorrow"}), Err(WrongClaims)),
        (json!({"exp": -1}), Err(WrongClaims)),
        (json!({"nbf": NOW + 30}), Ok(())),
        (json!({"nbf": NOW + 31}), Err(WrongClaims)),
        (json!({"nbf": "now"}), Err(WrongClaims)),
        (json!({"iss": null}), Err(WrongClaims)),
        (json!({"iss": "https://id.example.com.evil.test"}), Err(WrongClaims)),
        (json!({"iss": ["https://id.example.com"]}), Err(WrongClaims)),
        (json!({"aud": null}), Err(WrongClaims)),
        (json!({"aud": "mail"}), Err(WrongClaims)),
        (json!({"aud": ["mail", "chat"]}), Ok(())),
        (json!({"aud": ["mail"]}), Err(WrongClaims)),
        (json!({"aud": []}), Err(WrongClaims)),
        (json!({"aud": 7}), Err(WrongClaims)),
        (json!({"token_type": "access"}), Ok(())),
        (json!({"token_type": "refresh"}), Err(WrongClaims)),
        (json!({"token_type": 1}), Err(WrongClaims)),
        (json!({"user_id": null}), Err(WrongClaims)),
        (json!({"user_id": null, "sub": "u"}), Ok(())),
        (json!({"user_id": ""}), Err(WrongClaims)),
        (json!({"user_id": "", "sub": "u"}), Err(WrongClaims)),
        (json!({"user_id": 1.5}), Err(WrongClaims)),
        (json!({"user_id": true}), Err(WrongClaims)),
        (json!({"user_id": {"id": 1}}), Err(WrongClaims)),
        (json!({"channels": ["chat_1"]}), Ok(())),
        (json!({"channels": []}), Ok(())),
        (json!({"channels": "chat_1"}), Err(WrongClaims)),
        (json!({"channels": ["chat_1", 2]}), Err(WrongClaims)),
        (json!({"channels": {}}), Err(WrongClaims)),
    ] {
        let outcome_now = rules().identify(&claims(changes.clone()), NOW).map(|_| ());
        let outcome_now = outcome_now.map_err(|failure| failure.rejection);
        assert_eq!(outcome_now, outcome, "{changes}");
    }
}

#[test]
fn a_null_claim_is_of_the_wrong_type() {
    for name in ["token_type", "channels", "user_id", "nbf"] {
        let mut claims = claims(json!({"sub": "u"}));
        claims.insert(name.into(), Value::Null);
        assert_eq!(
            rules().identify(&claims, NOW).err().map(|failure| failure.rejection),
            Some(JwtRejection::WrongClaims)
        );
    }
}

#[test]
fn unconfigured_issuer_and_audience_are_not_checked() {
    let rules = ClaimRules { issuer: None, audience: None, ..rules() };
    assert!(rules.identify(&claims(json!({"iss": 1, "aud": null})), NOW).is_ok());
}

#[test]
fn an_identity_is_made_of_the_claims() {
    let given = json!({"user_id": null, "sub": "ana", "username": "Ana", "channels": ["a_*"]});
    let identity = rules().identify(&claims(given), NOW).unwrap();
    assert_eq!(identity.key(), "ana");
    assert_eq!(identity.username.as_deref(), Some("Ana"));
    assert_eq!(identity.expires_at, Some(NOW + 90));
    assert!(identity.may_join("a_1") && !identity.may_join("b_1"));
    let big = rules().identify(&claims(json!({"user_id": u64::MAX})), NOW).unwrap();
    assert_eq!(big.user_id, Some(UserId::Text(u64::MAX.to_string().into())));
}

#[test]
fn a_failure_names_its_claim() {
    for (changes, claim) in [
        (json!({"exp": NOW - 30}), "exp"),
        (json!({"exp": null}), "exp"),
        (json!({"nbf": NOW + 31}), "nbf"),
        (json!({"iss": "https://other.example"}), "iss"),
        (json!({"aud": "mail"}), "aud"),
        (json!({"token_type": "refresh"}), "token_type"),
        (json!({"user_id": [1]}), "user_claim"),
        (json!({"user_id": "_anonymous_"}), "user_claim"),
        (json!({"channels": "chat_1"}), "channels_claim"),
    ] {
        let failure = rules().identify(&claims(changes.clone()), NOW).unwrap_err();
        assert_eq!(failure.claim.map(JwtClaim::label), Some(claim), "{changes}");
    }
}
