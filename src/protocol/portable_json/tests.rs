use super::*;

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}0{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn what_every_reader_takes_is_portable() {
    let deepest = nested("[", "]", MAX_DEPTH);
    for json in [
        "0",
        "-0",
        "18446744073709551615",
        "-9223372036854775808",
        "1e308",
        "1e-999",
        "1.50",
        r#"{"a":[1,{"b":null}],"c":"1e999 [[[ \" 99999999999999999999"}"#,
        "[[],[],[],{}]",
        &deepest,
    ] {
        assert_eq!(check_portable(json), Ok(()), "{json}");
        let value = serde_json::from_str::<serde_json::Value>(json);
        assert!(value.is_ok(), "{json}: {value:?}");
    }
}

/// Texts are read several bytes at a time.
#[test]
fn what_is_in_texts_does_not_count() {
    for before in 0..20 {
        for inside in [r#"\""#, r"\\", r"\u005b[{", "😀[[", "1e999 99999999999999999999"] {
            let text = format!("{}{inside}", "x".repeat(before));
            let json = format!("[\"{text}\",99999999999999999999]");
            assert_eq!(check_portable(&json), Err(NotPortable::NumberOutOfRange), "{json}");
            let json = format!("{{\"{text}\":\"{text}\"}}");
            assert_eq!(check_portable(&json), Ok(()), "{json}");
        }
    }
}

#[test]
fn deep_nesting_is_not_portable() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]"), (" [ ", " ] ")] {
        for depth in [MAX_DEPTH + 1, 1_000, 10_000] {
            let json = nested(open, close, depth);
            assert_eq!(check_portable(&json), Err(NotPortable::TooDeep), "{open} {depth}");
        }
    }
}

#[test]
fn numbers_out_of_range_are_not_portable() {
    let long = "9".repeat(5_000);
    for number in ["18446744073709551616", "-9223372036854775809", "1e309", "-1e999", &long] {
        for json in [number.to_owned(), format!("[{number}]"), format!("{{\"a\": {number} }}")] {
            assert_eq!(check_portable(&json), Err(NotPortable::NumberOutOfRange), "{json}");
        }
    }
}
