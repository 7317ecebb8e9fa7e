use hyper::header::HeaderName;
use proptest::prelude::*;

use super::*;

fn answer(fields: &[&str]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(field).unwrap());
    }
    let response = DeflateTerms::accept_first(&headers)?.response().unwrap();
    let text = response.to_str().unwrap();
    let own = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    Some(text.strip_prefix(own).unwrap_or_else(|| panic!("{text}")).to_owned())
}

#[test]
fn offers_that_are_accepted() {
    for (offer, more) in [
        ("permessage-deflate", ""),
        ("  permessage-deflate\t", ""),
        // Chromium, Firefox, Python's websockets, and Node's ws.
        ("permessage-deflate; client_max_window_bits", "; client_max_window_bits=15"),
        ("permessage-deflate;client_max_window_bits", "; client_max_window_bits=15"),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", ""),
        ("permessage-deflate; client_max_window_bits=8", "; client_max_window_bits=8"),
        ("permessage-deflate; client_max_window_bits=\"9\"", "; client_max_window_bits=9"),
        ("permessage-deflate ; server_max_window_bits = 8", "; server_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=15", "; server_max_window_bits=15"),
        ("permessage-deflate; server_max_window_bits=\"1\\0\"", "; server_max_window_bits=10"),
        (
            "permessage-deflate;client_max_window_bits;server_max_window_bits=12",
            "; server_max_window_bits=12; client_max_window_bits=15",
        ),
        // Other extensions are not taken, whatever they have.
        ("x-webkit-deflate-frame, permessage-deflate", ""),
        ("foo; bar=\"a\\\",permessage-deflate; server_max_window_bits=9\", permessage-deflate", ""),
        (", ,permessage-deflate,", ""),
    ] {
        assert_eq!(answer(&[offer]).as_deref(), Some(more), "{offer}");
    }
}

/// The parts of offers that make them unacceptable.
const DECLINED: &[&str] = &[
    "permessage-deflate; unknown",
    "permessage-deflate; unknown=1",
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; server_no_context_takeover=\"\"",
    "permessage-deflate; client_no_context_takeover=true",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_max_window_bits; client_max_window_bits=15",
    "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=08",
    "permessage-deflate; server_max_window_bits=+9",
    "permessage-deflate; server_max_window_bits=-9",
    "permessage-deflate; server_max_window_bits=9.0",
    "permessage-deflate; server_max_window_bits=1_0",
    "permessage-deflate; server_max_window_bits=265",
    "permessage-deflate; server_max_window_bits=\"\"",
    "permessage-deflate; server_max_window_bits=\" 9\"",
    "permessage-deflate; server_max_window_bits=\"9\"9",
    "permessage-deflate; server_max_window_bits='9'",
    "permessage-deflate; client_max_window_bits=7",
    "permessage-deflate; client_max_window_bits=16",
    "permessage-deflate; client_max_window_bits=",
    "permessage-deflate; client_max_window_bits==9",
    "permessage-deflate;",
    "permessage-deflate; ; client_max_window_bits",
    "permessage-deflate server_no_context_takeover",
    "permessage-deflate=1",
    "permessage-deflate; =9",
    "permessage-deflate2",
    "x-permessage-deflate",
    "Permessage-Deflate",
    "permessage-deflate; Server_No_Context_Takeover",
    "\"permessage-deflate\"",
    "(permessage-deflate)",
    "permessage-bzip2",
    "",
    ",",
    ";",
    "=",
];

#[test]
fn offers_that_are_declined() {
    for offer in DECLINED {
        assert_eq!(answer(&[offer]), None, "{offer}");
        // The offer behind it is a fallback, in the same field or in another one.
        let fallback = "permessage-deflate; server_max_window_bits=10";
        let taken = Some("; server_max_window_bits=10".to_owned());
        assert_eq!(answer(&[&format!("{offer}, {fallback}")]), taken, "{offer}");
        assert_eq!(answer(&[offer, fallback]), taken, "{offer}");
    }
    // A quote that is never closed takes everything behind it.
    assert_eq!(
        answer(&["permessage-deflate; server_max_window_bits=\"9, permessage-deflate"]),
        None
    );
    assert_eq!(answer(&["foo; bar=\"\\\", permessage-deflate"]), None);
}

#[test]
fn the_first_acceptable_offer_is_taken() {
    let offers = [
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=11, permessage-deflate",
        "permessage-deflate; server_max_window_bits=9",
    ];
    assert_eq!(answer(&offers).as_deref(), Some("; server_max_window_bits=11"));
}

#[test]
fn fields_that_are_not_text_are_skipped() {
    let mut headers = HeaderMap::new();
    let name = HeaderName::from_static("sec-websocket-extensions");
    headers.append(&name, HeaderValue::from_bytes(b"permessage-deflate; \xff").unwrap());
    assert_eq!(DeflateTerms::accept_first(&headers), None);
    headers.append(&name, HeaderValue::from_static("permessage-deflate"));
    assert!(DeflateTerms::accept_first(&headers).is_some());
    assert_eq!(DeflateTerms::accept_first(&HeaderMap::new()), None);
}

proptest! {
    /// Whatever is offered, an answer keeps to it.
    #[test]
    fn answers_keep_to_the_offer(
        server in proptest::option::of(0_u32..40),
        client in proptest::option::of(proptest::option::of(0_u32..40)),
        takeover in any::<[bool; 2]>(),
        quoted in any::<bool>(),
        space in "[ \t]{0,3}",
    ) {
        let write = |bits: u32| if quoted { format!("\"{bits}\"") } else { bits.to_string() };
        let mut offer = vec!["permessage-deflate".to_owned()];
        offer.extend(server.map(|bits| format!("server_max_window_bits={}", write(bits))));
        offer.extend(client.map(|bits| match bits {
            Some(bits) => format!("client_max_window_bits={}", write(bits)),
            None => "client_max_window_bits".to_owned(),
        }));
        offer.extend(takeover[0].then(|| "server_no_context_takeover".to_owned()));
        offer.extend(takeover[1].then(|| "client_no_context_takeover".to_owned()));
        let is_valid = |bits: u32| (8..=15).contains(&bits);
        let acceptable = server.is_none_or(is_valid) && client.flatten().is_none_or(is_valid);
        let answer = answer(&[&offer.join(&format!("{space};{space}"))]);
        prop_assert_eq!(answer.is_some(), acceptable);
        if let Some(answer) = answer {
            let expected = server.map(|bits| format!("; server_max_window_bits={bits}"));
            let mut expected = expected.unwrap_or_default();
            if let Some(bits) = client {
                expected.push_str(&format!("; client_max_window_bits={}", bits.unwrap_or(15)));
            }
            prop_assert_eq!(answer, expected);
        }
    }

    #[test]
    fn nothing_panics(fields in proptest::collection::vec("[ -~\t]{0,60}", 0..4)) {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let _ = answer(&fields);
    }
}
