use super::*;

fn converted(input: &str, text: bool, event: Option<&str>) -> Vec<String> {
    let publications =
        publications(input, text, event).unwrap_or_else(|failure| panic!("{}", failure.0));
    publications.iter().map(|raw| raw.get().to_owned()).collect()
}

#[test]
fn json_is_published_unchanged() {
    assert_eq!(converted(r#" {"a" : 1} "#, false, None), [r#"{"a" : 1}"#]);
    assert_eq!(converted("{\"a\":1}\n[2]\n\"x\"\n", false, None), [r#"{"a":1}"#, "[2]", "\"x\""]);
}

#[test]
fn text_and_events_are_wrapped() {
    assert_eq!(converted("a \"b\"\n", true, None), [r#"{"event":"chunk","chunk":"a \"b\"\n"}"#]);
    assert_eq!(converted("hi", true, Some("note")), [r#"{"event":"note","text":"hi"}"#]);
    assert_eq!(converted(r#"{"b":1,"a":2}"#, false, Some("n")), [r#"{"event":"n","b":1,"a":2}"#]);
    assert_eq!(converted("{}", false, Some("complete")), [r#"{"event":"complete"}"#]);
}

#[test]
fn invalid_input_is_reported() {
    for (input, event, reason) in [
        ("hello", None, "--text"),
        ("{\"a\":1} {", None, "not valid JSON"),
        ("", None, "empty"),
        ("[1]", Some("note"), "needs a JSON object"),
        (r#"{"event":"a"}"#, Some("b"), "already"),
    ] {
        let error = publications(input, false, event).unwrap_err().0;
        assert!(error.contains(reason), "{input}: {error}");
    }
}
